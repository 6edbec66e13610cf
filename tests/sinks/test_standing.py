"""What a sink's process tells of itself: ages and readiness by hand, then a real one asked over HTTP."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import metrics
from clock import FrozenClock
from deploy.local.redis import LocalRedis
from errors import SinkUnavailable
from sinks.standing import Standing
from tests.pipeline.running import ROOT, Pipeline
from tests.sinks.making import series
from tests.sinks.running import Held, Sink
from tests.sinks.test_delivery import last_seq, replay


@pytest.fixture
def server() -> Iterator[LocalRedis]:
    with LocalRedis() as running:
        yield running


def test_the_oldest_change_read_and_not_delivered_gives_the_age() -> None:
    """Of both partitions' first; it moves with delivery, and is 0 when a reading finds nothing more."""
    clock = FrozenClock(100_000)
    standing = Standing("redis", clock)
    assert standing.oldest_s == 0
    standing.fetched({0: 90_000, 1: 40_000})
    assert standing.oldest_s == 60
    standing.reached(1, 95_000)
    assert standing.oldest_s == 10
    clock.set(101_000)
    assert standing.oldest_s == 11
    standing.forget(0)
    standing.reached(0, 1_000)
    assert standing.oldest_s == 6
    exposed = series(standing.exposition().decode())
    assert exposed["shoal_sink_oldest_undelivered_seconds"] == [({"sink": "redis"}, 6.0)]
    standing.fetched({})
    assert standing.oldest_s == 0


def test_a_change_from_a_clock_that_is_ahead_is_no_age_below_0() -> None:
    """The machine that wrote it may be ahead of this one."""
    standing = Standing("redis", FrozenClock(1_000))
    standing.fetched({0: 5_000})
    assert standing.oldest_s == 0


def test_waiting_makes_old_and_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Since the first failure, however often it fails again; nobody is told to kill the process for it."""
    now_s = 50.0
    monkeypatch.setattr("sinks.standing.time.monotonic", lambda: now_s)
    standing = Standing("redis", FrozenClock(0))
    standing.assigned, standing.resumed = frozenset({0}), {0}
    assert standing.problems_of_readiness() == []
    standing.waits("the sink")
    now_s = 80.0
    standing.waits("the sink")
    assert standing.oldest_s == 30
    assert standing.problems_of_readiness() == ["the sink has been away for 30 s"]
    assert standing.problems_of_life() == []
    standing.waits(None)
    assert standing.oldest_s == 0 and standing.problems_of_readiness() == []


def test_it_is_ready_when_all_it_was_given_goes_on() -> None:
    """Not before the group gave it any; none at all is something given; not while Kafka is away."""
    standing = Standing("redis")
    unassigned = ["the group has not given this process its partitions"]
    assert standing.problems_of_readiness() == unassigned
    standing.assigned = frozenset()
    assert standing.problems_of_readiness() == []
    standing.assigned, standing.resumed = frozenset({1, 2, 3}), {2}
    assert standing.problems_of_readiness() == [
        "partition 1 is being resumed",
        "partition 3 is being resumed",
    ]
    standing.resumed = {1, 2, 3}
    standing.kafka_away = True
    assert standing.problems_of_readiness() == ["Kafka does not answer"]


def test_a_request_is_timed_whether_it_succeeds_or_not() -> None:
    """A service that answers with errors is slow or fast like any other."""
    standing = Standing("redis")
    with standing.request():
        pass
    with pytest.raises(SinkUnavailable), standing.request():
        raise SinkUnavailable("away")
    exposed = series(standing.exposition().decode())
    assert exposed["shoal_sink_request_seconds_count"] == [({"sink": "redis"}, 2.0)]


@pytest.mark.kafka
@pytest.mark.timeout(240)
async def test_a_process_tells_what_it_delivered_and_what_it_waits_for(
    kafka: str, prefix: str, tmp_path: Path, server: LocalRedis
) -> None:
    """Every metric of a sink, none of a worker; Redis frozen: not ready, alive, older; thawed: as before."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    await pipeline.produce(replay(days=60))
    with Held(pipeline, server) as held, Sink(pipeline, server) as sink:

        async def ready() -> bool:
            return (await sink.get("readyz"))[0] == 200

        async def oldest_s() -> float:
            exposed = (await sink.get("metrics"))[1]
            return float(exposed["shoal_sink_oldest_undelivered_seconds"][0][1])

        async def caught_up() -> bool:
            return await oldest_s() == 0

        async def waits() -> bool:
            status, answer = await sink.get("readyz")
            return status == 503 and any("the sink has been away" in each for each in answer["problems"])

        await sink.asked(ready)
        with pipeline.worker() as worker:
            await pipeline.wait_until_done(worker)
            assert worker.end() == 0
        total = await last_seq(pipeline)
        await sink.until(lambda: held.seq() == total)
        await sink.asked(caught_up)
        _, exposed = await sink.get("metrics")
        ours = {name for name in exposed if not name.startswith("process_")}
        assert ours == {n for each in metrics.DECLARED if each.of == "sink" for n in each.series_names}
        deliveries = {labels["result"]: n for labels, n in exposed["shoal_sink_deliveries_total"]}
        assert deliveries["ok"] >= total / 20 and deliveries["rejected"] == deliveries["suppressed"] == 0
        assert exposed["shoal_sink_request_seconds_count"][0][1] > deliveries["ok"]
        server.freeze()
        await sink.asked(waits)
        assert await oldest_s() > 0
        assert (await sink.get("livez"))[0] == 200
        server.thaw()
        await sink.asked(ready)
        await sink.asked(caught_up)
        assert sink.end() == 0


@pytest.mark.kafka
async def test_one_that_ends_by_itself_needs_no_address(
    kafka: str, prefix: str, tmp_path: Path, server: LocalRedis
) -> None:
    """A port that is taken ends the command with the settings to look at; with --once it is not asked for."""
    pipeline = await Pipeline(kafka, prefix, ROOT).create()
    taken = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with taken:
        settings = {"redis_url": server.url, "web_port": taken.sockets[0].getsockname()[1]}
        stays = await asyncio.to_thread(pipeline.command, "sink", "redis", **settings)
        ends = await asyncio.to_thread(pipeline.command, "sink", "redis", "--once", **settings)
    assert stays.returncode == 1 and ends.returncode == 0
    assert re.search(r"WebFailed: .* cannot be bound: .*SHOAL_WEB_PORT", stays.stderr)
    assert "metrics at" not in ends.stderr
