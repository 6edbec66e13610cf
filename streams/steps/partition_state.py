"""What a partition's engine works on: what is in force, known, waits to be written; restored from rows."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from clock import Clock
from errors import DefinitionBehind, StateCorrupt, TopicMismatch
from streams.customers.erasures import Markers
from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow, Rebuilt
from streams.customers.rows import Restorer
from streams.customers.table import CustomerTable
from streams.customers.told import Told
from streams.kafka.seam import DeadLetter, Restoration, Tally
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.segments.versions import Versions
from streams.series_reading import SeriesReader
from streams.steps.conversion import Conversion
from streams.steps.epochs import choose
from streams.steps.flips import Flips
from streams.steps.intake import Mode
from streams.steps.resending import Resending
from streams.steps.room import Bounds, Room
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

    mode: Mode
    """Whose clock drives deadlines."""
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
        # By what was asked for: which version or request it was, and when this worker first heard of it.
        self._heard: dict[str, tuple[object, int]] = {}
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
        self.clock_ms = self.seq = self._sweeping_ms = 0
        self._erasing = False
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
        self._sweeping_ms, self._erasing = row.sweeping_ms, row.erasing
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

    @property
    def half_swept(self) -> bool:
        """Whether some customers are evaluated at a tick the clock waits for the others to reach."""
        return self._sweeping_ms > self.clock_ms

    def judged_ms(self, slot: int) -> int:
        """Return the instant a customer's values are those of: the clock, or a tick it is ahead at."""
        ahead = self.half_swept and int(self.table.due_ms[slot]) > self._sweeping_ms
        return self._sweeping_ms if ahead else self.clock_ms

    def _asked_ms(self, what: Literal["version", "resend"], which: object, at_ms: int | None = None) -> int:
        """Return the clock from which on something is done; `at_ms`: when it was asked for, if that is known.

        The clock of a partition nobody's event or deadline touches is not written: after a restart, or
        where a rebuild takes over, it is that of the last commit, and time has passed since. What an edit
        makes of customers then is no news: it was not in force. So first the clock comes to when it was
        asked for; if that machine's clock was ahead, to when this worker heard of it. A replay's time is
        not that of those who edit.
        """
        if self.mode == "event":
            return 0
        if what not in self._heard or self._heard[what][0] != which:
            self._heard[what] = which, self._wall.now_ms()
        heard_ms = self._heard[what][1]
        return heard_ms if at_ms is None else min(at_ms, heard_ms)

    # -- epochs ----------------------------------------------------------------------------

    @property
    def epochs(self) -> tuple[int, ...]:
        """The epochs there are versions of, ascending."""
        return self._versions.epochs

    @property
    def position_key(self) -> bytes:
        """The key of the partition row."""
        return PARTITION_ROW_KEY

    def choose(self, rows: Mapping[int, bytes | None]) -> Restoration | None:
        """Return what to restore from; None to be shown where an older epoch stands. Raises StateCorrupt."""
        return choose(self._versions.epochs, rows)

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
