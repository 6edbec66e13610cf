"""The logs the runs read: each written once, then read by every run of every round as it is."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError as ClientError
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from benchmarks.process_cpu import Mark, Measured
from benchmarks.synthetic import Stamped
from errors import KafkaUnavailable
from schemas.events import encode_tick
from streams.app import group_id
from streams.customer_card import partition_of
from streams.kafka.reading import extent, reader
from streams.topics import EVENTS, SCHEMAS, ensure_topics, topic_name

BATCH_RECORDS = 2_000
BATCH_BYTES = 900_000
POLL_S = 0.05
ADMIN_S_MAX = 40.0
RUN_S_MAX = 900.0

Entry = tuple[int, bytes | None, bytes]
"""(when it reaches the log, key, value); a Tick has no key: it goes to every partition."""


@dataclass(frozen=True, slots=True)
class EventLog:
    """One events topic as written; `prefix` is the pipeline's whose log it is."""

    prefix: str
    partitions: int
    events: int
    """Those of customers, Ticks left out."""
    ticks: int
    """Records that are Ticks, in all partitions."""
    last_ms: int
    """When the last record reached it: for a log that ends with a Tick, the clock at its end."""
    ends: Mapping[int, int]
    """Partition to the offset after its last record."""


def with_ticks(arrivals: Iterable[Stamped], tick_ms: int) -> Iterator[Entry]:
    """Put a Tick after all that came before each multiple of `tick_ms`, the last behind everything."""
    next_ms = None
    for at_ms, key, value in arrivals:
        if next_ms is None:
            next_ms = at_ms - at_ms % tick_ms + tick_ms
        while at_ms >= next_ms:
            yield next_ms, None, encode_tick(next_ms)
            next_ms += tick_ms
        yield at_ms, key, value
    if next_ms is not None:
        yield next_ms, None, encode_tick(next_ms)


def first(entries: Iterable[Entry], events: int) -> Iterator[Entry]:
    """Yield the entries up to the first Tick that has at least so many events before it."""
    seen = 0
    for entry in entries:
        yield entry
        seen += entry[1] is not None
        if entry[1] is None and seen >= events:
            return


async def write(
    bootstrap: str,
    name: str,
    partition_counts: Sequence[int],
    entries: Iterable[Entry],
    *,
    append_as_happened: bool,
) -> dict[int, EventLog]:
    """Write the same entries to one fresh pipeline for each count of partitions: `<name>-<count>.events`.

    With `append_as_happened` the log looks as if every record had been appended when it happened:
    the topic takes the writer's timestamps while it is written, and its own, as it has to, from
    then on. What is in it keeps what it was written with.
    """
    prefixes = {count: f"{name}-{count}" for count in partition_counts}
    for count, prefix in prefixes.items():
        await ensure_topics(bootstrap, prefix, count, events_retention_ms=-1)
    topics = [topic_name(prefix, EVENTS) for prefix in prefixes.values()]
    if append_as_happened:
        await asyncio.to_thread(_stamp_by, bootstrap, topics, "CreateTime")
    events, ticks, last_ms = await _produce(bootstrap, prefixes, entries, stamped=append_as_happened)
    if append_as_happened:
        await asyncio.to_thread(_stamp_by, bootstrap, topics, "LogAppendTime")
    logs = {}
    async with reader(bootstrap) as consumer:
        for count, prefix in prefixes.items():
            ends = {p: (await extent(consumer, topic_name(prefix, EVENTS), p)).end for p in range(count)}
            logs[count] = EventLog(prefix, count, events, ticks * count, last_ms, ends)
    return logs


async def _produce(
    bootstrap: str, prefixes: Mapping[int, str], entries: Iterable[Entry], *, stamped: bool
) -> tuple[int, int, int]:
    """Return events, Ticks (each once) and the last time."""
    homes: dict[tuple[bytes, int], int] = {}
    events = ticks = last_ms = 0
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_batch_size=BATCH_BYTES
    )
    await producer.start()
    batches: dict[tuple[str, int], Any] = {}
    try:
        for at_ms, key, value in entries:
            last_ms = at_ms
            events += key is not None
            ticks += key is None
            for count, prefix in prefixes.items():
                if key is None:
                    targets: Iterable[int] = range(count)
                else:
                    home = homes.get((key, count))
                    if home is None:
                        home = homes[key, count] = partition_of(key.decode(), count)
                    targets = (home,)
                for partition in targets:
                    where = topic_name(prefix, EVENTS), partition
                    batch = batches.setdefault(where, producer.create_batch())
                    record = {
                        "key": b"%d" % partition if key is None else key,
                        "value": value,
                        "timestamp": at_ms if stamped else None,
                    }
                    if batch.record_count() >= BATCH_RECORDS or batch.append(**record) is None:
                        await (await producer.send_batch(batch, where[0], partition=partition))
                        batches[where] = batch = producer.create_batch()
                        batch.append(**record)
        for (topic, partition), batch in batches.items():
            await (await producer.send_batch(batch, topic, partition=partition))
    finally:
        await producer.stop()
    return events, ticks, last_ms


def _stamp_by(bootstrap: str, topics: Sequence[str], whose: str) -> None:
    entry = ConfigEntry("message.timestamp.type", whose, incremental_operation=AlterConfigOpType.SET)
    resources = [ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry]) for topic in topics]
    # Held by a name: its requests die with it.
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 3})
    for done in admin.incremental_alter_configs(resources).values():
        done.result(ADMIN_S_MAX)


async def forget_state(bootstrap: str, log: EventLog) -> None:
    """Make the pipeline as if nobody had read its log yet: no state, no outputs, no group."""
    kept = {topic_name(log.prefix, EVENTS), topic_name(log.prefix, SCHEMAS)}
    await _delete_topics(bootstrap, log.prefix, kept)
    await asyncio.to_thread(_delete_group, bootstrap, group_id(log.prefix))
    await ensure_topics(bootstrap, log.prefix, log.partitions, events_retention_ms=-1)


async def delete_everything(bootstrap: str, prefix: str) -> None:
    """Delete every topic whose name begins with `prefix` and a dot or a hyphen."""
    await _delete_topics(bootstrap, prefix, set())


async def _delete_topics(bootstrap: str, prefix: str, kept: set[str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        deadline_s = time.monotonic() + ADMIN_S_MAX
        asked: set[str] = set()
        while True:
            mine = {
                name for name in await admin.list_topics() if name.startswith((f"{prefix}.", f"{prefix}-"))
            } - kept
            if not mine:
                return
            if mine - asked:
                await admin.delete_topics(list(mine - asked))
                asked |= mine
            if time.monotonic() > deadline_s:
                raise KafkaUnavailable(f"{sorted(mine)} are still there after {ADMIN_S_MAX:g} s")
            await asyncio.sleep(POLL_S)
    finally:
        await admin.close()


def _delete_group(bootstrap: str, group: str) -> None:
    """Delete a consumer group, once its last member has left; one that is not there is no error."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 3})
    deadline_s = time.monotonic() + ADMIN_S_MAX
    # Asked first: a broker that never had a group has nobody who could be told to delete one.
    while group in {each.group_id for each in admin.list_consumer_groups().result(ADMIN_S_MAX).valid}:
        try:
            admin.delete_consumer_groups([group])[group].result(ADMIN_S_MAX)
        except KafkaException:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(POLL_S)


async def mark_when_read(
    bootstrap: str,
    group: str,
    topic: str,
    ends: Mapping[int, int],
    process: Measured,
    fatal: re.Pattern[str] | None = None,
) -> Mark:
    """Return the mark at which the group has committed the end of every partition.

    MeasuredEnded when the process ends, or says what is `fatal`.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        deadline_s = time.monotonic() + RUN_S_MAX
        while time.monotonic() < deadline_s:
            mark = process.mark()
            if fatal is not None:
                process.refuse(fatal)
            try:
                offsets = await admin.list_consumer_group_offsets(group)
            except ClientError:
                # The group exists once the worker has joined it.
                offsets = {}
            at = {p: offsets.get(TopicPartition(topic, p)) for p in ends}
            if all((reached := at[p]) is not None and reached.offset >= end for p, end in ends.items()):
                return mark
            await asyncio.sleep(POLL_S)
        raise TimeoutError(f"{group} has not read {topic} within {RUN_S_MAX:.0f} s")
    finally:
        await admin.close()
