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
from streams.customers.table import CustomerTable
from streams.segments.definition import Definition
from streams.steps.plan import Piece
from streams.steps.work import Work

CHANGE_BYTES = 300
"""A change at most, key included, beside two customer ids, account, cause's event id and app's name."""

MEMBERSHIP_BYTES = 60
MEMBERSHIP_DIMENSION_BYTES = 80
"""A membership at most, beside two customer ids and the account: of itself, and for each dimension."""

TRAIT_BYTES = 64
"""What storing a trait takes at most beside its text and its event's id: quotes, an instant, commas."""

ESCAPED = 6
"""Stored text is ASCII JSON, in which one byte becomes six at most."""

ACCOUNT_BYTES_MAX = 256
EVENT_ID_BYTES_MAX = 256


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one transaction holds at most.

    `bytes_max` counts keys and values of everything in it, but one customer at one tick always
    fits (less than 150 KB), and so does what one chunk holds of dead letters.
    """

    rows_max: int = 5_000
    bytes_max: int = 8 << 20


def spans_of(definition: Definition) -> tuple[int, ...]:
    """Return how long after a fact anything may change by time alone, in ms: all such spans, ascending."""
    lifecycle = definition.lifecycle
    spans = {*definition.r_edges_ms, definition.window_ms, lifecycle.loyal_tenure_ms}
    return tuple(sorted(spans | {lifecycle.at_risk_ms, lifecycle.churned_ms, lifecycle.recent_ms}))


class Room:
    """Bounds on what pieces of work add, for one table. Upper bounds all, and never far off by much."""

    def __init__(self, table: CustomerTable, definition: Definition, *, app: str, dimensions: int) -> None:
        self._table, self._spans, self._dimensions = table, spans_of(definition), dimensions
        self._change_bytes = CHANGE_BYTES + len(app)

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
            least = total + int((np.minimum(most, seen + 1) * per_change).sum()) * self._dimensions
            if least > bytes_left:
                return least
            instants = self._instants(everybody, place, occurred_ms, clock_ms, int(tick_ms[-1]))
            most = np.minimum(most, seen + instants + 1)
        return total + int((most * per_change).sum()) * self._dimensions

    def sweep_bytes(self, slots: Int64s, work: Work) -> Int64s:
        """Return int64[n]: no less than one evaluation of each of these customers adds."""
        per_customer, per_change = self._each(slots, work)
        return per_customer + per_change * self._dimensions

    def membership_bytes(self, ids: int, account: int = ACCOUNT_BYTES_MAX) -> int:
        """Return no less than one membership takes, for a customer id of so many bytes."""
        return 2 * ids + account + MEMBERSHIP_BYTES + self._dimensions * MEMBERSHIP_DIMENSION_BYTES

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
        filled = pages.lengths[everybody] + counts
        # A page that is sealed may let all before it be dropped, at a tombstone each.
        keys = filled // FACTS_PER_PAGE + np.where(
            filled >= FACTS_PER_PAGE, pages.sealed[everybody] - pages.dropped[everybody], 0
        )
        total = FACT.itemsize * len(rows) + int((keys * (KEY_BYTES + slots.lengths_of(everybody))).sum())
        facts = work.facts
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
            hit = place[(end_ms > clock_ms) & (end_ms <= until_ms)]
            if len(hit):
                count += np.bincount(hit, minlength=len(slots))
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
