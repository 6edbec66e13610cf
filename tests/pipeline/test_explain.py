"""A customer explained by the command and by the worker, on a real broker: what made it so is looked up."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from benchmarks.synthetic import stream
from schemas.events import encode_event, encode_tick
from streams.change_history import changes_a_day, changes_by_seq
from streams.kafka.reading import reader
from tests.pipeline.running import ROOT, Pipeline, Produced, home
from tests.pipeline.test_web import address, get, ready

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

DAY = 86_400_000
T0 = 1_600_000_000_000


def purchase(customer: str, order: str, at: int) -> Produced:
    """One order of 60.00."""
    fields: dict[str, Any] = {"event_id": f"e-{order}", "occurred_at": at, "order_id": order}
    value = encode_event(
        "Purchased", {"customer_id": customer, **fields, "amount_minor": 6_000, "currency": "GBP"}
    )
    return home(customer, 2), customer.encode(), value


def ticks(at: int) -> list[Produced]:
    """A Tick in both partitions."""
    return [(p, str(p).encode(), encode_tick(at)) for p in range(2)]


async def test_why_since_when_and_what_next(kafka: str, prefix: str, tmp_path: Path) -> None:
    """The event that made each value so, from the log of changes; the worker says the same."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    await pipeline.produce([purchase("ada/1", "1", T0), *ticks(T0), *ticks(T0 + 20 * DAY)])
    await pipeline.produce([purchase("ada/1", "2", T0 + 21 * DAY), *ticks(T0 + 60 * DAY)])
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        said = pipeline.command("explain", "ada/1")
        assert said.returncode == 0, said.stderr
        for line in (
            "rfm: potential_loyalist since 2020-10-04 12:26:40 UTC",
            "  made so by event e-2, from new, by definition 1 (change 1/0/3)",
            "  R 4, days_since(last()) at least 30d and under 60d: yes, 39d",
            "  next: about_to_sleep at 2020-12-03 12:26:40 UTC, if nothing else happens",
        ):
            assert line in said.stdout, said.stdout
        told = json.loads(pipeline.command("explain", "ada/1", "--json").stdout)
        url = await address(worker)
        await ready(url)
        status, answer = await get(f"{url}/customers/ada%2F1/explain")
        assert status == 200 and answer == told
        assert told["dimensions"]["lifecycle"]["made_by"]["cause_event_id"] == "e-2"
        assert (await get(f"{url}/customers/nobody/explain"))[0] == 404
        past = pipeline.command("explain", "ada/1", "--at", "2020-09-20T00:00:00Z")
        assert "orders(365d) under 2: yes, 1" in past.stdout and "rfm: new" in past.stdout
        unknown = pipeline.command("explain", "nobody")
        assert (unknown.returncode, unknown.stderr) == (1, "nothing is known of customer 'nobody'\n")
        assert worker.end() == 0


async def test_every_change_is_found_by_its_number(kafka: str, prefix: str, tmp_path: Path) -> None:
    """The first, the last, any between; none beyond either end. Few records are read for it."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    log = stream(events=300, customers=20, partitions=2, days=400, tick_ms=7 * DAY)
    await pipeline.produce(list(log))
    with pipeline.worker(transaction_rows_max=10) as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    changes = await pipeline.changes(0)
    async with reader(kafka) as consumer, asyncio.timeout(60):
        count = len(changes)
        for numbers in ({1}, {count}, {1, 2, count // 3, count // 2, count - 1, count}, set(range(1, count))):
            found = await changes_by_seq(consumer, prefix, 0, numbers)
            assert found == {number: changes[number - 1] for number in numbers}
        for numbers in ({count + 1}, {0}, set()):
            assert await changes_by_seq(consumer, prefix, 0, numbers) == {}


async def test_markers_among_the_changes_are_passed_over(kafka: str, prefix: str, tmp_path: Path) -> None:
    """A rebuild's, at the end or between: changes are found by number and counted as without them."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    log = list(stream(events=300, customers=20, partitions=2, days=400, tick_ms=7 * DAY))
    await pipeline.produce(log[:200])
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        await write_markers(pipeline, 3)
        await pipeline.produce(log[200:])
        await pipeline.wait_until_done(worker)
        await write_markers(pipeline, 3)
        assert worker.end() == 0
    changes = await pipeline.changes(0)
    now_ms = (await pipeline.partition_row(0)).clock_ms
    lately = [change for change in changes if change["effective_at"] > now_ms - 30 * DAY]
    async with reader(kafka) as consumer, asyncio.timeout(60):
        for seq in (1, len(changes) // 2, len(changes)):
            assert list(await changes_by_seq(consumer, prefix, 0, {seq})) == [seq]
        rates = await changes_a_day(consumer, prefix, 0, now_ms)
    assert sum(rates.values()) == pytest.approx(len(lately) / 30)
    planned = pipeline.command("plan", str(ROOT / "segments.yaml"))
    assert planned.returncode == 0, planned.stderr


async def write_markers(pipeline: Pipeline, count: int) -> None:
    """Records without a value, as a rebuild writes them."""
    async with AIOKafkaProducer(bootstrap_servers=pipeline.bootstrap) as producer:
        for _ in range(count):
            await producer.send_and_wait(pipeline.topic("segment-changes"), key=b"", value=None, partition=0)
