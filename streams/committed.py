"""What is committed of a pipeline, read from outside any worker: partition rows, and partitions whole."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from aiokafka import AIOKafkaConsumer

from clock import SystemClock
from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow
from streams.kafka import reading
from streams.segments.versions import Versions
from streams.steps.engine import PartitionEngine
from streams.steps.epochs import is_live
from streams.topics import changelog_name

FIRST = (1,)
"""The epochs of a pipeline that was never rebuilt."""


async def partition_rows(
    bootstrap: str, prefix: str, partitions: int, epochs: Sequence[int] = FIRST
) -> dict[int, PartitionRow]:
    """Return the partition row of every partition that has one, of the epoch that is the truth of it.

    `epochs` are those there are versions of, ascending. Raises KafkaUnavailable, StateCorrupt.
    """
    async with reading.reader(bootstrap) as consumer:
        found = {number: await live_row(consumer, prefix, number, epochs) for number in range(partitions)}
    return {number: row for number, row in found.items() if row is not None}


async def live_row(
    consumer: AIOKafkaConsumer, prefix: str, partition: int, epochs: Sequence[int]
) -> PartitionRow | None:
    """Return the row of one partition, None when nothing was ever committed. Raises as `partition_rows`."""
    for epoch in reversed(epochs):
        row = await _row(consumer, prefix, partition, epoch)
        if epoch == epochs[0] or is_live(row):
            return row
    return None


async def restored(
    consumer: AIOKafkaConsumer, prefix: str, partition: int, partitions: int, versions: Versions
) -> PartitionEngine:
    """Return the state of a partition as of its last commit, under the definition that built it.

    Nothing is ever written from it. Raises what `PartitionEngine.finish_restore` does, KafkaUnavailable.
    """
    evaluator = versions.newest
    engine = PartitionEngine(
        app=prefix,
        partition=partition,
        definition=evaluator.definition,
        evaluator=evaluator,
        mode="event",
        wall=SystemClock(),
        versions=versions,
    )
    row = None if len(engine.epochs) == 1 else await live_row(consumer, prefix, partition, engine.epochs)
    epoch = engine.epochs[-1] if row is None else row.epoch
    engine.begin_restore(epoch)
    if row is not None and row.rebuilt is not None:
        told = changelog_name(prefix, row.rebuilt.told_epoch)
        async with aclosing(reading.committed_rows(consumer, told, partition)) as rows:
            async for key, value in rows:
                engine.told_row(key, value)
    async with aclosing(reading.committed_rows(consumer, changelog_name(prefix, epoch), partition)) as rows:
        async for key, value in rows:
            engine.restore_row(key, value)
    engine.finish_restore(partitions=partitions)
    return engine


async def _row(consumer: AIOKafkaConsumer, prefix: str, partition: int, epoch: int) -> PartitionRow | None:
    found = await reading.latest(consumer, changelog_name(prefix, epoch), partition, PARTITION_ROW_KEY)
    return None if found is None else PartitionRow.decode(found)
