"""What the logs hold: Ticks where time passes, prefixes that end with one, appended when it happened."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from benchmarks.event_logs import first, forget_state, with_ticks, write
from benchmarks.synthetic import arrivals
from schemas.events import encode_tick
from streams.kafka.reading import reader
from streams.topics import check_topics


def test_a_tick_comes_behind_all_that_happened_before_it() -> None:
    """One for every multiple of the interval that is passed, and one behind the last record."""
    entries = list(with_ticks([(5, b"a", b"1"), (10, b"b", b"2"), (31, b"c", b"3")], 10))
    assert [(at, key) for at, key, _ in entries] == [
        (5, b"a"), (10, None), (10, b"b"), (20, None), (30, None), (31, b"c"), (40, None),
    ]  # fmt: skip
    assert entries[1][2] == encode_tick(10)


def test_a_prefix_ends_with_a_tick() -> None:
    """So that what is due by then is evaluated, and both contenders stand at one instant."""
    entries = list(with_ticks([(at, b"a", b"") for at in range(1, 50)], 10))
    prefix = list(first(entries, 12))
    assert prefix == entries[: len(prefix)]
    assert prefix[-1][:2] == (20, None)


@pytest.mark.kafka
async def test_a_log_looks_as_if_it_had_been_appended_when_it_happened(kafka: str, prefix: str) -> None:
    """Records keep the writer's times, the topic is as a worker demands; state is forgotten twice."""
    entries = list(arrivals(events=200, customers=20, days=3))
    logs = await write(kafka, prefix, (1, 2), entries, append_as_happened=True)
    assert {count: sum(log.ends.values()) for count, log in logs.items()} == {
        1: len(entries),
        2: len(entries),
    }
    where = TopicPartition(f"{prefix}-1.events", 0)
    read = []
    async with reader(kafka) as consumer:
        consumer.assign([where])
        consumer.seek(where, 0)
        while len(read) < len(entries):
            read += [
                (r.timestamp, r.key, r.value)
                for r in (await consumer.getmany(where, timeout_ms=100)).get(where, [])
            ]
    assert read == entries
    for _ in range(2):
        await forget_state(kafka, logs[1])
        await check_topics(kafka, f"{prefix}-1", 1)
