"""A published rebuild, followed until every partition went over to it; and the old epoch's rows given up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError as ClientError

from errors import KafkaUnavailable
from schemas.changes import decode_change
from schemas.markers import read_marker
from streams import committed
from streams.applying import Pipeline
from streams.customers.partition_row import PARTITION_ROW_KEY
from streams.kafka import reading
from streams.steps.epochs import rebuild_id
from streams.topics import SEGMENT_CHANGES, changelog_name, topic_name

POLL_MS = 500
QUIET_S_MAX = 120.0
"""With no partition getting on for so long, following ends: workers go over when they run."""

TOMBSTONES_AT_ONCE = 5_000

Difference = tuple[str, str | None, str | None]
"""(dimension, from, to)."""


@dataclass(slots=True)
class Outcome:
    """What a rebuild came to, as told between the markers of all partitions."""

    told: Counter[Difference] = field(default_factory=Counter)
    done: set[int] = field(default_factory=set)
    """Partitions whose end marker was seen, or of which nothing was ever committed."""
    begun: set[int] = field(default_factory=set)


class TakingOver:
    """Reads `segment-changes` from where it ended before a rebuild was published."""

    def __init__(self, pipeline: Pipeline, epoch: int, ends: dict[int, int], live: Iterable[int]) -> None:
        """`ends` is where changes ended before; `live` the partitions of which anything was committed."""
        self._pipeline, self._epoch, self._ends = pipeline, epoch, ends
        self.outcome = Outcome(done=set(ends) - set(live))

    async def follow(self, say: Callable[[Outcome], None]) -> bool:
        """Return whether all went over, within QUIET_S_MAX of the last that got on; `say` is told on the way.

        Raises KafkaUnavailable, or a RecordError when a change cannot be read.
        """
        topic = topic_name(self._pipeline.prefix, SEGMENT_CHANGES)
        loop, wheres = asyncio.get_running_loop(), [TopicPartition(topic, number) for number in self._ends]
        heard_s = loop.time()
        async with reading.reader(self._pipeline.bootstrap) as consumer:
            consumer.assign(wheres)
            for where in wheres:
                consumer.seek(where, self._ends[where.partition])
            while len(self.outcome.done) < len(self._ends):
                if await self._step(consumer):
                    heard_s = loop.time()
                    say(self.outcome)
                elif loop.time() - heard_s > QUIET_S_MAX:
                    return False
        return True

    async def _step(self, consumer: AIOKafkaConsumer) -> bool:
        """Take what came; whether any of it was the rebuild's."""
        try:
            fetched = await consumer.getmany(timeout_ms=POLL_MS)
        except (ClientError, OSError) as error:
            raise KafkaUnavailable(f"following the changes: {error!r}") from error
        records = [(where.partition, record) for where, each in fetched.items() for record in each]
        taken = [self._take(partition, record) for partition, record in records]
        return any(taken)

    def _take(self, partition: int, record: Any) -> bool:
        if record.value is not None:
            change = decode_change(record.value)
            if change["run_id"] != rebuild_id(self._epoch):
                return False
            self.outcome.told[change["dimension"], change["from"], change["to"]] += 1
            return True
        marker = read_marker(record.headers)
        if marker is None or marker.epoch != self._epoch:
            return False
        (self.outcome.begun if marker.kind == "rebuild-begins" else self.outcome.done).add(partition)
        return True


async def changes_end(pipeline: Pipeline) -> dict[int, int]:
    """Return where the committed changes of each partition end. Raises KafkaUnavailable."""
    topic = topic_name(pipeline.prefix, SEGMENT_CHANGES)
    async with reading.reader(pipeline.bootstrap) as consumer:
        return await reading.ends(consumer, topic, range(pipeline.partitions))


@dataclass(slots=True)
class GivenUp:
    """What became of an old epoch."""

    rows: int = 0
    """So many were written over with tombstones."""
    needed: list[int] = field(default_factory=list)
    """Partitions that still live by theirs, which were left alone."""


async def give_up(pipeline: Pipeline, epoch: int, newest: int) -> GivenUp:
    """Write tombstones over the customers of an epoch that partitions left.

    The partition rows stay: they say that the epoch was left. Partitions still in it, or whose switch
    still reads it, are left alone. Raises KafkaUnavailable.
    """
    topic, given_up = changelog_name(pipeline.prefix, epoch), GivenUp()
    # The marker that a partition is through can be read before the row that says so.
    both = topic, changelog_name(pipeline.prefix, newest)
    await reading.settle(pipeline.bootstrap, both, pipeline.partitions)
    try:
        async with (
            reading.reader(pipeline.bootstrap) as consumer,
            AIOKafkaProducer(bootstrap_servers=pipeline.bootstrap, acks="all") as producer,
        ):
            for number in range(pipeline.partitions):
                row = await committed.live_row(consumer, pipeline.prefix, number, (epoch, newest))
                if row is None:
                    continue
                if row.epoch != newest or row.rebuilt is not None:
                    given_up.needed.append(number)
                    continue
                keys = dict([row async for row in reading.committed_rows(consumer, topic, number)])
                gone = [key for key, value in keys.items() if value is not None and key != PARTITION_ROW_KEY]
                for first in range(0, len(gone), TOMBSTONES_AT_ONCE):
                    some = gone[first : first + TOMBSTONES_AT_ONCE]
                    sent = [await producer.send(topic, None, key=key, partition=number) for key in some]
                    await asyncio.gather(*sent)
                given_up.rows += len(gone)
    except (ClientError, OSError) as error:
        raise KafkaUnavailable(f"giving up {topic}: {error!r}") from error
    return given_up
