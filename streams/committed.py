"""What is committed of a pipeline, read from outside any worker: partition rows, and partitions whole."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError as ClientError

from clock import SystemClock
from errors import KafkaUnavailable
from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow
from streams.kafka import reading
from streams.segments.versions import Versions
from streams.steps.engine import PartitionEngine
from streams.topics import CUSTOMERS, topic_name

LOOK_BACK = 64
"""Records looked at first: the partition row is the last of every transaction."""

POLL_MS = 50


async def partition_rows(bootstrap: str, prefix: str, partitions: int) -> dict[int, PartitionRow]:
    """Return the partition row of every partition that has one. Raises KafkaUnavailable, StateCorrupt."""
    async with reading.reader(bootstrap) as consumer:
        found = {number: await _partition_row(consumer, prefix, number) for number in range(partitions)}
    return {number: row for number, row in found.items() if row is not None}


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
    async for key, value in reading.committed_rows(consumer, topic_name(prefix, CUSTOMERS), partition):
        engine.restore_row(key, value)
    engine.finish_restore(partitions=partitions)
    return engine


async def _partition_row(consumer: AIOKafkaConsumer, prefix: str, partition: int) -> PartitionRow | None:
    """Look for the row from the end backwards, ever further."""
    topic = topic_name(prefix, CUSTOMERS)
    held = await reading.extent(consumer, topic, partition)
    where = TopicPartition(topic, partition)
    back = LOOK_BACK
    while True:
        start = max(held.first, held.end - back)
        consumer.assign([where])
        consumer.seek(where, start)
        found: bytes | None = None
        try:
            while await consumer.position(where) < held.end:
                for record in (await consumer.getmany(where, timeout_ms=POLL_MS)).get(where, ()):
                    if record.key == PARTITION_ROW_KEY and record.offset < held.end:
                        found = record.value
        except (ClientError, OSError) as error:
            raise KafkaUnavailable(f"reading {topic}-{partition}: {error!r}") from error
        if found is not None:
            return PartitionRow.decode(found)
        if start == held.first:
            return None
        back *= 16
