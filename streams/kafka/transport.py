"""Faust's transport, changed to deliver one event per fetched chunk instead of one per record.

Faust's per-record path costs about 300 µs; acknowledgements, commits and sensors belong to it, and
go with it: the offsets of what was applied are in the partitions' own transactions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import ConsumerStoppedError
from faust import Event, Schema
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from streams.kafka import internals
from streams.kafka.seam import Chunk

if TYPE_CHECKING:
    from streams.app import ShoalApp

POLL_S = 0.5
"""How long a fetch waits for records; also the longest a stop waits for it."""

CROWDED_POLL_S = 0.02
"""The same while a partition is left out for want of room: it must be asked again soon."""

Chunks = Mapping[TP, Chunk]


class ChunkThread(driver.AIOKafkaConsumerThread):
    """The thread aiokafka's consumer lives in."""

    app: ShoalApp
    mundane_level = "debug"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._generations: dict[TopicPartition, int] = {}

    def _create_worker_consumer(self, transport: Any) -> AIOKafkaConsumer:
        # Faust reads committed records only with its own transactions, which are not used: this
        # flag, for the length of the call, is the only way to have one without the other.
        before, self.consumer.in_transaction = self.consumer.in_transaction, True
        try:
            consumer = super()._create_worker_consumer(transport)
        finally:
            self.consumer.in_transaction = before
        internals.shorten_long_poll(consumer)
        return consumer

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Pass on; aiokafka would log an exception and go on with a worker that does nothing."""
        await self._or_give_up(super().on_partitions_revoked(revoked))

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Pass on; the changelog stays assigned, for it takes part in the assignment, but is not fetched."""
        changelogs = self.app.tables.changelog_topics
        paused = [TopicPartition(*tp) for tp in assigned if tp.topic in changelogs]
        internals.pause(self._consumer, paused)
        await self._or_give_up(super().on_partitions_assigned(assigned, generation_id))

    async def _or_give_up(self, callback: Awaitable[None]) -> None:
        try:
            await callback
        except Exception as error:
            self.app.give_up(error)
            raise

    async def seek_to(self, tp: TP, offset: int, generation: int) -> bool:
        """Read `tp` from `offset` on; later chunks carry `generation`. False if it is not assigned."""
        where = TopicPartition(*tp)

        async def seek() -> bool:
            self._generations[where] = generation
            return internals.seek(self._consumer, where, offset)

        return bool(await self.call_thread(seek))

    async def rejoin(self) -> None:
        """Ask for a rebalance."""

        async def ask() -> None:
            internals.rejoin(self._consumer)

        await self.call_thread(ask)

    async def _fetch_records(  # type: ignore[override]  # Chunks where Faust has lists of records.
        self,
        consumer: AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,  # noqa: ASYNC109  Faust's signature.
        max_records: int | None = None,
    ) -> Chunks:
        deadline_s = time.monotonic() + (timeout or 0.0)
        active = {TopicPartition(*tp) for tp in active_partitions}
        while self.consumer.flow_active:
            if internals.is_closed(consumer):
                raise ConsumerStoppedError
            with internals.polling(consumer):
                await internals.wait_for_assignment(consumer)
                chunks = await self._drain(consumer, active, max_records or 1)
                left_s = deadline_s - time.monotonic()
                if chunks or left_s <= 0:
                    return chunks
                await asyncio.wait([internals.fetch_waiter(consumer)], timeout=left_s)
        return {}

    async def _drain(
        self, consumer: AIOKafkaConsumer, active: set[TopicPartition], records_max: int
    ) -> Chunks:
        """Return what is prefetched, up to `records_max` of each partition."""
        chunks: dict[TP, Chunk] = {}
        for where, start in internals.positions(consumer).items():
            if where not in active:
                continue
            fetched = await internals.drain(consumer, where, records_max)
            end = internals.positions(consumer).get(where, start)
            # Markers and aborted records move the position without yielding a record.
            if fetched or end > start:
                chunks[TP(*where)] = Chunk(start, fetched, end, self._generations.get(where, 0))
        return chunks


class ChunkConsumer(driver.Consumer):
    """Faust's consumer with the commits taken out."""

    app: ShoalApp
    mundane_level = "debug"
    _thread: ChunkThread

    def _new_consumer_thread(self) -> ChunkThread:
        return ChunkThread(self, loop=self.loop, beacon=self.beacon)

    async def seek_to(self, tp: TP, offset: int, generation: int) -> bool:
        """See `ChunkThread.seek_to`."""
        return await self._thread.seek_to(tp, offset, generation)

    def membership_error(self) -> BaseException | None:
        """Return what ended the membership of the group, None while it lasts or before it begins."""
        consumer = getattr(self._thread, "_consumer", None)
        return None if consumer is None else internals.coordination_error(consumer)

    async def rejoin(self) -> None:
        """See `ChunkThread.rejoin`."""
        await self._thread.rejoin()

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Do nothing: offsets are committed by the partitions' transactions."""
        return False

    async def wait_empty(self) -> None:
        """Called before partitions are revoked and before the end: commit what is applied."""
        await self.app.owner.settle()
        self._unacked_messages.clear()

    async def on_stop(self) -> None:
        """Let go of every partition."""
        await self.app.owner.close()

    async def verify_all_partitions_active(self) -> None:
        """Do nothing: Faust would miss the acknowledgements and warn of a livelock."""

    async def perform_seek(self) -> None:
        """Do nothing: each partition was sought to its own row's offset when it started."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Do nothing: the group's offset is a mirror, never where to read from."""
        return {}

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                if not self.flow_active:
                    await self.wait(self.can_resume_flow)  # type: ignore[arg-type]  # Mode names its own Event.
                    continue
                assigned = {tp for tp in self._get_active_partitions() if not self._is_changelog_tp(tp)}
                active = {tp for tp in assigned if self.app.owner.wants(tp.partition)}
                if not active:
                    await self.app.owner.wait_for_room(POLL_S)
                    continue
                poll_s = POLL_S if len(active) == len(assigned) else CROWDED_POLL_S
                for tp, chunk in (await self._getmany(active, poll_s)).items():
                    await self.callback(self._message(tp, chunk))
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise

    def _message(self, tp: TP, chunk: Any) -> ConsumerMessage:
        return ConsumerMessage(
            topic=tp.topic,
            partition=tp.partition,
            offset=chunk.end_offset - 1,
            timestamp=chunk.records[-1].timestamp / 1000 if chunk.records else time.time(),
            timestamp_type=0,
            headers=[],
            key=b"",
            value=chunk,
            checksum=None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )


class ChunkTransport(driver.Transport):
    """Faust's aiokafka transport with the consumer above."""

    Consumer = ChunkConsumer


class ChunkSchema(Schema[bytes, bytes]):
    """Passes a chunk through as the value of its event; decoding is the engine's business."""

    def __init__(self) -> None:
        super().__init__(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")

    def compile(self, app: Any, **options: Any) -> Any:
        """Return the function Faust decodes messages with."""

        async def decode(message: Any, *, propagate: bool = False) -> Event:
            return Event(app, message.key, message.value, {}, message)

        return decode
