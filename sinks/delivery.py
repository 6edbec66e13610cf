"""The loop of a sink's process: from `segment-changes` into the sink, resumed from the sink's own watermark.

A consumer group shares the partitions among processes; its offsets are a mirror for lag tools. A
partition begins with what the sink says it holds. Where that does not join up with the log, it is
rebuilt from the memberships.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError
from aiokafka.errors import KafkaError as ClientError

from errors import KafkaUnavailable, RecordError, ShoalError, SinkGap, SinkUnavailable
from schemas.changes import decode_change
from sinks.contract import Batch, RebuildableSink, Watermark, follows
from sinks.snapshot import Source, close_quietly, take_snapshot, unreadable
from sinks.standing import Standing

log = logging.getLogger(__name__)

POLL_MS = 200
FETCH_WAIT_MS = 100
FETCH_BYTES_MAX = 1 << 20
"""Per partition; what is fetched and not delivered yet is at most about twice that."""
REQUEST_TIMEOUT_MS = 10_000
CHECK_S = 5.0
"""How often everything is compared with the sink and the log: a Redis that lost its memory says nothing."""
ENDS_S_MAX = 5.0
"""Silence of Kafka after which it is said to be away."""
PAUSE_S_MIN, PAUSE_S_MAX = 0.1, 5.0
RETRY_AFTER_S_MAX = 60.0
"""The longest a sink may ask us to stay away."""
REMIND_S = 30.0
CLOSE_S_MAX = 10.0
FETCH_FAILURES_MAX = 20

_Result = TypeVar("_Result")


class Stopped(Exception):
    """Raised inside the loop when it is told to stop while it waits."""


class Delivery(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types.
    """Delivers to one sink until told to stop. One `run` per object."""

    def __init__(
        self,
        source: Source,
        sink: RebuildableSink,
        *,
        group: str,
        batch_changes_max: int = 500,
        session_timeout_ms: int = 15_000,
        rebuild: bool = False,
    ) -> None:
        self._source, self._sink, self._batch_max = source, sink, batch_changes_max
        self._session_timeout_ms = session_timeout_ms
        self._held: dict[int, Watermark] = {}
        self.standing = Standing(sink.name)
        """What is told to whoever asks over HTTP."""
        self.standing.resumed = self._held.keys()
        self._to_rebuild = set(range(source.partitions)) if rebuild else set()
        self._last_gap: dict[int, tuple[int, int]] = {}
        self._stop = asyncio.Event()
        self._fetch_failures = 0
        self.delivered = 0
        """Changes that were new to the sink."""
        self._group = group
        self._consumer: Any = None

    async def run(self, stop: asyncio.Event, *, once: bool = False) -> None:
        """Deliver until `stop` is set; with `once`, until all that was there is delivered.

        What is away is waited for. Raises SinkRejected, KafkaUnavailable when there is no Kafka
        to begin with, and whatever else no patience helps against.
        """
        self._stop = stop
        self._consumer = self._new_consumer()
        try:
            await self._asked(self._sink.open)
            try:
                await self._consumer.start()
            except (ClientError, OSError) as error:
                raise KafkaUnavailable(f"no Kafka at {self._source.bootstrap}: {error!r}") from error
            self._consumer.subscribe([self._source.changes], listener=self)
            await self._until_done(once)
        except Stopped:
            log.info("told to stop while waiting: what was not delivered will be read again")
        finally:
            await self._mirror()
            await close_quietly(self._consumer)
            await self._close_sink()
            log.info("%d changes delivered to %s", self.delivered, self._sink.name)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Forget where they stood: whoever has them next asks the sink."""
        for where in revoked:
            self._held.pop(where.partition, None)
            self.standing.forget(where.partition)
        self.standing.assigned = None

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Only note which: they are resumed by the loop, for this may not take long."""
        self.standing.assigned = frozenset(where.partition for where in assigned)

    async def _until_done(self, once: bool) -> None:
        goals: dict[TopicPartition, int] | None = None
        checked_s = time.monotonic()
        while not self._stop.is_set():
            await self._resume_new()
            if once and goals is None and self._consumer.assignment():
                goals = await self._ends()
            for where, records in (await self._fetched()).items():
                # A record without a value is a marker, such as of a rebuild: no change, and no number.
                changes = [record for record in records if record.value is not None]
                if where.partition in self._held and changes:
                    await self._deliver(where.partition, changes)
            if goals is not None and await self._reached(goals):
                return
            if time.monotonic() - checked_s >= CHECK_S:
                await self._check()
                checked_s = time.monotonic()

    async def _fetched(self) -> dict[TopicPartition, list[Any]]:
        try:
            fetched: dict[TopicPartition, list[Any]] = await self._consumer.getmany(
                timeout_ms=POLL_MS, max_records=self._batch_max
            )
        except (ClientError, OSError) as error:
            self._fetch_failures += 1
            if self._fetch_failures > FETCH_FAILURES_MAX:
                raise KafkaUnavailable(f"reading {self._source.changes}: {error!r}") from error
            log.warning("reading %s failed, to be tried again: %r", self._source.changes, error)
            await self._wait(min(PAUSE_S_MAX, PAUSE_S_MIN * 2**self._fetch_failures))
            return {}
        self._fetch_failures = 0
        self.standing.fetched(
            {where.partition: records[0].timestamp for where, records in fetched.items() if records}
        )
        return fetched

    async def _deliver(self, partition: int, records: list[Any]) -> None:
        """Deliver what was fetched of a partition, batch by batch, up to a hole if there is one."""
        for batch, written_ms in _batches(partition, records):
            self.standing.reached(partition, written_ms)
            try:
                self.delivered += await self._asked(partial(self.standing.deliver, self._sink, batch))
            except SinkGap as error:
                self._mend(batch, error)
                return
            if partition in self._held:
                last = batch.changes[-1]
                self._held[partition] = Watermark(last["epoch"], last["seq"], batch.next_offset)

    def _mend(self, batch: Batch, error: SinkGap) -> None:
        """Have the partition resumed; rebuilt, if that was tried and the same hole is there again."""
        first = batch.changes[0]["epoch"], batch.changes[0]["seq"]
        # Going back to the watermark helps when the sink lost its latest, not when the log did.
        again = self._last_gap.get(batch.partition) == first
        if again:
            self._to_rebuild.add(batch.partition)
        self._last_gap[batch.partition] = first
        self._held.pop(batch.partition, None)
        log.warning("%s: %s", error, "it is rebuilt" if again else "it is resumed from its watermark")

    async def _resume_new(self) -> None:
        for where in self._consumer.assignment():
            if where.partition not in self._held:
                await self._resume(where)

    async def _resume(self, where: TopicPartition) -> None:
        """Seek to what the sink holds of a partition; rebuild it if that is nothing the log joins up with."""
        partition = where.partition
        held = await self._asked(lambda: self._sink.watermark(partition))
        first, end = await self._patiently("Kafka", lambda: self._extent(where))
        if partition in self._to_rebuild or held is None or not first <= held.offset <= end:
            held = await self._rebuilt(partition, held)
        try:
            self._consumer.seek(where, held.offset)
        except IllegalStateError:
            return  # Taken away meanwhile: it is somebody else's now.
        self._held[partition] = held
        log.info("partition %d goes on at epoch %d, seq %d", partition, held.epoch, held.seq)

    async def _rebuilt(self, partition: int, held: Watermark | None) -> Watermark:
        log.info("partition %d is rebuilt from memberships; the sink held %s", partition, held)
        snapshot = await self._patiently("Kafka", lambda: take_snapshot(self._source, partition))
        removed = await self._asked(
            lambda: self._sink.rebuild(partition, snapshot.members, snapshot.watermark)
        )
        self._to_rebuild.discard(partition)
        log.info(
            "partition %d is rebuilt: %d members, %d others removed",
            partition,
            len(snapshot.members),
            removed,
        )
        return snapshot.watermark

    async def _check(self) -> None:
        """Compare with the sink, which may have lost its memory, and with the log, which may be away."""
        for partition, expected in list(self._held.items()):
            held = await self._asked(partial(self._sink.watermark, partition))
            if held is None or held.at != expected.at:
                log.warning("partition %d: delivered up to %s, the sink holds %s", partition, expected, held)
                self._held.pop(partition, None)
        try:
            await self._ends()
        except KafkaUnavailable as error:
            if not self.standing.kafka_away:
                log.warning("Kafka does not answer; nothing is lost, waiting for it: %s", error)
            self.standing.kafka_away = True
            return
        if self.standing.kafka_away:
            log.info("Kafka answers again")
        self.standing.kafka_away = False
        await self._mirror()

    async def _asked(self, call: Callable[[], Awaitable[_Result]]) -> _Result:
        """Call the sink until it answers, each attempt timed."""

        async def timed() -> _Result:
            with self.standing.request():
                return await call()

        return await self._patiently("the sink", timed)

    async def _patiently(self, who: str, call: Callable[[], Awaitable[_Result]]) -> _Result:
        """Call until it is answered; a failure that cannot pass, or the end of the process, is raised."""
        pause_s, began_s, said_s = PAUSE_S_MIN, time.monotonic(), float("-inf")
        while True:
            try:
                result = await call()
            except ShoalError as error:
                if not error.retryable:
                    self.standing.waits(None)
                    raise
                self.standing.waits(who)
                now_s = time.monotonic()
                if now_s - said_s >= REMIND_S:
                    log.warning("%s is away for %.0f s; nothing is lost: %s", who, now_s - began_s, error)
                    said_s = now_s
                asked_s = error.retry_after_seconds if isinstance(error, SinkUnavailable) else None
                await self._wait(pause_s if asked_s is None else min(asked_s, RETRY_AFTER_S_MAX))
                pause_s = min(PAUSE_S_MAX, pause_s * 2)
            else:
                self.standing.waits(None)
                if said_s > float("-inf"):
                    log.info("%s answers again", who)
                return result

    async def _wait(self, seconds: float) -> None:
        """Wait, unless told to stop: then raise Stopped."""
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return
        raise Stopped

    async def _extent(self, where: TopicPartition) -> tuple[int, int]:
        try:
            first = (await self._consumer.beginning_offsets([where]))[where]
            return first, (await self._consumer.end_offsets([where]))[where]
        except (ClientError, OSError, TimeoutError) as error:
            raise KafkaUnavailable(f"no answer about {where.topic}-{where.partition}: {error!r}") from error

    async def _ends(self) -> dict[TopicPartition, int]:
        """Return where each assigned partition ends. Raises KafkaUnavailable."""
        assigned = list(self._consumer.assignment())
        if not assigned:
            return {}
        try:
            asked = self._consumer.end_offsets(assigned)
            return dict(await asyncio.wait_for(asked, ENDS_S_MAX))
        except (ClientError, OSError, TimeoutError) as error:
            raise KafkaUnavailable(f"no answer about {self._source.changes}: {error!r}") from error

    async def _reached(self, goals: dict[TopicPartition, int]) -> bool:
        mine = self._consumer.assignment() & goals.keys()
        if any(where.partition not in self._held for where in mine):
            return False
        return all([await self._consumer.position(where) >= goals[where] for where in mine])

    async def _mirror(self) -> None:
        """Let lag tools see where the sink stands; nothing is ever read from there."""
        assigned = {where for where in self._consumer.assignment() if where.partition in self._held}
        if not assigned or self.standing.kafka_away:
            return
        try:
            await asyncio.wait_for(
                self._consumer.commit({where: self._held[where.partition].offset for where in assigned}),
                CLOSE_S_MAX,
            )
        except (ClientError, OSError, TimeoutError) as error:
            log.info("the group's offsets were not mirrored: %r", error)

    async def _close_sink(self) -> None:
        try:
            await asyncio.wait_for(self._sink.close(), CLOSE_S_MAX)
        except (ShoalError, TimeoutError) as error:
            log.info("closing %s: ignored %r", self._sink.name, error)

    def _new_consumer(self) -> Any:
        return AIOKafkaConsumer(
            bootstrap_servers=self._source.bootstrap,
            group_id=self._group,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            session_timeout_ms=self._session_timeout_ms,
            heartbeat_interval_ms=self._session_timeout_ms // 5,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )


def _batches(partition: int, records: list[Any]) -> Iterator[tuple[Batch, int]]:
    """Cut records where a number is missing: a hole within a batch is refused, one before it is mended.

    With each batch comes when the first of it was written, UTC ms.
    """
    changes: list[dict[str, Any]] = []
    offset, written_ms = 0, records[0].timestamp
    for record in records:
        change = _change(record)
        if changes and not follows(
            (change["epoch"], change["seq"]), (changes[-1]["epoch"], changes[-1]["seq"])
        ):
            yield Batch(partition, changes, offset), written_ms
            changes, written_ms = [], record.timestamp
        changes.append(change)
        offset = record.offset + 1
    yield Batch(partition, changes, offset), written_ms


def _change(record: Any) -> dict[str, Any]:
    try:
        return decode_change(record.value)
    except RecordError as error:
        raise unreadable(record, error) from error
