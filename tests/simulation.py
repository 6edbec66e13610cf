"""A partition without Kafka: the same engine behind the same seam, deterministic, killable at will.

It keeps what Kafka would keep (a log of events, a compacted changelog, the changes written) and
nothing else, so a crash is simply a new engine restored from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from clock import FrozenClock
from schemas.changes import decode_change
from schemas.events import encode_event, encode_tick
from schemas.markers import Marker
from schemas.memberships import decode_membership
from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow
from streams.customers.series import Series
from streams.kafka.seam import Chunk, DeadLetter, Transaction
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.segments.versions import Version, Versions
from streams.steps.engine import PartitionEngine
from streams.steps.room import Bounds

APPENDED_MS = 4_000_000_000_000
"""When a record was appended unless a test says: after everything a replay may contain."""


@dataclass(frozen=True, slots=True)
class SimulatedRecord:
    """One record of the log."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


@dataclass
class SimulatedPartition:
    """One of `partitions` partitions; 1 unless a test is about keys in the wrong one."""

    definition: Definition
    mode: Literal["event", "wall"] = "event"
    bounds: Bounds = field(default_factory=Bounds)
    partition: int = 0
    partitions: int = 1
    log: list[SimulatedRecord] = field(default_factory=list)
    changelog: dict[bytes, bytes] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    memberships: dict[bytes, bytes] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    rebuilt: dict[int, dict[bytes, bytes]] = field(default_factory=dict)
    """The changelogs of later epochs."""
    markers: list[tuple[int, Marker]] = field(default_factory=list)
    """Each with how many changes stand before it."""
    transactions: list[Transaction] = field(default_factory=list)
    series: tuple[Series, ...] = ()
    """Declared beside what the definition declares."""
    evaluator_type: type[Evaluator] = Evaluator
    versions: Versions | None = None
    """What may become of the definition; None: nothing."""
    wall: FrozenClock = field(default_factory=lambda: FrozenClock(0))
    new_fact_key: Callable[[], bytes] = lambda: os.urandom(16)
    """It decides, beside what nobody sees, in which order customers are converted."""

    def __post_init__(self) -> None:
        self.evaluator = self.evaluator_type(self.definition)
        if self.series:
            self.evaluator.series = self.series
        self.engine = self._restored()

    # -- writing the log -------------------------------------------------------------------

    def append(self, key: bytes | None, value: bytes | None, timestamp: int = APPENDED_MS) -> None:
        """Add one record."""
        self.log.append(SimulatedRecord(len(self.log), timestamp, key, value))

    def event(
        self, type_name: str, customer: str, fields: dict[str, Any], timestamp: int = APPENDED_MS
    ) -> None:
        """Add one event, keyed by its customer."""
        value = encode_event(type_name, {"customer_id": customer, **fields})
        self.append(customer.encode(), value, timestamp)

    def tick(self, at_ms: int) -> None:
        """Add a Tick."""
        self.append(str(self.partition).encode(), encode_tick(at_ms))

    # -- running ---------------------------------------------------------------------------

    def _restored(self) -> PartitionEngine:
        engine = PartitionEngine(
            app="test",
            partition=self.partition,
            definition=self.definition,
            evaluator=self.evaluator,
            mode=self.mode,
            wall=self.wall,
            bounds=self.bounds,
            versions=self.versions,
            new_fact_key=self.new_fact_key,
        )
        seen: dict[int, bytes | None] = {}
        for epoch in reversed(engine.epochs):
            if engine.choose(seen) is not None:
                break
            seen[epoch] = self.changelog_of(epoch).get(engine.position_key)
        choice = engine.choose(seen)
        assert choice is not None
        engine.begin_restore(choice.epoch, quiet=choice.until is not None)
        told = self.changelog_of(choice.told_epoch) if choice.told_epoch is not None else {}
        for key, value in told.items():
            engine.told_row(key, value)
        self._fill(engine, choice.epoch)
        if choice.until is not None:
            self.replay(engine, choice.until)
            engine.go_live()
        return engine

    def _fill(self, engine: PartitionEngine, epoch: int) -> None:
        for key, value in self.changelog_of(epoch).items():
            engine.restore_row(key, value)
        if engine.finish_restore(partitions=self.partitions) is None:
            engine.start_at(0)

    def changelog_of(self, epoch: int) -> dict[bytes, bytes]:
        """An epoch's changelog; the first is `changelog`."""
        return self.changelog if epoch == 1 else self.rebuilt.setdefault(epoch, {})

    def replay(self, engine: PartitionEngine, until: int, chunk: int = 7) -> None:
        """Replay the log quietly, from where the engine stands."""
        while (start := engine.applied_offset) < until:
            end = min(start + chunk, until)
            work = engine.begin(Chunk(start, self.log[start:end], end, 0))
            while not work.done:
                if not engine.advance(work):
                    self._write(engine.take())
            if engine.has_pending():
                self._write(engine.take())

    def rebuild(self, claim: Version, until: int) -> None:
        """Do what `shoal rebuild` does: replay up to `until` into the changelog of the claim's epoch."""
        evaluator = self.evaluator_type(claim.definition())
        engine = PartitionEngine(
            app="test",
            partition=self.partition,
            definition=evaluator.definition,
            evaluator=evaluator,
            mode=self.mode,
            wall=FrozenClock(0),
            bounds=self.bounds,
            versions=Versions([claim]),
            quiet=True,
            new_fact_key=lambda: PartitionRow.decode(self.changelog[PARTITION_ROW_KEY]).fact_key,
        )
        engine.begin_restore(claim.epoch)
        self._fill(engine, claim.epoch)
        self.replay(engine, until)

    def crash(self) -> None:
        """Lose the process: everything after the last commit is gone."""
        self.engine = self._restored()

    def commit(self) -> None:
        """Write what is pending, whole."""
        if not self.engine.has_pending():
            return
        self._write(self.engine.take())

    def _write(self, transaction: Transaction) -> None:
        self.transactions.append(transaction)
        if transaction.quiet:
            assert not (transaction.changes or transaction.memberships or transaction.dead_letters)
        rows = [(transaction.epoch, row) for row in transaction.rows]
        if transaction.farewell is not None:
            rows.append(transaction.farewell)
        for epoch, (key, value) in rows:
            # A compacted topic keeps the latest row of a key, in the place of the latest.
            changelog = self.changelog_of(epoch)
            changelog.pop(key, None)
            if value is not None:
                changelog[key] = value
        if transaction.begins is not None:
            self.markers.append((len(self.changes), transaction.begins))
        self.changes.extend(decode_change(value) for _, value in transaction.changes)
        if transaction.ends is not None:
            self.markers.append((len(self.changes), transaction.ends))
        for key, value in transaction.memberships:
            self.memberships.pop(key, None)
            if value is not None:
                self.memberships[key] = value
        self.dead_letters.extend(transaction.dead_letters)

    def run(
        self,
        chunk_sizes: Iterator[int],
        crash: Callable[[], bool] = lambda: False,
        back: Callable[[], None] = lambda: None,
    ) -> None:
        """Read the log to its end in chunks of these sizes; `crash` is asked before every commit.

        `back` is called when the partition is there again, before it reads on.
        """
        while self.engine.applied_offset < len(self.log):
            if self.mode == "wall" and self.engine.half_swept:
                # So does whoever owns a partition; a replay may as well read its Tick again.
                self.finish_sweep()
            start = self.engine.applied_offset
            records = self.log[start : start + next(chunk_sizes)]
            work = self.engine.begin(Chunk(start, records, start + len(records), 0))
            crashed = False
            while not work.done and not crashed:
                if not self.engine.advance(work):
                    crashed = crash()
                    if not crashed:
                        self.commit()
            if crashed or crash():
                self.crash()
                back()
                continue
            self.commit()

    def finish_sweep(self) -> None:
        """Do what a half sweep left undone."""
        while self.engine.half_swept:
            self.engine.convert()
            self.commit()

    def convert(self, crash: Callable[[], bool] = lambda: False, slices: int = 1 << 30) -> None:
        """Convert up to so many slices; `crash` is asked before every commit.

        Before, the state of a rebuilt epoch takes over, if there is one and the old state is ready.
        """
        if self.engine.leaves:
            self.crash()
        while self.engine.converting and slices > 0:
            if self.engine.convert():
                slices -= 1
            elif not crash():
                self.commit()
                continue
            if crash():
                self.crash()
        self.commit()

    def values(self) -> dict[str, dict[str, str]]:
        """Customer to dimension to value, as a new subscriber of memberships sees it."""
        seen = {}
        for value in self.memberships.values():
            membership = decode_membership(value)
            seen[membership["customer_id"]] = {v["dimension"]: v["value"] for v in membership["values"]}
        return seen


VOLATILE = ("emitted_at",)
"""What may differ between two runs over the same log."""


def stable(changes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The changes without what may differ between two runs over the same log."""
    return [{name: value for name, value in change.items() if name not in VOLATILE} for change in changes]
