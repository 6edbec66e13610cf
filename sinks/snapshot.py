"""Everybody's current values of one partition, and where in the changes to go on from there.

A change and the membership it leads to are one transaction, but become visible apart, for each
partition of a topic learns of a commit on its own. So the place to go on is not where the changes
end now: it is found by number, at or before the latest change the memberships reflect. What is
not visible there yet and comes later is passed over by each customer's own (epoch, seq).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError as ClientError

from errors import KafkaUnavailable, RecordError, SinkRejected
from schemas.changes import decode_change
from schemas.memberships import decode_membership
from sinks.contract import Member, Watermark

REQUEST_TIMEOUT_MS = 10_000
FETCH_WAIT_MS = 50
FETCH_BYTES_MAX = 4 << 20
POLL_MS = 20
STALL_S_MAX = 60.0
"""A snapshot that sees no record for so long, though some are owed, is given up and begun again."""
CLOSE_S_MAX = 5.0
TAIL_RECORDS_MAX = 1_000
PASSES_MAX = 20


@dataclass(frozen=True, slots=True)
class Source:
    """Where changes come from: bootstrap address, the two topics, and how many partitions they have."""

    bootstrap: str
    changes: str
    memberships: str
    partitions: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All members of a partition; the changes after `watermark` bring them, and any others, up to date."""

    members: dict[str, Member]
    watermark: Watermark


async def take_snapshot(source: Source, partition: int) -> Snapshot:
    """Read one partition of memberships, and find where its changes go on.

    Holds all members of the partition in memory. Raises KafkaUnavailable, or SinkRejected when a
    record cannot be read.
    """
    async with _reader(source.bootstrap) as consumer:
        try:
            members = await _members(consumer, TopicPartition(source.memberships, partition))
            latest = max(((each.epoch, each.seq) for each in members.values()), default=(0, 0))
            watermark = await _resumption(consumer, TopicPartition(source.changes, partition), latest)
        except (ClientError, OSError, TimeoutError) as error:
            raise KafkaUnavailable(f"reading partition {partition} to rebuild it: {error!r}") from error
    return Snapshot({name: each for name, each in members.items() if each.values}, watermark)


async def close_quietly(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer; one that cannot say goodbye is missed by the broker after a while."""
    try:
        await asyncio.wait_for(consumer.stop(), CLOSE_S_MAX)
    except (ClientError, OSError, TimeoutError, RuntimeError):
        return


@asynccontextmanager
async def _reader(bootstrap: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        fetch_max_wait_ms=FETCH_WAIT_MS,
        max_partition_fetch_bytes=FETCH_BYTES_MAX,
        request_timeout_ms=REQUEST_TIMEOUT_MS,
    )
    try:
        try:
            await consumer.start()
        except (ClientError, OSError) as error:
            raise KafkaUnavailable(f"no Kafka at {bootstrap}: {error!r}") from error
        yield consumer
    finally:
        await close_quietly(consumer)


async def _members(consumer: AIOKafkaConsumer, where: TopicPartition) -> dict[str, Member]:
    """Return the latest of everybody.

    Compaction may remove a record before it is read because a later one exists, and that may lie
    behind the end looked up at first; so the end is looked up again until little is left, too
    little for a segment to be closed and cleaned meanwhile.
    """
    members: dict[str, Member] = {}
    consumer.assign([where])
    at, end = await _extent(consumer, where)
    for _ in range(PASSES_MAX):
        async for record in _records(consumer, where, at, end):
            if record.value is None:
                members.pop(record.key.decode(), None)
            else:
                member = _member(record)
                members[member.customer_id] = member
        at, (_, end) = end, await _extent(consumer, where)
        if end - at < TAIL_RECORDS_MAX:
            break
    return members


async def _resumption(
    consumer: AIOKafkaConsumer, where: TopicPartition, latest: tuple[int, int]
) -> Watermark:
    """Return a watermark at the last change up to `latest`, looking for it ever further back from the end."""
    consumer.assign([where])
    first, end = await _extent(consumer, where)
    at, back = end, 1
    while at > first:
        at, back = max(first, end - back), back * 4
        last = None
        async for record in _records(consumer, where, at, end):
            if record.value is None:
                continue  # A marker, such as of a rebuild.
            change = _decoded(record)
            if (change["epoch"], change["seq"]) > latest:
                if last is None and at == first:
                    # The members are older than all changes kept: begin with the first of those.
                    last = Watermark(change["epoch"], change["seq"] - 1, record.offset)
                break
            last = Watermark(change["epoch"], change["seq"], record.offset + 1)
        if last is not None:
            return last
    return Watermark(*latest, end)


async def _records(
    consumer: AIOKafkaConsumer, where: TopicPartition, at: int, end: int
) -> AsyncIterator[Any]:
    """Iterate over the committed records of [at, end). KafkaUnavailable after STALL_S_MAX without any."""
    consumer.seek(where, at)
    loop = asyncio.get_running_loop()
    heard_s = loop.time()
    while (position := await consumer.position(where)) < end:
        for record in (await consumer.getmany(where, timeout_ms=POLL_MS)).get(where, ()):
            if record.offset < end:
                yield record
        if await consumer.position(where) > position:
            heard_s = loop.time()
        elif loop.time() - heard_s > STALL_S_MAX:
            raise KafkaUnavailable(f"{where.topic}-{where.partition} stands at {position}, {end} is owed")


async def _extent(consumer: AIOKafkaConsumer, where: TopicPartition) -> tuple[int, int]:
    """Return [first, last stable offset)."""
    first = (await consumer.beginning_offsets([where]))[where]
    return first, (await consumer.end_offsets([where]))[where]


def _member(record: Any) -> Member:
    try:
        held = decode_membership(record.value)
    except RecordError as error:
        raise unreadable(record, error) from error
    values = {each["dimension"]: each["value"] for each in held["values"]}
    expires_at = held["values"][0]["expires_at"] if values else None
    return Member(held["customer_id"], held["epoch"], held["seq"], expires_at, values)


def _decoded(record: Any) -> dict[str, Any]:
    try:
        return decode_change(record.value)
    except RecordError as error:
        raise unreadable(record, error) from error


def unreadable(record: Any, error: RecordError) -> SinkRejected:
    """Return the error that names the record; passing over it would leave a hole nobody sees."""
    return SinkRejected(
        f"{record.topic}-{record.partition} at {record.offset}: {type(error).__name__}: {error}; "
        "is this sink older than the worker?"
    )
