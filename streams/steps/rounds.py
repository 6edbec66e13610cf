"""Many ticks at once: customers are independent, so each walks through the ticks at its own pace.

The scalar rule is: for every tick in order, apply the facts before it, then evaluate every
customer whose deadline has come. Done literally that costs a dozen NumPy calls per tick,
however few customers it concerns. Here one round moves *every* customer by one phase: a run
of its facts that can be applied at once, because what the customer was at each tick in
between can be read off afterwards (see phases.py). So the number of rounds is the largest
number of phases any one customer has, and a round works on whole columns.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streams.customers.facts import NEVER_MS, PENDING_MS, Bools, Facts, Int64s, Kind, UInt8s
from streams.customers.table import CustomerTable, Result
from streams.segments.evaluate import Evaluator, Outcome
from streams.steps.as_of import TableAsOf
from streams.steps.effective import effective_at
from streams.steps.moves import LATE, Cause, Moves, concatenate
from streams.steps.phases import phases_of

RESULTS = max(Result) + 1

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


@dataclass(frozen=True, slots=True)
class _News:
    """What some facts mean for customers, one entry each: the cause (0: nothing was applied), the fact
    that stands for it, and the latest instant among those that came on time."""

    cause: UInt8s
    row: Int64s
    latest_ms: Int64s

    @property
    def made(self) -> Bools:
        """Whether there is any news."""
        return self.cause > 0

    def take(self, rows: Int64s) -> _News:
        """Return the entries at `rows`."""
        return _News(self.cause[rows], self.row[rows], self.latest_ms[rows])


class Rounds:
    """One piece of work on one partition: some facts, some ticks, and the customers they concern.

    `rows` are indices into `facts` in log order; `slots`, `tick_of_row` (0..k, where k
    means "after the last tick") and `fold_line_ms` run parallel to them. `due_slots` are
    the customers whose deadline may come at one of the ticks; they may overlap `slots`.
    `tick_ms` is int64[k]; `clock_ms` is the partition's clock before the first of them. With
    `converts`, stale customers are evaluated at the first tick whatever their deadline, and whoever
    is what it was is not written again.
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
        converts: bool = False,
    ) -> None:
        self._converts = converts
        self._table, self._evaluator = table, evaluator
        self._facts, self._event_ids = facts, event_ids
        self._tick_ms = tick_ms
        # The clock a customer had before tick i is the time of tick i - 1.
        self._clock_before_ms = np.append(clock_ms, tick_ms)
        self.results: Counter[int] = Counter()
        """How many facts by RESULTS * kind + Result."""
        self.nanoseconds: Counter[str] = Counter()
        self.refused: list[int] = []
        """Rows whose traits go beyond what a customer may hold: the engine makes them dead letters."""
        self._moves: list[Moves] = []
        began = time.thread_time_ns()
        self._phases = phases = phases_of(
            table, facts, rows, slots, tick_of_row, fold_line_ms, due_slots, tick_ms, clock_ms
        )
        self._slot = phases.slot
        starts = phases.group_slot[phases.phase_start[:-1]]
        self._next_phase = np.searchsorted(starts, self._slot, "left")
        self._last_phase = np.searchsorted(starts, self._slot, "right")
        self._phase_tick = np.append(phases.group_tick[phases.phase_start[:-1]], len(tick_ms))
        self._copy_columns()
        self.nanoseconds["plan"] += time.thread_time_ns() - began

    def _copy_columns(self) -> None:
        """Take the customers' columns out of the table for the time of this piece of work.

        What made a customer pending is kept as the greatest cause, its event's id, and the
        latest instant of an event that came on time.
        """
        table, slot = self._table, self._slot
        self._due_ms = table.due_ms[slot]
        self._value, self._scores = table.value[slot], table.scores[slot]
        self._since_ms = table.since_ms[slot]
        self._evaluated = np.zeros(len(slot), np.bool_)
        # Facts behind the last tick only make their customers pending, once all else is done.
        self._waiting: list[tuple[Int64s, _News]] = []
        self._watched = self._phases.watched
        # Whoever was last evaluated by another definition: whatever comes first finds it changed by that.
        by = table.evaluated_by[slot]
        stale = (by > 0) & (by != self._evaluator.definition.version)
        if self._converts:
            self._due_ms[stale] = self._tick_ms[0]
        self._cause = np.where(stale, np.uint8(Cause.RULE_CHANGED), table.pending_cause[slot])
        self._latest_ms = table.pending_at_ms[slot]
        self._latest_ms[self._latest_ms == NEVER_MS] = _NO_INSTANT
        self._cause_id: list[bytes] = [b""] * len(slot)
        for i in np.flatnonzero((self._cause > 0) & ~stale).tolist():
            self._cause_id[i] = table.pending_event_id.get(int(slot[i]), b"")

    def run(self) -> Moves | None:
        """Do everything; return the changes ordered by tick, customer id and dimension, if any."""
        live = np.arange(len(self._slot))
        while len(live):
            phase = self._next_phase[live]
            left = phase < self._last_phase[live]
            self._sweep(live, np.where(left, self._phase_tick[phase], len(self._tick_ms)))
            live = live[left]
            if len(live):
                self._enter(live)
                self._next_phase[live] += 1
        self._put_columns_back()
        return self._ordered()

    def _sweep(self, who: Int64s, boundary: Int64s) -> None:
        """Evaluate customers at every tick before `boundary` (one each) at which a deadline has come."""
        while len(who):
            at = np.searchsorted(self._tick_ms, self._due_ms[who])
            ready = at < boundary
            who, at, boundary = who[ready], at[ready], boundary[ready]
            if len(who):
                self._settle(who, at, self._evaluate(who, at, self._tick_ms[at]))

    def _evaluate(self, who: Int64s, at: Int64s, now_ms: Int64s) -> Outcome:
        """Evaluate customers at `now_ms`, with the facts in sight at tick `at`."""
        began = time.thread_time_ns()
        slots = self._slot[who]
        in_sight_ms = np.where(self._watched[who], NEVER_MS, self._tick_ms[at])
        table = TableAsOf(self._table, slots, in_sight_ms)
        outcome = self._evaluator.evaluate(table, slots, now_ms)
        self.nanoseconds["evaluate"] += time.thread_time_ns() - began
        return outcome

    def _enter(self, who: Int64s) -> None:
        """Apply the next phase of each customer; evaluate it at each tick that sees new facts."""
        phases, ticks = self._phases, len(self._tick_ms)
        phase = self._next_phase[who]
        group, owner = _spread(phases.phase_start[phase], phases.phase_start[phase + 1], who)
        news = self._apply(group)
        tick = phases.group_tick[group]
        seen = np.flatnonzero(news.made & (tick < ticks))
        if len(seen):
            outcome = self._evaluate(owner[seen], tick[seen], self._tick_ms[tick[seen]])
            self._settle_in_turn(owner[seen], tick[seen], outcome, news.take(seen))
        unseen = np.flatnonzero(news.made & (tick == ticks))
        self._waiting.append((owner[unseen], news.take(unseen)))

    def _apply(self, group: Int64s) -> _News:
        """Apply the facts of these groups; return what they mean for their customers, one entry a group."""
        began = time.thread_time_ns()
        starts = self._phases.group_start
        at, place = _spread(starts[group], starts[group + 1], np.arange(len(group)))
        row = self._phases.row[at]
        result = self._table.apply(self._facts, row, self._phases.row_slot[at], self._phases.row_fold_ms[at])
        outcomes = np.bincount(self._facts.kind[row].astype(np.int64) * RESULTS + result)
        self.results.update(dict(enumerate(outcomes.tolist())))
        if (result == Result.REFUSED).any():
            self.refused += row[result == Result.REFUSED].tolist()
        applied = result == Result.APPLIED
        row, place = row[applied], place[applied]
        news = self._news(row, place, self._phases.group_tick[group[place]], len(group))
        self.nanoseconds["apply"] += time.thread_time_ns() - began
        return news

    def _news(self, row: Int64s, place: Int64s, tick: Int64s, groups: int) -> _News:
        """Let the greatest cause, then the last in the log, stand for each of `groups` groups.

        `row` are facts that were applied, `place` (0..groups - 1) and `tick` their groups' place
        and tick.
        """
        kind, occurred_ms = self._facts.kind[row], self._facts.occurred_at_ms[row]
        late = occurred_ms < self._clock_before_ms[tick] - LATE_AFTER_MS
        cause = np.where(late, _LATE_CAUSE_OF_KIND[kind], _CAUSE_OF_KIND[kind])
        money = (kind == Kind.PURCHASED) | (kind == Kind.REFUNDED)
        instant = np.where(late, _NO_INSTANT, np.where(money, occurred_ms, occurred_ms - _NO_MONEY))
        latest_ms = np.full(groups, _NO_INSTANT)
        np.maximum.at(latest_ms, place, instant)
        order = np.lexsort((row, cause, place))
        chosen_row, chosen_cause = np.zeros(groups, np.int64), np.zeros(groups, np.uint8)
        # Of several assignments to one place the last one stays: the greatest in that order.
        chosen_row[place[order]], chosen_cause[place[order]] = row[order], cause[order]
        return _News(chosen_cause, chosen_row, latest_ms)

    def _settle_in_turn(self, owner: Int64s, tick: Int64s, outcome: Outcome, news: _News) -> None:
        """Settle several evaluations of each customer in the order of their ticks.

        `owner` is sorted; between two of its ticks a customer's deadlines are swept. Of those for
        whom no evaluation changes a value, and no deadline comes in between, only the last
        counts: so a customer with facts at every tick costs no more than any other.
        """
        first = np.ones(len(owner), np.bool_)
        first[1:] = owner[1:] != owner[:-1]
        starts = np.flatnonzero(first)
        counts = np.diff(starts, append=len(owner))
        value_before, due_before_ms = np.empty_like(outcome.value), np.empty_like(outcome.due_ms)
        value_before[1:], due_before_ms[1:] = outcome.value[:-1], outcome.due_ms[:-1]
        value_before[starts], due_before_ms[starts] = self._value[owner[starts]], self._due_ms[owner[starts]]
        eventful = (outcome.value != value_before).any(axis=1)
        eventful |= np.searchsorted(self._tick_ms, due_before_ms) < tick
        busy = np.logical_or.reduceat(eventful, starts)
        quiet = (starts + counts - 1)[~busy]
        self._store(owner[quiet], outcome.take(quiet))
        turn = np.arange(len(owner)) - np.repeat(starts, counts)
        rows = np.flatnonzero(np.repeat(busy, counts))
        rows = rows[np.argsort(turn[rows], kind="stable")]
        bounds = np.searchsorted(turn[rows], np.arange(int(counts[busy].max(initial=0)) + 1))
        for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            picked = rows[start:end]
            who, at = owner[picked], tick[picked]
            self._sweep(who, at)
            self._hear(who, news.take(picked))
            self._settle(who, at, outcome.take(picked))

    def _hear(self, who: Int64s, news: _News) -> None:
        """Add news to what has made these customers pending."""
        self._latest_ms[who] = np.maximum(self._latest_ms[who], news.latest_ms)
        stronger = news.cause >= self._cause[who]
        who, cause, row = who[stronger], news.cause[stronger], news.row[stronger]
        self._cause[who] = cause
        for i, fact in zip(who.tolist(), row.tolist(), strict=True):
            self._cause_id[i] = self._event_ids[fact]

    def _settle(self, who: Int64s, at: Int64s, outcome: Outcome) -> None:
        """Take an evaluation of each customer for what it now is, and record whose values changed."""
        changed = outcome.value != self._value[who]
        hit = np.flatnonzero(changed.any(axis=1))
        if len(hit):
            self._record(who[hit], at[hit], outcome.take(hit), changed[hit])
        self._store(who, outcome)

    def _store(self, who: Int64s, outcome: Outcome) -> None:
        """Let an evaluation stand for what each customer is; nothing is pending of it any more."""
        self._value[who], self._scores[who] = outcome.value, outcome.scores
        self._due_ms[who] = outcome.due_ms
        self._cause[who], self._latest_ms[who] = Cause.TIME_ELAPSED, _NO_INSTANT
        self._evaluated[who] = True

    def _record(self, who: Int64s, at: Int64s, outcome: Outcome, changed: Bools) -> None:
        """Append the changes of customers, at least one each, and move their `since`."""
        now_ms, cause = self._tick_ms[at], self._cause[who]
        by_time = cause == Cause.TIME_ELAPSED
        latest_ms = self._latest_ms[who]
        latest_ms = np.where(latest_ms < 0, latest_ms + _NO_MONEY, latest_ms)
        reported_ms = np.where(by_time, self._due_ms[who], np.where(_LATE[cause], now_ms, latest_ms))
        start_ms = np.where(by_time, reported_ms, np.maximum(reported_ms, self._clock_before_ms[at]))
        effective_ms = effective_at(
            lambda rows, at_ms: self._evaluate(who[rows], at[rows], at_ms),
            start_ms=start_ms,
            reported_ms=np.minimum(reported_ms, now_ms),
            now_ms=now_ms,
            dimensions=changed.shape[1],
        )
        known = self._value[who] >= 0
        since_ms = np.where(known, self._since_ms[who], NEVER_MS)
        effective_ms = np.where(known, np.maximum(effective_ms, self._since_ms[who]), effective_ms)
        ids = [
            b"" if timed else self._cause_id[i]
            for i, timed in zip(who.tolist(), by_time.tolist(), strict=True)
        ]
        accounts = [self._table.account_id(slot) for slot in self._slot[who].tolist()]
        # One move per changed value: the customers' rows once for each dimension that changed.
        row, dimension = np.nonzero(changed)
        mover = who[row]
        self._moves.append(
            Moves(
                slot=self._slot[mover],
                dimension=dimension,
                before=self._value[mover, dimension],
                after=outcome.value[row, dimension],
                tick=at[row],
                cause=cause[row],
                event_id=[ids[i] for i in row.tolist()],
                account_id=[accounts[i] for i in row.tolist()],
                effective_at_ms=effective_ms[row, dimension],
                previous_since_ms=since_ms[row, dimension],
                expires_at_ms=outcome.due_ms[row],
                scores_before=self._scores[mover],
                scores_after=outcome.scores[row],
                last_purchase_ms=outcome.last_purchase_ms[row],
                orders=outcome.orders[row],
                net_minor=outcome.net_minor[row],
            )
        )
        self._since_ms[mover, dimension] = effective_ms[row, dimension]

    def _put_columns_back(self) -> None:
        """Store what the evaluated customers are, and what made pending whom no tick has seen."""
        table = self._table
        evaluated = np.flatnonzero(self._evaluated)
        slot = self._slot[evaluated]
        table.mark_dirty(slot if not self._converts else slot[self._differs(evaluated, slot)])
        table.value[slot], table.scores[slot] = self._value[evaluated], self._scores[evaluated]
        table.since_ms[slot], table.due_ms[slot] = self._since_ms[evaluated], self._due_ms[evaluated]
        table.evaluated_by[slot] = self._evaluator.definition.version
        for i in np.flatnonzero(table.pending_cause[self._slot]).tolist():
            table.pending_event_id.pop(int(self._slot[i]), None)
        for who, news in self._waiting:
            self._hear(who, news)
            table.due_ms[self._slot[who]] = PENDING_MS
        none = self._latest_ms == _NO_INSTANT
        table.pending_cause[self._slot] = self._cause
        table.pending_at_ms[self._slot] = np.where(none, NEVER_MS, self._latest_ms)
        for i in np.flatnonzero(self._cause).tolist():
            table.pending_event_id[int(self._slot[i])] = self._cause_id[i]

    def _differs(self, evaluated: Int64s, slot: Int64s) -> Bools:
        """Return bool[n]: what the row of a customer says is not what it is."""
        table = self._table
        differs: Bools = (table.value[slot] != self._value[evaluated]).any(axis=1)
        differs |= (table.scores[slot] != self._scores[evaluated]).any(axis=1)
        differs |= table.due_ms[slot] != self._due_ms[evaluated]
        # Its pending cause goes with the evaluation.
        differs |= table.pending_cause[slot] > 0
        return differs

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


def _spread(starts: Int64s, ends: Int64s, owners: Int64s) -> tuple[Int64s, Int64s]:
    """Return every index of the ranges [start, end), in order, and the owner of each."""
    counts = ends - starts
    last = np.cumsum(counts)
    within = np.arange(int(last[-1]) if len(last) else 0)
    return within + np.repeat(starts - (last - counts), counts), np.repeat(owners, counts)
