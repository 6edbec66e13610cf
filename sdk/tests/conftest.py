"""What the SDK's tests may ask for: a real Kafka, a topic of their own, everything that is in it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from fastavro import parse_schema, schemaless_reader
from fastavro.schema import fingerprint, to_parsing_canonical_form

PARTITIONS = 4


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The bootstrap address of a real Kafka: SHOAL_KAFKA's, or one started for this session."""
    # Here, for the tests without Kafka also run where only the SDK is installed.
    from deploy.local.cluster import kafka_for

    with kafka_for() as bootstrap:
        yield bootstrap


@pytest.fixture
def make_topic() -> Callable[..., str]:
    """Return a function that creates `<prefix>.events` with 4 partitions and returns the prefix."""

    def make(bootstrap: str, **configs: str) -> str:
        prefix = f"t{uuid.uuid4().hex[:12]}"

        async def create() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
            await admin.start()
            topic = NewTopic(f"{prefix}.events", PARTITIONS, 1, topic_configs=configs)
            await admin.create_topics([topic])
            await admin.close()

        asyncio.run(create())
        return prefix

    return make


@pytest.fixture
def prefix(kafka: str, make_topic: Callable[..., str]) -> str:
    """A prefix whose topic exists and is empty."""
    return make_topic(kafka)


@pytest.fixture
def read_all() -> Callable[[str, str], list[ConsumerRecord]]:
    """Return a function that reads everything in `<prefix>.events`, each partition in order."""

    def read(bootstrap: str, prefix: str) -> list[ConsumerRecord]:
        async def consume() -> list[ConsumerRecord]:
            consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
            await consumer.start()
            parts = [TopicPartition(f"{prefix}.events", number) for number in range(PARTITIONS)]
            consumer.assign(parts)
            ends = await consumer.end_offsets(parts)
            found: list[ConsumerRecord] = []
            while len(found) < sum(ends.values()):
                for records in (await consumer.getmany(*parts, timeout_ms=500)).values():
                    found += records
            await consumer.stop()
            return found

        return asyncio.run(consume())

    return read


@pytest.fixture(scope="session")
def decode() -> Callable[[bytes], tuple[str, dict[str, Any]]]:
    """Return a function from framed bytes to (record name, fields), by the fingerprint they carry."""
    schemas = {}
    for path in files("shoal_sdk").joinpath("avro").iterdir():
        source = json.loads(path.read_text())
        schemas[fingerprint(to_parsing_canonical_form(source), "CRC-64-AVRO")] = parse_schema(source)

    def read(value: bytes) -> tuple[str, dict[str, Any]]:
        assert value[:2] == b"\xc3\x01"
        schema = schemas[value[2:10].hex()]
        body = io.BytesIO(value[10:])
        fields = schemaless_reader(body, schema, None)
        assert not body.read()
        return schema["name"], fields

    return read


@pytest.fixture
def run_script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs Python code in a process of its own, warnings being errors."""

    def run(code: str, *args: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"PYTHONPATH": ":".join(sys.path)}
        command = [sys.executable, "-W", "error", "-c", code, *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)

    return run


@pytest.fixture
def start_script() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts Python code in a process of its own, killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *args: str) -> subprocess.Popen[str]:
        env = os.environ | {"PYTHONPATH": ":".join(sys.path)}
        command = [sys.executable, "-W", "error", "-c", code, *args]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def orders_in(
    read_all: Callable[[str, str], list[ConsumerRecord]],
    decode: Callable[[bytes], tuple[str, dict[str, Any]]],
) -> Callable[[str, str], list[tuple[str, str]]]:
    """Return a function that reads (customer, order) of all purchases, in order per customer."""

    def read(bootstrap: str, prefix: str) -> list[tuple[str, str]]:
        found = [(record.key.decode(), decode(record.value)[1]) for record in read_all(bootstrap, prefix)]
        return [(customer, event["order_id"]) for customer, event in found if "order_id" in event]

    return read
