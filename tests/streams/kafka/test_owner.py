"""The registry of partitions: what it opens, keeps, gives back, revives, and when it gives up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from errors import KafkaUnavailable, LogTruncated, PartitionFenced
from streams.kafka import owner as owner_module
from streams.kafka.owner import FAILURES_MAX, Owner
from streams.kafka.seam import Chunk, Row
from tests.streams.kafka.memory_log import MemoryLog
from tests.streams.kafka.toy_engine import ToyEngine


@pytest.fixture(autouse=True)
def _in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures are retried and fences explained at once."""
    monkeypatch.setattr(owner_module, "BACKOFF_S_MAX", 0.0)
    monkeypatch.setattr(owner_module, "FENCED_WAIT_S", 0.0)


class Broken(MemoryLog):
    """Cannot be fenced."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def fence(self) -> None:
        """Fail."""
        self.fences += 1
        raise self.error


class Hanging(MemoryLog):
    """Never finishes a restore."""

    async def restore(self, epoch: int = 1) -> AsyncGenerator[Row, None]:
        """Wait for ever."""
        await asyncio.Event().wait()
        yield b"", b""


class Scene:
    """An owner and what it asked of the worker."""

    def __init__(self) -> None:
        self.logs: dict[int, MemoryLog] = {}
        self.seeks: list[tuple[int, int, int]] = []
        self.rejoins = 0
        self.given_up: list[BaseException] = []
        self.owner = Owner(
            engine_for=lambda number: ToyEngine(),
            log_for=lambda number: self.logs.setdefault(number, MemoryLog()),
            seek=self._seek,
            rejoin=self._rejoin,
            give_up=self.given_up.append,
        )

    async def _seek(self, partition: int, offset: int, generation: int) -> bool:
        self.seeks.append((partition, offset, generation))
        return True

    async def _rejoin(self) -> None:
        self.rejoins += 1

    async def rest(self) -> None:
        """Let the tasks run until nothing moves."""
        for _ in range(50):
            await asyncio.sleep(0.001)


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    """A scene, closed at the end."""
    made = Scene()
    try:
        yield made
    finally:
        await made.owner.close()


async def test_open_owns_exactly_what_it_is_told() -> None:
    """New partitions are started at their position, others given back, kept ones sought again."""
    async with scene() as s:
        assert await s.owner.open({0, 1})
        assert await s.owner.settle()
        assert await s.owner.open({1, 2})
        assert set(s.owner.partitions) == {1, 2}
        assert [(p, offset) for p, offset, _ in s.seeks] == [(0, 0), (1, 0), (1, 0), (2, 0)]
        assert len({generation for _, _, generation in s.seeks}) == 4
        assert all(partition.running for partition in s.owner.partitions.values())


async def test_a_failed_partition_is_revived_while_the_others_go_on() -> None:
    """A transaction that fails costs one partition a restore, without a rebalance."""
    async with scene() as s:
        await s.owner.open({0, 1})
        s.logs[0].failing = {1}
        s.owner.deliver(0, Chunk(0, [], 5, s.owner.partitions[0].generation))
        await s.rest()
        assert s.owner.partitions[0].running and s.owner.partitions[0].engine.restored == 2
        assert (s.logs[1].fences, s.rejoins, s.given_up) == (1, 0, [])


async def test_a_fenced_partition_asks_for_a_rebalance_instead_of_fencing_back() -> None:
    """Two owners that fence each other would never end."""
    async with scene() as s:
        s.logs[0] = Broken(PartitionFenced("a newer owner"))
        await s.owner.open({0})
        await s.rest()
        assert (s.logs[0].fences, s.rejoins) == (1, 1)


async def test_the_worker_gives_up_after_bounded_tries() -> None:
    """An outage that does not end ends the worker, for somebody to notice."""
    async with scene() as s:
        s.logs[0] = Broken(KafkaUnavailable("away"))
        await s.owner.open({0})
        await s.rest()
        assert [type(error) for error in s.given_up] == [KafkaUnavailable]
        assert s.logs[0].fences == FAILURES_MAX + 1


async def test_an_error_that_trying_again_cannot_help_is_not_tried_again() -> None:
    """Lost events stop the worker at once."""
    async with scene() as s:
        s.logs[0] = Broken(LogTruncated("lost"))
        await s.owner.open({0})
        await s.rest()
        assert (len(s.given_up), s.logs[0].fences) == (1, 1)


async def test_settling_cuts_a_restore_short() -> None:
    """A rebalance in the middle of a restore: open says so, and the next one starts afresh."""
    async with scene() as s:
        s.logs[0] = Hanging()
        opening = asyncio.create_task(s.owner.open({0}))
        await s.rest()
        await s.owner.settle()
        assert await opening is False
        assert not s.owner.wants(0)
        s.owner.partitions[0].log = MemoryLog()
        assert await s.owner.open({0})
        assert s.owner.wants(0)


async def test_a_chunk_for_a_partition_not_owned_is_dropped() -> None:
    """One still in Faust's queue when the partition was given back."""
    async with scene() as s:
        await s.owner.open({0})
        s.owner.deliver(7, Chunk(0, [], 5, 1))
        assert not s.owner.wants(7)


async def test_the_report_counts_events_and_transactions() -> None:
    """One line, over all partitions, since the last one."""
    async with scene() as s:
        await s.owner.open({0})
        s.owner.deliver(0, Chunk(0, [], 5, s.owner.partitions[0].generation))
        await s.rest()
        assert "1 transactions of" in s.owner.report()
        assert "0 transactions of" in s.owner.report()
