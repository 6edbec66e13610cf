"""Bad days of a whole pipeline: poison in a large chunk, records too large to look into, Kafka away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.synthetic import stream
from deploy.local.kafka import LocalKafka
from schemas.events import encode_event
from tests.pipeline.judging import assert_as_undisturbed, comparable, undisturbed
from tests.pipeline.running import Pipeline, Produced, home

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

DAY_MS = 86_400_000
T0 = 1_704_067_200_000
CUSTOMER = next(f"c{n}" for n in range(40) if home(f"c{n}", 2) == 0)


def order(order_id: str, **more: object) -> bytes:
    """An order of 120.00."""
    fields = {"event_id": f"e-{order_id}", "customer_id": CUSTOMER, "occurred_at": T0, "order_id": order_id}
    return encode_event("Purchased", {**fields, "amount_minor": 12_000, "currency": "GBP", **more})


def around(bad: list[bytes]) -> tuple[list[Produced], list[int]]:
    """A replay with these values of CUSTOMER between its records; the log and their offsets."""
    log = [
        each
        for each in stream(events=2_000, customers=60, partitions=2, days=300, tick_ms=DAY_MS)
        if each[0] == 0
    ]
    offsets = []
    for n, value in enumerate(bad):
        offsets.append(300 + 250 * n)
        log.insert(offsets[-1], (0, CUSTOMER.encode(), value))
    return log, offsets


async def assert_set_aside(pipeline: Pipeline, log: list[Produced], offsets: list[int], error: bytes) -> None:
    """Assert that exactly these are dead letters, and the changes those of the rest."""
    letters = await pipeline.records("dead-letters", 0)
    said = [(int(dict(each.headers)["offset"]), dict(each.headers)["error"]) for each in letters]
    assert said == [(offset, error) for offset in offsets]
    good = [(4_000_000_000_000, key, value) for at, (_, key, value) in enumerate(log) if at not in offsets]
    wanted = undisturbed(good, 0, 2)
    assert len(wanted.changes) > 100
    assert comparable(await pipeline.changes(0)) == comparable(wanted.changes)
    assert await pipeline.mirrored() == {0: len(log)}


async def test_poison_in_a_large_chunk_is_found_and_the_rest_applied(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """A chunk of a thousand that fails twice is searched; two culprits are set aside, nobody else."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    log, offsets = around([order("poison-1"), order("poison-2")])
    await pipeline.produce(log)
    with pipeline.worker("poisoned") as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    assert "cannot be applied" in worker.log
    await assert_set_aside(pipeline, log, offsets, b"ApplyFailed")


async def test_records_over_a_mebibyte_are_set_aside(kafka: str, prefix: str, tmp_path: Path) -> None:
    """Valid but for their size: cut in the dead letters, named there, and no more than that."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    log, offsets = around([order(f"large-{n}", coupon="x" * (1 << 20)) for n in range(3)])
    await pipeline.produce(log)
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    await assert_set_aside(pipeline, log, offsets, b"InvalidField")
    for letter in await pipeline.records("dead-letters", 0):
        headers = dict(letter.headers)
        assert len(letter.value) == 256 << 10 and int(headers["truncated-from"]) > 1 << 20
        assert b"1048576 bytes" in headers["message"]


async def test_kafka_away_in_mid_replay_leaves_no_trace(tmp_path: Path, prefix: str) -> None:
    """The broker dies under load and comes back: the worker lives, and nothing is lost or doubled."""
    log = list(stream(events=2_000, customers=120, partitions=2, days=500, tick_ms=DAY_MS))
    with LocalKafka(tmp_path / "kafka") as broker:
        pipeline = await Pipeline(broker.bootstrap, prefix, tmp_path).create()
        await pipeline.produce(log)
        with pipeline.worker(chunk_records_max=5) as worker:
            await pipeline.wait_for(len(log) // 4, worker)
            broker.kill()
            await asyncio.sleep(3.0)
            broker.start()
            await pipeline.wait_until_done(worker)
            assert worker.end() == 0
        assert await assert_as_undisturbed(pipeline) > 1_000
