"""How many bytes a piece of work adds to a transaction at most, known before any of it is applied.

Once facts are in the table they cannot be taken out again, so a piece that would go beyond the
bound must be cut beforehand. Rows are bounded by what they hold and what the facts bring; changes
by how often a customer can be evaluated: once for every tick that sees new facts of it, and once
for every instant at which one of its facts reaches the end of a span the definition knows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.customers.columns import FACT
from streams.customers.facts import Int64s
from streams.customers.pages import FACTS_PER_PAGE
from streams.customers.row_format import KEY_BYTES
from streams.customers.table import CustomerTable
from streams.segments.definition import DAY_MS, Definition
from streams.segments.rules import instants, series_spans_ms, spans_ms
from streams.steps.plan import Piece
from streams.steps.work import Work

CHANGE_BYTES = 300
"""A change at most, key included, beside two customer ids, account, cause's event id and app's name."""

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
EVENT_ID_BYTES_MAX = 256


def spans_of(definition: Definition) -> tuple[int, ...]:
    """Return how long after a fact anything may change by time alone, in ms: all such spans, ascending."""
    lifecycle = definition.lifecycle
    spans = {*definition.r_edges_ms, definition.window_ms, lifecycle.loyal_tenure_ms}
    spans |= {lifecycle.at_risk_ms, lifecycle.churned_ms, lifecycle.recent_ms}
    return tuple(sorted(spans.union(*map(spans_ms, definition.rules))))


class Room:
    """Bounds on what pieces of work add, for one table. Upper bounds all, and never far off by much."""

    def __init__(
        self, table: CustomerTable, definition: Definition, *, app: str, dimensions: Sequence[str]
    ) -> None:
        self._table, self._spans, self._dimensions = table, spans_of(definition), len(dimensions)
        # The longest name of a dimension, beyond that of `lifecycle`, which the constants count in.
        longer = max(0, *(len(name) - len("lifecycle") for name in dimensions))
        self._change_bytes = CHANGE_BYTES + longer + len(app)
        self._dimension_bytes = MEMBERSHIP_DIMENSION_BYTES + longer
        self._fixed = sum(map(instants, definition.rules))
        self._series_spans: dict[str, set[int]] = {}
        for key, spans in (pair for rule in definition.rules for pair in series_spans_ms(rule)):
            self._series_spans.setdefault(key, set()).update(spans)
        self._day_ms = DAY_MS if any(series.event == "active_day" for series in definition.series) else 0
        # What settles with a delay may change once more after every evaluation that turned its rule.
        self._delayed = sum(segment.settles for segment in definition.computed)

    def piece_bytes(self, work: Work, piece: Piece, clock_ms: int, bytes_left: int) -> int:
        """Return no less than the piece adds to rows, changes, memberships and dead letters.

        `clock_ms` is the clock before it: every deadline up to then has been met. More than
        `bytes_left` is as good as any larger number, and is returned as soon as it is sure.
        """
        rows = np.arange(work.row, piece.row_end)
        slots = work.slots[rows]
        rows = rows[slots >= 0]
        slots, tick_ms = work.slots[rows], work.ticks.time_ms[work.tick : piece.tick_end]
        due = self._table.customers_due(int(tick_ms[-1])) if len(tick_ms) else slots[:0]
        everybody, places = np.unique(np.concatenate((slots, due)), return_inverse=True)
        place = places[: len(slots)]
        per_customer, per_change = self._each(everybody, work)
        total = int(per_customer.sum()) + self._facts_bytes(work, rows, everybody, place)
        total += work.dead_bytes(piece.row_end, piece.tick_end)
        most = np.full(len(everybody), len(tick_ms))
        if len(tick_ms) > 1:
            groups = np.unique(place * (len(tick_ms) + 1) + work.tick_of_row[rows] - work.tick)
            seen = np.bincount(groups // (len(tick_ms) + 1), minlength=len(everybody))
            occurred_ms = work.facts.occurred_at_ms[rows]
            # Beside its facts, a customer may have instants of its own: once after each change of them.
            seen = (seen + 1) * (1 + self._fixed)
            least = total + int((np.minimum(most, seen) * per_change).sum()) * self._dimensions
            if least > bytes_left:
                return least
            spans = self._instants(everybody, place, occurred_ms, clock_ms, int(tick_ms[-1]))
            most = np.minimum(most, (seen + spans) * (1 + self._delayed))
        return total + int((most * per_change).sum()) * self._dimensions

    def sweep_bytes(self, slots: Int64s, work: Work) -> Int64s:
        """Return int64[n]: no less than one evaluation of each of these customers adds."""
        per_customer, per_change = self._each(slots, work)
        return per_customer + per_change * self._dimensions

    def membership_bytes(self, ids: int, account: int = ACCOUNT_BYTES_MAX) -> int:
        """Return no less than one membership takes, for a customer id of so many bytes."""
        return 2 * ids + account + MEMBERSHIP_BYTES + self._dimensions * self._dimension_bytes

    def _each(self, slots: Int64s, work: Work) -> tuple[Int64s, Int64s]:
        """Return int64[n] twice: each customer's row and membership, and any one change of it."""
        table = self._table
        ids, accounts = table.slots.lengths_of(slots), np.zeros(len(slots), np.int64)
        if table.profiles:
            found = (table.profiles.get(slot) for slot in slots.tolist())
            accounts[:] = [0 if p is None or p.account is None else ACCOUNT_BYTES_MAX for p in found]
        if work.facts.account_id:
            accounts[:] = ACCOUNT_BYTES_MAX
        # What made a customer pending before this chunk is not looked up, for it seldom is.
        event_id = EVENT_ID_BYTES_MAX if table.pending_event_id else work.event_id_bytes_max
        membership = 2 * ids + accounts + self.membership_bytes(0, 0)
        return table.row_bytes_max(
            slots
        ) + membership + event_id, 2 * ids + accounts + event_id + self._change_bytes

    def _facts_bytes(self, work: Work, rows: Int64s, everybody: Int64s, place: Int64s) -> int:
        """Return what the facts add to rows and pages: themselves, their traits, and keys of pages."""
        if not len(rows):
            return 0
        pages, slots = self._table.pages, self._table.slots
        counts = np.bincount(place, minlength=len(everybody))
        added = len(rows)
        if len(work.facts.entries):
            # Each entry is on record, and what all lines of an order said once more.
            further = 2 * np.diff(work.facts.entries.row.searchsorted((rows, rows + 1)), axis=0)[0]
            np.add.at(counts, place, further)
            added += int(further.sum())
        filled = pages.lengths[everybody] + counts
        # A page that is sealed may let all before it be dropped, at a tombstone each.
        keys = filled // FACTS_PER_PAGE + np.where(
            filled >= FACTS_PER_PAGE, pages.sealed[everybody] - pages.dropped[everybody], 0
        )
        total = FACT.itemsize * added + int((keys * (KEY_BYTES + slots.lengths_of(everybody))).sum())
        facts = work.facts
        for row in facts.changes:
            if rows[0] <= row <= rows[-1]:
                value = work.chunk.records[int(facts.position[row])].value or b""
                total += ESCAPED * len(value) + CHANGE_NAMES_BYTES
        for row in (
            (facts.traits.keys() | facts.account_id.keys()) if facts.traits or facts.account_id else ()
        ):
            if rows[0] <= row <= rows[-1]:
                value = work.chunk.records[int(facts.position[row])].value or b""
                traits = len(facts.traits.get(row, ())) + 1
                total += ESCAPED * len(value) + traits * (TRAIT_BYTES + ESCAPED * len(work.event_ids[row]))
        return total

    def _instants(
        self, slots: Int64s, place: Int64s, occurred_ms: Int64s, clock_ms: int, until_ms: int
    ) -> Int64s:
        """Return int64[n]: the deadlines each customer's facts can make after the clock, up to a time."""
        count = np.zeros(len(slots), np.int64)
        for runs in (self._table.orders, self._table.refunds):
            for span in self._spans:
                later = runs.first_after(slots, np.array(until_ms - span))
                count += later - runs.first_after(slots, np.array(clock_ms - span))
        for span in self._spans:
            end_ms = occurred_ms + span
            # A day counts from its midnight, up to a day before what happened on it.
            hit = place[(end_ms > clock_ms) & (end_ms - self._day_ms <= until_ms)]
            if len(hit):
                count += np.bincount(hit, minlength=len(slots))
        return count + self._series_instants(slots, clock_ms, until_ms) + self._book_instants(slots)

    def _series_instants(self, slots: Int64s, clock_ms: int, until_ms: int) -> Int64s:
        """Return int64[n]: at most the deadlines of what is in the declared series.

        A series is looked at once, between its longest and its shortest span, because there may be many.
        """
        count = np.zeros(len(slots), np.int64)
        for key, spans in self._series_spans.items():
            run = self._table.series(key)
            shortest, longest = (np.full(len(slots), edge) for edge in (min(spans), max(spans)))
            inside = run.up_to(slots, until_ms - shortest)[1] - run.up_to(slots, clock_ms - longest)[1]
            # The day of either end may be told apart by the hour.
            count += (np.maximum(inside, 0) + 1) * len(spans)
        return count

    def _book_instants(self, slots: Int64s) -> Int64s:
        """Return int64[n]: at most the deadlines of subscriptions and tickets, of who has any."""
        count = np.zeros(len(slots), np.int64)
        places = self._table.booked(slots)
        if len(places):
            table, held = self._table, slots[places]
            for place, subscriptions, standing, tickets in zip(
                places.tolist(),
                table.subscriptions(held),
                table.standings(held),
                table.tickets(held),
                strict=True,
            ):
                times = 3 * len(subscriptions) + len(standing.payments_ms)
                times += sum(4 + len(ticket.reopened_ms) for ticket in tickets)
                count[place] = times * len(self._spans)
        return count


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
