"""What a partition's engine works on: what is in force, known, and waits to be written; from rows to rows."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from clock import Clock
from errors import DefinitionBehind, StateCorrupt, TopicMismatch
from schemas.markers import Marker
from streams.customers.erasures import Markers
from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow, Rebuilt
from streams.customers.rows import Restorer
from streams.customers.table import CustomerTable
from streams.customers.told import Told
from streams.kafka.seam import DeadLetter, Restoration, Row, Tally, Transaction
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.segments.versions import Versions
from streams.series_reading import SeriesReader
from streams.steps.conversion import Conversion
from streams.steps.epochs import choose, is_settled, rebuild_id
from streams.steps.flips import Flips
from streams.steps.resending import Resending
from streams.steps.room import Bounds, Room
from streams.steps.work import dead_letter_bytes
from streams.steps.writing import ChangeWriter

FOLD_MARGIN_MS = 7 * 86_400_000
"""Facts are kept, and late ones accepted, this much longer than the longest window."""

PARTITION_ROW_BYTES_MAX = 1_024
"""A partition row and its key, without the names of series and dimensions; some 400 bytes."""


class PartitionState:
    """What a partition's engine works on: begun empty, or restored; handed out as transactions.

    `definition`, compiled as `evaluator`, is the only one unless `versions` are given, of which the
    newest is to be in force. With `quiet` it only ever replays; the log it begins with is whole from
    `since_ms` on.
    """

    table: CustomerTable
    definition: Definition
    """The one in force."""
    complete_since_ms: dict[str, int]
    """Since when `orders`, `refunds` and every declared series are kept, 0: from the beginning."""

    def __init__(
        self,
        *,
        app: str,
        partition: int,
        definition: Definition,
        evaluator: Evaluator,
        wall: Clock,
        bounds: Bounds | None = None,
        new_fact_key: Callable[[], bytes] = lambda: os.urandom(16),
        versions: Versions | None = None,
        quiet: bool = False,
        since_ms: int = 0,
    ) -> None:
        assert evaluator.definition is definition, "one is the other, compiled"
        self.partition, self.bounds = partition, bounds or Bounds()
        self._app, self._new_fact_key, self._wall = app, new_fact_key, wall
        self._versions = versions = versions or Versions(only=evaluator)
        self._conversion, self._resending = Conversion(versions), Resending(versions)
        self._replays, self._since_ms = quiet, since_ms
        self.counts: Counter[str] = Counter()
        self._nanoseconds: Counter[str] = Counter()
        self.begin_restore()

    # -- restore ---------------------------------------------------------------------------

    def begin_restore(self, epoch: int = 1, *, quiet: bool = False) -> None:
        """Forget everything; rows of an epoch follow; where there are none, its replay begins if `quiet`."""
        self.quiet, self._told = quiet or self._replays, Told()
        self._rebuilt = Rebuilt(live=False) if self.quiet else None
        self._told_position: PartitionRow | None = None
        # The row of the epoch that is left with the pending transaction; the changes of a rebuild that ends.
        self._left: PartitionRow | None = None
        self._ended: int | None = None
        # Customers never evaluated whose row does not say yet what makes them pending.
        self._untold = np.empty(0, np.int64)
        self._conversion.reset(epoch)
        self._resending.reset()
        self._use(self._conversion.evaluator)
        self._use_table(self._new_fact_key(), dict.fromkeys(self._kept_names(), self._since_ms))
        # Kept until the end: the partition row, which holds the key fact ids are hashed under, is
        # rewritten by every transaction and so comes among the last.
        self._restoring: dict[bytes, bytes | None] = {}
        self.clock_ms = self.seq = 0
        self.epoch, self.partitions = epoch, 0
        self.fold_line_ms = -self._keep_ms
        self._applied = self._taken = 0
        self._events = 0
        self._tally = Tally()
        self._moved = False
        self._dead_letters: list[DeadLetter] = []
        self._dead_bytes = 0
        self._aside: dict[int, str] = {}

    def restore_row(self, key: bytes, value: bytes | None) -> None:
        """Take one changelog row, oldest first."""
        self._restoring[key] = value

    def told_row(self, key: bytes, value: bytes | None) -> None:
        """Take one row of the epoch that says what subscribers were told, before `finish_restore`."""
        if key == PARTITION_ROW_KEY and value is not None:
            self._told_position = PartitionRow.decode(value)
        else:
            self._told.add(key, value)

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
            if self._told_position is not None:
                # Under one key, what is hashed means the same in both epochs.
                self._use_table(self._told_position.fact_key, self.complete_since_ms)
            return None
        row = PartitionRow.decode(stored)
        if row.superseded_by is not None:
            raise DefinitionBehind(
                f"partition {self.partition}: went on to epoch {row.superseded_by}, of which this worker"
                " has not read yet"
            )
        if row.partitions != partitions:
            raise TopicMismatch(
                f"partition {self.partition}: events has {partitions} partitions, the state was built with"
                f" {row.partitions}; a new count needs a rebuild under a new prefix: docs/rebuild.md"
            )
        self._use(self._conversion.stored(row, f"partition {self.partition}"))
        self.clock_ms, self.seq, self.epoch, self._rebuilt = row.clock_ms, row.seq, row.epoch, row.rebuilt
        self.quiet = row.rebuilt is not None and not row.rebuilt.live
        self.fold_line_ms = row.fold_line_ms
        # What is kept only since now is complete only since now, and what is no longer declared is dropped.
        since_ms = {name: row.complete_since.get(name, row.clock_ms) for name in self._kept_names()}
        self._use_table(row.fact_key, since_ms)
        restorer = Restorer(self.table)
        for key, value in rows.items():
            restorer.add(key, value)
        restorer.finish(mixed=row.converting is not None)
        if row.rebuilt is not None and row.rebuilt.live:
            assert self._told_position is not None, "told before the restore is finished"
            version = self._told_position.definition_version
            self._untold, _ = self._told.lay_over(self.table, version, row.fact_key, at_once=False)
        self._conversion.restored(row, self.table)
        self._resending.stored(row.resent)
        self._use(self._conversion.evaluator)
        self._measure()
        self._applied = self._taken = row.source_offset
        return row.source_offset

    def recall_erasure(self, key: bytes, value: bytes | None) -> None:
        """Take over the marker of an erasure whose event the log may have lost, before the replay."""
        marker = Markers(self._fact_key)
        marker.restore(key, value)
        self.table.erasures.merge(marker)

    def start_at(self, offset: int, since_ms: int = 0) -> None:
        """Begin a fresh partition at `offset`, where its log begins, which is whole from `since_ms` on."""
        self._applied = self._taken = offset
        if since_ms:
            self._use_table(self._fact_key, dict.fromkeys(self._kept_names(), since_ms))
            # The log may have lost their events.
            self.table.erasures.merge(self._told.erasures(self._fact_key))

    def _kept_names(self) -> tuple[str, ...]:
        """Names of everything that is kept: orders, refunds, and the keys of the declared series."""
        return ("orders", "refunds", *(series.key for series in self._evaluator.series))

    def _use(self, evaluator: Evaluator) -> None:
        """Evaluate and write by another definition from now on. Only while nothing is pending."""
        self._evaluator, self.definition = evaluator, evaluator.definition
        self._definition_hash = evaluator.definition.hash
        self._keep_ms = evaluator.definition.kept_ms + FOLD_MARGIN_MS
        self._writer = ChangeWriter(self._app, self.partition, self.definition, evaluator, self._wall)

    def _use_table(self, fact_key: bytes, complete_since_ms: dict[str, int]) -> None:
        """Begin with an empty table for the definition in force."""
        self._fact_key, self.complete_since_ms = fact_key, complete_since_ms
        self.table = CustomerTable(
            fact_key=fact_key,
            dimensions=self._evaluator.dimensions,
            values=self._evaluator.values,
            series=self._evaluator.series,
            complete_since_ms=complete_since_ms,
        )
        self._read_series()
        self._measure()

    def _read_series(self) -> None:
        """Read the declared series from now on, each under its number in the table.

        The table may have more of them: those of an earlier definition stay until the next restore.
        """
        series, kept = self._evaluator.series, self.table.series_facts
        self._series = None
        if kept is not None and series:
            places = [kept.layout.place[each.key] for each in series]
            self._series = SeriesReader(series, self.definition.rates, self._fact_key, places)

    def _take_on(self) -> None:
        """Go by the definition the conversion has put in force."""
        self._use(self._conversion.evaluator)
        names = self._kept_names()
        if not self.table.count:
            # Of nobody everything is known, what was refused for its age aside.
            since_ms = max(self.complete_since_ms["orders"], self.complete_since_ms["refunds"])
            erasures = self.table.erasures
            self._use_table(self._fact_key, dict.fromkeys(names, since_ms))
            self.table.erasures = erasures
        self.complete_since_ms = {name: self.complete_since_ms[name] for name in names}
        self._read_series()
        # What was never refused is kept, so a longer look back may reach as far as that.
        folded_ms = int(self.table.folded_before_ms[: self.table.count].max(initial=0))
        lost_ms = max(self.complete_since_ms["orders"], self.complete_since_ms["refunds"], folded_ms)
        self.fold_line_ms = max(lost_ms, self.clock_ms - self._keep_ms)
        self._measure()
        self._moved = True

    def _measure(self) -> None:
        """Take the measure of rows and changes as they are from now on."""
        # A name is written as JSON, in which one byte becomes six at most. While customers are converted,
        # dimensions that are no more are named too.
        names = (*self.complete_since_ms, *self._evaluator.dimensions)
        self._row_bytes_max = PARTITION_ROW_BYTES_MAX + sum(6 * len(name.encode()) + 32 for name in names)
        self._flips = Flips(self.table, self.definition, self._evaluator)
        self._room = Room(self.table, self._flips, self._evaluator, app=self._app)

    @property
    def evaluator(self) -> Evaluator:
        """The definition in force, compiled."""
        return self._evaluator

    @property
    def applied_offset(self) -> int:
        """Next source offset whose record is not yet reflected in the state."""
        return self._applied

    # -- epochs ----------------------------------------------------------------------------

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs there are versions of, ascending."""
        return self._versions.epochs

    @property
    def position_key(self) -> bytes:
        """The key of the partition row."""
        return PARTITION_ROW_KEY

    @property
    def leaves(self) -> bool:
        """Whether there is a newer epoch, and everybody's values are those of one version."""
        return self.epoch < self._versions.epochs[-1] and is_settled(self._row())

    def choose(self, rows: Mapping[int, bytes | None]) -> Restoration | None:
        """Return what to restore from; None to be shown where an older epoch stands. Raises StateCorrupt."""
        return choose(self._versions.epochs, rows)

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

    # -- the transaction -------------------------------------------------------------------

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

    def _refuse_before(self, fold_line_ms: int) -> None:
        """Note that a fact from before this line was refused: what is older is not complete from now on."""
        for name in ("orders", "refunds"):
            self.complete_since_ms[name] = max(self.complete_since_ms[name], fold_line_ms)

    def _spend(self, stage: str, began_ns: int) -> None:
        spent = time.thread_time_ns() - began_ns
        self._nanoseconds[stage] += spent
        self._tally.nanoseconds[stage] += spent

    def stage_ms(self) -> dict[str, float]:
        """CPU spent since the last call, in ms per stage; reading it starts it anew."""
        stages = {stage: ns / 1e6 for stage, ns in sorted(self._nanoseconds.items())}
        self._nanoseconds.clear()
        return stages
