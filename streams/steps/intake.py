"""From a fetched chunk to work: read, checked, with a slot for every customer and a tick for every fact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from errors import ApplyFailed, InvalidField, RecordError, WrongPartition
from streams.customers.change_book import BOOK_BYTES_MAX
from streams.customers.facts import Erasures, Facts, Int64s, Kind
from streams.customers.forgetting import Forgetting
from streams.customers.hashing import partitions_of
from streams.customers.slots import Slots
from streams.kafka.seam import Chunk, DeadLetter, Record
from streams.reading import Reading, read
from streams.segments.definition import Definition
from streams.series_reading import SeriesReader
from streams.steps.ticks import Ticks, append_ticks, event_ticks
from streams.steps.work import ERASED, Work

Mode = Literal["event", "wall"]
"""Whose clock drives deadlines: a replayer's Ticks, or append time and then the wall clock."""

_TICK_IN_WALL_MODE = "Tick: this pipeline runs on the wall clock; replay into one with SHOAL_CLOCK=event"


_TRAITS = "traits: the customer would hold more than is kept of one; delete some, or send fewer"
_CHANGES = (
    f"of one customer at most {BOOK_BYTES_MAX} bytes are kept of the changes of subscriptions and tickets in"
    " the longest window; give each person or account an id of its own"
)
_BEYOND_BOUNDS = {
    Kind.PLAN_CHANGED: f"subscription_id: {_CHANGES}",
    Kind.TICKET_CHANGED: f"ticket_id: {_CHANGES}",
}

RECORD_BYTES_MAX = 1 << 20
"""A longer value is not looked into."""


def _withheld(record: Record, aside: Mapping[int, str]) -> RecordError:
    """Say why a record was not read."""
    if record.offset in aside:
        return ApplyFailed(aside[record.offset])
    size = len(record.value or b"")
    return InvalidField(
        f"value: expected at most {RECORD_BYTES_MAX} bytes, got {size}; send less in one event"
    )


class _SetAside:
    """A record whose value is withheld, so that reading it cannot fail again."""

    def __init__(self, record: Record) -> None:
        self.offset, self.timestamp, self.key = record.offset, record.timestamp, record.key
        self.value = None


def read_chunk(
    chunk: Chunk,
    *,
    partition: int,
    partitions: int,
    definition: Definition,
    slots: Slots,
    mode: Mode,
    clock_ms: int,
    fold_line_ms: int,
    keep_ms: int,
    aside: Mapping[int, str],
    series: SeriesReader | None = None,
    forgetting: Forgetting | None = None,
) -> Work:
    """Decode and validate a chunk; nothing changes but that new customers get an empty slot.

    `keep_ms` is how far the fold line lies behind the clock; `aside` maps the offsets of
    records that must not be applied to the reason; `series` finds what events add to declared series;
    `forgetting` is the table that knows who was erased, None: nobody was.
    """
    records: Sequence[Record] = chunk.records
    large = {record.offset for record in records if len(record.value or b"") > RECORD_BYTES_MAX}
    withheld = aside.keys() | large
    if withheld:
        records = [_SetAside(record) if record.offset in withheld else record for record in records]
    reading = read(records, partition=partition, definition=definition, series=series)
    facts = reading.facts
    dead: list[tuple[int, RecordError]] = [
        (at, _withheld(chunk.records[at], aside) if records[at].offset in withheld else error)
        for at, error in reading.dead
    ]
    if mode == "wall":
        dead += [(at, InvalidField(_TICK_IN_WALL_MODE)) for at in reading.tick_position.tolist()]
    ticks = _ticks(records, reading, mode, clock_ms)
    tick_of_row = np.searchsorted(ticks.row, np.arange(len(facts)), "right")
    clock_before_ms = np.concatenate(([clock_ms], ticks.time_ms)).astype(np.int64)[tick_of_row]
    fold_lines_ms = np.maximum(clock_before_ms - keep_ms, fold_line_ms)
    erasures, misplaced = _here(reading.erasures, partition, partitions)
    found, strangers = _slots(facts, fold_lines_ms, slots, partition, partitions, forgetting)
    dead = sorted(dead + strangers + misplaced, key=lambda each: each[0])
    return Work(
        chunk=chunk,
        facts=facts,
        event_ids=list(facts.event_id),
        slots=found,
        tick_of_row=tick_of_row,
        fold_line_ms=fold_lines_ms,
        ticks=ticks,
        dead_letters=[dead_letter(chunk.records[at], error) for at, error in dead],
        dead_records=np.array([at for at, _ in dead], np.int64),
        erasures=erasures,
        erasure_row=np.searchsorted(facts.position, erasures.position),
        erasure_tick=np.searchsorted(ticks.next_record, erasures.position, "right"),
    )


def _ticks(records: Sequence[Record], reading: Reading, mode: Mode, clock_ms: int) -> Ticks:
    positions = reading.facts.position
    if mode == "event":
        return event_ticks(reading.tick_position, reading.tick_ms, positions, clock_ms)
    append_ms = np.array([record.timestamp for record in records], np.int64)
    return append_ticks(append_ms, positions, clock_ms)


def _slots(
    facts: Facts,
    fold_lines_ms: Int64s,
    slots: Slots,
    partition: int,
    partitions: int,
    forgetting: Forgetting | None,
) -> tuple[Int64s, list[tuple[int, RecordError]]]:
    """Find or make the customers' slots: -1 for a new one whose event is too old or belongs elsewhere.

    ERASED is for events from before their customer was erased. Only a customer this partition does not
    know can be in the wrong one, so only such keys are hashed with the partitioner's murmur2; and only
    such keys are looked up among the markers, for who came back after an erasure has it in a column.
    """
    found = slots.find(facts.customer)
    in_time = facts.occurred_at_ms >= fold_lines_ms
    if forgetting is not None and len(forgetting.erasures):
        known = ((found >= 0) & in_time).nonzero()[0]
        gone = facts.occurred_at_ms[known] <= forgetting.erased_ms[found[known]]
        found[known[gone]] = ERASED
    unknown = np.flatnonzero((found == -1) & in_time)
    if not len(unknown):
        return found, []
    names = facts.customer.take(unknown)
    belongs = partitions_of(names, partitions)
    astray = belongs != partition
    wrong = unknown[astray].tolist()
    dead = [
        (int(facts.position[row]), _astray(facts.customer[row], partition, target, partitions))
        for row, target in zip(wrong, belongs[astray].tolist(), strict=True)
    ]
    here = unknown[~astray]
    if forgetting is None or not len(forgetting.erasures):
        found[here] = slots.find_or_add(facts.customer.take(here))
        return found, dead
    erased_ms = forgetting.erasures.of(facts.customer.take(here))
    gone = facts.occurred_at_ms[here] <= erased_ms
    found[here[gone]] = ERASED
    fresh = here[~gone]
    found[fresh] = slots.find_or_add(facts.customer.take(fresh))
    forgetting.erased_ms[found[fresh]] = erased_ms[~gone]
    return found, dead


def _here(
    erasures: Erasures, partition: int, partitions: int
) -> tuple[Erasures, list[tuple[int, RecordError]]]:
    """Return the erasures that belong to this partition, and why the others are dead."""
    if not len(erasures):
        return erasures, []
    belongs = partitions_of(erasures.customer, partitions)
    dead = [
        (int(erasures.position[at]), _astray(erasures.customer[at], partition, int(belongs[at]), partitions))
        for at in np.flatnonzero(belongs != partition).tolist()
    ]
    return erasures.take(np.flatnonzero(belongs == partition)), dead


def _astray(customer: bytes, partition: int, target: int, partitions: int) -> RecordError:
    return WrongPartition(
        f"key {customer[:64]!r} in partition {partition}: belongs in {target} of"
        f" {partitions}; produce with the Java-compatible murmur2 partitioner"
    )


def beyond_bounds(kind: int) -> InvalidField:
    """Return why a fact of this kind was refused by the customer table."""
    return InvalidField(_BEYOND_BOUNDS.get(Kind(kind), _TRAITS))


def dead_letter(record: Record, error: RecordError) -> DeadLetter:
    """Return the record as a dead letter: its own key and bytes, and why."""
    return DeadLetter(record.offset, record.key, record.value, type(error).__name__, str(error))
