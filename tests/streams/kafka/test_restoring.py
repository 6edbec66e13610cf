"""An engine brought to the last commit, also where a rebuilt epoch takes over from an old one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from errors import StateCorrupt, TransactionFailed
from streams.checks import FUTURE_MS_MAX
from streams.kafka.restoring import Replay, restored
from streams.kafka.seam import Chunk
from streams.kafka.suspicion import CULPRITS_MAX
from tests.streams.kafka.memory_log import MemoryLog
from tests.streams.kafka.test_partition import Fetched
from tests.streams.kafka.toy_engine import PARTITION_ROW, ToyEngine


def chunk(start: int, end: int, values: dict[int, bytes] | None = None) -> Chunk:
    """A chunk of one record per offset."""
    records = [Fetched(n, b"k%d" % (n % 3), (values or {}).get(n, b"v")) for n in range(start, end)]
    return Chunk(start, records, end, 0)


def row(offset: int, seq: int, *, live: bool) -> tuple[bytes, bytes]:
    """A partition row."""
    return PARTITION_ROW, json.dumps({"offset": offset, "seq": seq, "live": live}).encode()


class Bench:
    """Epoch 1 live at offset 30 with 25 changes; epoch 2 rebuilt up to 10; records up to 30."""

    def __init__(self, explode: Callable[[int, bytes], None] = lambda offset, value: None) -> None:
        self.log, self.engine, self.replay = MemoryLog(), ToyEngine(explode), Replay(0)
        self.engine.newest_epoch = 2
        self.log.changelogs[1] = [(b"k0", b"9"), row(30, 25, live=True)]
        self.log.changelogs[2] = [(b"k0", b"4"), (b"k1", b"3"), (b"k2", b"3"), row(10, 0, live=False)]
        self.log.chunks = [chunk(10, 20), chunk(20, 30)]

    async def restore(self) -> tuple[int, int | None]:
        """Restore once."""
        return await restored(0, self.engine, self.log, self.replay, asyncio.Lock())

    async def restore_until_done(self, times: int = 60) -> int | None:
        """Restore again after every failure."""
        for _ in range(times):
            try:
                return (await self.restore())[1]
            except (ValueError, TransactionFailed):
                continue
        raise AssertionError("never done")


async def test_a_rebuilt_epoch_is_replayed_quietly_to_where_the_old_one_stands() -> None:
    """Whoever rebuilt it is shut out first; nobody is told of the replay; numbers go on; then it is live."""
    bench = Bench()
    rows, stored = await bench.restore()
    assert (rows, stored) == (6, 30) and bench.log.shut == [2]
    assert bench.engine.live and bench.engine.seq == 25
    assert all(each.quiet and not each.changes and each.epoch == 2 for each in bench.log.committed)
    assert json.loads(dict(bench.log.changelogs[2])[PARTITION_ROW] or b"")["offset"] == 30
    assert bench.engine.counts == {b"k0": 10, b"k1": 10, b"k2": 10}
    assert bench.engine.has_pending(), "the transaction with which it goes live is to follow"


async def test_until_the_first_live_transaction_the_old_epoch_is_the_truth() -> None:
    """A crash behind the replay begins with the old epoch again, and replays only what is not there yet."""
    bench = Bench()
    await bench.restore()
    before = len(bench.log.committed)
    bench.log.changelogs[1] += [row(40, 31, live=True)]
    bench.log.chunks.append(chunk(30, 40))
    assert (await bench.restore())[1] == 40
    assert bench.engine.seq == 31 and bench.log.committed[before].source_offset == 40
    await bench.log.transact(bench.engine.take())
    assert not bench.log.committed[-1].quiet
    bench.log.shut.clear()
    assert (await bench.restore())[1] == 40
    assert bench.log.shut == [] and bench.engine.seq == 31


async def test_a_transaction_that_fails_in_the_replay_loses_and_doubles_nothing() -> None:
    """Whatever fails, the next try begins with what is committed."""
    bench = Bench()
    bench.log.failing = {1, 2}
    assert await bench.restore_until_done() == 30
    assert bench.engine.counts == {b"k0": 10, b"k1": 10, b"k2": 10}


async def test_a_record_that_cannot_be_replayed_is_left_out() -> None:
    """As its owner leaves it out; the others of its chunk count."""

    def explode(offset: int, value: bytes) -> None:
        if value == b"poison":
            raise ValueError("poison")

    bench = Bench(explode)
    bench.log.chunks = [chunk(10, 20, {13: b"poison", 17: b"poison"}), chunk(20, 30)]
    assert await bench.restore_until_done() == 30
    assert sum(bench.engine.counts.values()) == 28


async def test_a_replay_in_which_everything_fails_is_given_up() -> None:
    """Then the fault is not the records'."""

    def explode(offset: int, value: bytes) -> None:
        raise ValueError("always")

    bench = Bench(explode)
    bench.log.changelogs[1] = [row(60, 25, live=True)]
    bench.log.chunks = [chunk(10, 60)]
    with pytest.raises(StateCorrupt, match=f"{CULPRITS_MAX} records"):
        await bench.restore_until_done(200)


async def test_with_one_epoch_no_row_is_looked_at() -> None:
    """What every pipeline without a rebuild pays is nothing."""
    bench = Bench()
    bench.engine.newest_epoch = 1
    looked: list[int] = []
    bench.log.latest = lambda epoch, key: looked.append(epoch)  # type: ignore[assignment,method-assign,return-value,func-returns-value]  # Only to see.
    assert await bench.restore() == (2, 30)
    assert looked == [] and bench.log.shut == []


@pytest.mark.parametrize(("first", "whole"), [(0, True), (10, False)])
async def test_a_partition_nobody_rebuilt_is_complete_since_its_log_is(first: int, whole: bool) -> None:
    """It had no row when the others were rebuilt; where its log lost the beginning, so lacks its state."""
    bench = Bench()
    bench.log.changelogs[2].clear()
    bench.log.first = first
    bench.log.chunks = [chunk(first, 30)]
    assert await bench.restore_until_done() == 30
    written_ms = bench.log.chunks[0].records[0].timestamp
    assert bench.engine.since_ms == (0 if whole else written_ms + FUTURE_MS_MAX)


async def test_what_was_rebuilt_is_as_complete_as_its_row_says() -> None:
    """The replay goes on with it, wherever the log begins by now."""
    bench = Bench()
    bench.log.first = 5
    assert (await bench.restore())[1] == 30
    assert bench.engine.since_ms == 0
