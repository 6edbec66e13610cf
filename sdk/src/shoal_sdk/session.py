"""One connection to Kafka: events go out in batches, in order per partition."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    CorruptRecordException,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from shoal_sdk.entry import Entry
from shoal_sdk.outbox import Outbox
from shoal_sdk.partitioning import partition_of

BATCH_BYTES_MAX = 256 * 1024
"""One request holds one batch per partition; a larger record travels alone."""
CONNECT_S_MAX = 10.0
WARN_AFTER_S = 5.0
STALL_S_MAX = 30.0
"""A batch unanswered for so long means a new connection, from the bootstrap addresses on."""
DISCARD_S_MAX = 0.3

# Kafka refuses these because of the record itself: no other moment or connection will change that.
_HOPELESS = (
    CorruptRecordException,
    InvalidTimestampError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)


class Stalled(Exception):
    """Kafka did not answer within the bound."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where events go. The callbacks run in the sender's thread."""

    bootstrap: str | Sequence[str]
    topic: str
    client_id: str
    linger_s: float
    idle_s_max: float | None
    """A connection unused for longer is not trusted with the next event, but replaced; None trusts it."""
    client_options: Callable[[], Mapping[str, Any]]
    """What the Kafka client is told beside the rest: security; asked at every connection."""
    on_refused: Callable[[Entry], None]
    """Kafka will never take this event."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Whom to tell how it fares, in the sender's thread."""

    on_away: Callable[[object], None]
    on_delivered: Callable[[], None]


class Session:
    """Delivers `backlog`, then what comes into `outbox`, until ended or until Kafka fails it.

    With `until_s` (monotonic) it ends by itself then, or as soon as nothing waits. `call` is safe from
    any thread; everything else belongs to the sender's.
    """

    def __init__(
        self,
        route: Route,
        progress: Progress,
        outbox: Outbox,
        backlog: Sequence[Entry],
        until_s: float | None = None,
    ) -> None:
        self._route = route
        self._progress = progress
        self._until_s = until_s
        self._outbox = outbox
        self._backlog = backlog
        self._loop: asyncio.AbstractEventLoop | None = None
        self._partitions = 0
        self._lanes: defaultdict[int, deque[Entry]] = defaultdict(deque)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._used_at_s = 0.0

    @property
    def connected(self) -> bool:
        """Whether this session ever reached Kafka."""
        return self._partitions > 0

    def call(self, what: Callable[[], None]) -> None:
        """Run `what` in the session's loop soon; nothing if it has none any more."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # The loop was closed a moment ago.
                loop.call_soon_threadsafe(what)

    def end(self) -> None:
        """Stop delivering; what is unacknowledged stays in `undelivered`."""
        if not self._over.done():
            self._over.set_result(None)

    def undelivered(self) -> list[Entry]:
        """Return the events taken from the outbox and not acknowledged, in order per customer."""
        if not self.connected:
            return list(self._backlog)
        return [entry for lane in self._lanes.values() for entry in lane]

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Connect and deliver until `end`; raises what Kafka failed with, Stalled included."""
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        # Whoever set this before there was a loop could not call `end`.
        if stopping():
            return
        if self._until_s is not None:
            self._loop.call_later(max(0.0, self._until_s - time.monotonic()), self.end)
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._route.bootstrap,
            client_id=self._route.client_id,
            acks="all",
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES_MAX,
            request_timeout_ms=int(CONNECT_S_MAX * 1000),
            **self._route.client_options(),
        )
        try:
            if await self._connect():
                self.drain()
                await self._over
        finally:
            self._loop = None
            for task in self._running.values():
                task.cancel()
            await self._discard()

    def linger(self) -> None:
        """Send what is in the outbox when the linger is over."""
        if self._timer is None and self.connected and self._loop is not None:
            self._timer = self._loop.call_later(self._route.linger_s, self.drain)

    def drain(self) -> None:
        """Send what is in the outbox now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.connected:
            return
        if self._is_stale():
            self.end()
            return
        for entry in self._outbox.take():
            self._lanes[partition_of(entry.key, self._partitions)].append(entry)
        for partition, lane in self._lanes.items():
            if lane and partition not in self._running:
                task = asyncio.create_task(self._run_lane(partition, lane))
                task.add_done_callback(self._lane_ended)
                self._running[partition] = task

    def _is_stale(self) -> bool:
        """Whether the connection lay idle for so long that it may be dead without our knowing."""
        bound = self._route.idle_s_max
        return bound is not None and not self._running and time.monotonic() - self._used_at_s > bound

    async def _connect(self) -> bool:
        """Reach Kafka and learn the number of partitions; False if ended meanwhile."""

        async def connect() -> int:
            await self._producer.start()
            return len(await self._producer.partitions_for(self._route.topic))

        connecting = asyncio.create_task(connect())
        either: set[asyncio.Future[Any]] = {connecting, self._over}
        await asyncio.wait(either, timeout=CONNECT_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        if self._over.done():
            connecting.cancel()
            return False
        if not connecting.done():
            connecting.cancel()
            raise Stalled(f"no connection to topic {self._route.topic} within {CONNECT_S_MAX} s")
        self._partitions = connecting.result()
        self._used_at_s = time.monotonic()
        for entry in self._backlog:
            self._lanes[partition_of(entry.key, self._partitions)].append(entry)
        return True

    async def _run_lane(self, partition: int, lane: deque[Entry]) -> None:
        """Send one partition's events, one batch after another: the next leaves when Kafka has the last."""
        while lane:
            batch, entries = self._fill(lane)
            answer = await self._producer.send_batch(batch, self._route.topic, partition=partition)
            await self._wait_for(answer)
            error = answer.exception()
            if error is not None:
                if isinstance(error, _HOPELESS):
                    self._single_out(lane, entries)
                # The broker expects the refused batch's sequence numbers next: only a new session has others.
                raise error
            for _ in entries:
                lane.popleft()
            self._used_at_s = time.monotonic()
            self._outbox.settle(entries, delivered=True)
            self._progress.on_delivered()
            if self._outbox.has_more:
                # There is room in memory now for what lies on disk.
                self.drain()
        # Here and not when the task has ended: an event may come in between.
        del self._running[partition]

    async def _wait_for(self, answer: asyncio.Future[Any]) -> None:
        """Wait for an answer; Stalled after the bound. The client itself retries without one."""
        await asyncio.wait({answer}, timeout=WARN_AFTER_S)
        if not answer.done():
            self._progress.on_away(Stalled(f"no answer for {WARN_AFTER_S} s"))
            await asyncio.wait({answer}, timeout=STALL_S_MAX - WARN_AFTER_S)
        if not answer.done():
            raise Stalled(f"no answer for {STALL_S_MAX} s")

    def _fill(self, lane: deque[Entry]) -> tuple[Any, list[Entry]]:
        """Return a batch of the lane's first events, and those; they stay in the lane until acknowledged."""
        batch = self._producer.create_batch()
        now_ms = time.time_ns() // 1_000_000
        entries: list[Entry] = []
        for entry in lane:
            if entries and (entry.alone or entries[0].alone):
                break
            if batch.append(timestamp=now_ms, key=entry.key, value=entry.value) is None:
                break
            entries.append(entry)
        batch.close()
        return batch, entries

    def _single_out(self, lane: deque[Entry], entries: list[Entry]) -> None:
        """Give up an event refused alone; have those refused together sent one by one."""
        if len(entries) == 1:
            self._route.on_refused(lane.popleft())
        else:
            for entry in entries:
                entry.alone = True

    def _lane_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._over.done():
            self._over.set_exception(error)
        elif self._until_s is not None and not self._outbox.waiting:
            self.end()

    async def _discard(self) -> None:
        """Close the client; one that waits for what will not come is left to the end of the loop."""
        for closing in (self._producer.stop, self._producer.client.close):
            task = asyncio.create_task(closing())
            await asyncio.wait({task}, timeout=DISCARD_S_MAX)
            task.cancel()
            if task.done() and not task.cancelled():
                task.exception()
