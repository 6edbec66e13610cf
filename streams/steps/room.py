"""How many bytes a piece of work adds to a transaction at most, known before any of it is applied.

Once facts are in the table they cannot be taken out again, so a piece that would go beyond the
bound must be cut beforehand. Rows are bounded by what they hold and what the facts bring; changes
by how often a customer can be evaluated: once for every tick that sees new facts of it, and once
for every instant at which one of its facts reaches the end of a span the definition knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streams.customers.columns import FACT
from streams.customers.facts import Int64s
from streams.customers.pages import FACTS_PER_PAGE
from streams.customers.row_format import KEY_BYTES
from streams.customers.runs import Runs
from streams.customers.series_folds import FOLD
from streams.customers.table import CustomerTable
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.steps.plan import Piece
from streams.steps.work import Work

CHANGE_BYTES = 180
"""A change at most, key included, beside two customer ids, account, cause's event id, the app's name, the
dimension's name and two of its values."""

MEMBERSHIP_BYTES = 60
MEMBERSHIP_DIMENSION_BYTES = 80
"""A membership at most, beside two customer ids and the account: of itself, and for each dimension."""

TRAIT_BYTES = 64
"""What storing a trait takes at most beside its text and its event's id: quotes, an instant, commas."""

CHANGE_NAMES_BYTES = 300
"""What storing a change of a subscription or ticket takes at most beside its values: the fields' names."""

ESCAPED = 6
"""Stored text is ASCII JSON, in which one byte becomes six at most."""

ACCOUNT_BYTES_MAX = 256


@dataclass(frozen=True, slots=True)
class Spans:
    """How long after a fact anything may change by time alone, in ms, by which facts can do it.

    What is in doubt belongs to `orders` and `refunds`, which are never too few.
    """

    orders: tuple[int, ...]
    """Any order, as for windows."""
    refunds: tuple[int, ...]
    """Any refund that names no order."""
    last: tuple[int, ...]
    """Only what is the last order when the span is over."""
    first: tuple[int, ...]
    """Only what is the first order when the span is over."""
    returned: tuple[int, int]
    """Only an order after a silence: how long after it, and the least silence."""

    @classmethod
    def of(cls, definition: Definition) -> Spans:
        """Collect the spans of a definition."""
        lifecycle = definition.lifecycle
        return cls(
            orders=(definition.window_ms,),
            refunds=(definition.window_ms,),
            last=tuple({*definition.r_edges_ms, lifecycle.at_risk_ms, lifecycle.churned_ms}),
            first=(lifecycle.recent_ms, lifecycle.loyal_tenure_ms),
            returned=(lifecycle.recent_ms, lifecycle.churned_ms),
        )


class Room:
    """Bounds on what pieces of work add, for one table. Upper bounds all, and never far off by much."""

    def __init__(
        self, table: CustomerTable, definition: Definition, evaluator: Evaluator, *, app: str
    ) -> None:
        self._table, self._spans = table, Spans.of(definition)
        self._dimensions = len(evaluator.dimensions)
        # What `_words_before` says of the work looked at last.
        self._wordy: tuple[Work, Int64s] | None = None
        # What the changes of one evaluation take at most, of every dimension, beside ids.
        self._changes_bytes = sum(
            CHANGE_BYTES + len(app) + len(name.encode()) + 2 * max(len(value.encode()) for value in values)
            for name, values in zip(evaluator.dimensions, evaluator.values, strict=True)
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
        concerned = np.concatenate((slots, due))
        if ticks * len(concerned) * self._changes_bytes <= bytes_left:
            # As if every fact had a customer of its own, and all of them were the customer's: cheap to say.
            rows_bytes, changes_bytes = self._each(concerned, work)
            loose = dead + int(rows_bytes.sum()) + ticks * int(changes_bytes.sum())
            on_record = len(rows) + int(_entries_of(work, rows).sum())
            loose += self._facts_bytes(work, rows, concerned, np.full(len(concerned), on_record), on_record)
            if loose <= bytes_left:
                return loose
        everybody, places = np.unique(concerned, return_inverse=True)
        place = places[: len(slots)]
        counts, entries = np.bincount(place, minlength=len(everybody)), _entries_of(work, rows)
        if len(work.facts.entries):
            np.add.at(counts, place, entries)
        rows_bytes, changes_bytes = self._each(everybody, work)
        total = (
            dead
            + int(rows_bytes.sum())
            + self._facts_bytes(work, rows, everybody, counts, len(rows) + int(entries.sum()))
        )
        # A customer is evaluated at every tick that sees new facts of it, where it is due already,
        # and where a deadline comes.
        seen = np.zeros(len(everybody), np.int64)
        seen[places[len(slots) :]] = 1
        if ticks:
            groups = np.unique(place * (ticks + 1) + work.tick_of_row[rows] - work.tick)
            groups = groups[groups % (ticks + 1) < ticks]
            seen += np.bincount(groups // (ticks + 1), minlength=len(everybody))
        least = total + int((np.minimum(ticks, seen) * changes_bytes).sum())
        if least > bytes_left or ticks < 2:
            return least
        until_ms = int(tick_ms[-1])
        instants = self._instants(work, rows, everybody, place, clock_ms, until_ms)
        return total + int((np.minimum(ticks, seen + instants) * changes_bytes).sum())

    def sweep_bytes(self, slots: Int64s, work: Work) -> Int64s:
        """Return int64[n]: no less than one evaluation of each of these customers adds."""
        rows_bytes, changes_bytes = self._each(slots, work)
        return rows_bytes + changes_bytes

    def membership_bytes(self, ids: int, account: int = ACCOUNT_BYTES_MAX) -> int:
        """Return no less than one membership takes, for a customer id of so many bytes."""
        return 2 * ids + account + MEMBERSHIP_BYTES + self._dimensions * MEMBERSHIP_DIMENSION_BYTES

    def _each(self, slots: Int64s, work: Work) -> tuple[Int64s, Int64s]:
        """Return int64[n] twice: each customer's row and membership, and the changes of one evaluation."""
        table = self._table
        ids = 2 * table.slots.lengths_of(slots)
        if work.facts.account_id:
            ids += ACCOUNT_BYTES_MAX
        elif table.profiles:
            ids += table.has_account[slots] * np.int64(ACCOUNT_BYTES_MAX)
        # What made a customer pending before this chunk is not looked up, for it seldom is.
        event_id = max(table.pending_event_id.longest, work.event_id_bytes_max)
        rows = table.row_bytes_max(slots)
        rows += ids
        rows += self.membership_bytes(0, 0) + event_id
        return rows, self._dimensions * (ids + event_id) + self._changes_bytes

    def _facts_bytes(self, work: Work, rows: Int64s, slots: Int64s, counts: Int64s, on_record: int) -> int:
        """Return what facts add to rows and pages: themselves, their traits, and keys of pages.

        `counts` says how many records the facts at `rows` leave of each of the distinct `slots`,
        `on_record` how many in all.
        """
        if not len(rows):
            return 0
        pages, total = self._table.pages, FACT.itemsize * on_record
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

    def _instants(
        self, work: Work, rows: Int64s, slots: Int64s, place: Int64s, clock_ms: int, until_ms: int
    ) -> Int64s:
        """Return int64[n]: the deadlines each customer's facts can make after the clock, up to a time.

        `place` is where in `slots` the customer of each of the facts at `rows` is.
        """
        table, spans = self._table, self._spans
        recent, silence = spans.returned
        # Two orders that each end a silence lie as far apart as it lasts.
        returns = 1 + (until_ms - clock_ms) // silence
        count = np.minimum(returns, _hits(table.orders, slots, (recent,), clock_ms, until_ms))
        count += _hits(table.orders, slots, spans.orders, clock_ms, until_ms)
        if table.refunds.rows:
            count += _hits(table.refunds, slots, spans.refunds, clock_ms, until_ms)
        for paid_ms, lengths in (
            (table.last_paid_ms(slots), spans.last),
            (table.first_paid_ms(slots), spans.first),
        ):
            for span in lengths:
                count += (paid_ms > clock_ms - span) & (paid_ms <= until_ms - span)
        occurred_ms = work.facts.occurred_at_ms[rows]
        for span in {*spans.orders, *spans.refunds, *spans.last, *spans.first, recent}:
            hit = place[(occurred_ms > clock_ms - span) & (occurred_ms <= until_ms - span)]
            if len(hit):
                count += np.bincount(hit, minlength=len(slots))
        # An order becomes the last, the first or one after a silence because others lose their worth: by
        # a refund that names them, or by a lesser content under their id, which is then an earlier one.
        offsets = work.facts.order_id.offsets
        upsets = np.unique(place[(offsets[rows + 1] > offsets[rows]) | (occurred_ms <= clock_ms)])
        if len(upsets):
            lengths = tuple({*spans.last, *spans.first, recent})
            count[upsets] += _hits(table.orders, slots[upsets], lengths, clock_ms, until_ms)
        return count


def _words_before(work: Work) -> Int64s:
    """Return int64[facts + 1]: what all facts before a row take in profiles, and as changes."""
    facts, before = work.facts, np.zeros(len(work.facts) + 1, np.int64)
    for row in facts.traits.keys() | facts.account_id.keys():
        value = work.chunk.records[int(facts.position[row])].value or b""
        traits = len(facts.traits.get(row, ())) + 1
        before[row + 1] = ESCAPED * len(value) + traits * (TRAIT_BYTES + ESCAPED * len(work.event_ids[row]))
    for row in facts.changes:
        value = work.chunk.records[int(facts.position[row])].value or b""
        before[row + 1] += ESCAPED * len(value) + CHANGE_NAMES_BYTES
    return before.cumsum()


def _entries_of(work: Work, rows: Int64s) -> Int64s:
    """Return int64[n]: the records that what series keep of each fact takes, beside that of the fact."""
    entries = work.facts.entries
    if not len(entries):
        return np.zeros(len(rows), np.int64)
    # Each entry is on record, and what all lines of an order said once more.
    return 2 * (entries.row.searchsorted(rows, "right") - entries.row.searchsorted(rows))


def _hits(runs: Runs, slots: Int64s, spans: tuple[int, ...], clock_ms: int, until_ms: int) -> Int64s:
    """Return int64[n]: how many entries of each customer reach the end of a span in (clock, until]."""
    lengths = np.array(spans)[:, None]
    # Both ends of every span in one search.
    after = np.concatenate((clock_ms - lengths, until_ms - lengths))
    found = runs.first_after(slots, np.broadcast_to(after, (len(after), len(slots))))
    hits: Int64s = found[len(spans) :].sum(axis=0) - found[: len(spans)].sum(axis=0)
    return hits


def smaller(work: Work, piece: Piece) -> Piece | None:
    """Return about half of a piece; None when it is one fact, or the sweep of one tick."""
    ticks = piece.tick_end - work.tick
    if piece.cut_sweep:
        return None
    if ticks > 1:
        end = work.tick + ticks // 2
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
