"""What a worker answers over HTTP, on a real Kafka: metrics, readiness, one customer at a time."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

import metrics
from schemas import registry
from schemas.events import encode_event
from streams.segments.evaluate import Evaluator
from streams.segments.loading import default_definition
from tests.pipeline.running import DONE_S_MAX, Pipeline, Produced, Worker, home

pytestmark = pytest.mark.kafka

PARTITIONS = 2
DAY_MS = 86_400_000
Series = dict[str, list[tuple[dict[str, str], float]]]
"""Name of a series to its (labels, value) pairs."""


def event(type_name: str, customer: str, at_ms: int, **fields: Any) -> Produced:
    """One event in the customer's own partition."""
    content = {"event_id": f"{customer}-{at_ms}", "customer_id": customer, "occurred_at": at_ms, **fields}
    return home(customer, PARTITIONS), customer.encode(), encode_event(type_name, content)


def purchase(customer: str, at_ms: int) -> Produced:
    """An order of 60.00."""
    fields = {"order_id": f"{customer} {at_ms}", "amount_minor": 60_00, "currency": "GBP"}
    return event("Purchased", customer, at_ms, **fields)


async def address(worker: Worker) -> str:
    """Where a worker answers, as its log says."""
    await worker.said("metrics at ")
    found = re.search(r"metrics at (http://\S+)/metrics", worker.log)
    assert found is not None
    return found[1]


async def get(url: str, **options: Any) -> tuple[int, Any]:
    """GET; return the status and the JSON, or text, that came."""
    async with aiohttp.ClientSession() as session, session.get(url, **options) as response:
        is_json = response.content_type == "application/json"
        return response.status, await (response.json() if is_json else response.text())


async def ready(url: str) -> list[list[str]]:
    """Wait until `/readyz` says yes; return what it complained of before."""
    complaints: list[list[str]] = []
    async with asyncio.timeout(DONE_S_MAX):
        while (answer := await get(f"{url}/readyz"))[0] != 200:
            if answer[1]["problems"] not in complaints:
                complaints.append(answer[1]["problems"])
            await asyncio.sleep(0.005)
    return complaints


async def scraped(url: str) -> Series:
    """Every series of a scrape, as soon as the worker has started."""
    async with asyncio.timeout(DONE_S_MAX):
        while True:
            status, text = await get(f"{url}/metrics")
            if text != {"error": "the worker is starting"}:
                break
            await asyncio.sleep(0.05)
    assert status == 200
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def value(series: Series, name: str, **labels: str) -> float:
    """The sum over the series that have these labels."""
    return sum(n for held, n in series.get(name, ()) if held.items() >= labels.items())


async def eventually(url: str, name: str, expected: float, **labels: str) -> Series:
    """Scrape until a series is there and has this value; return that scrape.

    One that is not there yet is no 0: what is measured every few seconds comes later than the rest.
    """
    async with asyncio.timeout(DONE_S_MAX):
        series = await scraped(url)
        while name not in series or value(series, name, **labels) != expected:
            await asyncio.sleep(0.1)
            series = await scraped(url)
    return series


def bounds() -> Mapping[str, set[str]]:
    """All that labels without a list of values may hold here."""
    definition = default_definition()
    return {
        "partition": {str(p) for p in range(PARTITIONS)},
        "dimension": set(Evaluator(definition).dimensions),
        "value": {name for values in Evaluator(definition).values for name in values},
        "type": {"unknown", *registry.committed().types},
        "version": {str(definition.version)},
        "hash": {definition.hash[:12]},
    }


async def test_every_declared_metric_is_exposed_with_bounded_labels(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """A small run in wall mode shows each of them, no other, with the figures that were to be expected."""
    pipeline = await Pipeline(kafka, prefix, tmp_path, PARTITIONS).create()
    now_ms = time.time_ns() // 1_000_000
    # In a few seconds bob's last order is 30 days old.
    log = [
        event("SignedUp", "ada", now_ms),
        purchase("ada", now_ms),
        purchase("bob", now_ms - 30 * DAY_MS + 8000),
    ]
    bad = [(home("ada", PARTITIONS), b"ada", b"nonsense"), (0, b"x", purchase("ada", now_ms)[2])]
    await pipeline.produce([*log, log[1], *bad])
    with pipeline.worker(clock="wall") as worker:
        url = await address(worker)
        await ready(url)
        await pipeline.wait_until_done(worker)
        series = await eventually(url, "shoal_changes_total", 2, cause="time_elapsed")
        await eventually(url, "shoal_customers", 2)
        series = await eventually(url, "shoal_consumer_lag_records", 0)
        assert await get(f"{url}/livez") == (200, {"ok": True, "problems": []})
        assert worker.end() == 0

    ours = {name for name in series if not name.startswith("process_")}
    declared = [metric for metric in metrics.DECLARED if metric.of == "worker"]
    assert ours == {name for metric in declared for name in metric.series_names}
    assert {name for name in series if name.startswith("process_")} <= set(metrics.PROCESS)
    allowed = bounds()
    for metric in declared:
        for name in metric.series_names:
            for labels, _ in series[name]:
                labels.pop("le", None)
                assert set(labels) == {label.name for label in metric.labels}
                for label in metric.labels:
                    assert labels[label.name] in (label.values or allowed[label.name])
    assert value(series, "shoal_events_total", type="Purchased", result="applied") == 2
    assert value(series, "shoal_events_total", type="Purchased", result="duplicate") == 1
    assert value(series, "shoal_events_total", type="SignedUp", result="applied") == 1
    assert value(series, "shoal_events_total", result="dead") == 2
    assert value(series, "shoal_events_total", type="unknown", result="dead") == 1
    assert value(series, "shoal_dead_letters_total") == 2
    assert value(series, "shoal_dead_letters_total", error="WrongKey") == 1
    assert value(series, "shoal_segment_members", dimension="rfm", value="new") == 1
    assert value(series, "shoal_segment_members", dimension="rfm", value="promising") == 1
    assert value(series, "shoal_segment_members", dimension="lifecycle") == 2
    assert value(series, "shoal_event_age_seconds_count") == 4
    assert value(series, "shoal_change_latency_seconds_count") == value(series, "shoal_changes_total")
    assert value(series, "shoal_partition_state", state="running") == PARTITIONS
    assert value(series, "shoal_step_records_sum") == 6
    assert value(series, "shoal_transactions_total", result="aborted") == 0


async def test_a_worker_is_ready_when_its_partitions_are_restored(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """`/readyz` is 503 from the first moment, names the partitions while they restore, then is 200."""
    pipeline = await Pipeline(kafka, prefix, tmp_path, PARTITIONS).create()
    now_ms = time.time_ns() // 1_000_000
    await pipeline.produce([purchase(f"c{n}", now_ms - n) for n in range(4_000)])
    with pipeline.worker(clock="wall") as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    with pipeline.worker(clock="wall") as worker:
        url = await address(worker)
        complaints = await ready(url)
        assert any(re.search(r"partition \d is restoring", each) for said in complaints for each in said)
        series = await scraped(url)
        assert value(series, "shoal_partition_state", state="running") == PARTITIONS
        assert value(series, "shoal_restore_rows_total") >= 4_000
        assert value(series, "shoal_customers") == 4_000
        assert worker.end() == 0


async def test_a_customer_is_answered_by_the_owner_whoever_is_asked(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Each of two workers shows every customer, itself or by sending on to the other; nobody is 404."""
    pipeline = await Pipeline(kafka, prefix, tmp_path, PARTITIONS).create()
    now_ms = time.time_ns() // 1_000_000
    ids = [f"c{n}" for n in range(6)] + ["a/b?c d%41", "müller"]
    await pipeline.produce([purchase(each, now_ms) for each in ids])
    with pipeline.worker(clock="wall") as one, pipeline.worker(clock="wall") as other:
        urls = [await address(one), await address(other)]
        for url in urls:
            # The second to join takes a partition from the first.
            await eventually(url, "shoal_partition_state", 1, state="running")
            await ready(url)
        await pipeline.wait_until_done(one, other)
        for customer in ids:
            places = [f"{url}/customers/{quote(customer, safe='')}" for url in urls]
            cards = [await get(URL(place, encoded=True)) for place in places]
            for status, card in cards:
                assert (status, card["customer_id"], card["orders"], card["net"]) == (
                    200,
                    customer,
                    1,
                    "60.00",
                )
                assert card["values"]["rfm"]["value"] == "new" and card["partition"] == home(
                    customer, PARTITIONS
                )
            first = [await get(URL(place, encoded=True), allow_redirects=False) for place in places]
            assert sorted(status for status, _ in first) == [200, 307]
            assert {said["owner"] for status, said in first if status == 307} < set(urls)
        assert [(await get(f"{url}/customers/nobody"))[0] for url in urls] == [404, 404]
        assert (await get(f"{urls[0]}/customers/{'x' * 257}"))[0] == 400
        assert other.end() == 0
        await eventually(urls[0], "shoal_partition_state", PARTITIONS, state="running")
        assert {(await get(f"{urls[0]}/customers/c{n}", allow_redirects=False))[0] for n in range(6)} == {200}
        assert one.end() == 0


async def test_an_address_that_is_taken_ends_the_worker_before_it_joins(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """A worker nobody could watch does not start; it says which settings to look at."""
    pipeline = await Pipeline(kafka, prefix, tmp_path, PARTITIONS).create()
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pipeline.worker(web_port=port) as worker:
            assert await asyncio.to_thread(worker.wait) == 1
    assert f"127.0.0.1:{port} cannot be bound" in worker.log and "SHOAL_WEB_PORT" in worker.log
