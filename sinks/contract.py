"""What a sink is: the one protocol, what it is handed, and the rules every delivery is judged by.

Delivery is at least once. The changes of a partition are numbered without gaps, so a sink that
stores, with the data, up to which (epoch, seq) it holds can tell news from repetition and from a hole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from errors import SinkGap, SinkRejected

BATCH_CHANGES_MAX = 5_000
"""No sink has to take more in one delivery."""
RESERVED = frozenset({"epoch", "seq", "expires_at"})
"""Names a sink keeps beside the dimensions of a customer."""

Change = Mapping[str, Any]
"""The fields of a SegmentChange, as `schemas.changes.decode_change` returns them."""


@dataclass(frozen=True, slots=True)
class Watermark:
    """Up to where a sink holds the changes of one partition."""

    epoch: int
    seq: int
    """Of the last change held; 0 if there is none."""
    offset: int
    """Where in the partition of `segment-changes` the next one is looked for."""

    @property
    def at(self) -> tuple[int, int]:
        """(epoch, seq): what changes are ordered by."""
        return self.epoch, self.seq


@dataclass(frozen=True, slots=True)
class Batch:
    """Successive changes of one partition, and the offset after the last of them."""

    partition: int
    changes: Sequence[Change]
    next_offset: int


@dataclass(frozen=True, slots=True)
class Member:
    """The values of one customer, as of the change (epoch, seq)."""

    customer_id: str
    epoch: int
    seq: int
    expires_at: int | None
    """UTC ms."""
    values: Mapping[str, str] = field(default_factory=dict)
    """Dimension to value."""


class Sink(Protocol):
    """A service that takes changes. Not for use by two tasks at once.

    Every method may raise SinkUnavailable, after which the same call may be made again, and
    SinkRejected, after which it may not.
    """

    name: str
    """What metrics and logs call it."""

    async def open(self) -> None:
        """Connect; nothing else is called before."""
        ...

    async def watermark(self, partition: int) -> Watermark | None:
        """Return up to where the sink holds this partition, None if it does not know it."""
        ...

    async def deliver(self, batch: Batch) -> int:
        """Take what is new in the batch together with the new watermark; return how many changes were new.

        All of it or nothing. Changes up to the watermark are passed over; a batch of nothing else
        changes nothing. Raises SinkGap when changes between the watermark and the batch are
        missing or the partition is not known, SinkRejected as `check` does.
        """
        ...

    async def close(self) -> None:
        """Let go of the connection; twice is once. What was delivered stays."""
        ...


class RebuildableSink(Sink, Protocol):
    """A sink that holds current values, and can therefore be given all of them anew."""

    async def rebuild(self, partition: int, members: Mapping[str, Member], watermark: Watermark) -> int:
        """Make the partition's customers exactly these; return how many others were removed.

        The watermark is gone while this goes on, so a rebuild that is cut short is begun again.
        Members may be ahead of `watermark`: of the changes that follow it, those a member
        reflects already are passed over.
        """
        ...


def check(batch: Batch) -> None:
    """Raise SinkRejected unless the batch is one partition's, in order and storable.

    Every sink asks this first, so that what is wrong with a batch does not depend on the sink.
    """
    if not 0 < len(batch.changes) <= BATCH_CHANGES_MAX:
        raise SinkRejected(f"expected 1 to {BATCH_CHANGES_MAX} changes, got {len(batch.changes)}")
    last = (0, 0)
    for change in batch.changes:
        at = (change["epoch"], change["seq"])
        where = f"change {change['event_id']}"
        if change["partition"] != batch.partition:
            raise SinkRejected(f"{where}: expected partition {batch.partition}, got {change['partition']}")
        if last != (0, 0) and not follows(at, last):
            raise SinkRejected(f"{where}: expected the one after {last}, got {at}")
        if not change["dimension"] or ":" in change["dimension"] or change["dimension"] in RESERVED:
            raise SinkRejected(
                f"{where}: {change['dimension']!r} cannot be stored as the name of a dimension"
            )
        if change["to"] == "":
            raise SinkRejected(f"{where}: a value has at least one character, or is null")
        last = at


def follows(at: tuple[int, int], last: tuple[int, int]) -> bool:
    """Whether nothing lies between two (epoch, seq): seq counts on without gaps, through every epoch."""
    return at[1] == last[1] + 1 and at[0] >= last[0]


def news(batch: Batch, held: Watermark | None) -> Sequence[Change]:
    """Return the changes of a checked batch after what is held. Raises SinkGap if some are missing before."""
    if held is None:
        raise SinkGap(f"partition {batch.partition} is not known yet")
    new = [change for change in batch.changes if (change["epoch"], change["seq"]) > held.at]
    if new and not follows((new[0]["epoch"], new[0]["seq"]), held.at):
        raise gap(batch, held)
    return new


def gap(batch: Batch, held: Watermark) -> SinkGap:
    """Return the error that says which changes are missing."""
    first = batch.changes[0]
    return SinkGap(
        f"partition {batch.partition} is held up to epoch {held.epoch}, seq {held.seq}, "
        f"and what came begins with epoch {first['epoch']}, seq {first['seq']}"
    )
