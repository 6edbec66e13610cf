"""How many bytes a piece of work adds to a transaction at most, known before any of it is applied.

Once facts are in the table they cannot be taken out again, so a piece that would go beyond the
bound must be cut beforehand. Rows are bounded by what they hold and what the facts bring; changes
by how often a customer can be evaluated: once for every tick that sees new facts of it, and once
for every instant at which one of its facts reaches the end of a span the definition knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from streams.customers.columns import FACT
from streams.customers.facts import Int64s
from streams.customers.pages import FACTS_PER_PAGE
from streams.customers.row_format import KEY_BYTES
from streams.customers.series_folds import FOLD
from streams.customers.table import CustomerTable
from streams.segments.evaluate import Evaluator
from streams.steps.flips import Flips, Part
from streams.steps.plan import Piece
from streams.steps.work import Work

CHANGE_BYTES = 180
"""A change at most, key included, beside two customer ids, account, cause's event id, the app's name, the
dimension's name and two of its values."""

MEMBERSHIP_BYTES = 60
MEMBERSHIP_DIMENSION_BYTES = 40
"""A membership at most, beside two customer ids and the account: of itself, and for each dimension beside
its name and value: their lengths, the kind, two instants and a seq."""

TRAIT_BYTES = 64
"""What storing a trait takes at most beside its text and its event's id: quotes, an instant, commas."""

CHANGE_NAMES_BYTES = 300
"""What storing a change of a subscription or ticket takes at most beside its values: the fields' names."""

ESCAPED = 6
"""Stored text is ASCII JSON, in which one byte becomes six at most."""

ACCOUNT_BYTES_MAX = 256


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one transaction holds at most.

    `bytes_max` counts keys and values of everything in it, but one customer at one tick always
    fits (less than 220 KB), and so does what one chunk holds of dead letters.
    """

    rows_max: int = 5_000
    bytes_max: int = 8 << 20


@dataclass(frozen=True, slots=True)
class MembershipBytes:
    """What a membership takes at most, beside two customer ids and the account."""

    fixed: int
    """Whatever segments the customer is in."""
    each: int
    """For each segment that it is in."""

    @classmethod
    def of(cls, evaluator: Evaluator) -> MembershipBytes:
        """Take the longest names there are."""
        told = [
            (len(values) == 1, MEMBERSHIP_DIMENSION_BYTES + len(name.encode()) + _longest(values))
            for name, values in _told(evaluator)
        ]
        fixed = MEMBERSHIP_BYTES + sum(size for single, size in told if not single)
        return cls(fixed, max((size for single, size in told if single), default=0))


def _told(evaluator: Evaluator) -> list[tuple[str, tuple[str, ...]]]:
    """Return the dimensions whose changes are written, and their values."""
    named = zip(evaluator.dimensions, evaluator.values, evaluator.shadows, strict=True)
    return [(name, values) for name, values, shadow in named if not shadow]


def _longest(values: Iterable[str]) -> int:
    return max((len(value.encode()) for value in values), default=0)


class Room:
    """Bounds on what pieces of work add, for one table. Upper bounds all, and never far off by much."""

    def __init__(self, table: CustomerTable, flips: Flips, evaluator: Evaluator, *, app: str) -> None:
        self._table, self._flips = table, flips
        self._membership = MembershipBytes.of(evaluator)
        # What `_words_before` says of the work looked at last.
        self._wordy: tuple[Work, Int64s] | None = None
        # What one change takes at most, beside ids.
        self._change_bytes = CHANGE_BYTES + len(app)
        self._change_bytes += max(
            len(name.encode()) + 2 * _longest(values) for name, values in _told(evaluator)
        )

    def piece_bytes(
        self, work: Work, piece: Piece, due_slots: Int64s, due_ms: Int64s, clock_ms: int, bytes_left: int
    ) -> int:
        """Return no less than the piece adds to rows, changes, memberships and dead letters.

        `due_slots` are the customers whose deadline comes by the last tick of the work, and `due_ms`
        when. `clock_ms` is the clock before it: every deadline up to then has been met. More than
        `bytes_left` is as good as any larger number, and is returned as soon as it is sure; a
        loose bound that is within it is returned as it is.
        """
        rows = np.arange(work.row, piece.row_end)
        rows = rows[work.slots[work.row : piece.row_end] >= 0]
        slots, tick_ms = work.slots[rows], work.ticks.time_ms[work.tick : piece.tick_end]
        due = due_slots[due_ms <= tick_ms[-1]] if len(tick_ms) else slots[:0]
        ticks, dead = len(tick_ms), work.dead_bytes(piece.row_end, piece.tick_end)
        further = _further_records(work, rows)
        concerned = np.concatenate((slots, due))
        if ticks * len(concerned) * self._flips.everything * self._change_bytes <= bytes_left:
            # As if every fact had a customer of its own, and all of them were the customer's: cheap to say.
            rows_bytes, flip_bytes = self._each(concerned, work)
            loose = dead + int(rows_bytes.sum()) + ticks * self._flips.everything * int(flip_bytes.sum())
            records = len(rows) + (int(further.sum()) if further is not None else 0)
            loose += self._facts_bytes(work, rows, concerned, np.full(len(concerned), records), records)
            if loose <= bytes_left:
                return loose
        everybody, places = np.unique(concerned, return_inverse=True)
        place = places[: len(slots)]
        counts = np.bincount(place, minlength=len(everybody))
        if further is not None:
            np.add.at(counts, place, further)
        rows_bytes, flip_bytes = self._each(everybody, work)
        total = dead + int(rows_bytes.sum())
        total += self._facts_bytes(work, rows, everybody, counts, int(counts.sum()))
        if total > bytes_left or not ticks:
            return total
        part = Part(work, rows, everybody, place, ticks, clock_ms, int(tick_ms[-1]))
        return total + int((self._flips.at_most(part, bytes_left - total, flip_bytes) * flip_bytes).sum())

    def sweep_bytes(self, slots: Int64s, work: Work, clock_ms: int) -> Int64s:
        """Return int64[n]: no less than one evaluation of each of these customers, at the next tick, adds."""
        rows_bytes, flip_bytes = self._each(slots, work)
        none = work.slots[:0]
        part = Part(work, none, slots, none, 1, clock_ms, int(work.ticks.time_ms[work.tick]))
        return rows_bytes + self._flips.at_most(part) * flip_bytes

    def changed_bytes(self, slots: Int64s, work: Work, changes: Int64s) -> Int64s:
        """Return int64[n]: no less than so many changes of each of these customers, int64[n], add."""
        rows_bytes, flip_bytes = self._each(slots, work)
        return rows_bytes + changes * flip_bytes

    def leaving_bytes(self, slots: Int64s, work: Work) -> Int64s:
        """Return int64[n]: no less than each of these customers leaving every value it has adds."""
        rows_bytes, flip_bytes = self._each(slots, work)
        held = self._table.held
        return rows_bytes + (held.dense + held.counts(slots)) * flip_bytes

    def forget_chunk(self) -> None:
        """Let go of the chunk looked at last."""
        self._wordy = None

    def _each(self, slots: Int64s, work: Work) -> tuple[Int64s, Int64s]:
        """Return int64[n] twice: a customer's row and membership as they are, and what a new value adds."""
        table, membership = self._table, self._membership
        ids = 2 * table.slots.lengths_of(slots)
        # What made a customer pending before this chunk is not looked up, for it seldom is.
        event_id = max(table.pending_event_id.longest, work.event_id_bytes_max)
        flip = ids + (event_id + self._change_bytes + membership.each + table.entry_bytes_max)
        if work.facts.account_id:
            ids += ACCOUNT_BYTES_MAX
            flip += ACCOUNT_BYTES_MAX
        elif table.profiles:
            accounts = table.has_account[slots] * np.int64(ACCOUNT_BYTES_MAX)
            ids += accounts
            flip += accounts
        rows = table.row_bytes_max(slots)
        rows += ids
        rows += membership.fixed + event_id
        rows += membership.each * table.held.counts(slots)
        return rows, flip

    def _facts_bytes(self, work: Work, rows: Int64s, slots: Int64s, counts: Int64s, records: int) -> int:
        """Return what facts add to rows and pages: themselves, what is said in words, and keys of pages.

        `counts` says how many records the facts at `rows` leave of each of `slots`, `records` of all.
        """
        if not len(rows):
            return 0
        pages, total = self._table.pages, FACT.itemsize * records
        filled = pages.lengths[slots] + counts
        full = (filled >= FACTS_PER_PAGE).nonzero()[0]
        if len(full):
            # A page that is sealed may let all before it be dropped, at a tombstone each.
            owners = slots[full]
            keys = filled[full] // FACTS_PER_PAGE + pages.sealed[owners] - pages.dropped[owners]
            total += int((keys * (KEY_BYTES + self._table.slots.lengths_of(owners))).sum())
            if self._table.series_facts is not None:
                # What is then folded of each series is told in the row.
                total += len(full) * FOLD.itemsize * self._table.series_facts.declared
        if work.facts.traits or work.facts.account_id or work.facts.changes:
            if self._wordy is None or self._wordy[0] is not work:
                self._wordy = work, _words_before(work)
            before = self._wordy[1]
            total += int(before[rows[-1] + 1] - before[rows[0]])
        return total


def _further_records(work: Work, rows: Int64s) -> Int64s | None:
    """Return int64[n]: how many records each fact leaves beside its own, None when none leaves any."""
    entries = work.facts.entries
    if not len(entries):
        return None
    # Each entry is on record, and what all lines of an order said once more.
    further: Int64s = 2 * np.diff(entries.row.searchsorted((rows, rows + 1)), axis=0)[0]
    return further


def _words_before(work: Work) -> Int64s:
    """Return int64[facts + 1]: what all facts before a row say in words takes in rows: traits, changes."""
    facts, before = work.facts, np.zeros(len(work.facts) + 1, np.int64)
    for row in facts.traits.keys() | facts.account_id.keys():
        value = work.chunk.records[int(facts.position[row])].value or b""
        traits = len(facts.traits.get(row, ())) + 1
        before[row + 1] = ESCAPED * len(value) + traits * (TRAIT_BYTES + ESCAPED * len(work.event_ids[row]))
    for row in facts.changes:
        value = work.chunk.records[int(facts.position[row])].value or b""
        before[row + 1] += ESCAPED * len(value) + CHANGE_NAMES_BYTES
    return before.cumsum()


def smaller(work: Work, piece: Piece, share: float = 0.5) -> Piece | None:
    """Return about a `share` below 1 of a piece; None when it is one fact, or the sweep of one tick."""
    ticks = piece.tick_end - work.tick
    if piece.cut_sweep:
        return None
    if ticks > 1:
        end = work.tick + max(1, int(ticks * share))
        return Piece(int(work.ticks.row[end - 1]), end)
    if ticks == 1:
        before = int(work.ticks.row[work.tick])
        if piece.row_end > before:
            return Piece(before, piece.tick_end)
        if before > work.row:
            return Piece(work.row + max(1, (before - work.row) // 2), work.tick)
        return Piece(work.row, work.tick, cut_sweep=True)
    rows = piece.row_end - work.row
    return Piece(work.row + rows // 2, work.tick) if rows > 1 else None
