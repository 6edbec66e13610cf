"""The engine of one partition: chunks in, whole steps applied, one bounded transaction at a time out."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from clock import Clock
from errors import InvalidField, StateCorrupt, TopicMismatch
from streams.customers.facts import Int64s
from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow
from streams.customers.rows import Restorer
from streams.customers.table import CustomerTable, Result
from streams.kafka.seam import Chunk, DeadLetter, Row, Tally, Transaction
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.segments.versions import Versions
from streams.steps import counting
from streams.steps.conversion import Conversion
from streams.steps.converting import Converting
from streams.steps.intake import Mode, dead_letter, read_chunk
from streams.steps.plan import Piece, next_piece
from streams.steps.resending import Resending
from streams.steps.room import Bounds, Room, smaller
from streams.steps.rounds import RESULTS, Rounds
from streams.steps.ticks import sweep_ticks
from streams.steps.work import Work, dead_letter_bytes
from streams.steps.writing import ChangeWriter

FOLD_MARGIN_MS = 7 * 86_400_000
"""Facts are kept, and late ones accepted, this much longer than the longest window."""

PARTITION_ROW_BYTES_MAX = 1_024
"""A partition row and its key; some 400 bytes."""


class PartitionEngine(Converting):
    """The state of one partition and what a step does to it: pure CPU, no I/O, never awaits.

    Any error leaves the state undefined: the owner drops it and restores. `app` names the
    pipeline in change ids; `definition`, compiled as `evaluator`, is the only one unless `versions`
    are given, of which the newest is to be in force; `mode` says whose clock drives deadlines
    (DESIGN: event time with a replayer's Ticks, or append time and then the wall clock).
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
        versions: Versions | None = None,
    ) -> None:
        assert evaluator.definition is definition, "one is the other, compiled"
        self.partition, self.mode = partition, mode
        self.bounds = bounds or Bounds()
        self._app, self._new_fact_key = app, new_fact_key
        self._wall = wall
        versions = versions or Versions(only=evaluator)
        self._conversion, self._resending = Conversion(versions), Resending(versions)
        self.counts: Counter[str] = Counter()
        self._nanoseconds: Counter[str] = Counter()
        self.begin_restore()

    # -- restore ---------------------------------------------------------------------------

    def begin_restore(self) -> None:
        """Forget everything; rows follow."""
        self._conversion.reset()
        self._resending.reset()
        self._use(self._conversion.evaluator)
        self._use_table(self._new_fact_key())
        # Kept until the end: the partition row, which holds the key fact ids are hashed under, is
        # rewritten by every transaction and so comes among the last.
        self._restoring: dict[bytes, bytes | None] = {}
        self.clock_ms = self.seq = 0
        self.epoch, self.partitions = 1, 0
        self.fold_line_ms = -self._keep_ms
        self._applied = self._taken = 0
        self._events = 0
        self._tally = Tally()
        self._converted = False
        self._dead_letters: list[DeadLetter] = []
        self._dead_bytes = 0
        self._aside: dict[int, str] = {}

    def restore_row(self, key: bytes, value: bytes | None) -> None:
        """Take one changelog row, oldest first."""
        self._restoring[key] = value

    def _use(self, evaluator: Evaluator) -> None:
        """Evaluate and write by another definition from now on. Only while nothing is pending."""
        self._evaluator, self.definition = evaluator, evaluator.definition
        self._definition_hash = evaluator.definition.hash
        self._keep_ms = evaluator.definition.longest_window_ms + FOLD_MARGIN_MS
        self._writer = ChangeWriter(self._app, self.partition, self.definition, evaluator, self._wall)

    def _use_table(self, fact_key: bytes) -> None:
        self._fact_key = fact_key
        self.table = CustomerTable(
            fact_key=fact_key, dimensions=self._evaluator.dimensions, values=self._evaluator.values
        )
        self._measure()

    def _measure(self) -> None:
        dimensions = len(self._evaluator.dimensions)
        self._room = Room(self.table, self.definition, app=self._app, dimensions=dimensions)

    def finish_restore(self, *, partitions: int) -> int | None:
        """Build the state; return the partition row's source offset, None when there is no row.

        Raises StateCorrupt for customers without a partition row, TopicMismatch when the
        partition count is not the one the state was built with, DefinitionBehind or
        DefinitionMismatch when a definition built it that is not known here.
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
        self._use(self._conversion.stored(row, f"partition {self.partition}"))
        self.clock_ms, self.seq, self.epoch = row.clock_ms, row.seq, row.epoch
        self.fold_line_ms = row.fold_line_ms
        self._use_table(row.fact_key)
        restorer = Restorer(self.table)
        for key, value in rows.items():
            restorer.add(key, value)
        restorer.finish(mixed=row.converting is not None)
        self._conversion.restored(row, self.table)
        self._resending.stored(row.resent)
        self._use(self._conversion.evaluator)
        self._measure()
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
        )
        if self.mode == "wall":
            self._tally.age_ms.append(self._wall.now_ms() - work.facts.occurred_at_ms)
        self._spend("decode", began)
        return work

    def advance(self, work: Work) -> bool:
        """Apply one bounded piece; False when pending work must be taken before there is room."""
        if work.done:
            return True
        piece = self._next_piece(work)
        if piece is None:
            return False
        self._apply(work, piece)
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
        elif done:
            self._applied = records[done - 1].offset + 1
        return True

    def _next_piece(self, work: Work) -> Piece | None:
        """The next part of the work that fits into the pending transaction; None when it must wait."""
        fresh = not self.has_pending()
        piece = next_piece(
            work.ticks,
            self.table.due_ms[: len(self.table.slots)],
            row=work.row,
            rows=len(work.facts),
            tick=work.tick,
            room=self.bounds.rows_max - self.table.dirty_count,
            fresh=fresh,
        )
        bytes_left = self.bounds.bytes_max - self._pending_bytes()
        room = self._room
        while piece is not None and room.piece_bytes(work, piece, self.clock_ms, bytes_left) > bytes_left:
            # Behind pending work, all that is left of a chunk fits or it waits: see next_piece.
            less = smaller(work, piece) if fresh else None
            if less is None:
                return piece if fresh else None
            piece = less
        return piece

    def _pending_bytes(self) -> int:
        rows = self.table.dirty_bytes_max + PARTITION_ROW_BYTES_MAX
        return rows + self._writer.pending_bytes + self._dead_bytes

    def _apply(self, work: Work, piece: Piece) -> None:
        """Run one piece of a chunk: its facts, its ticks, and whoever is due at them."""
        rows = np.arange(work.row, piece.row_end)
        known = work.slots[rows] >= 0
        # Of the strangers, those that are no dead letters are too old: they change nothing, so
        # they make no customer either.
        strangers = rows[~known]
        too_old = strangers[work.facts.occurred_at_ms[strangers] < work.fold_line_ms[strangers]]
        if len(too_old):
            counting.count_too_old(self._tally, self.counts, work.facts.kind[too_old])
            self._refuse_before(int(work.fold_line_ms[too_old].max()))
        rows = rows[known]
        tick_ms = work.ticks.time_ms[work.tick : piece.tick_end]
        due_slots = self._due(int(tick_ms[-1])) if len(tick_ms) else np.empty(0, np.int64)
        whole = True
        if piece.cut_sweep:
            tick_ms = work.ticks.time_ms[work.tick : work.tick + 1]
            due_slots, whole = self._first_by_id(self._due(int(tick_ms[0])), work)
            piece = Piece(piece.row_end, piece.tick_end + whole)
        tick_of_row = work.tick_of_row[rows] - work.tick
        self._run(work, rows, due_slots, tick_ms, tick_of_row, moves_clock=whole)
        work.row, work.tick = piece.row_end, piece.tick_end

    def _due(self, at_ms: int) -> Int64s:
        return self.table.customers_due(at_ms)

    def _first_by_id(self, due_slots: Int64s, work: Work) -> tuple[Int64s, bool]:
        """The first customers by id that fit, and whether these are all: an order no restart can change."""
        ids = self.table.slots.ids_of(due_slots)
        due_slots = due_slots[np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)]
        room = self._fitting(due_slots, work)
        return due_slots[:room], len(due_slots) <= room

    def _fitting(self, slots: Int64s, work: Work) -> int:
        """How many of the first of some customers can be evaluated once within this transaction."""
        taken = np.cumsum(self._room.sweep_bytes(slots, work))
        fitting = int(np.searchsorted(taken, self.bounds.bytes_max - self._pending_bytes(), "right"))
        return max(1, min(fitting, self.bounds.rows_max - self.table.dirty_count, len(slots)))

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
            converts=converts,
        )
        moves = rounds.run()
        if any(code % RESULTS == Result.TOO_OLD for code in rounds.results):
            self._refuse_before(int(work.fold_line_ms[rows].max()))
        if len(tick_ms) and moves_clock:
            self.clock_ms = max(self.clock_ms, int(tick_ms[-1]))
            self.fold_line_ms = max(self.fold_line_ms, self.clock_ms - self._keep_ms)
        if moves is not None:
            began = time.thread_time_ns()
            self.seq = self._writer.add(self.table, moves, epoch=self.epoch, last_seq=self.seq)
            counting.count_moves(self._tally, moves, self._evaluator.dimensions, live=self.mode == "wall")
            self._spend("changes", began)
        for row in sorted(rounds.refused):
            record = work.chunk.records[int(work.facts.position[row])]
            self._dead_letters.append(dead_letter(record, InvalidField(_TRAITS_BEYOND_BOUNDS)))
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
        due_slots = self._due(now_ms)
        if not len(due_slots):
            self.clock_ms = now_ms
            return True
        # Nothing can happen before the first deadline, however long ago the clock last moved.
        first_due_ms = int(self.table.due_ms[due_slots].min())
        from_ms = max(self.clock_ms, first_due_ms - 1) or now_ms
        work = Work.of_ticks(sweep_ticks(from_ms, now_ms))
        piece = self._next_piece(work)
        if piece is None:
            return False
        self._apply(work, piece)
        return work.tick == len(work.ticks)

    # -- the transaction -------------------------------------------------------------------

    def has_pending(self) -> bool:
        """Whether anything, if only the offset, moved since the last `take`."""
        return self._applied != self._taken or self.table.dirty_count > 0 or self._converted

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
        self._tally, self._converted = Tally(), False
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
            complete_since=dict.fromkeys(("orders", "refunds"), self._conversion.complete_since_ms),
            fact_key=self._fact_key,
            converting=self._conversion.row(),
            resent=self._resending.row(),
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


_TRAITS_BEYOND_BOUNDS = "traits: the customer would hold more than is kept of one; delete some, or send fewer"
