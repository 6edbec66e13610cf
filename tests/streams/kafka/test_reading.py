"""Reading from outside the group, on a real broker."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from aiokafka import AIOKafkaProducer

from streams.kafka.reading import committed_rows, reader, settle
from streams.topics import CUSTOMERS, SEGMENT_CHANGES, ensure_topics, topic_name

pytestmark = pytest.mark.kafka


async def test_settling_waits_for_open_transactions_to_be_readable(kafka: str, prefix: str) -> None:
    """It returns once what was written in a transaction open when it was asked can be read, not before."""
    await ensure_topics(kafka, prefix, 2)
    topics = [topic_name(prefix, CUSTOMERS), topic_name(prefix, SEGMENT_CHANGES)]
    await settle(kafka, topics, 2)
    async with AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=prefix) as producer:
        async with producer.transaction():
            await producer.send_and_wait(topics[1], key=b"k", value=b"v", partition=1)
            settling = asyncio.create_task(settle(kafka, topics, 2))
            await asyncio.sleep(0.5)
            assert not settling.done()
        await settling
        async with reader(kafka) as consumer, aclosing(committed_rows(consumer, topics[1], 1)) as rows:
            assert [row async for row in rows] == [(b"k", b"v")]
