from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from deploy.local.kafka import free_port
from errors import KafkaUnavailable, TopicMismatch
from streams.topics import DAY_MS, RETENTION_MARGIN_MS, check_topics, ensure_topics, publish_schemas, topics

NAMES = (
    "clock",
    "customers",
    "dead-letters",
    "definitions",
    "events",
    "memberships",
    "schemas",
    "segment-changes",
)

pytestmark = pytest.mark.kafka


@pytest.fixture
async def admin(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await client.start()
    yield client
    await client.close()


async def values_of(admin: AIOKafkaAdminClient, topic: str) -> dict[str, str]:
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    return {entry[0]: entry[1] for entry in answers[0].resources[0][4]}


async def test_all_topics_are_created_with_their_partitions(
    kafka: str, prefix: str, admin: AIOKafkaAdminClient
) -> None:
    """Topics keyed by customer get the same count, the two that are read whole get one."""
    created = await ensure_topics(kafka, prefix, 3)
    assert created == tuple(f"{prefix}.{name}" for name in NAMES)
    counts = {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics(list(created))}
    assert counts == {
        f"{prefix}.{name}": 1 if name in ("clock", "definitions", "schemas") else 3 for name in NAMES
    }


async def test_the_policies_kafka_holds_are_the_stated_ones(
    kafka: str, prefix: str, admin: AIOKafkaAdminClient
) -> None:
    """What was asked for is what the broker answers, entry by entry."""
    await ensure_topics(kafka, prefix, 2, events_retention_ms=380 * DAY_MS, longest_window_ms=365 * DAY_MS)
    for topic in topics(prefix, 2, events_retention_ms=380 * DAY_MS):
        held = await values_of(admin, topic.name)
        assert {key: held[key] for key in topic.config} == dict(topic.config)
        assert held["min.insync.replicas"] == "1"


async def test_creating_twice_changes_nothing(kafka: str, prefix: str) -> None:
    """The second time there is nothing to create and no schema to publish."""
    await ensure_topics(kafka, prefix, 2)
    assert await ensure_topics(kafka, prefix, 2) == ()
    assert await publish_schemas(kafka, prefix) == 0


async def test_only_what_is_missing_is_created(kafka: str, prefix: str, admin: AIOKafkaAdminClient) -> None:
    """A deploy that adds a topic leaves the others alone."""
    await ensure_topics(kafka, prefix, 2)
    await admin.delete_topics([f"{prefix}.memberships"])
    assert await ensure_topics(kafka, prefix, 2) == (f"{prefix}.memberships",)


async def test_another_partition_count_is_refused(kafka: str, prefix: str) -> None:
    """Customers would land elsewhere than their state: every topic concerned is named."""
    await ensure_topics(kafka, prefix, 2)
    with pytest.raises(TopicMismatch) as caught:
        await check_topics(kafka, prefix, 4)
    keyed = ("events", "customers", "segment-changes", "memberships", "dead-letters")
    assert str(caught.value).splitlines() == [f"{prefix}.{name}: 2 partitions, expected 4" for name in keyed]


async def test_one_topic_with_another_count_is_found(
    kafka: str, prefix: str, admin: AIOKafkaAdminClient
) -> None:
    """A topic somebody made by hand before us is checked like our own."""
    await admin.create_topics(
        [NewTopic(f"{prefix}.memberships", 5, 1, topic_configs={"cleanup.policy": "compact"})]
    )
    with pytest.raises(TopicMismatch, match=rf"{prefix}\.memberships: 5 partitions, expected 2"):
        await ensure_topics(kafka, prefix, 2)


async def test_a_missing_topic_is_named_with_the_remedy(kafka: str, prefix: str) -> None:
    """A worker that starts before `shoal topics` says what to do."""
    with pytest.raises(TopicMismatch, match=rf"{prefix}\.events: does not exist; .*`shoal topics`"):
        await check_topics(kafka, prefix, 2)


async def test_a_policy_that_would_lose_state_is_refused(
    kafka: str, prefix: str, admin: AIOKafkaAdminClient
) -> None:
    """A changelog that is deleted by age instead of compacted loses customers."""
    name = f"{prefix}.customers"
    limits = {"max.message.bytes": str(4 << 20)}
    await admin.create_topics([NewTopic(name, 2, 1, topic_configs={"cleanup.policy": "delete", **limits})])
    with pytest.raises(TopicMismatch) as caught:
        await ensure_topics(kafka, prefix, 2)
    assert str(caught.value) == f"{name}: cleanup.policy=delete, expected compact"


async def test_a_small_record_limit_is_refused(kafka: str, prefix: str, admin: AIOKafkaAdminClient) -> None:
    """A row that does not fit would stop its partition for ever."""
    limits = {"cleanup.policy": "compact", "max.message.bytes": "1000"}
    await admin.create_topics([NewTopic(f"{prefix}.customers", 2, 1, topic_configs=limits)])
    with pytest.raises(TopicMismatch, match="max.message.bytes=1000, expected at least"):
        await ensure_topics(kafka, prefix, 2)


async def test_retention_shorter_than_the_longest_window_creates_nothing(
    kafka: str, prefix: str, admin: AIOKafkaAdminClient
) -> None:
    """A rebuild from `events` needs all of the window; the setting is refused before it takes effect."""
    short = 365 * DAY_MS + RETENTION_MARGIN_MS - 1
    with pytest.raises(TopicMismatch, match=rf"{prefix}\.events: retention\.ms={short}"):
        await ensure_topics(kafka, prefix, 2, events_retention_ms=short, longest_window_ms=365 * DAY_MS)
    assert f"{prefix}.events" not in await admin.list_topics()


async def test_retention_is_checked_as_kafka_holds_it(kafka: str, prefix: str) -> None:
    """A window widened later than the topic was made is noticed at the next start."""
    await ensure_topics(kafka, prefix, 2, events_retention_ms=100 * DAY_MS, longest_window_ms=30 * DAY_MS)
    await check_topics(kafka, prefix, 2, longest_window_ms=86 * DAY_MS)
    with pytest.raises(TopicMismatch, match="expected at least"):
        await check_topics(kafka, prefix, 2, longest_window_ms=87 * DAY_MS)


async def test_endless_retention_is_long_enough(kafka: str, prefix: str) -> None:
    """-1 keeps every event."""
    created = await ensure_topics(kafka, prefix, 1, events_retention_ms=-1, longest_window_ms=10_000 * DAY_MS)
    assert f"{prefix}.events" in created


async def test_events_carry_the_time_of_writing(kafka: str, prefix: str) -> None:
    """The append time is the broker's, whatever time a client claims: it is the clock of a partition."""
    await ensure_topics(kafka, prefix, 1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    sent = await producer.send_and_wait(f"{prefix}.events", b"x", key=b"k", timestamp_ms=1)
    await producer.stop()
    assert sent.timestamp_type == 1
    assert sent.timestamp > 1


async def test_a_record_of_a_mebibyte_fits(kafka: str, prefix: str) -> None:
    """The stated limit of a record is one the topic takes."""
    await ensure_topics(kafka, prefix, 1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka, max_request_size=2 << 20)
    await producer.start()
    sent = await producer.send_and_wait(f"{prefix}.events", b"x" * (1 << 20), key=b"k")
    await producer.stop()
    assert sent.offset == 0


async def test_every_schema_is_published_by_its_fingerprint(kafka: str, prefix: str) -> None:
    """A reader finds the writer's schema under the fingerprint its records carry."""
    from schemas import catalogue

    await ensure_topics(kafka, prefix, 1)
    partition = TopicPartition(f"{prefix}.schemas", 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    consumer.assign([partition])
    await consumer.seek_to_beginning(partition)
    held: dict[bytes, bytes] = {}
    end = (await consumer.end_offsets([partition]))[partition]
    while await consumer.position(partition) < end:
        for record in (await consumer.getmany(partition, timeout_ms=1000)).get(partition, []):
            held[record.key] = record.value
    await consumer.stop()
    assert held == dict(catalogue.records())
    assert len(held) == end


async def test_an_unreachable_kafka_is_reported_after_the_bound() -> None:
    """The message names the address and the seconds waited, and trying again can help."""
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(KafkaUnavailable, match=rf"no Kafka answered at {address} within 1 s") as caught:
        await ensure_topics(address, "shoal", 1, wait_s_max=1)
    assert caught.value.retryable
