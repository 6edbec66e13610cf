"""The sink's process on a real Kafka and a real Redis: killed, starved, robbed of its memory."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.synthetic import stream
from deploy.local.kafka import LocalKafka
from deploy.local.redis import LocalRedis
from tests.pipeline.running import ROOT, Pipeline, Produced
from tests.sinks.making import Values
from tests.sinks.running import Held, Sink

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

DAY_MS = 86_400_000
KILLS = 3


@pytest.fixture
def server() -> Iterator[LocalRedis]:
    with LocalRedis() as running:
        yield running


async def members(pipeline: Pipeline, partition: int) -> Values:
    """What the memberships say."""
    held = await pipeline.memberships(partition)
    return {name: {v["dimension"]: v["value"] for v in each["values"]} for name, each in held.items()}


async def assert_same(pipeline: Pipeline, held: Held) -> int:
    """Assert that Redis is what the memberships say, hashes and sets; return how many customers that are."""
    count = 0
    for partition in range(pipeline.partitions):
        wanted = await members(pipeline, partition)
        by_customer, by_value = held.values(partition)
        assert by_customer == wanted
        assert by_value == wanted
        count += len(wanted)
    return count


async def last_seq(pipeline: Pipeline) -> int:
    """How many changes there are."""
    return sum([len(await pipeline.rows("segment-changes", p)) for p in range(pipeline.partitions)])


def replay(days: int = 500) -> list[Produced]:
    """Two partitions, a Tick a day, thousands of changes."""
    return list(stream(events=2_000, customers=150, partitions=2, days=days, tick_ms=DAY_MS))


def part(log: list[Produced], turn: int) -> list[Produced]:
    """One of KILLS + 2 successive parts."""
    size = -(-len(log) // (KILLS + 2))
    return log[turn * size : (turn + 1) * size]


async def test_a_sink_killed_again_and_again_ends_at_the_memberships(
    kafka: str, prefix: str, tmp_path: Path, server: LocalRedis
) -> None:
    """Three kill -9 while the worker works; Redis killed and empty; tampered with and rebuilt."""
    pipeline, log = await Pipeline(kafka, prefix, tmp_path).create(), replay()
    with pipeline.worker(chunk_records_max=50) as worker, Held(pipeline, server) as held:
        for turn in range(KILLS):
            before = held.seq()
            await pipeline.produce(part(log, turn))
            with Sink(pipeline, server) as sink:
                await sink.until(lambda before=before: held.seq() > before + 50)
                sink.end(signal.SIGKILL)
        before = held.seq()
        await pipeline.produce(part(log, KILLS))
        with Sink(pipeline, server) as sink:
            await sink.until(lambda before=before: held.seq() > before + 50)
            server.kill()
            server.start()
            await pipeline.produce(part(log, KILLS + 1))
            await pipeline.wait_until_done(worker)
            total = await last_seq(pipeline)
            await sink.until(lambda: held.seq() == total)
            assert await assert_same(pipeline, held) > 100
            assert sink.end() == 0
            assert "WARNING" in sink.log and "Traceback" not in sink.log and "rebuilt" in sink.log
        held.tamper()
        with Sink(pipeline, server, "--rebuild", "--once") as sink:
            assert sink.wait() == 0
        assert await assert_same(pipeline, held) > 100
        assert worker.end() == 0


async def test_a_rebuild_under_way_loses_no_change_that_comes_meanwhile(
    kafka: str, prefix: str, tmp_path: Path, server: LocalRedis
) -> None:
    """The worker goes on while one rebuild after another begins; the last ends at the memberships."""
    pipeline, log = await Pipeline(kafka, prefix, tmp_path).create(), replay()
    third = len(log) // 3
    with pipeline.worker(chunk_records_max=20) as worker, Held(pipeline, server) as held:
        await pipeline.produce(log[:third])
        await pipeline.wait_until_done(worker)
        for part in (log[third : 2 * third], log[2 * third :]):
            await pipeline.produce(part)
            with Sink(pipeline, server, "--rebuild") as sink:
                await sink.until(lambda sink=sink: sink.log.count(" is rebuilt: ") == 2)
                assert sink.end() == 0
        with Sink(pipeline, server) as sink:
            await pipeline.wait_until_done(worker)
            total = await last_seq(pipeline)
            await sink.until(lambda: held.seq() == total)
            assert "from memberships" not in sink.log
        assert await assert_same(pipeline, held) > 100


async def test_partitions_that_move_between_sinks_lose_nothing(
    kafka: str, prefix: str, tmp_path: Path, server: LocalRedis
) -> None:
    """A second one joins under load, the first is frozen past its session and wakes, the second leaves."""
    pipeline, log = await Pipeline(kafka, prefix, tmp_path).create(), replay()
    with (
        pipeline.worker(chunk_records_max=50) as worker,
        Held(pipeline, server) as held,
        Sink(pipeline, server) as first,
    ):
        await pipeline.produce(part(log, 0))
        await first.until(lambda: held.seq() > 0)
        with Sink(pipeline, server) as second:
            await pipeline.produce(part(log, 1))
            await second.until(lambda: "goes on at" in second.log)
            first.send(signal.SIGSTOP)
            await pipeline.produce(part(log, 2))
            await second.until(lambda: {"partition 0 goes", "partition 1 goes"} <= said(second.log))
            first.send(signal.SIGCONT)
            await pipeline.produce(part(log, 3))
            await pipeline.wait_until_done(worker)
            assert second.end() == 0
        await pipeline.produce(part(log, 4))
        await pipeline.wait_until_done(worker)
        total = await last_seq(pipeline)
        await first.until(lambda: held.seq() == total)
        assert await assert_same(pipeline, held) > 100
        assert first.end() == 0
        assert "Traceback" not in first.log


def said(log: str) -> set[str]:
    """Which of both partitions a log says were begun."""
    return {each for each in ("partition 0 goes", "partition 1 goes") if each in log}


async def test_redis_away_is_waited_for_and_said(
    kafka: str, prefix: str, tmp_path: Path, server: LocalRedis
) -> None:
    """Frozen in mid-stream, then thawed: every change arrives; told to stop while it is away, it stops."""
    pipeline, log = await Pipeline(kafka, prefix, tmp_path).create(), replay(days=100)
    await pipeline.produce(log)
    with pipeline.worker() as worker, Held(pipeline, server) as held:
        await pipeline.wait_until_done(worker)
        total = await last_seq(pipeline)
        with Sink(pipeline, server) as sink:
            await sink.until(lambda: held.seq() > 0)
            server.freeze()
            await sink.until(lambda: "WARNING sinks.delivery: the sink is away" in sink.log)
            server.thaw()
            await sink.until(lambda: held.seq() == total)
            await sink.until(lambda: "the sink answers again" in sink.log)
            await assert_same(pipeline, held)
            server.freeze()
            await sink.until(lambda: sink.log.count("the sink is away") == 2)
            assert sink.end() == 0
            server.thaw()
            assert "Traceback" not in sink.log


async def test_kafka_away_is_waited_for_and_said(prefix: str, tmp_path: Path, server: LocalRedis) -> None:
    """The broker is killed and started again under a running sink, which goes on; SIGTERM still ends it."""
    with LocalKafka(tmp_path / "kafka") as broker:
        pipeline = await Pipeline(broker.bootstrap, prefix, tmp_path).create()
        log = replay(days=60)
        half = len(log) // 2
        with Held(pipeline, server) as held, Sink(pipeline, server) as sink:
            await pipeline.produce(log[:half])
            with pipeline.worker() as worker:
                await pipeline.wait_until_done(worker)
                assert worker.end() == 0
            total = await last_seq(pipeline)
            await sink.until(lambda: held.seq() == total)
            broker.kill()
            await sink.until(lambda: "WARNING sinks.delivery: Kafka does not answer" in sink.log)
            broker.start()
            await pipeline.produce(log[half:])
            with pipeline.worker() as worker:
                await pipeline.wait_until_done(worker)
                assert worker.end() == 0
            total = await last_seq(pipeline)
            await sink.until(lambda: held.seq() == total)
            await sink.until(lambda: "Kafka answers again" in sink.log)
            await assert_same(pipeline, held)
            assert sink.end() == 0
            assert "Traceback" not in sink.log and "ERROR sinks" not in sink.log


def test_what_cannot_pass_ends_the_command_with_one_line(kafka: str, prefix: str, server: LocalRedis) -> None:
    """A password that is wrong is told to the operator, but not the password."""
    pipeline = asyncio.run(Pipeline(kafka, prefix, ROOT).create())
    url = server.url.replace("redis://", "redis://somebody:hunter2@")
    done = pipeline.command("sink", "redis", redis_url=url)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("SinkRejected: Redis: AuthenticationError")
    assert "hunter2" not in done.stderr + done.stdout
