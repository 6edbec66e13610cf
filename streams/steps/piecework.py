"""Work applied piece by piece: as much at a time as one transaction has room for."""

from __future__ import annotations

import time

import numpy as np

from streams.customers.facts import Int64s
from streams.customers.table import Result
from streams.segments.evaluate import Outcome
from streams.steps import counting
from streams.steps.epochs import rebuild_id
from streams.steps.erasing import Erasing
from streams.steps.intake import beyond_bounds, dead_letter
from streams.steps.moves import Cause, Moves
from streams.steps.plan import Piece, next_piece
from streams.steps.room import smaller
from streams.steps.rounds import RESULTS, Rounds
from streams.steps.work import ERASED, Work

_LESS_MIN, _LESS_MAX = 1 / 32, 0.8
"""What is tried of a piece that does not fit: as much as would, if its bytes were spread evenly."""


class Piecework(Erasing):
    """What a partition's engine does with facts, ticks, and customers whose deadline comes."""

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
        converted: Outcome | None = None,
    ) -> None:
        """Run rounds, number the changes, move the clock: not before the last customer of a cut sweep.

        `converted` is what those of `due_slots`, ascending, are at the first tick, if they are converted.
        """
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
            converted=converted,
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
