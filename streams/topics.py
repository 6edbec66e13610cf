"""The topics: their names, partitions and policies; created, checked, and given the schemas.

Partition p of every topic keyed by customer belongs together, so their counts must agree; the
rest of a policy decides what is lost and when.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError as ClientError
from aiokafka.errors import KafkaTimeoutError, TopicAlreadyExistsError, for_code

from errors import KafkaError, KafkaUnavailable, TopicMismatch

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
EVENTS = "events"
CUSTOMERS = "customers"
SEGMENT_CHANGES = "segment-changes"
MEMBERSHIPS = "memberships"
DEFINITIONS = "definitions"
SCHEMAS = "schemas"
DEAD_LETTERS = "dead-letters"
CLOCK = "clock"

RECORD_BYTES_MAX = 2 << 20
"""A record of 1 MiB in its batch, or a batch of many; Kafka's own limit is no record of 1 MiB."""
RETENTION_MARGIN_MS = 14 * DAY_MS
"""7 days the fold line lies behind the longest window, and 7 for a worker that was down."""
ATTEMPT_S_MAX = 10.0
PAUSE_S = 0.25

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic as it has to be; `needed` names the entries of `config` that are checked later.

    The others are tuning: an operator may change them without making any result wrong.
    """

    name: str
    partitions: int
    config: Mapping[str, str]
    needed: tuple[str, ...] = ("cleanup.policy",)


def topic_name(prefix: str, name: str) -> str:
    """Return the full name of one of the topics, such as `shoal.events`."""
    return f"{prefix}.{name}"


def changelog_name(prefix: str, epoch: int) -> str:
    """Return the full name of an epoch's changelog: `customers` for the first."""
    return topic_name(prefix, CUSTOMERS if epoch == 1 else f"{CUSTOMERS}-e{epoch}")


def topics(prefix: str, partitions: int, *, events_retention_ms: int) -> tuple[Topic, ...]:
    """Return all topics under `prefix`, those keyed by customer with `partitions` partitions each.

    Dead letters have as many: p's are written by p's own transaction, so each stays beside its kind.
    """
    # Retention counts from the time of writing: an event of 2009, replayed, is as new as any.
    # Kafka would otherwise also refuse what a client's clock dates an hour ahead.
    deleted = {"cleanup.policy": "delete", "message.timestamp.type": "LogAppendTime"}
    compacted = {"cleanup.policy": "compact"}
    # Small segments cleaned early: a restore reads little more than the latest rows. A tombstone
    # stays a day, so that a reader who is slower than the cleaner still sees it. What is superseded
    # stays no longer than a day either, for it may be of a customer who was erased.
    rows = {
        **compacted,
        "segment.bytes": str(64 << 20),
        "min.cleanable.dirty.ratio": "0.1",
        "delete.retention.ms": str(DAY_MS),
        "max.compaction.lag.ms": str(DAY_MS),
    }
    month = {**deleted, "retention.ms": str(30 * DAY_MS)}
    hour = {**deleted, "retention.ms": str(HOUR_MS), "segment.bytes": str(1 << 20)}
    events = {**deleted, "retention.ms": str(events_retention_ms)}
    stamped = ("cleanup.policy", "message.timestamp.type")
    chosen = (
        Topic(EVENTS, partitions, events, needed=stamped),
        Topic(CUSTOMERS, partitions, rows),
        Topic(SEGMENT_CHANGES, partitions, month),
        Topic(MEMBERSHIPS, partitions, rows),
        Topic(DEFINITIONS, 1, compacted),
        Topic(SCHEMAS, 1, compacted),
        Topic(DEAD_LETTERS, partitions, month),
        Topic(CLOCK, 1, hour, needed=stamped),
    )
    limit = {"max.message.bytes": str(RECORD_BYTES_MAX)}
    return tuple(
        Topic(topic_name(prefix, each.name), each.partitions, {**each.config, **limit}, each.needed)
        for each in chosen
    )


async def ensure_topics(
    bootstrap: str,
    prefix: str,
    partitions: int,
    *,
    replication: int = 1,
    events_retention_ms: int = 400 * DAY_MS,
    longest_window_ms: int = 0,
    wait_s_max: float = 30.0,
) -> tuple[str, ...]:
    """Create the topics that are missing, check all, publish the schemas; return what was created.

    Doing it twice changes nothing. Nothing is created when `events_retention_ms` is too short.
    Raises KafkaUnavailable when no broker answers within `wait_s_max` seconds, TopicMismatch as
    `check_topics` does, KafkaError when Kafka refuses to create a topic.
    """
    wanted = topics(prefix, partitions, events_retention_ms=events_retention_ms)
    _check_retention(topic_name(prefix, EVENTS), str(events_retention_ms), longest_window_ms)
    async with _admin(bootstrap, wait_s_max) as admin:
        present = await admin.list_topics()
        created = await _create(admin, [each for each in wanted if each.name not in present], replication)
        await _check(admin, wanted, longest_window_ms, wait_s_max)
    await publish_schemas(bootstrap, prefix)
    return created


async def ensure_changelog(
    bootstrap: str, prefix: str, partitions: int, epoch: int, *, replication: int, wait_s_max: float = 30.0
) -> None:
    """Create an epoch's changelog as the first is created, unless it is there. Raises as `ensure_topics`."""
    wanted = _changelog(prefix, partitions, epoch)
    async with _admin(bootstrap, wait_s_max) as admin:
        if wanted.name not in await admin.list_topics():
            await _create(admin, [wanted], replication)
        await _check(admin, [wanted], 0, wait_s_max)


def _changelog(prefix: str, partitions: int, epoch: int) -> Topic:
    first = next(
        each
        for each in topics(prefix, partitions, events_retention_ms=-1)
        if each.name == changelog_name(prefix, 1)
    )
    return replace(first, name=changelog_name(prefix, epoch))


async def check_topics(
    bootstrap: str,
    prefix: str,
    partitions: int,
    *,
    longest_window_ms: int = 0,
    epoch: int = 1,
    wait_s_max: float = 30.0,
) -> None:
    """Check that every topic exists, with the partitions and the policy results depend on.

    So must the changelog of `epoch`, the newest.

    `events` must keep at least the longest window and a margin. Raises TopicMismatch naming topic,
    value and what was expected, all of them at once; KafkaUnavailable as `ensure_topics` does.
    """
    wanted = topics(prefix, partitions, events_retention_ms=-1)
    if epoch > 1:
        wanted = (*wanted, _changelog(prefix, partitions, epoch))
    async with _admin(bootstrap, wait_s_max) as admin:
        await _check(admin, wanted, longest_window_ms, wait_s_max=0)


async def publish_schemas(bootstrap: str, prefix: str) -> int:
    """Write the schemas `schemas` does not hold yet, by fingerprint; return how many that were.

    A worker or SDK that meets a fingerprint finds its schema there.
    """
    from schemas import catalogue

    records: dict[bytes, bytes] = dict(catalogue.records())
    topic = topic_name(prefix, SCHEMAS)
    held = await _read_all(bootstrap, topic)
    new = {key: value for key, value in records.items() if held.get(key) != value}
    if not new:
        return 0
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        for key, value in new.items():
            await producer.send_and_wait(topic, value, key=key)
    finally:
        await producer.stop()
    return len(new)


async def wait_for_kafka(bootstrap: str, wait_s_max: float) -> AIOKafkaAdminClient:
    """Return a started admin client, which the caller closes, as soon as a broker answers.

    Raises KafkaUnavailable, naming the address and the seconds, after `wait_s_max`.
    """
    deadline = time.monotonic() + wait_s_max
    while True:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        try:
            left = max(0.1, deadline - time.monotonic())
            await asyncio.wait_for(admin.start(), min(ATTEMPT_S_MAX, left))
        except (ClientError, OSError, TimeoutError) as error:
            await admin.close()
            if time.monotonic() + PAUSE_S >= deadline:
                raise KafkaUnavailable(
                    f"no Kafka answered at {bootstrap} within {wait_s_max:g} s ({type(error).__name__}): "
                    "start one with `make up`, or name one in SHOAL_KAFKA"
                ) from error
            await asyncio.sleep(PAUSE_S)
        except BaseException:
            await admin.close()
            raise
        else:
            return admin


@asynccontextmanager
async def _admin(bootstrap: str, wait_s_max: float) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = await wait_for_kafka(bootstrap, wait_s_max)
    try:
        yield admin
    finally:
        await admin.close()


async def _answer(bootstrap_call: Awaitable[_Result]) -> _Result:
    """Await one request; what goes wrong in the client becomes an error of ours."""
    try:
        return await bootstrap_call
    except (ClientError, KafkaTimeoutError, OSError) as error:
        raise KafkaUnavailable(f"Kafka stopped answering: {type(error).__name__}: {error}") from error


async def _create(admin: AIOKafkaAdminClient, missing: Sequence[Topic], replication: int) -> tuple[str, ...]:
    if not missing:
        return ()
    # One copy may be away without stopping the pipeline; none of the confirmed writes is then lost.
    synced = {"min.insync.replicas": str(max(1, replication - 1))}
    new = [
        NewTopic(each.name, each.partitions, replication, topic_configs={**each.config, **synced})
        for each in missing
    ]
    response = await _answer(admin.create_topics(new))
    created = []
    for name, code, message in response.topic_errors:
        if code == 0:
            created.append(name)
        # Somebody else may create the same topics at the same time; the check follows for both.
        elif code != TopicAlreadyExistsError.errno:
            raise KafkaError(f"{name}: Kafka did not create it: {for_code(code).__name__}: {message}")
    return tuple(sorted(created))


async def _check(
    admin: AIOKafkaAdminClient, wanted: Sequence[Topic], longest_window_ms: int, wait_s_max: float
) -> None:
    """Compare what is there with `wanted`; a topic just created may take a moment to be seen."""
    deadline = time.monotonic() + wait_s_max
    while True:
        counts = await _partition_counts(admin, [each.name for each in wanted])
        if all(counts.values()) or time.monotonic() >= deadline:
            break
        await asyncio.sleep(PAUSE_S)
    problems = [
        f"{each.name}: does not exist; create it with `shoal topics`"
        if counts[each.name] == 0
        else f"{each.name}: {counts[each.name]} partitions, expected {each.partitions}"
        for each in wanted
        if counts[each.name] != each.partitions
    ]
    problems += await _policy_problems(
        admin, [each for each in wanted if counts[each.name]], longest_window_ms
    )
    if problems:
        raise TopicMismatch("\n".join(problems))


async def _partition_counts(admin: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, int]:
    """Return how many partitions with a leader each topic has; 0 for one that does not exist."""
    counts = dict.fromkeys(names, 0)
    for described in await _answer(admin.describe_topics(list(names))):
        if described["error_code"] == 0 and all(part["leader"] >= 0 for part in described["partitions"]):
            counts[described["topic"]] = len(described["partitions"])
    return counts


async def _policy_problems(
    admin: AIOKafkaAdminClient, present: Iterable[Topic], longest_window_ms: int
) -> list[str]:
    by_name = {each.name: each for each in present}
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in by_name]
    problems = []
    for response in await _answer(admin.describe_configs(asked)) if asked else ():
        for _, _, _, name, entries in response.resources:
            values = {entry[0]: entry[1] for entry in entries}
            topic = by_name[name]
            problems += [
                f"{name}: {key}={values.get(key)}, expected {topic.config[key]}"
                for key in topic.needed
                if values.get(key) != topic.config[key]
            ]
            limit = values["max.message.bytes"]
            if int(limit) < RECORD_BYTES_MAX:
                problems.append(f"{name}: max.message.bytes={limit}, expected at least {RECORD_BYTES_MAX}")
            if name.endswith(f".{EVENTS}"):
                problems += _retention_problems(name, values["retention.ms"], longest_window_ms)
    return problems


def _retention_problems(name: str, retention_ms: str, longest_window_ms: int) -> list[str]:
    needed = longest_window_ms + RETENTION_MARGIN_MS
    if retention_ms == "-1" or int(retention_ms) >= needed:
        return []
    return [
        f"{name}: retention.ms={retention_ms}, expected at least {needed} "
        f"(the longest window, {longest_window_ms / DAY_MS:g} d, and 14 d)"
    ]


def _check_retention(name: str, retention_ms: str, longest_window_ms: int) -> None:
    problems = _retention_problems(name, retention_ms, longest_window_ms)
    if problems:
        raise TopicMismatch("\n".join(problems))


async def _read_all(bootstrap: str, topic: str) -> dict[bytes, bytes]:
    """Read a small compacted topic of one partition to its present end."""
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        end = (await consumer.end_offsets([partition]))[partition]
        held: dict[bytes, bytes] = {}
        while await consumer.position(partition) < end:
            for records in (await consumer.getmany(partition, timeout_ms=1000)).values():
                held.update((record.key, record.value) for record in records)
        return held
    finally:
        await consumer.stop()
