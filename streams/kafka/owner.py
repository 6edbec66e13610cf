"""All partitions this worker owns: brings them to life, lets them settle, revives those that fail."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from errors import EpochLeft, PartitionFenced, ShoalError
from streams.kafka.partition import Partition
from streams.kafka.progress import Progress
from streams.kafka.seam import Chunk, PartitionLog, StepEngine

log = logging.getLogger(__name__)

RESTORES_AT_ONCE_MAX = 4
"""Each may hold 16 MiB of fetched rows."""

FAILURES_MAX = 8
"""Lives of a partition in a row that end without a commit, before the worker gives up."""

BACKOFF_S_MAX = 5.0
FENCED_WAIT_S = 4.0
"""Time for the rebalance that explains a fence to arrive; fencing back at once would be a duel."""

Seek = Callable[[int, int, int], Awaitable[bool]]
"""(partition, offset, generation) -> whether the partition is still assigned."""


class Owner:
    """The registry of partitions; everything runs in the worker's main loop."""

    def __init__(
        self,
        *,
        engine_for: Callable[[int], StepEngine],
        log_for: Callable[[int], PartitionLog],
        seek: Seek,
        rejoin: Callable[[], Awaitable[None]],
        give_up: Callable[[BaseException], None],
    ) -> None:
        self.partitions: dict[int, Partition] = {}
        self.assigned = False
        """Whether the group gave this worker its partitions, perhaps none, and is not taking them back."""
        self.ends: dict[int, int] = {}
        """Where each partition of `events` ended when last looked at; for metrics only."""
        self.progress = Progress()
        self._stage_ms: dict[str, float] = {}
        self._turn = asyncio.Lock()
        self._engine_for, self._log_for = engine_for, log_for
        self._seek, self._rejoin, self._give_up = seek, rejoin, give_up
        # A restore started by a rebalance and one started by a failure must not meet.
        self._opening = asyncio.Lock()
        # Openings and revivals under way.
        self._background: set[asyncio.Task[None]] = set()
        self._generations = itertools.count(1)
        self._room = asyncio.Event()

    # -- the life of partitions

    async def open(self, numbers: Iterable[int]) -> bool:
        """Own exactly `numbers`: fence, restore, seek and start each. A partition's failure is handled here.

        False if a `settle` cut it short.
        """
        self.progress.rebalanced()
        opening = asyncio.create_task(self._open(set(numbers)))
        self._background.add(opening)
        opening.add_done_callback(self._background.discard)
        try:
            await asyncio.wait([opening])
        finally:
            opening.cancel()
        if opening.cancelled():
            return False
        opening.result()
        self.assigned = True
        return True

    async def _open(self, wanted: set[int]) -> None:
        async with self._opening:
            await asyncio.gather(*(self.partitions.pop(n).close() for n in set(self.partitions) - wanted))
            for number in wanted - set(self.partitions):
                self.partitions[number] = self._new(number)
            at_once = asyncio.Semaphore(RESTORES_AT_ONCE_MAX)
            await asyncio.gather(*(self._open_one(self.partitions[n], at_once) for n in sorted(wanted)))

    async def _open_one(self, partition: Partition, at_once: asyncio.Semaphore) -> None:
        async with at_once:
            try:
                await self._bring_up(partition)
            except Exception as error:  # noqa: BLE001  one partition's trouble must not stop the others
                partition.failures += 1
                partition.state = "failed"
                self._failed(partition, error)

    async def _bring_up(self, partition: Partition) -> None:
        started_s = time.perf_counter()
        await partition.fence()
        fenced_s = time.perf_counter()
        rows = await partition.restore()
        generation = next(self._generations)
        if await self._seek(partition.number, partition.position, generation):
            partition.start(generation)
            self.progress.restored(rows, time.perf_counter() - started_s)
            log.info(
                "partition %d starts at %d: fenced in %.0f ms, %d rows restored in %.0f ms",
                partition.number,
                partition.position,
                (fenced_s - started_s) * 1e3,
                rows,
                (time.perf_counter() - fenced_s) * 1e3,
            )

    async def settle(self) -> bool:
        """Before a rebalance or the end: commit what is applied and stop. False if some was given up."""
        self.assigned = False
        background = set(self._background)
        for task in background:
            task.cancel()
        if background:
            await asyncio.wait(background)
        return all(await asyncio.gather(*(partition.settle() for partition in self.partitions.values())))

    async def close(self) -> None:
        """Settle and let go of everything."""
        await self.settle()
        await asyncio.gather(*(partition.close() for partition in self.partitions.values()))
        # The last report comes after the end, when no engine is left to ask.
        self._collect_stages()
        self.partitions.clear()

    def _new(self, number: int) -> Partition:
        return Partition(
            number,
            self._engine_for(number),
            self._log_for(number),
            progress=self.progress,
            turn=self._turn,
            on_room=self._room.set,
            on_failure=self._failed,
        )

    def _failed(self, partition: Partition, error: Exception) -> None:
        if isinstance(error, EpochLeft):
            log.info("%s", error)
            partition.failures -= 1
            self._start_revival(partition, error)
        elif isinstance(error, ShoalError) and not error.retryable:
            log.error("partition %d cannot go on: %s", partition.number, error)
            self._give_up(error)
        elif partition.failures > FAILURES_MAX:
            times = partition.failures
            log.error("partition %d failed %d times in a row: %r", partition.number, times, error)
            self._give_up(error)
        else:
            trace = None if isinstance(error, ShoalError) else error
            log.warning("partition %d failed, to be restored: %r", partition.number, error, exc_info=trace)
            self._start_revival(partition, error)

    def _start_revival(self, partition: Partition, error: Exception) -> None:
        revival = asyncio.create_task(self._revive(partition, error))
        self._background.add(revival)
        revival.add_done_callback(self._background.discard)

    async def _revive(self, partition: Partition, error: Exception) -> None:
        """Start a failed partition again; a rebalance meanwhile cancels this and does it instead."""
        if isinstance(error, PartitionFenced):
            await asyncio.sleep(FENCED_WAIT_S)
            await self._rejoin()
            return
        await asyncio.sleep(min(0.05 * 2**partition.failures, BACKOFF_S_MAX))
        async with self._opening:
            if self.partitions.get(partition.number) is partition and not partition.running:
                await self._open_one(partition, asyncio.Semaphore(1))

    # -- chunks

    def wants(self, number: int) -> bool:
        """Whether a chunk of this partition would be accepted now."""
        partition = self.partitions.get(number)
        return partition is not None and partition.running and partition.has_room

    def deliver(self, number: int, chunk: Chunk) -> None:
        """Hand a chunk to its partition; one for a partition not owned or not alive is dropped."""
        partition = self.partitions.get(number)
        if partition is not None:
            partition.offer(chunk)

    async def wait_for_room(self, seconds_max: float) -> None:
        """Return when some partition may have room, or after `seconds_max`."""
        self._room.clear()
        try:
            await asyncio.wait_for(self._room.wait(), seconds_max)
        except TimeoutError:
            return

    def _collect_stages(self) -> None:
        for partition in self.partitions.values():
            stage_ms = getattr(partition.engine, "stage_ms", None)
            for name, spent in (stage_ms() if stage_ms else {}).items():
                self._stage_ms[name] = self._stage_ms.get(name, 0.0) + spent

    def report(self) -> str:
        """Return the progress line since the last one."""
        self._collect_stages()
        stages, self._stage_ms = self._stage_ms, {}
        pending = sum(partition.engine.has_pending() for partition in self.partitions.values())
        return self.progress.line(pending=pending, stage_ms=stages)
