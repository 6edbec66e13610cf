"""Segment changes as a subscriber reads them: committed ones only, in order within each customer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError as ClientError

from errors import KafkaUnavailable
from schemas.changes import decode_change
from streams.kafka.reading import reader
from streams.topics import SEGMENT_CHANGES, topic_name

POLL_MS = 500
RECORDS_MAX = 500


async def changes(
    bootstrap: str,
    prefix: str,
    partitions: int,
    *,
    from_beginning: bool,
    stopped: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[dict[str, Any], None]:
    """Iterate over the fields of every change, from the oldest kept or from now on, until `stopped`.

    It is asked at least every POLL_MS. Cancelling is not a way to end it: the client's waits can
    swallow a cancellation that comes at the instant they end. Raises KafkaUnavailable, or a
    RecordError when a change cannot be read.
    """
    wheres = [TopicPartition(topic_name(prefix, SEGMENT_CHANGES), p) for p in range(partitions)]
    async with reader(bootstrap) as consumer:
        consumer.assign(wheres)
        try:
            seek = consumer.seek_to_beginning if from_beginning else consumer.seek_to_end
            await seek(*wheres)
            while not stopped():
                fetched = await consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS_MAX)
                for records in fetched.values():
                    for record in records:
                        # A record without a value is a marker, such as of a rebuild.
                        if record.value is not None:
                            yield decode_change(record.value)
        except (ClientError, OSError) as error:
            raise KafkaUnavailable(f"reading {topic_name(prefix, SEGMENT_CHANGES)}: {error!r}") from error


def as_line(change: Mapping[str, Any]) -> str:
    """Return one change as a line: when it became true, who, in which dimension, from, to, and why."""
    at = datetime.fromtimestamp(change["effective_at"] / 1000, UTC)
    before = "" if change["from"] is None else f"{change['from']} "
    after = "(none)" if change["to"] is None else change["to"]
    who = f"{change['customer_id']} {change['dimension']}"
    return f"{at:%Y-%m-%d %H:%M:%S} {who}: {before}→ {after} ({change['cause']})"
