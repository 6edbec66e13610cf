"""A sink without a service: the contract in its plainest form, for tests of whatever delivers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from errors import SinkUnavailable
from sinks.contract import Batch, Change, Member, Watermark, check, news


class MemorySink:
    """Holds values in dictionaries. It grows with the customers it is told of, and with `announced`."""

    name = "memory"

    def __init__(self) -> None:
        self.members: dict[int, dict[str, Member]] = {}
        """Partition to customer to values."""
        self.watermarks: dict[int, Watermark] = {}
        self.announced: list[Change] = []
        """Every change that was new, in order of delivery."""
        self.away: float | None = None
        """Unless None, every call raises SinkUnavailable with this as its `retry_after_seconds`."""
        self._open = False

    async def open(self) -> None:
        self._open = True
        self._answer()

    async def watermark(self, partition: int) -> Watermark | None:
        self._answer()
        return self.watermarks.get(partition)

    async def deliver(self, batch: Batch) -> int:
        check(batch)
        self._answer()
        new = news(batch, self.watermarks.get(batch.partition))
        members = self.members.setdefault(batch.partition, {})
        applied = 0
        for change in new:
            at = change["epoch"], change["seq"]
            customer = change["customer_id"]
            held = members.get(customer, Member(customer, 0, 0, None))
            if at <= (held.epoch, held.seq):
                continue
            values = {name: value for name, value in held.values.items() if name != change["dimension"]}
            if change["to"] is not None:
                values[change["dimension"]] = change["to"]
            members[customer] = replace(
                held, epoch=at[0], seq=at[1], expires_at=change["expires_at"], values=values
            )
            if not values:
                del members[customer]
            self.announced.append(change)
            applied += 1
        if new:
            last = new[-1]
            self.watermarks[batch.partition] = Watermark(last["epoch"], last["seq"], batch.next_offset)
        return applied

    async def rebuild(self, partition: int, members: Mapping[str, Member], watermark: Watermark) -> int:
        self.watermarks.pop(partition, None)
        self._answer()
        others = self.members.get(partition, {}).keys() - members.keys()
        self.members[partition] = dict(members)
        self.watermarks[partition] = watermark
        return len(others)

    async def close(self) -> None:
        self._open = False

    def _answer(self) -> None:
        if not self._open:
            raise SinkUnavailable("the sink is not open")
        if self.away is not None:
            raise SinkUnavailable("the sink is away", retry_after_seconds=self.away)
