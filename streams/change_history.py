"""What `segment-changes` still holds: how many changes there were lately, and one by its number.

The markers of a rebuild stand among the changes; they have no value, and are no changes.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError as ClientError

from errors import KafkaUnavailable
from schemas.changes import decode_change
from streams.kafka import reading
from streams.segments.definition import DAY_MS
from streams.topics import SEGMENT_CHANGES, topic_name

LATELY_DAYS = 30
LATELY_CHANGES_MAX = 100_000
"""Of a partition, read back; with more, the rate is that of the latest."""

POLL_MS = 50
SEARCH_STEPS_MAX = 64
"""A search that halves 2**63 offsets ends sooner."""

TOGETHER_MAX = 500
"""Changes looked at behind one that was searched for."""


async def changes_a_day(
    consumer: AIOKafkaConsumer, prefix: str, partition: int, clock_ms: int
) -> dict[str, float]:
    """Return, by dimension, changes a day over the 30 days before the clock, those of edited rules aside.

    Raises KafkaUnavailable, or a RecordError when a change cannot be read.
    """
    topic = topic_name(prefix, SEGMENT_CHANGES)
    held = await reading.extent(consumer, topic, partition)
    # Written in the last days is all that can be effective in them; in a replay that is everything.
    written_since_ms = time.time_ns() // 1_000_000 - LATELY_DAYS * DAY_MS
    where = TopicPartition(topic, partition)
    try:
        found = await consumer.offsets_for_times({where: written_since_ms})
    except (ClientError, OSError) as error:
        raise KafkaUnavailable(f"reading {topic}-{partition}: {error!r}") from error
    start = held.end if found[where] is None else found[where].offset
    start = max(start, held.first, held.end - LATELY_CHANGES_MAX)
    changes = [
        change
        for change in await _read(consumer, where, start, held.end)
        if change["effective_at"] > clock_ms - LATELY_DAYS * DAY_MS
        and change["origin"] == "live"
        and change["cause"] != "rule_changed"
    ]
    days = float(LATELY_DAYS)
    if start == held.end - LATELY_CHANGES_MAX and changes:
        days = max(1.0, (clock_ms - min(change["effective_at"] for change in changes)) / DAY_MS)
    counts = Counter(change["dimension"] for change in changes)
    return {dimension: count / days for dimension, count in counts.items()}


async def changes_by_seq(
    consumer: AIOKafkaConsumer, prefix: str, partition: int, seqs: Collection[int]
) -> dict[int, dict[str, Any]]:
    """Return the changes with these numbers; one that is not held any more is absent.

    Numbers rise along the log, also from one epoch to the next, so this halves it a few times for each;
    what lies closely behind comes with it. Raises as `changes_a_day`.
    """
    topic = topic_name(prefix, SEGMENT_CHANGES)
    where, found = TopicPartition(topic, partition), dict[int, dict[str, Any]]()
    held = await reading.extent(consumer, topic, partition)
    low = held.first
    for seq in sorted(seqs):
        if seq not in found:
            low = await _offset_of(consumer, where, seq, low, held.end)
            for change in await _some_from(consumer, where, low, held.end):
                if change["seq"] in seqs:
                    found[change["seq"]] = change
    return found


def _decoded(records: Iterable[Any]) -> list[dict[str, Any]]:
    return [decode_change(record.value) for record in records if record.value is not None]


async def _offset_of(consumer: AIOKafkaConsumer, where: TopicPartition, seq: int, low: int, end: int) -> int:
    """Return an offset in [low, end] before which every change has a lesser number, and none from it on."""
    high = end
    for _ in range(SEARCH_STEPS_MAX):
        if low >= high:
            break
        middle = (low + high) // 2
        change, offset = await _first_from(consumer, where, middle, high)
        if change is None or change["seq"] > seq:
            high = middle
        elif change["seq"] == seq:
            return offset
        else:
            low = offset + 1
    return low


async def _some_from(
    consumer: AIOKafkaConsumer, where: TopicPartition, start: int, end: int
) -> list[dict[str, Any]]:
    """Return the first few changes in [start, end), as they come with one answer."""
    consumer.assign([where])
    consumer.seek(where, start)
    try:
        while await consumer.position(where) < end:
            fetched = await consumer.getmany(where, timeout_ms=POLL_MS, max_records=TOGETHER_MAX)
            records = [record for record in fetched.get(where, ()) if record.offset < end]
            if changes := _decoded(records):
                return changes
    except (ClientError, OSError) as error:
        raise KafkaUnavailable(f"reading {where.topic}-{where.partition}: {error!r}") from error
    return []


async def _first_from(
    consumer: AIOKafkaConsumer, where: TopicPartition, start: int, end: int
) -> tuple[dict[str, Any] | None, int]:
    """Return the first change in [start, end) and its offset; markers are no changes."""
    consumer.assign([where])
    consumer.seek(where, start)
    try:
        while await consumer.position(where) < end:
            for record in (await consumer.getmany(where, timeout_ms=POLL_MS, max_records=1)).get(where, ()):
                if record.offset >= end:
                    return None, end
                if record.value is not None:
                    return decode_change(record.value), record.offset
    except (ClientError, OSError) as error:
        raise KafkaUnavailable(f"reading {where.topic}-{where.partition}: {error!r}") from error
    return None, end


async def _read(
    consumer: AIOKafkaConsumer, where: TopicPartition, start: int, end: int
) -> list[dict[str, Any]]:
    """Return every change in [start, end)."""
    changes: list[dict[str, Any]] = []
    consumer.assign([where])
    consumer.seek(where, start)
    try:
        while await consumer.position(where) < end:
            fetched = await consumer.getmany(where, timeout_ms=POLL_MS)
            changes += _decoded(fetched.get(where, ()))
    except (ClientError, OSError) as error:
        raise KafkaUnavailable(f"reading {where.topic}-{where.partition}: {error!r}") from error
    return changes
