"""What a partition's engine hands out: everything applied since the last time, as one transaction."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

from errors import StateCorrupt
from schemas.markers import Marker
from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow, Rebuilt
from streams.kafka.seam import DeadLetter, Row, Tally, Transaction
from streams.steps.epochs import is_settled, rebuild_id
from streams.steps.partition_state import PartitionState
from streams.steps.work import dead_letter_bytes


class Transacting(PartitionState):
    """The state of a partition as rows, changes and a place in the log: committed together or not at all."""

    def has_pending(self) -> bool:
        """Whether anything, if only the offset, moved since the last `take`."""
        return self._applied != self._taken or self.table.dirty_count > 0 or self._moved

    def take(self) -> Transaction:
        """Return everything applied since the last `take` and clear it."""
        began = time.thread_time_ns()
        rows: list[Row] = list(self.table.take_rows())
        if self._rebuilt is not None:
            changes_made = self._rebuilt.changes + self._writer.reconciled
            self._rebuilt = replace(self._rebuilt, changes=changes_made)
        rows.append((PARTITION_ROW_KEY, self._row().encode()))
        changes, memberships = self._writer.take(self.table, epoch=self.epoch)
        if self.quiet:
            memberships = []
        self._spend("rows", began)
        transaction = Transaction(
            self._applied,
            rows,
            changes,
            memberships,
            self._dead_letters,
            self._events,
            self._tally,
            epoch=self.epoch,
            quiet=self.quiet,
            begins=self._marker("rebuild-begins", 0) if self._left is not None else None,
            ends=self._marker("rebuild-ends", self._ended) if self._ended is not None else None,
            farewell=None if self._left is None else (self._left.epoch, self._farewell(self._left)),
        )
        self._left = self._ended = None
        self._dead_letters, self._dead_bytes, self._events, self._taken = [], 0, 0, self._applied
        self._tally, self._moved = Tally(), False
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
            converting=self._conversion.row(),
            resent=self._resending.row(),
            rebuilt=self._rebuilt,
            sweeping_ms=self._sweeping_ms,
            erasing=self._erasing,
            begun_ms=self._conversion.begun_ms,
        )

    def _pending_bytes(self) -> int:
        rows = self.table.dirty_bytes_max + self._row_bytes_max
        return rows + self._writer.pending_bytes + self._dead_bytes

    def _add_dead(self, letter: DeadLetter) -> None:
        if self.quiet:
            return
        self._dead_letters.append(letter)
        self._dead_bytes += dead_letter_bytes(letter)

    @property
    def leaves(self) -> bool:
        """Whether there is a newer epoch, and nothing is under way in this one."""
        return self.epoch < self._versions.epochs[-1] and is_settled(self._row())

    def go_live(self) -> None:
        """After a quiet replay: take over what was told, and begin to convert everybody to what is now known.

        The clock stays or goes forward, numbers go on. Raises StateCorrupt when the replay is ahead.
        """
        left = self._told_position
        assert left is not None, "told before the restore was finished"
        if self._applied != left.source_offset:
            raise StateCorrupt(
                f"partition {self.partition}: rebuilt up to offset {self._applied}, while what was told"
                f" reflects up to {left.source_offset}; delete the topic of epoch {self.epoch}"
            )
        self.clock_ms, self.seq = max(self.clock_ms, left.clock_ms), left.seq
        self.fold_line_ms = max(self.fold_line_ms, self.clock_ms - self._keep_ms)
        self._resending.stored(left.resent)
        self._untold, disputed = self._told.lay_over(
            self.table, left.definition_version, left.fact_key, at_once=True
        )
        self._conversion.take_over(self.table, left, self.clock_ms, f"partition {self.partition}")
        self._use(self._conversion.evaluator)
        self._measure()
        # Once this is committed, a marker says that they were erased, unless they have a row.
        self.table.mark_dirty(disputed)
        self._rebuilt, self._left = Rebuilt(True, left.epoch), left
        self.quiet, self._moved = False, True

    def _marker(self, kind: Literal["rebuild-begins", "rebuild-ends"], changes: int) -> Marker:
        run_id, version = rebuild_id(self.epoch), self.definition.version
        return Marker(kind, run_id, self.epoch, version, self.seq, changes)

    def _farewell(self, left: PartitionRow) -> Row:
        return PARTITION_ROW_KEY, replace(left, superseded_by=self.epoch).encode()
