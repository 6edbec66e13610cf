"""Reading topics from outside the consumer group: restores, log ends, one partition for an operator."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError as ClientError

from errors import KafkaUnavailable
from streams.kafka.seam import Chunk, Row

log = logging.getLogger(__name__)

REQUEST_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 5.0
POLL_MS = 10
FETCH_WAIT_MS = 50
"""Any other request of the same reader waits for the fetch in flight, which may find nothing."""

RETRY_BACKOFF_MS = 10
"""The first request about a topic always fails, for want of metadata, and waits this long."""

PARTITION_FETCH_BYTES_MAX = 4 << 20
FETCH_BYTES_MAX = 16 << 20
CHUNK_RECORDS_MAX = 5_000
LOOK_BACK = 64
"""Records looked at first for the latest of a key that is among the last of every transaction."""
STALL_S_MAX = 60.0
"""A restore that sees no record for this long, though some are owed, is given up; so is waiting to settle."""

Isolation = Literal["read_committed", "read_uncommitted"]


@dataclass(frozen=True, slots=True)
class Extent:
    """The offsets a log holds: [first, end)."""

    first: int
    end: int


async def close_quietly(closing: Awaitable[None], what: str) -> None:
    """Await a client's `stop` for at most CLOSE_TIMEOUT_S; what it raises is only logged."""
    try:
        await asyncio.wait_for(closing, CLOSE_TIMEOUT_S)
    except (ClientError, TimeoutError, OSError, RuntimeError) as error:
        log.info("closing %s: ignored %r", what, error)
    except asyncio.CancelledError:
        # A client waits for tasks it cancelled itself, and may raise that: nobody cancelled this task then.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        log.info("closing %s: ignored a cancellation of its own", what)


@asynccontextmanager
async def reader(bootstrap: str, isolation: Isolation = "read_committed") -> AsyncIterator[AIOKafkaConsumer]:
    """A started consumer outside any group, assigned nothing. Raises KafkaUnavailable."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        isolation_level=isolation,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=PARTITION_FETCH_BYTES_MAX,
        fetch_max_bytes=FETCH_BYTES_MAX,
        request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
        fetch_max_wait_ms=FETCH_WAIT_MS,
        retry_backoff_ms=RETRY_BACKOFF_MS,
    )
    try:
        try:
            await consumer.start()
        except (ClientError, OSError) as error:
            raise KafkaUnavailable(f"no Kafka at {bootstrap}: {error!r}") from error
        yield consumer
    finally:
        await close_quietly(consumer.stop(), "a reader")


async def extent(consumer: AIOKafkaConsumer, topic: str, partition: int) -> Extent:
    """Return what the partition holds; a read_committed consumer sees it end at the last stable offset."""
    where = TopicPartition(topic, partition)
    try:
        first = (await consumer.beginning_offsets([where]))[where]
        end = (await consumer.end_offsets([where]))[where]
    except (ClientError, TimeoutError, OSError) as error:
        raise KafkaUnavailable(f"no answer about {topic}-{partition}: {error!r}") from error
    return Extent(first, end)


async def ends(consumer: AIOKafkaConsumer, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """Return where each of the partitions ends, in one request per broker. Raises KafkaUnavailable."""
    try:
        found = await consumer.end_offsets([TopicPartition(topic, partition) for partition in partitions])
    except (ClientError, TimeoutError, OSError) as error:
        raise KafkaUnavailable(f"no answer about {topic}: {error!r}") from error
    return {where.partition: end for where, end in found.items()}


async def settle(bootstrap: str, topics: Iterable[str], partitions: int) -> None:
    """Return when every transaction that wrote to these topics by now has ended in them.

    A broker completes a transaction topic by topic: offsets and rows of one can be read a moment before
    what was committed with them in another. For who compares topics. Raises KafkaUnavailable, also when
    that has not come within STALL_S_MAX.
    """
    wheres = [TopicPartition(topic, partition) for topic in topics for partition in range(partitions)]
    async with reader(bootstrap, "read_uncommitted") as writing, reader(bootstrap) as stable:
        try:
            written = await writing.end_offsets(wheres)
            async with asyncio.timeout(STALL_S_MAX):
                while True:
                    ended = await stable.end_offsets(wheres)
                    if all(ended[where] >= end for where, end in written.items()):
                        return
                    await asyncio.sleep(POLL_MS / 1000)
        except (ClientError, TimeoutError, OSError) as error:
            raise KafkaUnavailable(f"waiting for transactions to end: {error!r}") from error


async def committed_rows(consumer: AIOKafkaConsumer, topic: str, partition: int) -> AsyncGenerator[Row, None]:
    """Iterate over the records of [first, last stable offset) as (key, value). Raises KafkaUnavailable.

    The end is read once, at the beginning; compaction holes and markers are stepped over.
    """
    where = TopicPartition(topic, partition)
    held = await extent(consumer, topic, partition)
    consumer.assign([where])
    consumer.seek(where, held.first)
    loop = asyncio.get_running_loop()
    heard_s = loop.time()
    while (position := await consumer.position(where)) < held.end:
        try:
            fetched = await consumer.getmany(where, timeout_ms=POLL_MS)
        except (ClientError, OSError) as error:
            raise KafkaUnavailable(f"reading {topic}-{partition}: {error!r}") from error
        for record in fetched.get(where, ()):
            yield record.key, record.value
        if await consumer.position(where) > position:
            heard_s = loop.time()
        elif loop.time() - heard_s > STALL_S_MAX:
            raise KafkaUnavailable(f"{topic}-{partition} stands at {position}, {held.end} is owed")


async def replayed(
    consumer: AIOKafkaConsumer, topic: str, partition: int, start: int, end: int
) -> AsyncGenerator[Chunk, None]:
    """Iterate over the committed records of [start, end) in chunks. Raises KafkaUnavailable."""
    where = TopicPartition(topic, partition)
    consumer.assign([where])
    consumer.seek(where, start)
    loop = asyncio.get_running_loop()
    heard_s = loop.time()
    while start < end:
        try:
            fetched = await consumer.getmany(where, timeout_ms=POLL_MS, max_records=CHUNK_RECORDS_MAX)
        except (ClientError, OSError) as error:
            raise KafkaUnavailable(f"reading {topic}-{partition}: {error!r}") from error
        position = min(await consumer.position(where), end)
        if position > start:
            records = [record for record in fetched.get(where, ()) if record.offset < end]
            yield Chunk(start, records, position, 0)
            start, heard_s = position, loop.time()
        elif loop.time() - heard_s > STALL_S_MAX:
            raise KafkaUnavailable(f"{topic}-{partition} stands at {start}, {end} is owed")


async def latest(consumer: AIOKafkaConsumer, topic: str, partition: int, key: bytes) -> bytes | None:
    """Return the latest committed value under a key that is among the last of every transaction.

    Looked for from the end backwards, ever further; None when it is not there. Raises KafkaUnavailable.
    """
    held = await extent(consumer, topic, partition)
    back = LOOK_BACK
    while True:
        start = max(held.first, held.end - back)
        found: bytes | None = None
        async with aclosing(replayed(consumer, topic, partition, start, held.end)) as chunks:
            async for chunk in chunks:
                for record in chunk.records:
                    if record.key == key:
                        found = record.value
        if found is not None or start == held.first:
            return found
        back *= 16


async def restore_partition(bootstrap: str, prefix: str, partition: int) -> AsyncGenerator[Row, None]:
    """Iterate over the committed rows of one partition of `customers`, from outside any worker."""
    topic = f"{prefix}.customers"
    async with reader(bootstrap) as consumer, aclosing(committed_rows(consumer, topic, partition)) as rows:
        async for row in rows:
            yield row
