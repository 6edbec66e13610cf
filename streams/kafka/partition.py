"""One partition this worker owns: its engine, its log, a task that applies and a task that commits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

from errors import EpochLeft, FetchGap, TransactionFailed
from streams.kafka.progress import Progress
from streams.kafka.restoring import Replay, restored
from streams.kafka.seam import Chunk, PartitionLog, StepEngine
from streams.kafka.suspicion import Search, pieces

log = logging.getLogger(__name__)

CHUNKS_MAX = 2
"""Fetched chunks waiting for the engine: one to start on while the next is on its way."""

CHUNKS_BEFORE_SLICE_MAX = 4
"""Chunks applied while a slice of a conversion waits for a transaction to begin; then they wait for it."""

SETTLE_S_MAX = 8.0
"""How long a rebalance waits for what is applied to be committed; below the session timeout."""


class Partition:
    """A life is: `fence`, `restore`, `start`, chunks through `offer`, `settle` or a failure; then again.

    Any error kills it: what was applied beyond the last commit is discarded with the engine's
    state at the next `restore`. `on_failure` is told once per life.
    """

    def __init__(
        self,
        number: int,
        engine: StepEngine,
        log_: PartitionLog,
        *,
        progress: Progress,
        turn: asyncio.Lock,
        on_room: Callable[[], None],
        on_failure: Callable[[Partition, Exception], None],
    ) -> None:
        self.number = number
        self.engine = engine
        self.log = log_
        self.failures = 0
        """Consecutive lives that ended in an error without a commit."""
        self.position = 0
        """Next source offset to apply."""
        self.generation = 0
        self.running = False
        self.state = "waiting"
        """What metrics call where it is in its life: one of metrics.STATE."""
        self.sign_s = time.monotonic()
        """When it last changed state or got on with a restore."""
        self.committed_at_s: float | None = None
        """Unix time of the last commit of this object."""
        self._progress, self._on_room, self._on_failure = progress, on_room, on_failure
        # Shared by all partitions: between two pieces of CPU work the event loop gets a turn, so
        # that a transaction's dozen answers wait for one piece each, not for one of every partition.
        self._turn = turn
        self._clean = False
        self._closing = False
        self._chunks: deque[Chunk] = deque()
        self._arrived, self._committable, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._at_work = asyncio.Lock()
        self._slicing = False
        self._refusal: str | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._sweeping: asyncio.Task[None] | None = None
        self._search = Search(number, failures_min=2)
        self._replay = Replay(number)

    # -- coming to life

    async def fence(self) -> None:
        """Become the only writer of the partition; ends the life before."""
        await self._end()
        self._become("fencing")
        await self.log.fence()

    async def restore(self) -> int:
        """Bring the engine to the last commit and set `position`; return how many rows that took.

        Call after `fence`. Raises LogTruncated, StateCorrupt, KafkaUnavailable.
        """
        rows, stored = 0, None
        self._become("restoring")
        if await self._is_current():
            stored = self.position
        else:
            self._clean = False
            rows, stored = await restored(
                self.number, self.engine, self.log, self._replay, self._turn, self._alive
            )
        self.position = await self.log.first_offset(stored)
        if stored is None:
            self.engine.start_at(self.position)
        for offset, error in self._search.culprits.items():
            if offset >= self.position:
                self.engine.set_aside(offset, error)
        return rows

    async def _is_current(self) -> bool:
        """Whether the engine holds exactly what the fenced changelog says."""
        return self._clean and not self.engine.leaves and await self.log.untouched()

    def _alive(self, _: int) -> None:
        self.sign_s = time.monotonic()

    def start(self, generation: int) -> None:
        """Accept chunks fetched after seek number `generation`, which went to `position`."""
        self.generation = generation
        self.running, self._clean, self._closing = True, False, False
        self._chunks.clear()
        self._sweeping = None
        for event in (self._arrived, self._committable, self._room):
            event.clear()
        loops = (self._apply_loop, self._commit_loop)
        self._tasks = [asyncio.create_task(self._guard(loop)) for loop in loops]
        self._become("running")
        self._on_room()

    def _become(self, state: str) -> None:
        self.state, self.sign_s = state, time.monotonic()

    # -- at work

    @property
    def has_room(self) -> bool:
        """Whether another chunk may be offered."""
        return len(self._chunks) < CHUNKS_MAX

    @property
    def is_idle(self) -> bool:
        """Whether everything offered so far is applied."""
        return (
            self.running
            and not self._closing
            and not self._chunks
            # A conversion lets others in after each slice.
            and (self._slicing or not self._at_work.locked())
            and self._sweeping is None
        )

    def offer(self, chunk: Chunk) -> None:
        """Take a chunk for application; one from before the latest seek is dropped."""
        if self.running and chunk.generation == self.generation:
            self._chunks.append(chunk)
            self._arrived.set()

    def sweep(self, now_ms: int) -> None:
        """Begin to evaluate deadlines up to `now_ms`, which no later record's append time may precede.

        It goes on in a task of this life, which ends with it; a stop lets it finish a transaction.
        """
        if self.is_idle:
            self._sweeping = asyncio.create_task(self._guard(lambda: self._sweep(now_ms)))
            self._sweeping.add_done_callback(self._swept)
            self._tasks.append(self._sweeping)

    async def _sweep(self, now_ms: int) -> None:
        async with self._at_work:
            while not self._closing:
                async with self._turn:
                    whole = self.engine.sweep(now_ms)
                    self._committable.set()
                    await asyncio.sleep(0)
                if whole:
                    return
                await self._wait_for_room()

    def _swept(self, task: asyncio.Task[None]) -> None:
        if task in self._tasks:
            self._tasks.remove(task)
        if self._sweeping is task:
            self._sweeping = None
        # What waited for the clock may have its time now.
        self._arrived.set()

    async def _apply_loop(self) -> None:
        passed = 0
        while not self._closing:
            # Before anything is looked at: what comes meanwhile is met by the next round.
            self._arrived.clear()
            if self.engine.half_swept:
                await self._convert(patiently=True)
                continue
            if self._chunks:
                async with self._at_work:
                    chunk = self._chunks.popleft()
                    self._on_room()
                    await self._apply(chunk)
                passed += 1
            if self.engine.leaves:
                raise EpochLeft(
                    f"partition {self.number} goes on from epoch {self.engine.epoch} to a newer one"
                )
            if not self.engine.converting:
                passed = 0
            elif await self._convert(patiently=passed >= CHUNKS_BEFORE_SLICE_MAX):
                passed = 0
                continue
            if not self._chunks and not self._settling():
                await self._arrived.wait()

    async def _convert(self, *, patiently: bool) -> bool:
        """Convert one slice of customers to the newest definition; return whether there was room for it.

        A slice begins a transaction. While what is applied waits to be taken, events go on; `patiently`
        waits for that instead, so that slices get their turn however many events there are.
        """
        began = False
        async with self._at_work:
            self._slicing = True
            try:
                # A sweep that was under way may be through by now, and nothing left to do.
                while self.engine.converting and not (began or self._closing):
                    async with self._turn:
                        began = self.engine.convert()
                        self._committable.set()
                        await asyncio.sleep(0)
                    if not (began or patiently):
                        return False
                    if not began:
                        await self._wait_for_room()
            finally:
                self._slicing = False
        if self.engine.refusal not in (None, self._refusal):
            log.error("partition %d keeps its definition: %s", self.number, self.engine.refusal)
        self._refusal = self.engine.refusal
        return True

    def look_up(self) -> None:
        """Look whether there is a newer definition to convert to."""
        self._arrived.set()

    async def _apply(self, chunk: Chunk) -> None:
        if chunk.start_offset != self.position:
            # Chunks chain from the seek on. If not, the client moved by itself: find out why.
            await self.log.first_offset(self.position)
            raise FetchGap(
                f"partition {self.number}: a chunk starts at {chunk.start_offset}, not at {self.position}"
            )
        alone = self._search.covers(chunk)
        for piece in pieces(chunk, alone=alone):
            try:
                await self._apply_piece(piece)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                self._search.failed(piece, error, alone=alone)
                raise
            if self._closing:
                return
        self._search.passed(self.position, alone=alone)

    async def _apply_piece(self, chunk: Chunk) -> None:
        async with self._turn:
            work = self.engine.begin(chunk)
            await asyncio.sleep(0)
        while not work.done:
            async with self._turn:
                started_s = time.perf_counter()
                has_room = self.engine.advance(work)
                self.position = self.engine.applied_offset
                self._progress.piece(time.perf_counter() - started_s)
                self._committable.set()
                await asyncio.sleep(0)
            if self._closing:
                return
            if not has_room:
                await self._wait_for_room()
        self.position = chunk.end_offset
        self._committable.set()

    async def _wait_for_room(self) -> None:
        while self.engine.has_pending() and self.running and not self._closing:
            self._room.clear()
            self._committable.set()
            await self._room.wait()

    async def _commit_loop(self) -> None:
        while True:
            while not self.engine.has_pending():
                if self._closing:
                    return
                self._committable.clear()
                await self._committable.wait()
            transaction = self.engine.take()
            self._room.set()
            self._arrived.set()
            started_s = time.perf_counter()
            try:
                await self.log.transact(transaction)
            except TransactionFailed as error:
                self._progress.aborted(error)
                raise
            self._progress.committed(transaction, time.perf_counter() - started_s)
            self.committed_at_s = time.time()
            self.failures = 0

    # -- dying

    async def settle(self) -> bool:
        """Apply no more, commit what is applied, end this life. False if the commit was given up."""
        self._closing = True
        self._wake_all()
        if self.running and self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=SETTLE_S_MAX)
            # A step cut short by the bound may or may not have committed: the state is not trusted.
            self._clean = self._lives() and not late and not self.engine.has_pending()
            settled = self._clean
        else:
            settled = True
        await self._end()
        self._become("settled")
        return settled

    def _lives(self) -> bool:
        return self.running

    def _settling(self) -> bool:
        return self._closing

    async def close(self) -> None:
        """Give the partition up."""
        await self._end()
        await self.log.close()

    async def _end(self) -> None:
        self.running = False
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._chunks.clear()
        self._on_room()

    async def _guard(self, loop: Callable[[], Awaitable[None]]) -> None:
        try:
            await loop()
        except Exception as error:  # noqa: BLE001  any error, foreseen or not, voids the state
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if not self.running:
            return
        self.running, self._clean = False, False
        self._become("failed")
        self.failures += 1
        # The other task must not go on with a void state, nor be waited for.
        self._wake_all()
        current = asyncio.current_task()
        for task in self._tasks:
            if task is not current:
                task.cancel()
        self._on_failure(self, error)

    def _wake_all(self) -> None:
        for event in (self._arrived, self._committable, self._room):
            event.set()
