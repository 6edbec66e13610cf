"""How many bytes a piece of work adds to a transaction at most, known before any of it is applied.

Once facts are in the table they cannot be taken out again, so a piece that would go beyond the
bound must be cut beforehand. Rows are bounded by what they hold and what the facts bring; changes
by how often a customer can be evaluated: once for every tick that sees new facts of it, and once
for every instant at which one of its facts reaches the end of a span the definition knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from streams.customers.columns import FACT
from streams.customers.facts import Int64s
from streams.customers.pages import FACTS_PER_PAGE
from streams.customers.row_format import KEY_BYTES
from streams.customers.runs import Runs
from streams.customers.series_folds import FOLD
from streams.customers.series_runs import SeriesRun
from streams.customers.table import CustomerTable
from streams.segments.definition import DAY_MS, Definition
from streams.segments.evaluate import Evaluator
from streams.segments.rules import ORDER_KINDS, instants, order_spans_ms, series_spans_ms, spans_ms
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

TIMES_PER_CHANGE = 4
"""How many instants one change of a subscription or ticket can bring: its own, and three that it names."""

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
class Spans:
    """How long after a fact anything may change by time alone, in ms, by which facts can do it.

    What is in doubt of orders and refunds belongs to `orders` and `refunds`, which are never too few.
    What is in the declared series, and of subscriptions and tickets, has spans of its own.
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
    series: Mapping[str, tuple[int, ...]]
    """Any entry of a declared series, by its key."""
    anything: tuple[int, ...]
    """All of them, and those of rules about subscriptions and tickets: any fact of whatever kind."""
    fixed: int
    """How many instants rules know, until the next fact, that lie no such span after any fact."""
    day_ms: int
    """How long before a fact the entry may lie that it makes in a series: a day for one of days, else 0."""

    @classmethod
    def of(cls, definition: Definition) -> Spans:
        """Collect the spans of a definition, custom rules included."""
        lifecycle, rules = definition.lifecycle, definition.rules
        custom = {kind: _union(order_spans_ms(rule)[kind] for rule in rules) for kind in ORDER_KINDS}
        orders = {definition.window_ms, *custom["orders"]}
        refunds = {definition.window_ms, *custom["refunds"]}
        last = {*definition.r_edges_ms, lifecycle.at_risk_ms, lifecycle.churned_ms, *custom["last"]}
        first = {lifecycle.recent_ms, lifecycle.loyal_tenure_ms, *custom["first"]}
        series: dict[str, set[int]] = {}
        for key, spans in (pair for rule in rules for pair in series_spans_ms(rule)):
            series.setdefault(key, set()).update(spans)
        of_rules = _union(map(spans_ms, rules))
        return cls(
            orders=tuple(orders),
            refunds=tuple(refunds),
            last=tuple(last),
            first=tuple(first),
            returned=(lifecycle.recent_ms, lifecycle.churned_ms),
            series={key: tuple(sorted(spans)) for key, spans in series.items()},
            anything=tuple(orders | refunds | last | first | {lifecycle.recent_ms} | of_rules),
            fixed=sum(map(instants, rules)),
            day_ms=DAY_MS if any(series.event == "active_day" for series in definition.series) else 0,
        )


def membership_bytes(evaluator: Evaluator) -> int:
    """Return what a membership takes at most, beside two customer ids and the account."""
    return MEMBERSHIP_BYTES + sum(
        MEMBERSHIP_DIMENSION_BYTES + len(name.encode()) + max(len(value.encode()) for value in values)
        for name, values in _told(evaluator)
    )


def _told(evaluator: Evaluator) -> list[tuple[str, tuple[str, ...]]]:
    """Return the dimensions whose changes are written, and their values."""
    named = zip(evaluator.dimensions, evaluator.values, evaluator.shadows, strict=True)
    return [(name, values) for name, values, shadow in named if not shadow]


def _union(sets: Iterable[set[int]]) -> set[int]:
    return set().union(*sets)


class Room:
    """Bounds on what pieces of work add, for one table. Upper bounds all, and never far off by much."""

    def __init__(
        self, table: CustomerTable, definition: Definition, evaluator: Evaluator, *, app: str
    ) -> None:
        self._table, self._spans = table, Spans.of(definition)
        told = _told(evaluator)
        self._dimensions = len(told)
        self._membership_bytes = membership_bytes(evaluator)
        self._delays = bool(evaluator.delays)
        # What `_words_before` says of the work looked at last.
        self._wordy: tuple[Work, Int64s] | None = None
        # What the changes of one evaluation take at most, of every dimension, beside ids.
        self._changes_bytes = sum(
            CHANGE_BYTES + len(app) + len(name.encode()) + 2 * max(len(value.encode()) for value in values)
            for name, values in told
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
        if ticks * len(concerned) * self._changes_bytes <= bytes_left:
            # As if every fact had a customer of its own, and all of them were the customer's: cheap to say.
            rows_bytes, changes_bytes = self._each(concerned, work)
            loose = dead + int(rows_bytes.sum()) + ticks * int(changes_bytes.sum())
            records = len(rows) + (int(further.sum()) if further is not None else 0)
            loose += self._facts_bytes(work, rows, concerned, np.full(len(concerned), records), records)
            if loose <= bytes_left:
                return loose
        everybody, places = np.unique(concerned, return_inverse=True)
        place = places[: len(slots)]
        counts = np.bincount(place, minlength=len(everybody))
        if further is not None:
            np.add.at(counts, place, further)
        rows_bytes, changes_bytes = self._each(everybody, work)
        total = dead + int(rows_bytes.sum())
        total += self._facts_bytes(work, rows, everybody, counts, int(counts.sum()))
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
        evaluations = seen + self._instants(work, rows, everybody, place, clock_ms, until_ms)
        if self._spans.fixed:
            evaluations += (seen + 1) * self._spans.fixed
        if self._delays:
            # What settles with a delay changes once for every time its rule turned: here, or before.
            evaluations += 1
        return total + int((np.minimum(ticks, evaluations) * changes_bytes).sum())

    def sweep_bytes(self, slots: Int64s, work: Work) -> Int64s:
        """Return int64[n]: no less than one evaluation of each of these customers adds."""
        rows_bytes, changes_bytes = self._each(slots, work)
        return rows_bytes + changes_bytes

    def forget_chunk(self) -> None:
        """Let go of the chunk looked at last."""
        self._wordy = None

    def membership_bytes(self, ids: int, account: int = ACCOUNT_BYTES_MAX) -> int:
        """Return no less than one membership takes, for a customer id of so many bytes."""
        return 2 * ids + account + self._membership_bytes

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
        for key, lengths in spans.series.items():
            count += _series_hits(table.series(key), slots, lengths, clock_ms, until_ms)
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
        for span in spans.anything:
            # A day counts from its midnight, up to a day before what happened on it.
            hit = (occurred_ms > clock_ms - span) & (occurred_ms <= until_ms - span + spans.day_ms)
            if np.count_nonzero(hit):
                count += np.bincount(place[hit], minlength=len(slots))
        # An order becomes the last, the first or one after a silence because others lose their worth: by
        # a refund that names them, or by a lesser content under their id, which is then an earlier one. And
        # to who has subscriptions any order may be one after an end.
        offsets = work.facts.order_id.offsets
        upset = (offsets[rows + 1] > offsets[rows]) | (occurred_ms <= clock_ms)
        upsets = place[upset]
        if table.books or work.facts.changes:
            booked = self._book_instants(work, rows, slots, place)
            count += booked
            upsets = np.append(upsets, booked.nonzero()[0])
        if len(upsets):
            upsets = np.unique(upsets)
            lengths = tuple({*spans.last, *spans.first, recent})
            count[upsets] += _hits(table.orders, slots[upsets], lengths, clock_ms, until_ms)
        return count

    def _book_instants(self, work: Work, rows: Int64s, slots: Int64s, place: Int64s) -> Int64s:
        """Return int64[n]: at most the deadlines that subscriptions and tickets make, those of `rows` too.

        Each of their instants counts as one itself and with every span there is.
        """
        table, times = self._table, np.zeros(len(slots), np.int64)
        booked = table.booked(slots)
        held = slots[booked]
        for at, subscriptions, standing, tickets in zip(
            booked.tolist(),
            table.subscriptions(held),
            table.standings(held),
            table.tickets(held),
            strict=True,
        ):
            times[at] = TIMES_PER_CHANGE * len(subscriptions)
            times[at] += len(standing.payments_ms) + len(standing.ends_ms)
            times[at] += sum(TIMES_PER_CHANGE + len(ticket.reopened_ms) for ticket in tickets)
        if work.facts.changes:
            bringing = np.isin(rows, np.fromiter(work.facts.changes, np.int64))
            times += TIMES_PER_CHANGE * np.bincount(place[bringing], minlength=len(slots))
        return times * (1 + len(self._spans.anything) + self._spans.fixed)


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


def _hits(runs: Runs, slots: Int64s, spans: tuple[int, ...], clock_ms: int, until_ms: int) -> Int64s:
    """Return int64[n]: how many entries of each customer reach the end of a span in (clock, until]."""
    lengths = np.array(spans)[:, None]
    # Both ends of every span in one search.
    after = np.concatenate((clock_ms - lengths, until_ms - lengths))
    found = runs.first_after(slots, np.broadcast_to(after, (len(after), len(slots))))
    hits: Int64s = found[len(spans) :].sum(axis=0) - found[: len(spans)].sum(axis=0)
    return hits


def _series_hits(
    run: SeriesRun, slots: Int64s, spans: tuple[int, ...], clock_ms: int, until_ms: int
) -> Int64s:
    """Return int64[n]: no less than how many entries of a series reach the end of a span in (clock, until].

    A series is looked at once, between its longest and its shortest span, because there may be many.
    """
    _, after = run.up_to(slots, np.full(len(slots), until_ms - min(spans)))
    _, before = run.up_to(slots, np.full(len(slots), clock_ms - max(spans)))
    # The day of either end may be told apart by the hour.
    hits: Int64s = (np.maximum(after - before, 0) + 1) * len(spans)
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
