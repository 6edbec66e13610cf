"""Other clients write too: what they send lies where the SDK would put it, and is read as if it had."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import confluent_kafka
import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from schemas.events import encode_event
from schemas.registry import committed
from shoal_sdk.partitioning import murmur2, partition_of
from streams.customers.slots import Slots
from streams.kafka.seam import Chunk
from streams.segments.loading import default_definition
from streams.steps.intake import read_chunk
from streams.steps.work import Work
from tests.clients import java

pytestmark = pytest.mark.kafka

PARTITIONS = 7
"""No power of two, so that every bit of a hash matters."""
NOW = 1_700_000_000_000
KEYS = 600
OWN_FIELDS: dict[str, dict[str, Any]] = {
    "SignedUp": {"source": "a friend", "traits": {"plan": "free"}},
    "ProfileUpdated": {"traits": {"seats": 3, "since": ("shoal.events.Instant", {"at": NOW})}},
    "Purchased": {"order_id": "o1", "amount_minor": 1250, "currency": "GBP"},
    "Refunded": {"refund_id": "r1", "kind": "refund", "amount_minor": 1250, "currency": "GBP"},
    "PlanChanged": {"subscription_id": "s1", "change": "started", "mrr_minor": 1250, "currency": "GBP"},
    "TicketChanged": {"ticket_id": "t1", "change": "opened", "author": "customer"},
    "Activity": {"name": "export", "properties": {"rows": 3, "format": "csv"}},
    "Erased": {},
}
"""What each type of event has beside the common fields."""

Produce = Callable[[str, str, Sequence[tuple[bytes, bytes]]], list[int]]
"""Bootstrap address, topic and (key, value) records to the partition of each record."""


def customer_ids() -> list[str]:
    """Return ids of 1 to 256 bytes, of every script and length modulo 4; always the same ones."""
    chosen = random.Random(20)
    alphabets = ["0123456789abcdef", "äöüßéñ€", "顧客番号", "🐟🐠🦈", " \t\0'\"\\\x7f", "aZ9-_.:@é"]
    ids = ["0", " ", "\0", "ß", "🐟", "x" * 256, "é" * 128, "null", "customer-1"]
    while len(ids) < KEYS:
        letters = chosen.choice(alphabets)
        length = chosen.choice([1, 2, 3, 4, 5, 8, 13, 36, 60])
        ids.append("".join(chosen.choice(letters) for _ in range(length)))
    return ids


def records_of_every_type() -> list[tuple[bytes, bytes]]:
    """Return (key, value) of one event per customer, the types in turn."""
    types = list(OWN_FIELDS)
    records = []
    for number, customer in enumerate(customer_ids()):
        name = types[number % len(types)]
        common = {"event_id": f"e{number}", "customer_id": customer, "occurred_at": NOW}
        records.append((customer.encode(), encode_event(name, {**common, **OWN_FIELDS[name]})))
    return records


def confluent(partitioner: str | None) -> Produce:
    """Return how to produce with confluent-kafka (librdkafka): with that partitioner, or its default."""

    def produce(bootstrap: str, topic: str, records: Sequence[tuple[bytes, bytes]]) -> list[int]:
        settings: dict[str, Any] = {"bootstrap.servers": bootstrap, "acks": "all"}
        if partitioner is not None:
            settings["partitioner"] = partitioner
        producer = confluent_kafka.Producer(settings)
        partitions: dict[int, int] = {}
        for at, (key, value) in enumerate(records):

            def delivered(error: Any, message: Any, at: int = at) -> None:
                assert error is None, error
                partitions[at] = message.partition()

            producer.produce(topic, key=key, value=value, on_delivery=delivered)
        assert producer.flush(60) == 0
        return [partitions[at] for at in range(len(records))]

    return produce


def misplaced(records: Sequence[tuple[bytes, bytes]], places: Sequence[int]) -> list[tuple[bytes, int, int]]:
    """Return (key, partition, the SDK's partition) of every record that is not where the SDK would put it."""
    rows = [
        (key, place, partition_of(key, PARTITIONS)) for (key, _), place in zip(records, places, strict=True)
    ]
    return [row for row in rows if row[1] != row[2]]


@pytest.fixture(scope="session")
def java_client(tmp_path_factory: pytest.TempPathFactory) -> Produce:
    """How to produce with the Java client at its defaults; compiled once."""
    classpath = java.compile_producer(tmp_path_factory.mktemp("java"))
    return lambda bootstrap, topic, records: java.produce(classpath, bootstrap, topic, records)


@pytest.fixture
async def topic(kafka: str, prefix: str) -> str:
    """An empty topic of events."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(f"{prefix}.events", PARTITIONS, 1)])
    await admin.close()
    return f"{prefix}.events"


async def consumed(kafka: str, topic: str) -> dict[int, list[ConsumerRecord]]:
    """Return all records by partition, in order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    consumer.assign(places)
    ends = await consumer.end_offsets(places)
    found: dict[int, list[ConsumerRecord]] = {place.partition: [] for place in places}
    while any(len(found[place.partition]) < end for place, end in ends.items()):
        for place, records in (await consumer.getmany(timeout_ms=500)).items():
            found[place.partition] += records
    await consumer.stop()
    return found


def read_as_a_worker_does(partition: int, records: list[ConsumerRecord]) -> Work:
    """Decode and check one partition's records, their place included."""
    return read_chunk(
        Chunk(0, records, len(records), generation=0),
        partition=partition,
        partitions=PARTITIONS,
        definition=default_definition(),
        slots=Slots(),
        mode="wall",
        clock_ms=NOW,
        fold_line_ms=0,
        keep_ms=NOW,
        aside={},
    )


def test_the_records_of_these_tests_are_of_every_kind() -> None:
    """Every stored type a client may write, and keys of either sign, length and remainder."""
    writable = {
        version.type
        for version in committed()
        if "customer_id" in {field["name"] for field in version.parsed["fields"]}
        and version.parsed["name"].startswith("shoal.events.")
    }
    assert writable == OWN_FIELDS.keys()
    keys = [key for key, _ in records_of_every_type()]
    negative = sum(murmur2(key) >> 31 for key in keys)
    assert KEYS * 0.4 < negative < KEYS * 0.6
    assert {len(key) % 4 for key in keys} == {0, 1, 2, 3}
    assert {min(map(len, keys)), max(map(len, keys))} == {1, 256}


@pytest.mark.parametrize("client", ["confluent-kafka", "java"])
async def test_events_of_another_client_are_as_good_as_the_sdks(
    kafka: str, topic: str, client: str, request: pytest.FixtureRequest
) -> None:
    """Same partitions for every key, and a worker reads each record: none is a dead letter."""
    produce: Produce
    produce = (
        confluent("murmur2_random") if client == "confluent-kafka" else request.getfixturevalue("java_client")
    )
    records = records_of_every_type()
    assert misplaced(records, produce(kafka, topic, records))[:5] == []
    found = await consumed(kafka, topic)
    read: set[bytes] = set()
    for partition, consumed_records in found.items():
        work = read_as_a_worker_does(partition, consumed_records)
        assert [letter.error_class for letter in work.dead_letters] == []
        assert {partition_of(key, PARTITIONS) for key in work.facts.customer} == {partition}
        customers = [*work.facts.customer, *work.erasures.customer]
        assert len(customers) == len(consumed_records)
        assert {record.key for record in consumed_records} ^ set(customers) == set()
        assert (work.slots >= 0).all()
        read.update(work.event_ids, work.erasures.event_id)
    assert read ^ {f"e{number}".encode() for number in range(KEYS)} == set()


async def test_the_default_of_librdkafka_is_wrong_and_found_out(kafka: str, topic: str) -> None:
    """Most keys land elsewhere; there each is a dead letter that says why, and none is applied."""
    records = records_of_every_type()
    astray = misplaced(records, confluent(None)(kafka, topic, records))
    assert len(astray) > KEYS / 2
    letters: Counter[str] = Counter()
    for partition, consumed_records in (await consumed(kafka, topic)).items():
        work = read_as_a_worker_does(partition, consumed_records)
        letters.update(letter.error_class for letter in work.dead_letters)
        for letter in work.dead_letters:
            assert "produce with the Java-compatible murmur2 partitioner" in letter.message
    assert letters == {"WrongPartition": len(astray)}
