"""The engine of one partition: chunks in, whole steps applied, one bounded transaction at a time out."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from streams.customers.facts import NEVER_MS, Int64s
from streams.customers.state import ANY_FLIPS
from streams.kafka.seam import Chunk
from streams.segments.evaluate import Outcome
from streams.steps import counting
from streams.steps.as_of import TableAsOf
from streams.steps.intake import Mode, read_chunk
from streams.steps.phases import are_watched
from streams.steps.piecework import Piecework
from streams.steps.resending import members
from streams.steps.ticks import Ticks, sweep_ticks
from streams.steps.work import Work


class PartitionEngine(Piecework):
    """The state of one partition and what a step does to it: pure CPU, no I/O, never awaits.

    Any error leaves the state undefined: the owner drops it and restores. `app` names the
    pipeline in change ids; `mode` says whose clock drives deadlines (DESIGN: event time with
    a replayer's Ticks, or append time and then the wall clock); for the others see PartitionState.
    """

    def __init__(self, *, mode: Mode, **state: Any) -> None:
        self.mode = mode
        super().__init__(**state)

    # -- a chunk ---------------------------------------------------------------------------

    def set_aside(self, offset: int, error: str) -> None:
        """Make the record at `offset`, not yet begun, a dead letter (ApplyFailed) instead of applying it."""
        self._aside[offset] = error

    def begin(self, chunk: Chunk) -> Work:
        """Decode and validate a chunk; nothing but empty slots of new customers changes.

        On the wall clock a sweep that lost its worker is finished before (`convert`): a record may have been
        appended before its tick, by another broker's clock. A replay's Tick comes again by itself.
        """
        assert self.mode == "event" or not self.half_swept, "a half sweep is finished first"
        began = time.thread_time_ns()
        work = read_chunk(
            chunk,
            partition=self.partition,
            partitions=self.partitions,
            definition=self.definition,
            slots=self.table.slots,
            mode=self.mode,
            clock_ms=self.clock_ms,
            fold_line_ms=self.fold_line_ms,
            keep_ms=self._keep_ms,
            aside=self._aside,
            series=self._series,
            forgetting=self.table,
        )
        if self.quiet:
            work.hush()
        elif self.mode == "wall":
            self._tally.age_ms.append(self._wall.now_ms() - work.facts.occurred_at_ms)
        self._spend("decode", began)
        return work

    def advance(self, work: Work) -> bool:
        """Apply one bounded piece; False when pending work must be taken before there is room."""
        if work.done:
            return True
        if work.erases_next:
            if not self._erase(work):
                return False
        elif (piece := self._next_piece(work, due_slots := self._due(work))) is not None:
            self._apply(work, piece, due_slots)
        else:
            return False
        done = work.records_done()
        while work.dead < len(work.dead_letters) and work.dead_records[work.dead] < done:
            self._add_dead(work.dead_letters[work.dead])
            self.counts["dead"] += 1
            work.dead += 1
        records = work.chunk.records
        self._events += done - work.records
        work.records = done
        # In append time the last tick comes behind the last record, and may come a transaction later.
        if done == len(records) and work.tick == len(work.ticks):
            work.done = True
            self._applied = work.chunk.end_offset
            for offset in [o for o in self._aside if o < self._applied]:
                del self._aside[offset]
            if len(work.erasures):
                # Whoever is erased is in no chunk that is still held either.
                self.table.forget_chunk()
                self._room.forget_chunk()
        elif done:
            self._applied = records[done - 1].offset + 1
        return True

    # -- deadlines of an idle partition ----------------------------------------------------

    def sweep(self, now_ms: int) -> bool:
        """Evaluate deadlines up to `now_ms`, each at the minute after it; False when cut by the bound.

        Then take, and call again with the same time: who is done is no longer due.
        """
        if now_ms < self.clock_ms:
            return True
        due_slots = self.table.customers_due(now_ms)
        if not len(due_slots):
            self.clock_ms = now_ms
            return True
        # Nothing can happen before the first deadline, however long ago the clock last moved.
        first_due_ms = int(self.table.due_ms[due_slots].min())
        from_ms = max(self.clock_ms, first_due_ms - 1) or now_ms
        work = Work.of_ticks(sweep_ticks(from_ms, now_ms))
        piece = self._next_piece(work, due_slots)
        if piece is None:
            return False
        self._apply(work, piece, due_slots)
        return work.tick == len(work.ticks)

    # -- versions --------------------------------------------------------------------------

    @property
    def converting(self) -> bool:
        """Whether `convert` has something to do now: not while somebody is erased in part."""
        return self.half_swept or (not self._erasing and (self.changing or self._resends))

    @property
    def changing(self) -> bool:
        """Whether a version is to be taken on, or customers are to be converted to it, and it is time to."""
        wanted = self._conversion.wanted
        asked_ms = self._asked_ms("version", wanted, self._versions.applied_at_ms(wanted))
        return self.clock_ms >= asked_ms and self._conversion.has_work(self.table)

    @property
    def _resends(self) -> bool:
        """Whether members are to be sent again, with figures that are not of long ago."""
        resending = self._resending
        return resending.has_work and self.clock_ms >= self._asked_ms("resend", resending.wanted)

    @property
    def refusal(self) -> str | None:
        """Why a newer version is not taken on."""
        return self._conversion.refusal

    @property
    def unconverted(self) -> int:
        """Customers whose values are still those of an earlier version."""
        return self._conversion.stale_count(self.table)

    def convert(self) -> bool:
        """Convert one slice of customers to the newest version, at the clock; False when it must wait.

        When there is none, members that were asked for are sent again, a slice of them. Before either, a
        sweep that was cut and lost its worker is finished: nobody is evaluated at an instant before the
        one it was evaluated at last.
        """
        if self.has_pending():
            return False
        if self.half_swept:
            self._sweep_on()
            return True
        conversion = self._conversion
        at_clock = _one_tick(self.clock_ms)
        work = Work.of_ticks(at_clock)
        if not self.changing:
            if self._resends:
                self._resend(work)
            return True
        if len(self._untold):
            # Nobody evaluated them yet, so nothing else would write what makes them pending.
            fitting = self._fitting(self._untold, work)
            self.table.mark_dirty(self._untold[:fitting])
            self._untold = self._untold[fitting:]
            return True
        if conversion.take_on(self.table, self.clock_ms, self.fold_line_ms, self.complete_since_ms):
            self.table.pending_flips[:] = ANY_FLIPS
            self._take_on()
        taken = conversion.slice(self.table, lambda slots: self._judge(slots, work))
        if taken is not None:
            slots, outcome = taken
            none, by_slot = work.slots, np.argsort(slots)
            self._run(
                work, none, slots, at_clock.time_ms, none, moves_clock=True, converted=outcome.take(by_slot)
            )
            self._moved = True
        elif conversion.end(self.table):
            if self._rebuilt is not None:
                self._ended, self._rebuilt = self._rebuilt.changes, None
            self._use(conversion.evaluator)
            self._measure()
            self._moved = True
        return True

    def _judge(self, slots: Int64s, work: Work) -> tuple[int, Outcome]:
        """Evaluate some customers at the clock; how many of the first can be converted in this transaction.

        By what the evaluation says: a bound on what another definition may change is that everything does.
        """
        began = time.thread_time_ns()
        table, now_ms = self.table, np.full(len(slots), self.clock_ms)
        watched = are_watched(table, slots, now_ms[:1])
        in_sight_ms = np.where(watched, NEVER_MS, now_ms)
        outcome = self._evaluator.evaluate(TableAsOf(table, slots, in_sight_ms), slots, now_ms)
        self._spend("evaluate", began)
        changes = np.count_nonzero(outcome.value != table.held.column(0, slots), axis=1)
        # What is delayed comes to more than the evaluation says, and so may what is dated ahead.
        changes += 2 * len(self._evaluator.delays)
        changes[watched] = len(self._evaluator.dimensions)
        return self._fits(self._room.changed_bytes(slots, work, changes)), outcome

    def _sweep_on(self) -> None:
        """Evaluate more of those a cut sweep left out, at its tick. Its record comes again, and finds nobody.

        Every fact from before the tick was applied before any of it was swept.
        """
        work = Work.of_ticks(_one_tick(self._sweeping_ms))
        due_slots = self._due(work)
        piece = self._next_piece(work, due_slots)
        assert piece is not None, "nothing is pending, so there is room"
        self._apply(work, piece, due_slots)
        self._moved = True

    def _resend(self, work: Work) -> None:
        """Send a slice of all members again."""
        slots = self._resending.slice(self.table, lambda slots: self._fitting(slots, work))
        self._moved = True
        moves = members(self.table, self._evaluator, slots, self.clock_ms)
        if moves is not None:
            run_id = self._resending.run_id
            self.seq = self._writer.add(self.table, moves, epoch=self.epoch, last_seq=self.seq, run_id=run_id)
            counting.count_moves(
                self._tally, moves, self._evaluator.dimensions, live=False, origin="reconcile"
            )


def _one_tick(now_ms: int) -> Ticks:
    """Return a tick without records."""
    none = np.zeros(1, np.int64)
    return Ticks(none, none + now_ms, none)
