"""Sends events in event-time order and cuts them with ticks: event time moves only where a tick says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from aiokafka import AIOKafkaProducer

from demo.purchases import CURRENCY, Purchase, Refund
from errors import KafkaUnavailable
from schemas.events import encode_tick
from shoal_sdk import Item, Money, Shoal

DAY_MS = 86_400_000

# How long one flush or one tick may take before the replay gives up; a healthy broker needs milliseconds.
PATIENCE_S = 30.0


class TickWriter(Protocol):
    """Where ticks go."""

    def write(self, at_ms: int) -> None:
        """Put Tick(at_ms) behind all that was written, on every partition; return when it is safe."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """What a replay wrote."""

    purchases: int
    refunds: int
    ticks: int

    @property
    def events(self) -> int:
        """Purchases and refunds; ticks are not events of a customer."""
        return self.purchases + self.refunds


def midnights(first_ms: int, last_ms: int) -> Iterator[int]:
    """Yield every midnight UTC after `first_ms` up to and including `last_ms`."""
    yield from range(first_ms - first_ms % DAY_MS + DAY_MS, last_ms + 1, DAY_MS)


def replay(
    events: Iterable[Purchase | Refund],
    ticks: Iterable[int],
    shoal: Shoal,
    tick_writer: TickWriter,
    on_tick: Callable[[int, Sent], None] | None = None,
) -> Sent:
    """Send `events` (ascending in time), and each tick after all events before it and before all others.

    `on_tick` hears of every tick written and what was sent so far. Events at or after the last tick are
    sent too. Blocks while the SDK has no room (give it on_full="wait"), so memory stays the SDK's bound.
    KafkaUnavailable when the SDK could not deliver; nothing is written after a gap.
    """
    waiting = iter(events)
    upcoming = next(waiting, None)
    purchases = refunds = written = 0
    for at_ms in ticks:
        while upcoming is not None and upcoming.occurred_at_ms < at_ms:
            purchases += isinstance(upcoming, Purchase)
            refunds += isinstance(upcoming, Refund)
            _send(shoal, upcoming)
            upcoming = next(waiting, None)
        _flush(shoal)
        tick_writer.write(at_ms)
        written += 1
        if on_tick is not None:
            on_tick(at_ms, Sent(purchases, refunds, written))
    while upcoming is not None:
        purchases += isinstance(upcoming, Purchase)
        refunds += isinstance(upcoming, Refund)
        _send(shoal, upcoming)
        upcoming = next(waiting, None)
    _flush(shoal)
    return Sent(purchases, refunds, written)


def _send(shoal: Shoal, event: Purchase | Refund) -> None:
    occurred_at = datetime.fromtimestamp(event.occurred_at_ms / 1000, UTC)
    amount = Money(event.amount_minor, CURRENCY)
    if isinstance(event, Refund):
        shoal.refunded(event.customer_id, refund_id=event.refund_id, amount=amount, occurred_at=occurred_at)
        return
    items = [Item(line.sku, line.quantity, line.unit_price_minor) for line in event.lines]
    shoal.purchased(
        event.customer_id, order_id=event.order_id, amount=amount, items=items, occurred_at=occurred_at
    )


def _flush(shoal: Shoal) -> None:
    left = shoal.flush(timeout=PATIENCE_S)
    if left:
        raise KafkaUnavailable(f"{left} events were not delivered within {PATIENCE_S:.0f} s")


class KafkaTicks:
    """Writes ticks to every partition of `topic` from any thread but the loop's own; use as `async with`."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self._topic = topic
        self._partitions = range(partitions)
        self._bootstrap = bootstrap

    async def __aenter__(self) -> KafkaTicks:
        self._loop = asyncio.get_running_loop()
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", enable_idempotence=True
        )
        await self._producer.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._producer.stop()

    def write(self, at_ms: int) -> None:
        """Write Tick(at_ms) to every partition and return once all replicas have them.

        A TimeoutError after PATIENCE_S seconds.
        """
        asyncio.run_coroutine_threadsafe(self._write(at_ms), self._loop).result(PATIENCE_S)

    async def _write(self, at_ms: int) -> None:
        value = encode_tick(at_ms)
        acknowledged = [
            await self._producer.send(self._topic, value, key=b"%d" % partition, partition=partition)
            for partition in self._partitions
        ]
        await asyncio.gather(*acknowledged)
