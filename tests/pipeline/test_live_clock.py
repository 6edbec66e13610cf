"""Wall time on a real broker: outages, idle partitions, clocks that are wrong, a stop in mid-sweep.

Windows are days long, so what has to happen within seconds happened days ago: orders placed so
that their deadlines are about to come.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from clock import SystemClock
from schemas.events import encode_event
from streams.applying import Pipeline as Operated
from streams.applying import make_plan
from streams.definitions import read_versions
from streams.segments.loading import load
from tests.pipeline.judging import assert_chained
from tests.pipeline.running import Pipeline, Produced, home
from tests.streams.segments.edits import TEXT

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

DAY_MS = 86_400_000
MONTH_MS = 30 * DAY_MS
SOON_MS = 4_000
PARTITIONS = 2


def now_ms() -> int:
    """The wall time."""
    return time.time_ns() // 1_000_000


def order(customer: str, at_ms: int) -> Produced:
    """An order of 100.00 in the customer's partition."""
    content = {"event_id": f"e-{customer}-{at_ms}", "customer_id": customer, "occurred_at": at_ms}
    content |= {"order_id": f"o-{customer}-{at_ms}", "amount_minor": 10_000, "currency": "GBP"}
    return home(customer, PARTITIONS), customer.encode(), encode_event("Purchased", content)


async def moves(pipeline: Pipeline, customer: str, dimension: str = "rfm") -> list[tuple[Any, ...]]:
    """(to, cause, effective) of a customer's changes so far."""
    changes = await pipeline.changes(home(customer, PARTITIONS))
    return [
        (c["to"], c["cause"], c["effective_at"])
        for c in changes
        if (c["customer_id"], c["dimension"]) == (customer, dimension)
    ]


async def wait_for_moves(pipeline: Pipeline, customer: str, count: int, seconds_max: float = 20.0) -> None:
    """Return when the customer has made so many."""
    async with asyncio.timeout(seconds_max):
        while True:
            if len(await moves(pipeline, customer)) >= count:
                return
            await asyncio.sleep(0.1)


async def until(at_ms: int) -> None:
    """Wait for a wall time."""
    await asyncio.sleep(max(0, at_ms - now_ms()) / 1000)


async def applied_before_due(
    kafka: str, prefix: str, tmp_path: Path, customers: list[str]
) -> tuple[Pipeline, int]:
    """Have a worker apply an order of each, and end, before all of them are due at one instant.

    A machine too slow for the first lead gets a longer one, under another prefix.
    """
    for lead_ms in (9_000, 27_000, 54_000):
        pipeline = await Pipeline(kafka, f"{prefix}x{lead_ms}", tmp_path, PARTITIONS).create()
        due_ms = now_ms() + lead_ms
        await pipeline.produce([order(customer, due_ms - MONTH_MS) for customer in customers])
        with pipeline.worker(clock="wall") as worker:
            await pipeline.wait_until_done(worker)
            assert worker.end() == 0
        if now_ms() < due_ms:
            return pipeline, due_ms
    raise AssertionError("too slow a machine: the deadline came before the worker had ended")


async def test_an_idle_partition_lets_go_within_seconds(kafka: str, prefix: str, tmp_path: Path) -> None:
    """Nothing is written after the order; its deadline makes the change, at its own instant."""
    pipeline = await Pipeline(kafka, prefix, tmp_path, PARTITIONS).create()
    ordered_ms = now_ms() + SOON_MS - MONTH_MS
    await pipeline.produce([order("c", ordered_ms)])
    with pipeline.worker(clock="wall") as worker:
        await wait_for_moves(pipeline, "c", 2)
        assert worker.end() == 0
    assert await moves(pipeline, "c") == [
        ("new", "event", ordered_ms),
        ("promising", "time_elapsed", ordered_ms + MONTH_MS),
    ]
    changes = await pipeline.changes(home("c", PARTITIONS))
    (moved,) = (c for c in changes if c["cause"] == "time_elapsed" and c["dimension"] == "rfm")
    assert 0 <= moved["emitted_at"] - moved["effective_at"] < 15_000
    assert_chained(changes, prefix, home("c", PARTITIONS))


async def test_an_outage_longer_than_a_deadline_makes_no_false_exit(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Who came back while the worker was down stays; who did not leaves at the deadline, once."""
    customers = [f"c{n}" for n in range(12)]
    pipeline, due_ms = await applied_before_due(kafka, prefix, tmp_path, customers)
    back, gone = customers[::2], customers[1::2]
    await pipeline.produce([order(customer, now_ms() - 1_000) for customer in back])
    await until(due_ms + 1_000)
    with pipeline.worker(clock="wall") as worker:
        for customer in gone:
            await wait_for_moves(pipeline, customer, 2)
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    for customer in back:
        assert "time_elapsed" not in [move[1] for move in await moves(pipeline, customer)]
        assert (await moves(pipeline, customer))[-1][0] == "potential_loyalist"
    for customer in gone:
        last = (await moves(pipeline, customer))[-1]
        assert last == ("promising", "time_elapsed", due_ms)
    for partition in range(PARTITIONS):
        assert_chained(await pipeline.changes(partition), pipeline.prefix, partition)


@pytest.mark.parametrize(("skew_ms", "which"), [(31_000, "ahead"), (-31_000, "behind")])
async def test_a_clock_that_is_wrong_is_refused_at_the_start(
    kafka: str, prefix: str, tmp_path: Path, skew_ms: int, which: str
) -> None:
    """More than 30 s off the broker's, either way: exit 1, both times said, nothing read or written."""
    pipeline = await Pipeline(kafka, prefix, tmp_path, PARTITIONS).create()
    await pipeline.produce([order("c", now_ms())])
    (tmp_path / "skew").write_text(str(skew_ms))
    with pipeline.worker("skewed", clock="wall") as worker:
        assert worker.wait() == 1
    (said,) = (line for line in worker.log.splitlines() if "ClockSkew" in line)
    assert which in said
    times = [word.strip(",:") for word in said.split() if word.startswith("20")]
    mine, brokers = (datetime.fromisoformat(each).astimezone(UTC).timestamp() * 1000 for each in times)
    assert abs(mine - brokers - skew_ms) < 5_000 and abs(brokers - now_ms()) < 60_000
    assert await pipeline.mirrored() == {}


async def test_a_clock_that_goes_wrong_stops_the_worker_before_it_does_harm(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """A jump by an hour while it runs: exit 1, and no deadline of that hour was met."""
    pipeline = await Pipeline(kafka, prefix, tmp_path, PARTITIONS).create()
    skew = tmp_path / "skew"
    skew.write_text("20000")
    await pipeline.produce([order("c", now_ms() + 1_800_000 - MONTH_MS)])
    with pipeline.worker("skewed", clock="wall") as worker:
        await wait_for_moves(pipeline, "c", 1)
        worker.check()
        # Replaced at once, for the worker reads it whenever it looks at its clock.
        (tmp_path / "skew.new").write_text("3600000")
        (tmp_path / "skew.new").rename(skew)
        assert worker.wait() == 1
    assert "ClockSkew" in worker.log
    assert [move[0] for move in await moves(pipeline, "c")] == ["new"]


async def test_a_stop_in_the_middle_of_a_sweep_commits_and_leaves(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """3,000 customers due at one instant, 30 at a time; stopped early, exit 0; the next one does the rest."""
    pipeline, _ = await applied_before_due(kafka, prefix, tmp_path, [f"c{n}" for n in range(3_000)])
    before = await pipeline.ends("segment-changes")
    with pipeline.worker(clock="wall", transaction_rows_max=30) as worker:
        while (await pipeline.ends("segment-changes")) == before:
            worker.check()
            await asyncio.sleep(0.02)
        assert worker.end(seconds_max=45) == 0, worker.log
    left = await exits(pipeline)
    assert 0 < len(left) < 3_000, "the stop came too late to interrupt anything"
    with pipeline.worker(clock="wall") as worker:
        async with asyncio.timeout(30):
            while len(left) < 3_000:
                await asyncio.sleep(0.3)
                left = await exits(pipeline)
        assert worker.end() == 0
    assert sorted(left) == sorted({f"c{n}" for n in range(3_000)})
    for partition in range(PARTITIONS):
        assert_chained(await pipeline.changes(partition), pipeline.prefix, partition)


async def exits(pipeline: Pipeline) -> list[str]:
    """Who was moved by time alone, as often as it happened."""
    changes = [change for p in range(PARTITIONS) for change in await pipeline.changes(p)]
    return [c["customer_id"] for c in changes if (c["dimension"], c["cause"]) == ("rfm", "time_elapsed")]


async def test_a_plan_for_an_idle_pipeline_is_as_of_now(kafka: str, prefix: str, tmp_path: Path) -> None:
    """Nothing was written since the order; who is out of a new segment's window by now does not enter."""
    pipeline = await Pipeline(kafka, prefix, tmp_path, PARTITIONS).create()
    over_ms = now_ms() + 2_000
    await pipeline.produce([order("c", over_ms - 10 * DAY_MS)])
    with pipeline.worker(clock="wall") as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    await until(over_ms)
    text = TEXT + "\nsegments:\n  fresh: {when: orders(10d) >= 1}\n"
    applied = await read_versions(kafka, prefix)
    moves = {}
    for wall in (None, SystemClock()):
        plan = await make_plan(Operated(kafka, prefix, PARTITIONS, wall), applied, load(text, "x"), text)
        moves[wall is None] = [(move.customer_id, move.after) for move in plan.moves]
    assert moves == {True: [("c", "fresh")], False: []}
    path = tmp_path / "fresh.yaml"
    path.write_text(text)
    shown = pipeline.command("plan", str(path), clock="wall")
    assert shown.returncode == 0 and "fresh: 0 now, 0 then" in shown.stdout, shown.stdout + shown.stderr
