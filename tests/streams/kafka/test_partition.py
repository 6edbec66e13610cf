"""One partition against an in-memory log: chains of chunks, failures, the search for a culprit, sweeps."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from errors import FetchGap, LogTruncated, StateCorrupt, TransactionFailed
from streams.kafka import partition as partition_module
from streams.kafka.partition import CHUNKS_BEFORE_SLICE_MAX, Partition
from streams.kafka.progress import Progress
from streams.kafka.seam import Chunk
from streams.kafka.suspicion import CULPRITS_MAX
from tests.streams.kafka.memory_log import MemoryLog
from tests.streams.kafka.toy_engine import PENDING_RECORDS_MAX, ToyEngine


@dataclass(frozen=True)
class Fetched:
    """A record as the transport hands it over."""

    offset: int
    key: bytes
    value: bytes
    timestamp: int = 0


class Bench:
    """A partition, its log and engine, and the failures it told of."""

    def __init__(self, explode: Callable[[int, bytes], None] = lambda offset, value: None) -> None:
        self.log = MemoryLog()
        self.engine = ToyEngine(explode)
        self.failures: list[Exception] = []
        self.lives = 0
        self.partition = Partition(
            0,
            self.engine,
            self.log,
            progress=Progress(),
            turn=asyncio.Lock(),
            on_room=lambda: None,
            on_failure=lambda partition, error: self.failures.append(error),
        )

    async def start(self) -> None:
        """Fence, restore and start, as after a rebalance."""
        await self.partition.fence()
        await self.partition.restore()
        self.lives += 1
        self.partition.start(self.lives)

    def offer(
        self, start: int, end: int, values: dict[int, bytes] | None = None, generation: int = 0
    ) -> None:
        """Hand over a chunk of one record per offset."""
        records = [Fetched(n, b"k%d" % (n % 3), (values or {}).get(n, b"v")) for n in range(start, end)]
        self.partition.offer(Chunk(start, records, end, generation or self.lives))

    async def rest(self) -> None:
        """Let the tasks run until nothing moves."""
        for _ in range(200):
            await asyncio.sleep(0)

    async def live_through(self, end: int, values: dict[int, bytes]) -> None:
        """Start, offer everything to `end`, again after each failure, until it is committed."""
        for _ in range(3 * CULPRITS_MAX):
            await self.start()
            self.offer(self.partition.position, end, values)
            await self.rest()
            if self.partition.running:
                return

    @property
    def offsets(self) -> list[int]:
        """The offsets of all committed changes, in order."""
        return [json.loads(value)["offset"] for each in self.log.committed for _, value in each.changes]

    @property
    def dead(self) -> list[int]:
        """The offsets of all committed dead letters."""
        return [letter.offset for each in self.log.committed for letter in each.dead_letters]


@asynccontextmanager
async def bench(explode: Callable[[int, bytes], None] = lambda offset, value: None) -> AsyncIterator[Bench]:
    """A bench, closed at the end."""
    made = Bench(explode)
    try:
        yield made
    finally:
        await made.partition.close()


def poisoned(offset: int, value: bytes) -> None:
    """Fail on poison."""
    if value == b"poison":
        raise ValueError(f"poison at {offset}")


async def test_chunks_are_applied_and_committed_in_order() -> None:
    """Two chunks in a row: every record once, the source offset is the end of the last."""
    async with bench() as b:
        await b.start()
        b.offer(0, 700)
        b.offer(700, 900)
        await b.rest()
        assert b.offsets == list(range(900))
        assert b.log.committed[-1].source_offset == 900
        assert b.partition.is_idle


async def test_an_empty_chunk_moves_the_offset() -> None:
    """Markers and aborted records at the end of the log are stepped over for good."""
    async with bench() as b:
        await b.start()
        b.partition.offer(Chunk(0, [], 17, b.lives))
        await b.rest()
        assert b.log.committed[-1].source_offset == 17


async def test_a_chunk_fetched_before_the_latest_seek_is_dropped() -> None:
    """Its position belongs to a life that is over."""
    async with bench() as b:
        await b.start()
        await b.start()
        b.offer(0, 10, generation=1)
        b.offer(0, 5)
        await b.rest()
        assert b.offsets == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("start", "end"), [(6, 9), (4, 9), (0, 5)])
async def test_a_chunk_that_does_not_join_up_ends_the_life(start: int, end: int) -> None:
    """A hole, an overlap and a repetition alike: nothing of it is applied."""
    async with bench() as b:
        await b.start()
        b.offer(0, 5)
        b.offer(start, end)
        await b.rest()
        assert [type(error) for error in b.failures] == [FetchGap]
        assert not b.partition.running


async def test_a_chunk_from_before_a_truncation_is_told_apart() -> None:
    """When the client jumped because the log no longer holds the position, that is what is said."""
    async with bench() as b:
        await b.start()
        b.offer(0, 5)
        b.log.first = 100
        b.offer(100, 105)
        await b.rest()
        assert [type(error) for error in b.failures] == [LogTruncated]


async def test_nothing_after_the_last_commit_survives_a_failed_transaction() -> None:
    """State is restored from the rows, and the chunk applied again."""
    async with bench() as b:
        b.log.failing = {2}
        await b.start()
        b.offer(0, 10)
        await b.rest()
        b.offer(10, 20)
        await b.rest()
        assert [type(error) for error in b.failures] == [TransactionFailed]
        assert b.partition.failures == 1
        await b.start()
        assert b.partition.position == 10
        assert sum(b.engine.counts.values()) == 10
        b.offer(10, 20)
        await b.rest()
        assert b.offsets == list(range(20))
        assert b.partition.failures == 0


async def test_applying_waits_for_room() -> None:
    """No more is applied than the engine may hold while a transaction is under way."""
    async with bench() as b:
        going = asyncio.Event()
        commit = b.log.transact

        async def slow(transaction: object) -> None:
            await going.wait()
            await commit(transaction)  # type: ignore[arg-type]  # It is one.

        b.log.transact = slow  # type: ignore[method-assign]  # Slowed down on purpose.
        await b.start()
        b.offer(0, 3 * PENDING_RECORDS_MAX)
        await b.rest()
        assert b.engine.events <= PENDING_RECORDS_MAX
        going.set()
        await b.rest()
        assert b.offsets == list(range(3 * PENDING_RECORDS_MAX))


async def test_state_is_kept_after_settling_when_nobody_wrote() -> None:
    """A rebalance that leaves the partition here costs a fence, no restore."""
    async with bench() as b:
        await b.start()
        b.offer(0, 10)
        await b.rest()
        assert await b.partition.settle()
        await b.start()
        assert (b.engine.restored, b.log.fences, b.partition.position) == (1, 2, 10)


@pytest.mark.parametrize("reason", ["others wrote", "a failure"])
async def test_state_is_restored_when_it_may_differ_from_the_changelog(reason: str) -> None:
    """Another owner in between, or a life that ended badly: begin from the rows."""
    async with bench() as b:
        await b.start()
        b.offer(0, 10)
        await b.rest()
        if reason == "a failure":
            b.log.failing = {2}
            b.offer(10, 12)
            await b.rest()
        else:
            b.log.others_wrote = True
        await b.partition.settle()
        await b.start()
        assert b.engine.restored == 2


async def test_settling_commits_what_is_applied_and_applies_no_more() -> None:
    """In the middle of a chunk: the committed offset is that of the last piece."""
    async with bench() as b:
        await b.start()
        b.offer(0, 3_000)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await b.partition.settle()
        end = b.log.committed[-1].source_offset
        assert 0 < end < 3_000
        assert b.offsets == list(range(end))


async def test_a_failure_that_does_not_repeat_sets_nothing_aside() -> None:
    """The first failure only restores."""
    seen: list[int] = []

    def once(offset: int, value: bytes) -> None:
        if offset == 5 and not seen:
            seen.append(offset)
            raise ValueError("once")

    async with bench(once) as b:
        await b.live_through(20, {})
        assert b.offsets == list(range(20))
        assert (b.dead, len(b.failures)) == ([], 1)


async def test_a_chunk_that_fails_twice_is_searched_before_anything_is_set_aside() -> None:
    """A record that fails with its chunk twice and then alone no more is applied."""
    seen: list[int] = []

    def twice(offset: int, value: bytes) -> None:
        if offset == 5 and len(seen) < 2:
            seen.append(offset)
            raise ValueError("twice")

    async with bench(twice) as b:
        await b.live_through(20, {})
        assert b.offsets == list(range(20))
        assert (b.dead, len(b.failures)) == ([], 2)


async def test_a_record_that_always_fails_is_searched_for_and_set_aside() -> None:
    """Each culprit alone becomes a dead letter; what stands around it is applied once."""
    async with bench(poisoned) as b:
        await b.live_through(40, {7: b"poison", 8: b"poison", 30: b"poison"})
        assert b.dead == [7, 8, 30]
        assert b.offsets == [n for n in range(40) if n not in (7, 8, 30)]


async def test_an_engine_that_fails_on_everything_is_not_searched_for_ever() -> None:
    """Past the bound the fault is not the records': the worker must stop."""
    async with bench(poisoned) as b:
        await b.live_through(100, dict.fromkeys(range(100), b"poison"))
        assert isinstance(b.failures[-1], StateCorrupt)
        assert len(b.dead) <= CULPRITS_MAX


async def test_rows_without_a_partition_row_are_refused() -> None:
    """Somebody wrote to, or deleted from, the changelog: starting at the beginning would double."""
    async with bench() as b:
        b.log.changelogs[1] = [(b"k", b"1")]
        await b.partition.fence()
        with pytest.raises(StateCorrupt, match="no partition row"):
            await b.partition.restore()


async def test_a_sweep_is_committed_and_only_done_when_idle() -> None:
    """The engine hears of the time when nothing is waiting to be applied, not otherwise."""
    async with bench() as b:
        await b.start()
        b.partition.sweep(1_000)
        await b.rest()
        assert b.engine.swept_ms == [1_000] and len(b.log.committed) == 1
        b.offer(0, 10)
        b.partition.sweep(2_000)
        await b.rest()
        assert b.engine.swept_ms == [1_000]


async def test_a_sweep_that_waits_for_kafka_ends_with_its_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that hangs while a sweep wants more room: settling gives up on both, and a new life works."""
    monkeypatch.setattr(partition_module, "SETTLE_S_MAX", 0.01)
    async with bench() as b:
        commit = b.log.transact

        async def hang(transaction: object) -> None:
            await asyncio.Event().wait()

        b.log.transact = hang  # type: ignore[method-assign]  # Kafka does not answer.
        await b.start()
        b.engine.pieces_left = 3
        b.partition.sweep(1_000)
        await b.rest()
        assert b.engine.swept_ms and not b.partition.is_idle
        assert not await b.partition.settle()
        b.log.transact = commit  # type: ignore[method-assign]  # It answers again.
        await b.start()
        b.offer(0, 10)
        await b.rest()
        assert b.offsets == list(range(10)) and b.partition.is_idle


async def test_a_sweep_ends_when_its_partition_fails() -> None:
    """The transaction fails while more is to be swept: the state is void, the next life free to begin."""
    async with bench() as b:
        b.log.failing = {2}
        await b.start()
        b.engine.pieces_left = 10**6
        b.partition.sweep(1_000)
        await b.rest()
        assert [type(error) for error in b.failures] == [TransactionFailed]
        swept = len(b.engine.swept_ms)
        await b.start()
        b.offer(0, 10)
        await b.rest()
        assert len(b.engine.swept_ms) == swept and b.offsets == list(range(10))


async def test_settling_stops_a_sweep_after_the_piece_it_is_at() -> None:
    """However many customers are due: what is evaluated is committed, the rest is due still."""
    async with bench() as b:
        await b.start()
        b.engine.pieces_left = 10**6
        b.partition.sweep(1_000)
        await b.rest()
        assert await b.partition.settle()
        swept = len(b.engine.swept_ms)
        assert 0 < swept < 10**6 and len(b.log.committed) == swept


async def test_a_sweep_that_raises_ends_the_life() -> None:
    """The engine's state is as void as after any other error."""
    async with bench() as b:
        await b.start()

        def fail(now_ms: int) -> bool:
            raise ValueError("sweep")

        b.engine.sweep = fail  # type: ignore[method-assign]  # Broken on purpose.
        b.partition.sweep(1_000)
        await b.rest()
        assert [str(error) for error in b.failures] == ["sweep"] and not b.partition.running


async def test_a_conversion_lets_every_chunk_in_between_two_slices() -> None:
    """With chunks and slices waiting they take turns, each slice in a transaction of its own."""
    bench = Bench()
    bench.engine.slices_left = 5
    await bench.start()
    for start in (0, 10):
        bench.offer(start, start + 10)
    await bench.rest()
    assert bench.engine.converted == [10, 20, 20, 20, 20]
    assert len(bench.log.committed) >= 5
    bench.engine.slices_left = 1
    bench.partition.look_up()
    await bench.rest()
    assert bench.engine.converted[5:] == [20]


async def test_events_go_on_while_a_slice_waits_for_a_transaction_to_begin() -> None:
    """One transaction is under way and the next one is filling: chunks add to it, slices come behind it."""
    async with bench() as b:
        await b.start()
        b.log.answers.clear()
        b.offer(0, 10)
        await b.rest()
        b.offer(10, 20)
        b.engine.slices_left = 2
        await b.rest()
        b.offer(20, 30)
        await b.rest()
        assert b.engine.applied_offset == 30 and b.engine.converted == [] and b.log.tried == 1
        b.log.answers.set()
        await b.rest()
        assert b.engine.converted == [30, 30]
        assert [each.source_offset for each in b.log.committed] == [10, 30, 30, 30]


async def test_slices_get_their_turn_however_many_chunks_there_are() -> None:
    """After so many chunks the others wait until a transaction begins, with a slice in it; then anew."""
    async with bench() as b:
        await b.start()
        b.log.answers.clear()
        b.offer(0, 10)
        await b.rest()
        b.engine.slices_left = 2
        end = applied = 10
        for slices in range(2):
            applied += 10 * CHUNKS_BEFORE_SLICE_MAX
            for _ in range(CHUNKS_BEFORE_SLICE_MAX + 2):
                if b.partition.has_room:
                    b.offer(end, end + 10)
                    end += 10
                await b.rest()
            assert (b.engine.applied_offset, len(b.engine.converted)) == (applied, slices)
            b.log.answers.set()
            for _ in range(200):
                if len(b.engine.converted) > slices:
                    break
                await asyncio.sleep(0)
            b.log.answers.clear()
            assert b.engine.converted[-1] == applied
        b.log.answers.set()
        await b.rest()
        assert b.engine.applied_offset == end


async def test_deadlines_are_met_while_customers_are_converted() -> None:
    """A sweep asked for in the middle of a conversion gets its turn before that ends."""
    bench = Bench()
    bench.engine.slices_left = 50
    await bench.start()
    for _ in range(60):
        await asyncio.sleep(0)
        bench.partition.sweep(1)
        if bench.engine.swept_ms:
            break
    assert bench.engine.swept_ms and bench.engine.slices_left > 0


async def test_what_a_life_before_left_half_swept_is_finished_before_a_chunk_is_begun() -> None:
    """Each slice of it in a transaction of its own; then the chunk that was there first."""
    async with bench() as b:
        b.engine.halves_left = 3
        await b.start()
        b.offer(0, 10)
        await b.rest()
        assert b.engine.converted == [0, 0, 0] and b.engine.applied_offset == 10


async def test_a_sweep_under_way_is_left_to_itself() -> None:
    """Each of its transactions wakes the loop, which finds it half done; then nothing is left to do."""
    async with bench() as b:
        await b.start()
        await b.rest()
        left = iter((2, 1, 0))

        def sweep(now_ms: int) -> bool:
            b.engine.halves_left = next(left)
            b.engine.moved = True
            return b.engine.halves_left == 0

        b.engine.sweep = sweep  # type: ignore[method-assign]  # Cut twice.
        b.partition.sweep(1)
        await b.rest()
        assert b.failures == [] and b.engine.converted == [] and len(b.log.committed) == 3


async def test_what_waits_for_its_time_is_looked_at_when_time_has_passed() -> None:
    """A sweep moves the clock, and with it what there is to convert."""
    async with bench() as b:
        await b.start()
        await b.rest()

        def sweep(now_ms: int) -> bool:
            b.engine.slices_left = 1
            return True

        b.engine.sweep = sweep  # type: ignore[method-assign]  # Time makes it so.
        b.partition.sweep(1)
        await b.rest()
        assert b.engine.converted == [0]


async def test_a_refused_definition_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """An operator must act, so it is an ERROR; asking again and again adds nothing."""
    bench = Bench()
    bench.engine.slices_left, bench.engine.refusal = 3, "run `shoal rebuild`"
    await bench.start()
    await bench.rest()
    said = [record for record in caplog.records if "keeps its definition" in record.message]
    assert [record.levelname for record in said] == ["ERROR"]
    assert "run `shoal rebuild`" in said[0].message
