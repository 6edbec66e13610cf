"""A rebuild: `events` replayed quietly into the changelog of a next epoch, beside the live workers.

One partition after another is brought from the log's start to where its owner has committed, never
beyond. When all are close behind, the definition is published with its epoch; each owner then goes
over between two transactions, and tells its subscribers the difference.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer

from clock import SystemClock
from errors import FactsMissing, KafkaError, PartitionFenced, RebuildTaken, ShoalError
from streams import committed
from streams.app import group_id
from streams.applying import Pipeline
from streams.checks import FUTURE_MS_MAX
from streams.customers.partition_row import PartitionRow
from streams.customers.row_format import ERASURE_ROW
from streams.definitions import Held, check_claim, publish_rebuild, read_held, when
from streams.kafka import reading
from streams.kafka.log import KafkaPartitionLog, LogNames
from streams.kafka.restoring import Replay, restored
from streams.segments.definition import DAY_MS, Definition
from streams.segments.versions import Version, Versions
from streams.steps.engine import PartitionEngine
from streams.steps.intake import Mode
from streams.steps.room import Bounds
from streams.topics import EVENTS, topic_name

log = logging.getLogger(__name__)

LAG_RECORDS_MAX = 20_000
"""A partition is close behind its owner with so many records to go: a worker reads them within a second."""

PASSES_MAX = 10
"""Each has only what came during the one before."""

FAILURES_MAX = 60
"""Of one partition in one pass; a record that cannot be applied takes two or three to be found."""

PAUSE_S_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the replay of one partition is."""

    partition: int
    offset: int
    until: int
    customers: int


@dataclass(frozen=True, slots=True)
class Beginnings:
    """Since when `events` holds everything, by partition: UTC ms; 0: from the first event ever."""

    since_ms: dict[int, int]
    clock_ms: int
    """The furthest clock of a partition."""

    def refusal(self, definition: Definition) -> str | None:
        """Return why the definition cannot be rebuilt from what is held, None if it can."""
        since_ms, needed_ms = max(self.since_ms.values(), default=0), self.clock_ms - definition.kept_ms + 1
        if needed_ms >= since_ms:
            return None
        return (
            f"this definition looks back {definition.kept_ms / DAY_MS:g} days, to {when(max(0, needed_ms))},"
            f" and events is kept whole only since {when(since_ms)}; use shorter windows"
        )

    def loss(self) -> str | None:
        """Return what would be lost though windows reach no further, None when nothing would be."""
        since_ms = max(self.since_ms.values(), default=0)
        if not since_ms:
            return None
        return (
            f"events begins at {when(since_ms)}: what customers did before would be forgotten, also what"
            " no window limits, such as that they ever paid"
        )


async def beginnings(pipeline: Pipeline, epochs: tuple[int, ...]) -> Beginnings:
    """Look at where the log of each partition begins. Raises KafkaUnavailable."""
    topic, since_ms, clock_ms = topic_name(pipeline.prefix, EVENTS), {}, 0
    async with reading.reader(pipeline.bootstrap) as consumer:
        for number in range(pipeline.partitions):
            held = await reading.extent(consumer, topic, number)
            since_ms[number] = 0
            if held.first:
                first_ms = await _first_ms(consumer, topic, number, held)
                # An event may say that it happened a little after it was written.
                since_ms[number] = first_ms + FUTURE_MS_MAX
            row = await committed.live_row(consumer, pipeline.prefix, number, epochs)
            clock_ms = max(clock_ms, 0 if row is None else row.clock_ms)
    return Beginnings(since_ms, clock_ms)


async def _first_ms(consumer: AIOKafkaConsumer, topic: str, partition: int, held: reading.Extent) -> int:
    """Return when the oldest record held was written; with none, now."""
    async with aclosing(reading.replayed(consumer, topic, partition, held.first, held.end)) as chunks:
        async for chunk in chunks:
            if chunk.records:
                return chunk.records[0].timestamp
    return SystemClock().now_ms()


class Rebuilding:
    """One rebuild, from its claim to its publication; killed at any point, another one goes on with it."""

    def __init__(
        self,
        pipeline: Pipeline,
        claim: Version,
        mode: Mode,
        *,
        since_ms: dict[int, int],
        bounds: Bounds,
        say: Callable[[Progress], None],
    ) -> None:
        self._pipeline, self._claim, self._mode = pipeline, claim, mode
        self._since_ms, self._bounds, self._say = since_ms, bounds, say
        self._versions = Versions([claim])
        self._turn = asyncio.Lock()

    async def run(self) -> Version:
        """Replay all partitions until they are close behind, then publish; return what was published.

        Raises RebuildTaken when another process goes on with it, or it was abandoned; FactsMissing when
        it does not catch up; LogTruncated, KafkaUnavailable.
        """
        ahead = [0]
        for _ in range(PASSES_MAX):
            ahead = [await self._caught_up(number) for number in range(self._pipeline.partitions)]
            if max(ahead) <= LAG_RECORDS_MAX:
                await self._check()
                prefix = self._pipeline.prefix
                return await publish_rebuild(self._pipeline.bootstrap, prefix, self._claim, SystemClock())
        raise FactsMissing(
            f"events grows faster than it is replayed: {max(ahead):,} records left after {PASSES_MAX} passes;"
            " run it again when less comes in, it goes on where it stands"
        )

    async def _check(self) -> Held:
        held = await read_held(self._pipeline.bootstrap, self._pipeline.prefix)
        check_claim(held, self._claim)
        return held

    async def _caught_up(self, number: int) -> int:
        """Bring one partition to where its owner stood; return how far the owner is ahead by then."""
        replay, failures = Replay(number), 0
        while True:
            try:
                return await self._replayed(number, replay)
            except PartitionFenced as error:
                await self._check()
                raise RebuildTaken(
                    f"partition {number}: another process goes on with this rebuild"
                ) from error
            except Exception as error:
                failures += 1
                if failures > FAILURES_MAX or (isinstance(error, ShoalError) and not error.retryable):
                    raise
                log.warning("partition %d is tried again: %r", number, error)
                if isinstance(error, KafkaError):
                    await asyncio.sleep(min(0.1 * 2**failures, PAUSE_S_MAX))

    async def _replayed(self, number: int, replay: Replay) -> int:
        pipeline = self._pipeline
        names = LogNames(pipeline.bootstrap, group_id(pipeline.prefix), pipeline.prefix, number)
        log_ = KafkaPartitionLog(names, rebuilds=self._claim.epoch)
        try:
            await log_.fence()
            # Only now: whoever goes live shuts this id out after it was published, so either that is
            # seen here, or what is written from here on is refused.
            epochs = tuple(sorted({version.epoch for version in (await self._check()).versions}))
            async with reading.reader(pipeline.bootstrap) as consumer:
                row = await committed.live_row(consumer, pipeline.prefix, number, epochs)
                if row is None:
                    return 0
                await self._replay(log_, replay, number, row)
                newer = await committed.live_row(consumer, pipeline.prefix, number, epochs)
                return 0 if newer is None else newer.source_offset - row.source_offset
        finally:
            await log_.close()

    async def _replay(self, log_: KafkaPartitionLog, replay: Replay, number: int, row: PartitionRow) -> None:
        """Bring one partition to where its owner's `row` says the owner is."""
        engine = self._engine(number, row.fact_key)
        _, stored = await restored(number, engine, log_, replay, self._turn)
        first = await log_.first_offset(stored)
        if stored is None:
            engine.start_at(first)
            if self._since_ms[number]:
                async with aclosing(log_.restore(row.epoch)) as rows:
                    async for key, value in rows:
                        if key[0] == ERASURE_ROW:
                            engine.recall_erasure(key, value)

        def alive(offset: int) -> None:
            self._say(Progress(number, offset, row.source_offset, engine.table.count))

        alive(first)
        await replay.run(engine, log_, row.source_offset, self._turn, alive)
        alive(row.source_offset)

    def _engine(self, number: int, fact_key: bytes) -> PartitionEngine:
        evaluator = self._versions.newest
        return PartitionEngine(
            app=self._pipeline.prefix,
            partition=number,
            definition=evaluator.definition,
            evaluator=evaluator,
            mode=self._mode,
            wall=SystemClock(),
            bounds=self._bounds,
            versions=self._versions,
            # The owner's key: so what is hashed under it, such as who was erased, means the same.
            new_fact_key=lambda: fact_key,
            quiet=True,
            since_ms=self._since_ms[number],
        )
