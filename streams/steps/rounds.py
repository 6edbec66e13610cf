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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from streams.customers.facts import NEVER_MS, Bools, Facts, Int64s, Kind
from streams.customers.table import CustomerTable, Result
from streams.segments.evaluate import Evaluator, Outcome
from streams.segments.settling import begin_afresh, forget_stages
from streams.segments.settling import follow as follow_rules
from streams.segments.view import FAR_MS
from streams.steps.as_of import TableAsOf
from streams.steps.concerned import Concerned
from streams.steps.dating import Changed, follow, joined, moves_of, raised
from streams.steps.edits import Edits
from streams.steps.effective import effective_at
from streams.steps.moves import Cause, Moves, by_customer
from streams.steps.news import LATE_CAUSES, NO_MONEY, News, news_of
from streams.steps.phases import phases_of

RESULTS = max(Result) + 1
_OUTCOMES = (max(Kind) + 1) * RESULTS

_NOTHING_SETTLED: Mapping[int, Int64s] = MappingProxyType({})


class Rounds(Concerned):
    """One piece of work on one partition: some facts, some ticks, and the customers they concern.

    `rows` are indices into `facts` in log order; `slots`, `tick_of_row` (0..k, where k
    means "after the last tick") and `fold_line_ms` run parallel to them. `due_slots` are
    the customers whose deadline may come at one of the ticks; they may overlap `slots`.
    `tick_ms` is int64[k]; `clock_ms` is the partition's clock before the first of them. To convert,
    `converted` is what all the customers, ascending, are at the first tick, whatever their deadlines:
    there are no facts then, and whoever is what it was is not written again, unless with `rewrites`.
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
        edits: Edits,
        converted: Outcome | None = None,
        rewrites: bool = False,
    ) -> None:
        writes_all = converted is None or rewrites
        super().__init__(table, evaluator, event_ids, edits, writes_all=writes_all)
        self._facts, self._converted = facts, converted
        self._tick_ms = tick_ms
        # The clock a customer had before tick i is the time of tick i - 1.
        self._clock_before_ms = np.append(clock_ms, tick_ms)
        self._outcomes = np.zeros(_OUTCOMES, np.int64)
        self.nanoseconds: Counter[str] = Counter()
        self.refused: list[int] = []
        """Rows that go beyond what is kept of a customer: the engine makes them dead letters."""
        self._moves: list[Moves] = []
        began = time.thread_time_ns()
        self._phases = phases = phases_of(
            table, facts, rows, slots, tick_of_row, fold_line_ms, due_slots, tick_ms, clock_ms,
            reads_traits=evaluator.reads_traits, reads_entities=evaluator.reads_entities,
        )  # fmt: skip
        starts = phases.group_slot[phases.phase_start[:-1]]
        self._next_phase = np.searchsorted(starts, phases.slot, "left")
        self._last_phase = np.searchsorted(starts, phases.slot, "right")
        self._phase_tick = np.append(phases.group_tick[phases.phase_start[:-1]], len(tick_ms))
        self._copy_columns(phases.slot)
        self._watched = phases.watched
        self._any_watched = bool(self._watched.any())
        self._undated: list[Changed] = []
        self.nanoseconds["plan"] += time.thread_time_ns() - began

    @property
    def results(self) -> dict[int, int]:
        """How many facts by RESULTS * kind + Result."""
        return dict(enumerate(self._outcomes.tolist()))

    def run(self) -> Moves | None:
        """Do everything; return the changes ordered by tick, customer id and dimension, if any."""
        everybody = live = np.arange(len(self._slot))
        if self._converted is not None:
            self._settle(everybody, np.zeros_like(everybody), self._converted)
        while True:
            left = self._next_phase[live] < self._last_phase[live]
            idle, live = live[~left], live[left]
            if not len(live):
                break
            self._sweep(live, self._phase_tick[self._next_phase[live]])
            # Dating looks at the table as it was when the changes were made.
            self._date()
            self._enter(live, idle)
            self._next_phase[live] += 1
        self._sweep(everybody, np.full(len(everybody), len(self._tick_ms)))
        self._date()
        self._put_columns_back()
        return by_customer(self._moves, self._table.slots.ids_of) if self._moves else None

    def _sweep(self, who: Int64s, boundary: Int64s) -> None:
        """Evaluate customers at every tick before `boundary` (one each) at which a deadline has come."""
        while len(who):
            at = self._tick_ms.searchsorted(self._due_ms[who])
            ready = (at < boundary).nonzero()[0]
            if not len(ready):
                break
            who, at, boundary = who[ready], at[ready], boundary[ready]
            self._settle(who, at, self._evaluate(who, at, self._tick_ms[at]))

    def _evaluate(self, who: Int64s, at: Int64s, now_ms: Int64s) -> Outcome:
        """Evaluate customers at `now_ms`, with the facts in sight at tick `at`."""
        began = time.thread_time_ns()
        slots = self._slot[who]
        in_sight_ms = self._tick_ms[at]
        if self._any_watched:
            in_sight_ms[self._watched[who]] = NEVER_MS
        table = TableAsOf(self._table, slots, in_sight_ms)
        outcome = self._evaluator.evaluate(table, slots, now_ms)
        self.nanoseconds["evaluate"] += time.thread_time_ns() - began
        return outcome

    def _enter(self, who: Int64s, idle: Int64s) -> None:
        """Apply the next phase of each customer; evaluate it at each tick that sees new facts.

        In the same evaluation those of `idle`, who have no phase left, meet their next deadline.
        """
        phases, ticks = self._phases, len(self._tick_ms)
        phase = self._next_phase[who]
        group, owner = _spread(phases.phase_start[phase], phases.phase_start[phase + 1], who)
        news = self._apply(group)
        tick = phases.group_tick[group]
        seen = (news.made & (tick < ticks)).nonzero()[0]
        due_at = self._tick_ms.searchsorted(self._due_ms[idle])
        ready = (due_at < ticks).nonzero()[0]
        if len(seen) + len(ready):
            owners, at = np.append(owner[seen], idle[ready]), np.append(tick[seen], due_at[ready])
            outcome = self._evaluate(owners, at, self._tick_ms[at])
            if len(ready):
                self._settle(owners[len(seen) :], at[len(seen) :], outcome.part(len(seen), len(owners)))
            if len(seen):
                part = outcome.part(0, len(seen))
                self._settle_in_turn(owners[: len(seen)], at[: len(seen)], part, news.take(seen))
        unseen = (news.made & (tick == ticks)).nonzero()[0]
        if len(unseen):
            self._waiting.append((owner[unseen], news.take(unseen)))

    def _apply(self, group: Int64s) -> News:
        """Apply the facts of these groups; return what they mean for their customers, one entry a group."""
        began = time.thread_time_ns()
        starts = self._phases.group_start
        at, place = _spread(starts[group], starts[group + 1], np.arange(len(group)))
        row = self._phases.row[at]
        result = self._table.apply(self._facts, row, self._phases.row_slot[at], self._phases.row_fold_ms[at])
        self._outcomes += np.bincount(self._facts.kind[row] * np.int64(RESULTS) + result, minlength=_OUTCOMES)
        applied = result == Result.APPLIED
        if np.count_nonzero(applied) < len(row):
            self.refused += row[result == Result.REFUSED].tolist()
            row, place = row[applied], place[applied]
        clock_ms = self._clock_before_ms[self._phases.group_tick[group[place]]]
        news = news_of(self._facts, row, place, clock_ms, len(group))
        self.nanoseconds["apply"] += time.thread_time_ns() - began
        return news

    def _settle_in_turn(self, owner: Int64s, tick: Int64s, outcome: Outcome, news: News) -> None:
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
        if self._any_stale:
            eventful |= self._stale[owner]
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

    def _settle(self, who: Int64s, at: Int64s, outcome: Outcome) -> None:
        """Take an evaluation of each customer for what it now is, and note whose values changed."""
        settled_ms: Mapping[int, Int64s] = _NOTHING_SETTLED
        delays, held = self._evaluator.delays, self._value[who]
        if delays:
            outcome, settled_ms = self._delayed(who, at, outcome)
        changed = outcome.value != held
        hit = changed.any(axis=1).nonzero()[0]
        if len(hit):
            self._moved[who[hit]] = True
            self._note(who[hit], at[hit], outcome.take(hit), changed[hit])
            if delays:
                # What a membership does next depends on since when its rule holds: that cannot wait.
                self._date({dimension: ms[hit] for dimension, ms in settled_ms.items()})
        if delays and self._afresh is not None:
            forget_stages(
                delays, self._afresh[who], held, outcome.value, self._tick_ms[at], self._since_ms, who
            )
        self._store(who, outcome)

    def _delayed(self, who: Int64s, at: Int64s, outcome: Outcome) -> tuple[Outcome, dict[int, Int64s]]:
        """Turn what rules say into memberships that follow with a delay; return since when each holds."""
        now_ms, value, held = self._tick_ms[at], outcome.value, self._value[who]
        rules = [delay.rule for delay in self._evaluator.delays]
        turned = (value[:, rules] != held[:, rules]).any(axis=1).nonzero()[0]
        before_ms = self._since_ms[who]
        since_ms = before_ms.copy()
        if len(turned):
            some, its_at = who[turned], at[turned]
            start_ms, reported_ms = self._instants(some, its_at)
            effective_ms = self._effective_ms(some, its_at, start_ms, reported_ms, value.shape[1])
            raised(effective_ms, held[turned], before_ms[turned])
            np.copyto(effective_ms, before_ms[turned], where=value[turned] == held[turned])
            since_ms[turned] = effective_ms
        stages = held, before_ms
        if self._afresh is not None:
            stages = begin_afresh(
                self._evaluator.delays, self._afresh[who], stages, (value, since_ms), now_ms
            )
        value, instants, next_ms = follow_rules(self._evaluator.delays, stages, (value, since_ms), now_ms)
        due_ms = np.minimum(outcome.due_ms, np.where(next_ms < FAR_MS, next_ms, NEVER_MS))
        if not (due_ms > now_ms).all():
            raise AssertionError("a membership's delay is over and the membership has not followed")
        return replace(outcome, value=value, due_ms=due_ms), instants

    def _note(self, who: Int64s, at: Int64s, outcome: Outcome, changed: Bools) -> None:
        """Note that each of these customers changed, and from when on the change may be true."""
        start_ms, reported_ms = self._instants(who, at)
        self._undated.append(
            Changed(
                who=who,
                at=at,
                outcome=outcome,
                changed=changed,
                value=self._value[who],
                scores=self._scores[who],
                cause=self._cause[who],
                cause_row=self._cause_row[who],
                start_ms=start_ms,
                reported_ms=reported_ms,
            )
        )

    def _instants(self, who: Int64s, at: Int64s) -> tuple[Int64s, Int64s]:
        """Return from when on a change of each customer may be true, and when it is if nothing made it so."""
        now_ms, cause = self._tick_ms[at], self._cause[who]
        by_time = cause == Cause.TIME_ELAPSED
        latest_ms = self._latest_ms[who]
        latest_ms = np.where(latest_ms < 0, latest_ms + NO_MONEY, latest_ms)
        reported_ms = np.where(by_time, self._due_ms[who], np.where(LATE_CAUSES[cause], now_ms, latest_ms))
        start_ms = np.where(by_time, reported_ms, np.maximum(reported_ms, self._clock_before_ms[at]))
        return start_ms, np.minimum(reported_ms, now_ms)

    def _effective_ms(
        self, who: Int64s, at: Int64s, start_ms: Int64s, reported_ms: Int64s, dimensions: int
    ) -> Int64s:
        """Return int64[n, dimensions]: since when what rules say has been so."""
        effective_ms = effective_at(
            lambda rows, at_ms: self._evaluate(who[rows], at[rows], at_ms),
            start_ms=start_ms,
            reported_ms=reported_ms,
            now_ms=self._tick_ms[at],
            dimensions=dimensions,
        )
        if self._edits.floor_ms is not None:
            np.maximum(effective_ms, self._edits.floor_ms, out=effective_ms)
        return effective_ms

    def _date(self, settled_ms: Mapping[int, Int64s] = _NOTHING_SETTLED) -> None:
        """Find out since when the changes noted are true; make them moves, and move their `since`.

        All of them at once, for that takes an evaluation; but one customer's changes follow each
        other, and no change is true before the one before it. `settled_ms` are the instants of
        memberships that follow their rules with a delay.
        """
        if not self._undated:
            return
        sizes = [len(each.who) for each in self._undated]
        noted, self._undated = joined(self._undated), []
        who, at, changed = noted.who, noted.at, noted.changed
        effective_ms = self._effective_ms(who, at, noted.start_ms, noted.reported_ms, changed.shape[1])
        for dimension, instants in settled_ms.items():
            effective_ms[:, dimension] = instants
        since_ms = follow(self._since_ms, noted, sizes, effective_ms)
        ids = [
            self._event_id(i, row) if cause else b""
            for i, row, cause in zip(
                who.tolist(), noted.cause_row.tolist(), noted.cause.tolist(), strict=True
            )
        ]
        slots = self._slot[who].tolist()
        accounts: list[str | None] = [None] * len(slots)
        if self._table.profiles:
            accounts = [self._table.account_id(slot) for slot in slots]
        self._moves.append(moves_of(noted, self._slot[who], ids, accounts, effective_ms, since_ms))


def _spread(starts: Int64s, ends: Int64s, owners: Int64s) -> tuple[Int64s, Int64s]:
    """Return every index of the ranges [start, end), in order, and the owner of each."""
    counts = ends - starts
    last = np.cumsum(counts)
    within = np.arange(int(last[-1]) if len(last) else 0)
    return within + np.repeat(starts - (last - counts), counts), np.repeat(owners, counts)
