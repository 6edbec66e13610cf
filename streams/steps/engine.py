"""The engine of one partition: chunks in, whole steps applied, one bounded transaction at a time out."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from clock import Clock
from errors import DefinitionMismatch, StateCorrupt, TopicMismatch
from streams.customers.facts import Int64s
from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow
from streams.customers.rows import Restorer
from streams.customers.table import CustomerTable
from streams.kafka.seam import Chunk, DeadLetter, Row, Tally, Transaction
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.series_reading import SeriesReader
from streams.steps import counting
from streams.steps.erasing import Erasing
from streams.steps.intake import Mode, beyond_bounds, dead_letter, read_chunk
from streams.steps.plan import Piece, next_piece
from streams.steps.room import Bounds, Room, smaller
from streams.steps.rounds import Rounds
from streams.steps.ticks import sweep_ticks
from streams.steps.work import ERASED, Work, dead_letter_bytes
from streams.steps.writing import ChangeWriter

FOLD_MARGIN_MS = 7 * 86_400_000
"""Facts are kept, and late ones accepted, this much longer than the longest window."""

PARTITION_ROW_BYTES_MAX = 1_024
"""A partition row and its key, without the names of series; some 400 bytes."""


class PartitionEngine(Erasing):
    """The state of one partition and what a step does to it: pure CPU, no I/O, never awaits.

    Any error leaves the state undefined: the owner drops it and restores. `app` names the
    pipeline in change ids; `mode` says whose clock drives deadlines (DESIGN: event time with
    a replayer's Ticks, or append time and then the wall clock).
    """

    def __init__(
        self,
        *,
        app: str,
        partition: int,
        definition: Definition,
        evaluator: Evaluator,
        mode: Mode,
        wall: Clock,
        bounds: Bounds | None = None,
        new_fact_key: Callable[[], bytes] = lambda: os.urandom(16),
    ) -> None:
        self.partition, self.definition, self.mode = partition, definition, mode
        self.bounds = bounds or Bounds()
        self._app, self._evaluator, self._new_fact_key = app, evaluator, new_fact_key
        self._writer = ChangeWriter(app, partition, definition, evaluator, wall)
        self._wall = wall
        self._definition_hash = definition.hash
        self._keep_ms = definition.kept_ms + FOLD_MARGIN_MS
        self.counts: Counter[str] = Counter()
        self._nanoseconds: Counter[str] = Counter()
        self.begin_restore()

    # -- restore ---------------------------------------------------------------------------

    def begin_restore(self) -> None:
        """Forget everything; rows follow."""
        self._use_table(self._new_fact_key(), dict.fromkeys(self._kept_names(), 0))
        # Kept until the end: the partition row, which holds the key fact ids are hashed under, is
        # rewritten by every transaction and so comes among the last.
        self._restoring: dict[bytes, bytes | None] = {}
        self.clock_ms = self.seq = 0
        self.epoch, self.partitions = 1, 0
        self.fold_line_ms = -self._keep_ms
        self._applied = self._taken = 0
        self._events = 0
        self._tally = Tally()
        self._writer.clear()
        self._dead_letters: list[DeadLetter] = []
        self._dead_bytes = 0
        self._aside: dict[int, str] = {}

    def restore_row(self, key: bytes, value: bytes | None) -> None:
        """Take one changelog row, oldest first."""
        self._restoring[key] = value

    def _kept_names(self) -> tuple[str, ...]:
        """Names of everything that is kept: orders, refunds, and the keys of the declared series."""
        return ("orders", "refunds", *(series.key for series in self._evaluator.series))

    def _use_table(self, fact_key: bytes, complete_since_ms: dict[str, int]) -> None:
        self._fact_key, self.complete_since_ms = fact_key, complete_since_ms
        series, rates = self._evaluator.series, self.definition.rates
        self._series = SeriesReader(series, rates, fact_key) if series else None
        self.table = CustomerTable(
            fact_key=fact_key,
            dimensions=self._evaluator.dimensions,
            values=self._evaluator.values,
            series=series,
            complete_since_ms=complete_since_ms,
        )
        # A key is written as JSON, in which one byte becomes six at most.
        names_bytes = sum(6 * len(name.encode()) + 32 for name in complete_since_ms)
        self._row_bytes_max = PARTITION_ROW_BYTES_MAX + names_bytes
        self._room = Room(self.table, self.definition, self._evaluator, app=self._app)

    def finish_restore(self, *, partitions: int) -> int | None:
        """Build the state; return the partition row's source offset, None when there is no row.

        Raises StateCorrupt for customers without a partition row, TopicMismatch when the
        partition count is not the one the state was built with, DefinitionMismatch when
        another definition built it.
        """
        rows, self._restoring = self._restoring, {}
        self.partitions = partitions
        stored = rows.pop(PARTITION_ROW_KEY, None)
        if stored is None:
            if any(value is not None for value in rows.values()):
                raise StateCorrupt(
                    f"partition {self.partition}: {len(rows)} customer rows but no partition row;"
                    " the customers topic was changed from outside: rebuild it"
                )
            return None
        row = PartitionRow.decode(stored)
        if row.partitions != partitions:
            raise TopicMismatch(
                f"partition {self.partition}: events has {partitions} partitions, the state was built with"
                f" {row.partitions}; a new count needs a rebuild under a new prefix"
            )
        mine = (self.definition.version, self._definition_hash)
        if (row.definition_version, row.definition_hash) != mine:
            raise DefinitionMismatch(
                f"partition {self.partition}: built by definition {row.definition_version}"
                f" ({row.definition_hash[:12]}), this worker holds {mine[0]} ({mine[1][:12]});"
                " start it with that segments.yaml, or under a new prefix"
            )
        self.clock_ms, self.seq, self.epoch = row.clock_ms, row.seq, row.epoch
        self.fold_line_ms = row.fold_line_ms
        # What is kept only since now is complete only since now, and what is no longer declared is dropped.
        since_ms = {name: row.complete_since.get(name, row.clock_ms) for name in self._kept_names()}
        self._use_table(row.fact_key, since_ms)
        restorer = Restorer(self.table)
        for key, value in rows.items():
            restorer.add(key, value)
        restorer.finish()
        self._applied = self._taken = row.source_offset
        return row.source_offset

    def start_at(self, offset: int) -> None:
        """Begin a fresh partition at `offset`, the beginning of its log."""
        self._applied = self._taken = offset

    @property
    def applied_offset(self) -> int:
        """Next source offset whose record is not yet reflected in the state."""
        return self._applied

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
        if self.mode == "wall":
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
            self._dead_letters.append(work.dead_letters[work.dead])
            self._dead_bytes += dead_letter_bytes(work.dead_letters[work.dead])
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
            and self._room.piece_bytes(work, piece, due_slots, due_ms, self.clock_ms, bytes_left) > bytes_left
        ):
            # Behind pending work, all that is left of a chunk fits or it waits: see next_piece.
            less = smaller(work, piece) if fresh else None
            if less is None:
                return piece if fresh else None
            piece = less
        return piece

    def _pending_bytes(self) -> int:
        rows = self.table.dirty_bytes_max + self._row_bytes_max
        return rows + self._writer.pending_bytes + self._dead_bytes

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
        rows = rows[known]
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
            piece = Piece(piece.row_end, piece.tick_end + whole)
        tick_of_row = work.tick_of_row[rows] - work.tick
        self._run(work, rows, due_slots, tick_ms, tick_of_row, moves_clock=whole)
        work.row, work.tick = piece.row_end, piece.tick_end

    def _first_by_id(self, due_slots: Int64s, work: Work) -> tuple[Int64s, bool]:
        """The first customers by id that fit, and whether these are all: an order no restart can change."""
        ids = self.table.slots.ids_of(due_slots)
        due_slots = due_slots[np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)]
        taken = np.cumsum(self._room.sweep_bytes(due_slots, work))
        fitting = int(np.searchsorted(taken, self.bounds.bytes_max - self._pending_bytes(), "right"))
        room = max(1, min(fitting, self.bounds.rows_max - self.table.dirty_count))
        return due_slots[:room], len(due_slots) <= room

    def _run(
        self,
        work: Work,
        rows: Int64s,
        due_slots: Int64s,
        tick_ms: Int64s,
        tick_of_row: Int64s,
        *,
        moves_clock: bool,
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
        )
        moves = rounds.run()
        if len(tick_ms) and moves_clock:
            self.clock_ms = max(self.clock_ms, int(tick_ms[-1]))
            self.fold_line_ms = max(self.fold_line_ms, self.clock_ms - self._keep_ms)
        if moves is not None:
            began = time.thread_time_ns()
            self.seq = self._writer.add(self.table, moves, epoch=self.epoch, last_seq=self.seq)
            counted = moves.take(np.flatnonzero(self._evaluator.counted[moves.dimension]))
            counting.count_moves(self._tally, counted, self._evaluator.dimensions, live=self.mode == "wall")
            self._spend("changes", began)
        for row in sorted(rounds.refused):
            record, kind = work.chunk.records[int(work.facts.position[row])], int(work.facts.kind[row])
            self._dead_letters.append(dead_letter(record, beyond_bounds(kind)))
            self._dead_bytes += dead_letter_bytes(self._dead_letters[-1])
        counting.count_facts(self._tally, self.counts, rounds.results)
        for spent in (self._nanoseconds, self._tally.nanoseconds):
            spent.update(rounds.nanoseconds)

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

    # -- the transaction -------------------------------------------------------------------

    def has_pending(self) -> bool:
        """Whether anything, if only the offset, moved since the last `take`."""
        return self._applied != self._taken or self.table.dirty_count > 0

    def take(self) -> Transaction:
        """Return everything applied since the last `take` and clear it."""
        began = time.thread_time_ns()
        rows: list[Row] = list(self.table.take_rows())
        rows.append((PARTITION_ROW_KEY, self._row().encode()))
        changes, memberships = self._writer.take(self.table, epoch=self.epoch)
        self._spend("rows", began)
        transaction = Transaction(
            self._applied, rows, changes, memberships, self._dead_letters, self._events, self._tally
        )
        self._dead_letters, self._dead_bytes, self._events, self._taken = [], 0, 0, self._applied
        self._tally = Tally()
        return transaction

    def _row(self) -> PartitionRow:
        return PartitionRow(
            source_offset=self._applied,
            clock_ms=self.clock_ms,
            seq=self.seq,
            epoch=self.epoch,
            partitions=self.partitions,
            definition_version=self.definition.version,
            definition_hash=self._definition_hash,
            fold_line_ms=self.fold_line_ms,
            complete_since=self.complete_since_ms,
            fact_key=self._fact_key,
        )

    def _spend(self, stage: str, began_ns: int) -> None:
        spent = time.thread_time_ns() - began_ns
        self._nanoseconds[stage] += spent
        self._tally.nanoseconds[stage] += spent

    def stage_ms(self) -> dict[str, float]:
        """CPU spent since the last call, in ms per stage; reading it starts it anew."""
        stages = {stage: ns / 1e6 for stage, ns in sorted(self._nanoseconds.items())}
        self._nanoseconds.clear()
        return stages
