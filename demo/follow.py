"""Follows the pipeline from outside: its changes for the display, its clocks to know when it is done."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError as ClientError

from demo.display import Change, Scene
from errors import KafkaUnavailable
from schemas.changes import decode_change
from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow
from streams.kafka.reading import settle
from streams.topics import CUSTOMERS, MEMBERSHIPS, SEGMENT_CHANGES, topic_name

RECORDS_MAX = 2_000
"""How many records are taken at a time, so that the screen is fresh between two portions."""
POLL_MS = 200


class Follower:
    """Reads two topics of a pipeline from their beginning, committed records only, into a scene."""

    def __init__(
        self, bootstrap: str, consumer: AIOKafkaConsumer, prefix: str, partitions: int, scene: Scene
    ) -> None:
        self._bootstrap, self._consumer = bootstrap, consumer
        self._changes = topic_name(prefix, SEGMENT_CHANGES)
        self._customers = topic_name(prefix, CUSTOMERS)
        self._memberships = topic_name(prefix, MEMBERSHIPS)
        self._partitions = range(partitions)
        self._scene = scene
        self._clocks_ms = dict.fromkeys(self._partitions, 0)
        consumer.assign([TopicPartition(topic, p) for topic in self._topics for p in self._partitions])

    @property
    def _topics(self) -> tuple[str, str]:
        return self._changes, self._customers

    @property
    def clock_ms(self) -> int:
        """Where the slowest partition stands, 0 before its first row."""
        return min(self._clocks_ms.values())

    async def follow(self) -> int:
        """Take what has come, waiting 200 ms at most for the first of it; return how many records that was.

        Raises KafkaUnavailable, or a RecordError when a change cannot be read.
        """
        try:
            fetched = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=RECORDS_MAX)
        except (ClientError, OSError) as error:
            raise KafkaUnavailable(f"following the pipeline: {error!r}") from error
        for where, records in fetched.items():
            for record in records:
                if where.topic == self._changes and record.value is not None:
                    self._scene.changed(_change(decode_change(record.value)))
                elif record.key == PARTITION_ROW_KEY:
                    self._clocks_ms[where.partition] = PartitionRow.decode(record.value).clock_ms
        self._scene.applied(self.clock_ms)
        return sum(map(len, fetched.values()))

    async def catch_up(self) -> None:
        """Follow to the end the changes have once all that is committed can be read. Raises as `follow`.

        Rows, changes and memberships are committed together, but can be read one after another.
        """
        await settle(self._bootstrap, (*self._topics, self._memberships), len(self._partitions))
        wheres = [TopicPartition(self._changes, p) for p in self._partitions]
        ends = await self._consumer.end_offsets(wheres)
        while any([await self._consumer.position(where) < ends[where] for where in wheres]):
            await self.follow()


def _change(record: dict[str, Any]) -> Change:
    return Change(
        effective_at_ms=record["effective_at"],
        customer_id=record["customer_id"],
        dimension=record["dimension"],
        before=record["from"],
        after=record["to"],
        cause=record["cause"],
    )
