"""The engine of one partition: chunks in, whole steps applied, one bounded transaction at a time out."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from streams.customers.facts import Int64s
from streams.customers.state import ANY_FLIPS
from streams.customers.table import Result
from streams.kafka.seam import Chunk
from streams.steps import counting
from streams.steps.as_of import TableAsOf
from streams.steps.epochs import rebuild_id
from streams.steps.erasing import Erasing
from streams.steps.intake import Mode, beyond_bounds, dead_letter, read_chunk
from streams.steps.moves import Cause, Moves
from streams.steps.phases import are_watched
from streams.steps.plan import Piece, next_piece
from streams.steps.resending import members
from streams.steps.room import smaller
from streams.steps.rounds import RESULTS, Rounds
from streams.steps.ticks import Ticks, sweep_ticks
from streams.steps.work import ERASED, Work

_LESS_MIN, _LESS_MAX = 1 / 32, 0.8
"""What is tried of a piece that does not fit: as much as would, if its bytes were spread evenly."""


class PartitionEngine(Erasing):
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
        """Decode and validate a chunk; nothing but empty slots of new customers changes."""
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

    def _due(self, work: Work) -> Int64s:
        """Whose deadline comes by the last tick before the next erasure; looked up once for each piece."""
        times = work.ticks.time_ms[: work.tick_limit]
        return self.table.customers_due(int(times[-1])) if work.tick < len(times) else times[:0]

    def _next_piece(self, work: Work, due_slots: Int64s) -> Piece | None:
        """The next part of the work that fits into the pending transaction; None when it must wait."""
        fresh = not self.has_pending()
        due_ms = self.table.due_ms.take(due_slots)
        room = self.bounds.rows_max - self.table.dirty_count
        piece = next_piece(work, due_slots, due_ms, room=room, fresh=fresh)
        bytes_left = self.bounds.bytes_max - self._pending_bytes()
        while (
            piece is not None
            and (size := self._room.piece_bytes(work, piece, due_slots, due_ms, self.clock_ms, bytes_left))
            > bytes_left
        ):
            # Behind pending work, all that is left of a chunk fits or it waits: see next_piece.
            share = min(_LESS_MAX, max(_LESS_MIN, 0.9 * bytes_left / size))
            less = smaller(work, piece, share) if fresh else None
            if less is None:
                return piece if fresh else None
            piece = less
        return piece

    def _apply(self, work: Work, piece: Piece, due_slots: Int64s) -> None:
        """Run one piece of a chunk: its facts, its ticks, and who of `due_slots` is due at them."""
        rows = np.arange(work.row, piece.row_end)
        known = work.slots[rows] >= 0
        # Of the strangers, those that are no dead letters are erased or too old: they change nothing,
        # so they make no customer either.
        strangers = rows[~known]
        if len(erased := strangers[work.slots[strangers] == ERASED]):
            counting.count_dropped(self._tally, self.counts, work.facts.kind[erased], "erased")
        too_old = strangers[work.facts.occurred_at_ms[strangers] < work.fold_line_ms[strangers]]
        if len(too_old):
            counting.count_dropped(self._tally, self.counts, work.facts.kind[too_old], "too_old")
            self._refuse_before(int(work.fold_line_ms[too_old].max()))
        rows = rows[known]
        if self.quiet:
            self._record(work, rows, piece.row_end)
            return
        tick_ms = work.ticks.time_ms[work.tick : piece.tick_end]
        whole = True
        if piece.cut_sweep:
            tick_ms = work.ticks.time_ms[work.tick : work.tick + 1]
        if not len(tick_ms):
            due_slots = due_slots[:0]
        elif piece.tick_end < len(work.ticks):
            due_slots = due_slots[self.table.due_ms[due_slots] <= tick_ms[-1]]
        if piece.cut_sweep:
            due_slots, whole = self._first_by_id(due_slots, work)
            self._sweeping_ms = int(tick_ms[0])
            piece = Piece(piece.row_end, piece.tick_end + whole)
        tick_of_row = work.tick_of_row[rows] - work.tick
        self._run(work, rows, due_slots, tick_ms, tick_of_row, moves_clock=whole)
        work.row, work.tick = piece.row_end, piece.tick_end

    def _record(self, work: Work, rows: Int64s, row_end: int) -> None:
        """Let facts be known, and the clock be where it was behind them; nobody is evaluated, nobody told.

        What makes customers pending is not kept: that is what made them so when they were told last.
        """
        assert work.passed is not None, "hushed when it was begun"
        results = self.table.apply(work.facts, rows, work.slots[rows], work.fold_line_ms[rows])
        if (results == Result.TOO_OLD).any():
            self._refuse_before(int(work.fold_line_ms[rows].max()))
        work.row = row_end
        passed = int(np.searchsorted(work.passed.row, row_end, "right"))
        if passed:
            self.clock_ms = max(self.clock_ms, int(work.passed.time_ms[passed - 1]))
            self.fold_line_ms = max(self.fold_line_ms, self.clock_ms - self._keep_ms)

    def _first_by_id(self, due_slots: Int64s, work: Work) -> tuple[Int64s, bool]:
        """The first customers by id that fit, and whether these are all: an order no restart can change."""
        ids = self.table.slots.ids_of(due_slots)
        due_slots = due_slots[np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)]
        room = self._fitting(due_slots, work)
        return due_slots[:room], len(due_slots) <= room

    def _fitting(self, slots: Int64s, work: Work) -> int:
        """How many of the first of some customers can be evaluated once within this transaction."""
        return self._fits(self._room.sweep_bytes(slots, work, self.clock_ms))

    def _converted(self, slots: Int64s, work: Work) -> int:
        """How many of the first of some customers can be converted within this transaction.

        By what an evaluation says: a bound on what another definition may change is that everything does.
        """
        table, now_ms = self.table, np.full(len(slots), self.clock_ms)
        outcome = self._evaluator.evaluate(TableAsOf(table, slots, now_ms), slots, now_ms)
        changes = np.count_nonzero(outcome.value != table.held.column(0, slots), axis=1)
        # What is delayed comes to more than the evaluation says, and so may what is dated ahead.
        changes += 2 * len(self._evaluator.delays)
        changes[are_watched(table, slots, now_ms[:1])] = len(self._evaluator.dimensions)
        return self._fits(self._room.changed_bytes(slots, work, changes))

    def _fits(self, sizes: Int64s) -> int:
        """How many of the first of these sizes fit into this transaction together, at least one."""
        taken = np.cumsum(sizes)
        fitting = int(np.searchsorted(taken, self.bounds.bytes_max - self._pending_bytes(), "right"))
        return max(1, min(fitting, self.bounds.rows_max - self.table.dirty_count, len(sizes)))

    def _run(
        self,
        work: Work,
        rows: Int64s,
        due_slots: Int64s,
        tick_ms: Int64s,
        tick_of_row: Int64s,
        *,
        moves_clock: bool,
        converts: bool = False,
    ) -> None:
        """Run rounds, number the changes, move the clock: not before the last customer of a cut sweep."""
        rounds = Rounds(
            self.table,
            self._evaluator,
            facts=work.facts,
            event_ids=work.event_ids,
            rows=rows,
            slots=work.slots[rows],
            tick_of_row=tick_of_row,
            fold_line_ms=work.fold_line_ms[rows],
            due_slots=due_slots,
            tick_ms=tick_ms,
            clock_ms=self.clock_ms,
            edits=self._conversion.edits,
            converts=converts,
            rewrites=self._rebuilt is not None,
        )
        moves = rounds.run()
        unseen = rows[tick_of_row == len(tick_ms)]
        self._flips.wait(work.facts, unseen, work.slots[unseen])
        if any(count and code % RESULTS == Result.TOO_OLD for code, count in rounds.results.items()):
            self._refuse_before(int(work.fold_line_ms[rows].max()))
        if len(tick_ms) and moves_clock:
            self.clock_ms = max(self.clock_ms, int(tick_ms[-1]))
            self.fold_line_ms = max(self.fold_line_ms, self.clock_ms - self._keep_ms)
            self._conversion.moved(self.table, self.clock_ms)
        if moves is not None:
            began = time.thread_time_ns()
            self._tell(moves)
            self._spend("changes", began)
        for row in sorted(rounds.refused):
            record, kind = work.chunk.records[int(work.facts.position[row])], int(work.facts.kind[row])
            self._add_dead(dead_letter(record, beyond_bounds(kind)))
        counting.count_facts(self._tally, self.counts, rounds.results)
        for spent in (self._nanoseconds, self._tally.nanoseconds):
            spent.update(rounds.nanoseconds)

    def _tell(self, moves: Moves) -> None:
        """Number, encode and count moves; those a rebuild made count as reconcile."""
        rebuild = None if self._rebuilt is None else rebuild_id(self.epoch)
        self.seq = self._writer.add(
            self.table, moves, epoch=self.epoch, last_seq=self.seq, rebuild_id=rebuild
        )
        by_rebuild = (moves.cause == Cause.RULE_CHANGED) & (rebuild is not None)
        counted, live = self._evaluator.counted[moves.dimension], self.mode == "wall"
        for mine, origin in ((counted & ~by_rebuild, "live"), (counted & by_rebuild, "reconcile")):
            theirs = moves.take(np.flatnonzero(mine))
            counting.count_moves(self._tally, theirs, self._evaluator.dimensions, live=live, origin=origin)

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
        """Whether `convert` has something to do."""
        return self.half_swept or self.changing or self._resending.has_work

    @property
    def changing(self) -> bool:
        """Whether a version is to be taken on, or customers are to be converted to it."""
        return self._conversion.has_work(self.table)

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
        slots = conversion.slice(self.table, lambda slots: self._converted(slots, work))
        if len(slots):
            none = work.slots
            self._run(work, none, slots, at_clock.time_ms, none, moves_clock=True, converts=True)
            self._moved = True
        elif conversion.end(self.table):
            if self._rebuilt is not None:
                self._ended, self._rebuilt = self._rebuilt.changes, None
            self._use(conversion.evaluator)
            self._measure()
            self._moved = True
        return True

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
