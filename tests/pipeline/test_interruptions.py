"""A replay that is interrupted: what was killed, moved or frozen in between never shows in the result."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from benchmarks.synthetic import stream
from tests.pipeline.judging import assert_as_undisturbed
from tests.pipeline.running import Pipeline, Produced

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

DAY_MS = 86_400_000
KILLS = 6
SMALL = {"chunk_records_max": 5, "session_timeout_ms": 2_000}
"""Many transactions, so that a signal often meets one under way; the dead are soon missed."""


def replay() -> list[Produced]:
    """500 days of two partitions, with a Tick a day: some 4,000 records."""
    return list(stream(events=3_000, customers=120, partitions=2, days=500, tick_ms=DAY_MS))


async def test_kills_in_mid_replay_leave_no_trace(kafka: str, prefix: str, tmp_path: Path) -> None:
    """Six kill -9, each after some progress and before the end; a seventh worker finishes."""
    pipeline, log = await Pipeline(kafka, prefix, tmp_path).create(), replay()
    await pipeline.produce(log)
    for turn in range(1, KILLS + 1):
        with pipeline.worker(**SMALL) as worker:
            await pipeline.wait_for(len(log) * turn // (KILLS + 2), worker)
            worker.kill()
        done = sum((await pipeline.mirrored()).values())
        assert done < len(log), "the kill came too late to interrupt anything"
    with pipeline.worker(**SMALL) as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    assert await assert_as_undisturbed(pipeline) > 1_000


async def test_partitions_that_move_between_workers_leave_no_trace(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """A second worker joins, the first is frozen and shut out, wakes up, and ends up alone again."""
    pipeline, log = await Pipeline(kafka, prefix, tmp_path).create(), replay()
    eighth = len(log) // 8
    await pipeline.produce(log[:eighth])
    with pipeline.worker(**SMALL) as first:
        await pipeline.wait_until_done(first)
        with pipeline.worker(**SMALL) as second:
            await second.said("starts at")
            await pipeline.produce(log[eighth : 6 * eighth])
            frozen_at = await pipeline.wait_for(2 * eighth, first, second)
            first.send(signal.SIGSTOP)
            assert frozen_at < 6 * eighth, "the first was frozen too late to be interrupted"
            # Its own partition, then that one again and the other.
            await second.said("starts at", times=3)
            first.send(signal.SIGCONT)
            await pipeline.produce(log[6 * eighth : 7 * eighth])
            await pipeline.wait_until_done(first, second)
            assert second.end() == 0
        await pipeline.produce(log[7 * eighth :])
        await pipeline.wait_until_done(first)
        assert first.end() == 0
    assert await assert_as_undisturbed(pipeline) > 1_000
