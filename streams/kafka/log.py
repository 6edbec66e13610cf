"""One partition's Kafka: its own fenced transactional producer, its changelog, the bounds of its log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced
from aiokafka.errors import KafkaError as ClientError

from errors import KafkaUnavailable, LogTruncated, PartitionFenced, TransactionFailed
from schemas.markers import Marker
from streams.kafka import internals, reading
from streams.kafka.internals import Headers
from streams.kafka.seam import Chunk, DeadLetter, Row, Transaction
from streams.topics import changelog_name

BATCH_BYTES_MAX = 1_900_000
"""Below the topics' max.message.bytes (2 MiB), with room for the batch's own header."""

TRANSACTION_S_MAX = 10.0
BROKER_TIMEOUT_MS = 15_000
"""How long the broker lets an abandoned transaction hold back readers; longer than any of ours."""

FENCE_S_MAX = 30.0
RETRY_BACKOFF_MS = 5
"""Produce requests that overtake their partition's registration are refused (KIP-890) and sent again."""

DEAD_VALUE_BYTES_MAX = 256 << 10

_NO_HEADERS: Headers = []


@dataclass(frozen=True, slots=True)
class LogNames:
    """What one partition's log is called: bootstrap address, group (also the app's id), topic prefix."""

    bootstrap: str
    group: str
    prefix: str
    partition: int

    def topic(self, name: str) -> str:
        """Return the full name of one of the pipeline's topics."""
        return f"{self.prefix}.{name}"

    def changelog(self, epoch: int) -> str:
        """Return the full name of an epoch's changelog."""
        return changelog_name(self.prefix, epoch)

    @property
    def transactional_id(self) -> str:
        """From the source partition, so that whoever owns it next fences whoever owned it last."""
        return f"{self.group}-{self.topic('events')}-{self.partition}"

    def rebuilding_id(self, epoch: int) -> str:
        """Return the transactional id under which an epoch is rebuilt until its partition goes live."""
        return f"{self.group}-{self.changelog(epoch)}-{self.partition}"


class KafkaPartitionLog:
    """The `PartitionLog` on aiokafka. Not for use by two tasks at once.

    With `rebuilds`, it writes under the id of whoever rebuilds that epoch, beside the partition's owner.
    """

    def __init__(self, names: LogNames, *, rebuilds: int | None = None) -> None:
        self._names = names
        self._id = names.transactional_id if rebuilds is None else names.rebuilding_id(rebuilds)
        self._epoch = 1
        self._producer: AIOKafkaProducer | None = None
        self._changelog_end: int | None = None

    async def fence(self) -> None:
        """Start a new producer under the partition's id. Raises KafkaUnavailable, PartitionFenced."""
        await self.close()
        self._producer = await self._started(self._id)

    async def shut_out(self, epoch: int) -> None:
        """Start a producer under the id an epoch is rebuilt under, and drop it. Raises as `fence`."""
        producer = await self._started(self._names.rebuilding_id(epoch))
        await reading.close_quietly(producer.stop(), "a producer")

    async def _started(self, transactional_id: str) -> AIOKafkaProducer:
        internals.quicken_transactions()
        producer = AIOKafkaProducer(
            bootstrap_servers=self._names.bootstrap,
            transactional_id=transactional_id,
            transaction_timeout_ms=BROKER_TIMEOUT_MS,
            acks="all",
            max_batch_size=BATCH_BYTES_MAX,
            linger_ms=0,
            request_timeout_ms=int(TRANSACTION_S_MAX * 1000),
            retry_backoff_ms=RETRY_BACKOFF_MS,
        )
        try:
            await asyncio.wait_for(producer.start(), FENCE_S_MAX)
        except BaseException as error:
            await reading.close_quietly(producer.stop(), "a producer that did not start")
            if isinstance(error, ClientError | TimeoutError | OSError):
                raise _mapped(error, KafkaUnavailable, f"fencing {transactional_id}") from error
            raise
        return producer

    async def untouched(self) -> bool:
        """Whether nobody wrote to the changelog partition since this object last read or wrote it."""
        if self._changelog_end is None:
            return False
        async with reading.reader(self._names.bootstrap) as consumer:
            topic = self._names.changelog(self._epoch)
            held = await reading.extent(consumer, topic, self._names.partition)
        return held.end == self._changelog_end

    async def restore(self, epoch: int = 1) -> AsyncGenerator[Row, None]:
        """Iterate over the committed rows of a changelog. Call after `fence`, or a zombie may add to them."""
        topic, partition = self._names.changelog(epoch), self._names.partition
        self._changelog_end = None
        async with reading.reader(self._names.bootstrap) as consumer:
            # After fencing nobody writes, so the rows end where the log ends now.
            end = (await reading.extent(consumer, topic, partition)).end
            async with aclosing(reading.committed_rows(consumer, topic, partition)) as rows:
                async for row in rows:
                    yield row
        self._epoch, self._changelog_end = epoch, end

    async def latest(self, epoch: int, key: bytes) -> bytes | None:
        """Return the latest row under a key that every transaction writes. Raises KafkaUnavailable."""
        topic, partition = self._names.changelog(epoch), self._names.partition
        async with reading.reader(self._names.bootstrap) as consumer:
            return await reading.latest(consumer, topic, partition, key)

    async def replay(self, start: int, end: int) -> AsyncGenerator[Chunk, None]:
        """Iterate over `events` of [start, end). Raises KafkaUnavailable."""
        topic, partition = self._names.topic("events"), self._names.partition
        async with (
            reading.reader(self._names.bootstrap) as consumer,
            aclosing(reading.replayed(consumer, topic, partition, start, end)) as chunks,
        ):
            async for chunk in chunks:
                yield chunk

    async def partitions(self) -> int:
        """How many partitions `events` has. Raises KafkaUnavailable."""
        producer = self._fenced()
        try:
            return len(await producer.partitions_for(self._names.topic("events")))
        except (ClientError, TimeoutError, OSError) as error:
            raise KafkaUnavailable(f"no metadata of {self._names.topic('events')}: {error!r}") from error

    async def first_offset(self, stored: int | None) -> int:
        """Return where to read on. Raises LogTruncated, KafkaUnavailable."""
        topic, partition = self._names.topic("events"), self._names.partition
        # Read uncommitted, for the stable end may for a while lie before an offset already applied.
        async with reading.reader(self._names.bootstrap, "read_uncommitted") as consumer:
            held = await reading.extent(consumer, topic, partition)
        if stored is None:
            return held.first
        if not held.first <= stored <= held.end:
            raise LogTruncated(
                f"{topic}-{partition} holds offsets {held.first} to {held.end}, but the state was built up "
                f"to {stored}: events were lost before they were read"
            )
        return stored

    async def transact(self, transaction: Transaction) -> None:
        """Commit everything at once. Raises PartitionFenced or TransactionFailed: then fence and restore."""
        producer = self._fenced()
        try:
            async with asyncio.timeout(TRANSACTION_S_MAX):
                connections, self._changelog_end = await self._transact(producer, transaction)
        except (ClientError, TimeoutError, OSError) as error:
            raise _mapped(error, TransactionFailed, self._id) from error
        if internals.any_lost(connections):
            await self.fence()

    async def close(self) -> None:
        """Drop the producer; an open transaction is left to the next owner's fence."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await reading.close_quietly(producer.stop(), "a producer")

    def _fenced(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise TransactionFailed(f"{self._id} is not fenced")
        return self._producer

    async def _transact(
        self, producer: AIOKafkaProducer, transaction: Transaction
    ) -> tuple[tuple[Any, ...], int]:
        """Return the connections in use and where the changelog now ends."""
        connections = internals.connections(producer)
        await producer.begin_transaction()
        sent: list[tuple[asyncio.Future[Any], int]] = []
        sent += await self._send(producer, self._names.changelog(transaction.epoch), transaction.rows)
        rows, records = sent[-1]
        if transaction.farewell is not None:
            left, farewell = transaction.farewell
            sent += await self._send(producer, self._names.changelog(left), [farewell])
        sent += await self._marker(producer, transaction.begins)
        sent += await self._send(producer, self._names.topic("segment-changes"), transaction.changes)
        sent += await self._marker(producer, transaction.ends)
        sent += await self._send(producer, self._names.topic("memberships"), transaction.memberships)
        letters = transaction.dead_letters
        cut = [(letter.key, letter.value and letter.value[:DEAD_VALUE_BYTES_MAX]) for letter in letters]
        reasons = [self._reasons(each) for each in letters]
        sent += await self._send(producer, self._names.topic("dead-letters"), cut, reasons)
        if not transaction.quiet:
            source = TopicPartition(self._names.topic("events"), self._names.partition)
            offsets = {source: transaction.source_offset}
            await producer.send_offsets_to_transaction(offsets, self._names.group)
        # A failed batch must be seen before the commit, which would otherwise commit the others.
        for batch, _ in sent:
            await batch
        connections += internals.connections(producer)
        await producer.commit_transaction()
        self._epoch = transaction.epoch
        # One more for the commit marker: what `untouched` expects to find.
        return connections, int(rows.result().offset) + records + 1

    async def _marker(
        self, producer: AIOKafkaProducer, marker: Marker | None
    ) -> list[tuple[asyncio.Future[Any], int]]:
        if marker is None:
            return []
        topic = self._names.topic("segment-changes")
        return await self._send(producer, topic, [(None, None)], [marker.headers()])

    async def _send(
        self,
        producer: AIOKafkaProducer,
        topic: str,
        rows: Sequence[tuple[bytes | None, bytes | None]],
        headers: Sequence[Headers] | None = None,
    ) -> list[tuple[asyncio.Future[Any], int]]:
        """Send as few batches as hold `rows`; returns each one's future and its record count."""
        sent: list[tuple[asyncio.Future[Any], int]] = []
        now_ms = time.time_ns() // 1_000_000
        first = 0
        while first < len(rows):
            batch = producer.create_batch()
            theirs = repeat(_NO_HEADERS) if headers is None else headers[first:]
            appended = internals.append_all(batch, rows[first:], theirs, now_ms)
            if not appended:
                size = sum(len(each or b"") for each in rows[first])
                raise TransactionFailed(f"a record of {size} bytes for {topic} is larger than a batch")
            sent.append(await self._submit(producer, topic, batch))
            first += appended
        return sent

    async def _submit(
        self, producer: AIOKafkaProducer, topic: str, batch: Any
    ) -> tuple[asyncio.Future[Any], int]:
        future = await producer.send_batch(batch, topic, partition=self._names.partition)
        # When one fails, those after it are never awaited; asyncio would report each of them.
        future.add_done_callback(internals.seen)
        return future, batch.record_count()

    def _reasons(self, letter: DeadLetter) -> Headers:
        """Return the headers of a dead letter: where it was, and why it is one."""
        value = letter.value
        headers = [
            ("topic", self._names.topic("events").encode()),
            ("partition", b"%d" % self._names.partition),
            ("offset", b"%d" % letter.offset),
            ("error", letter.error_class.encode()),
            ("message", letter.message.encode()),
            ("time", b"%d" % (time.time_ns() // 1_000_000)),
        ]
        if value is not None and len(value) > DEAD_VALUE_BYTES_MAX:
            headers.append(("truncated-from", b"%d" % len(value)))
        return headers


def _mapped(
    error: BaseException, otherwise: type[KafkaUnavailable] | type[TransactionFailed], what: str
) -> KafkaUnavailable | TransactionFailed:
    if isinstance(error, ProducerFenced | InvalidProducerEpoch):
        return PartitionFenced(f"{what}: a newer owner exists")
    return otherwise(f"{what}: {error!r}")
