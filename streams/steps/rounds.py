"""Many ticks at once: customers are independent, so each walks through the ticks at its own pace.

The scalar rule is: for every tick in order, apply the facts before it, then evaluate every
customer whose deadline has come. Done literally that costs a dozen NumPy calls per tick,
however few customers it concerns. Here one round moves *every* customer to the next tick
at which it has something to do, whichever that is, so the number of rounds is the largest
number of evaluations any one customer needs, and a round works on whole columns.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

import numpy as np

from streams.customers.facts import NEVER_MS, Facts, Int64s, Kind
from streams.customers.table import CustomerTable, Result
from streams.segments.evaluate import Evaluator, Outcome
from streams.steps.effective import effective_at
from streams.steps.moves import LATE, Cause, Moves, concatenate

LATE_AFTER_MS = 3_600_000
"""An event that happened longer than this before the clock that received it is a late event."""

_NO_INSTANT = -(1 << 63)
_NO_MONEY = 1 << 62
"""Taken off the instant of an event that moves no money, so that the latest event that does prevails."""

_LATE = np.array(LATE)
_CAUSE_OF_KIND = np.array([0, Cause.EVENT, Cause.EVENT, Cause.PURCHASE, Cause.REFUND], np.uint8)
_LATE_CAUSE_OF_KIND = np.array(
    [0, Cause.LATE_EVENT, Cause.LATE_EVENT, Cause.LATE_PURCHASE, Cause.LATE_REFUND], np.uint8
)


class Rounds:
    """One piece of work on one partition: some facts, some ticks, and the customers they concern.

    `rows` are indices into `facts` in log order; `slots`, `tick_of_row` (0..k, where k
    means "after the last tick") and `fold_line_ms` run parallel to them. `due_slots` are
    the customers whose deadline may come at one of the ticks; they may overlap `slots`.
    `tick_ms` is int64[k]; `clock_ms` is the partition's clock before the first of them.
    """

    def __init__(
        self,
        table: CustomerTable,
        evaluator: Evaluator,
        *,
        facts: Facts,
        event_ids: Sequence[bytes],
        rows: Int64s,
        slots: Int64s,
        tick_of_row: Int64s,
        fold_line_ms: Int64s,
        due_slots: Int64s,
        tick_ms: Int64s,
        clock_ms: int,
    ) -> None:
        self._table, self._evaluator = table, evaluator
        self._facts, self._event_ids = facts, event_ids
        self._tick_ms = tick_ms
        # The clock a customer had before tick i is the time of tick i - 1.
        self._clock_before_ms = np.concatenate(([clock_ms], tick_ms)).astype(np.int64)
        self.results: Counter[int] = Counter()
        self.applied_by_kind: Counter[int] = Counter()
        self.nanoseconds: Counter[str] = Counter()
        self.refused: list[int] = []
        """Rows whose traits go beyond what a customer may hold: the engine makes them dead letters."""
        self._moves: list[Moves] = []
        self._group(rows, slots, tick_of_row, fold_line_ms, due_slots)

    def _group(
        self, rows: Int64s, slots: Int64s, tick_of_row: Int64s, fold_line_ms: Int64s, due_slots: Int64s
    ) -> None:
        """Sort the facts into groups of one customer and one tick, and list who takes part."""
        order = np.argsort(slots, kind="stable")
        self._row, self._row_fold_ms = rows[order], fold_line_ms[order]
        sorted_slot, sorted_tick = slots[order], tick_of_row[order]
        starts = np.ones(len(order), np.bool_)
        starts[1:] = (sorted_slot[1:] != sorted_slot[:-1]) | (sorted_tick[1:] != sorted_tick[:-1])
        group_at = np.flatnonzero(starts)
        group_slot = sorted_slot[group_at]
        none_left = len(self._tick_ms) + 1
        self._group_start = np.append(group_at, len(order))
        self._group_tick = np.append(sorted_tick[group_at], none_left)
        self._row_slot = sorted_slot

        self._slot = np.unique(np.concatenate((group_slot, due_slots)))
        self._next_group = np.searchsorted(group_slot, self._slot, "left")
        self._last_group = np.searchsorted(group_slot, self._slot, "right")
        self._cursor = np.zeros(len(self._slot), np.int64)
        # What made a customer pending: kept here while it is evaluated within this piece,
        # so that the table's columns are written only for those who stay pending.
        table, slot = self._table, self._slot
        self._cause = table.pending_cause[slot]
        self._latest_ms = table.pending_at_ms[slot]
        self._latest_ms[self._latest_ms == NEVER_MS] = _NO_INSTANT
        self._cause_id: list[bytes] = [b""] * len(slot)
        for i in np.flatnonzero(self._cause).tolist():
            self._cause_id[i] = table.pending_event_id.get(int(slot[i]), b"")

    def run(self) -> Moves | None:
        """Do everything; return the changes ordered by tick, customer id and dimension, if any."""
        live = np.arange(len(self._slot))
        ticks = len(self._tick_ms)
        last_ms = self._tick_ms[-1] if ticks else None
        while len(live):
            slots, next_group = self._slot[live], self._next_group[live]
            has_group = next_group < self._last_group[live]
            group_tick = self._group_tick[np.where(has_group, next_group, -1)]
            due_tick = np.searchsorted(self._tick_ms, self._table.due_ms[slots])
            due_tick = np.maximum(due_tick, self._cursor[live])
            at = np.minimum(group_tick, due_tick)
            applying = live[group_tick <= due_tick]
            if len(applying):
                self._apply(applying)
                self._next_group[applying] += 1
            self._cursor[live] = at + 1
            within = at < ticks
            live, at = live[within], at[within]
            if not len(live):
                break
            due = self._table.due_ms[self._slot[live]] <= self._tick_ms[at]
            if due.any():
                self._evaluate(live[due], at[due])
            more = self._next_group[live] < self._last_group[live]
            live = live[more | (self._table.due_ms[self._slot[live]] <= last_ms)]
        self._keep_pending()
        return self._ordered()

    def _apply(self, who: Int64s) -> None:
        """Apply the next group of facts of each customer in `who` and note what made it pending."""
        began = time.perf_counter_ns()
        group = self._next_group[who]
        starts = self._group_start[group]
        counts = self._group_start[group + 1] - starts
        total = int(counts.sum())
        ends = np.cumsum(counts)
        at = np.arange(total) + np.repeat(starts - (ends - counts), counts)
        rows, owner = self._row[at], np.repeat(who, counts)
        result = self._table.apply(self._facts, rows, self._row_slot[at], self._row_fold_ms[at])
        self.results.update(dict(enumerate(np.bincount(result).tolist())))
        if (result == Result.REFUSED).any():
            self.refused += rows[result == Result.REFUSED].tolist()
        self._note_causes(rows, owner, result == Result.APPLIED)
        self.nanoseconds["apply"] += time.perf_counter_ns() - began

    def _note_causes(
        self, rows: Int64s, owner: Int64s, applied: np.ndarray[tuple[int], np.dtype[np.bool_]]
    ) -> None:
        """Of the facts applied, let the greatest cause, then the last in the log, stand for each customer."""
        rows, owner = rows[applied], owner[applied]
        if not len(rows):
            return
        kinds = self._facts.kind[rows]
        self.applied_by_kind.update(dict(enumerate(np.bincount(kinds).tolist())))
        occurred = self._facts.occurred_at_ms[rows]
        late = occurred < self._clock_before_ms[self._cursor_tick(owner)] - LATE_AFTER_MS
        cause = np.where(late, _LATE_CAUSE_OF_KIND[kinds], _CAUSE_OF_KIND[kinds])
        money = (kinds == Kind.PURCHASED) | (kinds == Kind.REFUNDED)
        instant = np.where(late, _NO_INSTANT, np.where(money, occurred, occurred - _NO_MONEY))
        np.maximum.at(self._latest_ms, owner, instant)
        order = np.lexsort((rows, cause, owner))
        last = np.ones(len(order), np.bool_)
        last[:-1] = owner[order[1:]] != owner[order[:-1]]
        chosen = order[last]
        chosen = chosen[cause[chosen] >= self._cause[owner[chosen]]]
        who = owner[chosen]
        self._cause[who] = cause[chosen]
        for i, row in zip(who.tolist(), rows[chosen].tolist(), strict=True):
            self._cause_id[i] = self._event_ids[row]

    def _cursor_tick(self, owner: Int64s) -> Int64s:
        """The tick the customers' current groups come before (k for those after the last)."""
        return self._group_tick[self._next_group[owner]]

    def _evaluate(self, who: Int64s, at: Int64s) -> None:
        """Evaluate customers, each at its own tick, and record whose values changed."""
        began = time.perf_counter_ns()
        table, slots, now_ms = self._table, self._slot[who], self._tick_ms[at]
        outcome = self._evaluator.evaluate(table, slots, now_ms)
        changed = outcome.value != table.value[slots]
        hit = np.flatnonzero(changed.any(axis=1))
        if len(hit):
            self._record(who, at, outcome, changed, hit)
        table.value[slots] = outcome.value
        table.scores[slots] = outcome.scores
        table.due_ms[slots] = outcome.due_ms
        self._cause[who], self._latest_ms[who] = Cause.TIME_ELAPSED, _NO_INSTANT
        table.mark_dirty(slots)
        self.nanoseconds["evaluate"] += time.perf_counter_ns() - began

    def _record(
        self,
        who: Int64s,
        at: Int64s,
        outcome: Outcome,
        changed: np.ndarray[tuple[int, int], np.dtype[np.bool_]],
        hit: Int64s,
    ) -> None:
        """Append the changes of `hit` (indices into who/outcome) and move their `since`."""
        table, who, at = self._table, who[hit], at[hit]
        slots, now_ms = self._slot[who], self._tick_ms[at]
        cause = self._cause[who]
        by_time = cause == Cause.TIME_ELAPSED
        latest = self._latest_ms[who]
        latest = np.where(latest < 0, latest + _NO_MONEY, latest)
        reported = np.where(by_time, table.due_ms[slots], np.where(_LATE[cause], now_ms, latest))
        start = np.where(by_time, reported, np.maximum(reported, self._clock_before_ms[at]))
        effective = effective_at(
            self._evaluator,
            table,
            slots,
            start_ms=start,
            reported_ms=np.minimum(reported, now_ms),
            now_ms=now_ms,
        )
        known = table.value[slots] >= 0
        since = np.where(known, table.since_ms[slots], NEVER_MS)
        effective = np.where(known, np.maximum(effective, table.since_ms[slots]), effective)
        for d in range(changed.shape[1]):
            rows = np.flatnonzero(changed[hit, d])
            if not len(rows):
                continue
            picked, moved = hit[rows], slots[rows]
            self._moves.append(
                Moves(
                    slot=moved,
                    dimension=np.full(len(rows), d, np.int64),
                    before=table.value[moved, d],
                    after=outcome.value[picked, d],
                    tick=at[rows],
                    cause=cause[rows],
                    event_id=[
                        b"" if timed else self._cause_id[i]
                        for i, timed in zip(who[rows].tolist(), by_time[rows].tolist(), strict=True)
                    ],
                    effective_at_ms=effective[rows, d],
                    previous_since_ms=since[rows, d],
                    expires_at_ms=outcome.due_ms[picked],
                    scores_before=table.scores[moved],
                    scores_after=outcome.scores[picked],
                    last_purchase_ms=outcome.last_purchase_ms[picked],
                    orders=outcome.orders[picked],
                    net_minor=outcome.net_minor[picked],
                )
            )
            table.since_ms[moved, d] = effective[rows, d]

    def _keep_pending(self) -> None:
        """Write back what made the customers pending that no tick of this piece evaluated."""
        table, slot = self._table, self._slot
        for i in np.flatnonzero(table.pending_cause[slot]).tolist():
            table.pending_event_id.pop(int(slot[i]), None)
        table.pending_cause[slot] = self._cause
        none = self._latest_ms == _NO_INSTANT
        table.pending_at_ms[slot] = np.where(none, NEVER_MS, self._latest_ms)
        for i in np.flatnonzero(self._cause).tolist():
            table.pending_event_id[int(slot[i])] = self._cause_id[i]

    def _ordered(self) -> Moves | None:
        """Sort by (tick, customer id, dimension): an order that no chunking can influence."""
        if not self._moves:
            return None
        moves = concatenate(self._moves)
        slots, inverse = np.unique(moves.slot, return_inverse=True)
        ids = self._table.slots.ids_of(slots)
        rank = np.empty(len(ids), np.int64)
        rank[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
        return moves.take(np.lexsort((moves.dimension, rank[inverse], moves.tick)))
