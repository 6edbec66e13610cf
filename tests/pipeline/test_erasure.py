"""A customer erased on a real Kafka: through kill -9, to the last byte of every compacted topic, in Redis."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.synthetic import stream
from deploy.local.kafka import LocalKafka
from deploy.local.redis import LocalRedis
from schemas.events import encode_event, encode_tick
from streams.customers.row_format import ERASURE_ROW
from streams.topics import DAY_MS, topics
from tests.pipeline.judging import assert_as_undisturbed
from tests.pipeline.running import Pipeline, Produced, Worker, home
from tests.pipeline.test_web import get, ready

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

PARTITIONS = 2
T0 = 1_704_067_200_000
HOUR_MS = 3_600_000
ANN = "ann-whom-nobody-may-remember"
STREET = "a-street-nobody-may-remember"
ACCOUNT = "an-account-nobody-may-remember"
KEPT_RAW = ("events", "segment-changes", "dead-letters")
"""What these hold, retention takes away."""
HASTE = {
    "segment.ms": "200",
    "segment.bytes": str(1 << 20),
    "min.cleanable.dirty.ratio": "0.001",
    "max.compaction.lag.ms": "400",
    "delete.retention.ms": "100",
    "file.delete.delay.ms": "0",
}
"""A day of a real topic in half a second."""
ROLLS_MAX, POLL_S = 300, 0.2
"""How often segments are rolled and looked at, at the most, and the pause between."""
SMALL = {"chunk_records_max": 5, "session_timeout_ms": 2_000}
"""Many transactions, so that a kill often meets one under way."""


def event(type_name: str, customer: str, at_ms: int, n: object = 0, **fields: Any) -> Produced:
    """One event in the customer's own partition."""
    content = {
        "event_id": f"{type_name}-{n}-{at_ms}",
        "customer_id": customer,
        "occurred_at": at_ms,
        **fields,
    }
    return home(customer, PARTITIONS), customer.encode(), encode_event(type_name, content)


def purchase(customer: str, at_ms: int, n: object) -> Produced:
    """An order of 60.00."""
    fields = {"order_id": f"{customer}-{n}", "amount_minor": 60_00, "currency": "GBP"}
    return event("Purchased", customer, at_ms, n, **fields, account_id=ACCOUNT if customer == ANN else "acme")


def ticks(at_ms: int) -> list[Produced]:
    """A Tick in every partition."""
    return [(p, str(p).encode(), encode_tick(at_ms)) for p in range(PARTITIONS)]


def life() -> list[Produced]:
    """Words, a subscription, and orders that fill three pages; Bob has as much in the other partition."""
    bob = next(f"bob-{n}" for n in range(40) if home(f"bob-{n}", PARTITIONS) != home(ANN, PARTITIONS))
    log: list[Produced] = []
    for name, street in ((ANN, STREET), (bob, "elsewhere")):
        log.append(event("SignedUp", name, T0, traits={"street": street}, source=street))
        plan = {"subscription_id": f"{name}-s", "change": "started", "plan": street}
        log.append(event("PlanChanged", name, T0 + 1, **plan, mrr_minor=500, currency="GBP"))
        log += [purchase(name, T0 + n * HOUR_MS, n) for n in range(1, 101)]
    return [*log, *ticks(T0 + 101 * HOUR_MS)]


async def hasty(kafka: str, prefix: str, folder: Path) -> Pipeline:
    """A pipeline whose compacted topics are cleaned as soon as Kafka can."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics(
            [
                NewTopic(each.name, each.partitions, 1, topic_configs={**each.config, **HASTE})
                for each in topics(prefix, PARTITIONS, events_retention_ms=400 * DAY_MS)
                if each.config["cleanup.policy"] == "compact"
            ]
        )
    finally:
        await admin.close()
    return await Pipeline(kafka, prefix, folder, PARTITIONS).create()


def holding(data: Path, text: str, *, raw: bool = False) -> set[str]:
    """The topics in whose files these bytes are; those that keep what was sent only with `raw`."""
    found = set()
    for path in data.rglob("*"):
        topic = re.sub(r"-\d+$", "", path.parent.name).split(".", 1)[-1]
        if (topic in KEPT_RAW) is not raw or not path.is_file():
            continue
        try:
            if text.encode() in path.read_bytes():
                found.add(topic)
        except FileNotFoundError:
            continue  # Cleaned away meanwhile.
    return found


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalKafka]:
    """A broker of one's own, whose cleaner looks around all the time."""
    with LocalKafka(tmp_path / "kafka", properties={"log.cleaner.backoff.ms": "100"}) as running:
        yield running


async def cleaned(pipeline: Pipeline, data: Path, worker: Worker) -> None:
    """Let others' events roll segments until no compacted topic names the erased, or fail."""
    texts, held = (ANN, STREET, ACCOUNT), {"not": {"looked"}}
    for n in range(ROLLS_MAX):
        held = {text: topics for text in texts if (topics := holding(data, text))}
        if not held:
            return
        at = T0 + (500 + n) * HOUR_MS
        # In every partition somebody else changes, so that every topic is written to.
        names = [next(f"c{n}-{i}" for i in range(40) if home(f"c{n}-{i}", PARTITIONS) == p) for p in range(2)]
        await pipeline.produce([*(event("SignedUp", name, at) for name in names), *ticks(at)])
        await pipeline.wait_until_done(worker)
        await asyncio.sleep(POLL_S)
    raise AssertionError(held)


async def answers(worker: Worker) -> str:
    """Where a worker answers, once it is ready."""
    await worker.said("metrics at ")
    found = re.search(r"metrics at (http://\S+)/metrics", worker.log)
    assert found is not None
    await ready(found[1])
    return found[1]


async def test_after_compaction_no_compacted_topic_holds_a_byte_of_the_erased(
    broker: LocalKafka, prefix: str, tmp_path: Path
) -> None:
    """Killed before, after and in between; told all again; then every file on the broker's disk is read."""
    pipeline, data = await hasty(broker.bootstrap, prefix, tmp_path), broker.folder / "data"
    await pipeline.produce(life())
    logs = []
    with pipeline.worker(**SMALL) as worker:
        await pipeline.wait_until_done(worker)
        url = await answers(worker)
        assert (await get(f"{url}/customers/{ANN}"))[0] == 200
        assert holding(data, ANN) == {"customers", "memberships"} and holding(data, STREET) == {"customers"}
        worker.kill()
        logs.append(worker.log)
    await pipeline.produce([event("Erased", ANN, T0 + 102 * HOUR_MS), *ticks(T0 + 103 * HOUR_MS)])
    with pipeline.worker(**SMALL) as worker:
        await pipeline.wait_until_done(worker)
        worker.kill()
        logs.append(worker.log)
    await pipeline.produce([*life(), *ticks(T0 + 104 * HOUR_MS)])
    with pipeline.worker(**SMALL) as worker:
        await pipeline.wait_until_done(worker)
        url = await answers(worker)
        await cleaned(pipeline, data, worker)
        assert (await get(f"{url}/customers/{ANN}"))[0] == 404
        series = (await get(f"{url}/metrics"))[1]
        assert 'shoal_events_total{result="erased",type="Purchased"} 100.0' in series or (
            'shoal_events_total{type="Purchased",result="erased"} 100.0' in series
        )
        assert worker.end() == 0
        logs.append(worker.log)
    # What is not compacted is there, so the bytes would have been seen.
    assert holding(data, ANN, raw=True) == {"events", "segment-changes"}
    mine = home(ANN, PARTITIONS)
    left = [c for c in await pipeline.changes(mine) if c["customer_id"] == ANN and c["to"] is None]
    assert {(c["dimension"], c["cause"]) for c in left} == {("rfm", "erasure"), ("lifecycle", "erasure")}
    assert ANN not in await pipeline.memberships(mine)
    assert sum(key[0] == ERASURE_ROW for key, _ in await pipeline.rows("customers", mine)) == 1
    assert any(b"bob-" in key for key, _ in await pipeline.rows("customers", 1 - mine))
    assert not any(text in log for log in logs for text in (ANN, STREET, ACCOUNT))


async def test_kills_among_erasures_leave_no_trace(kafka: str, prefix: str, tmp_path: Path) -> None:
    """Every thirtieth record erases somebody; four kill -9 on the way; as if nothing had happened."""
    rng, log = random.Random(3), []
    for record in stream(events=1_500, customers=60, partitions=2, days=300, tick_ms=DAY_MS):
        log.append(record)
        names = [key.decode() for _, key, _ in log[-200:] if not key.isdigit()]
        if len(log) % 30 == 0 and names:
            at = 1_700_006_400_000 + len(log) * (300 * DAY_MS // 2_000)
            log.append(event("Erased", rng.choice(names), at, len(log)))
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    await pipeline.produce(log)
    for turn in range(1, 5):
        with pipeline.worker(**SMALL) as worker:
            await pipeline.wait_for(len(log) * turn // 6, worker)
            worker.kill()
    with pipeline.worker(**SMALL) as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    assert await assert_as_undisturbed(pipeline) > 400
    changes = [change for p in range(PARTITIONS) for change in await pipeline.changes(p)]
    assert sum(change["cause"] == "erasure" for change in changes) > 40


async def test_redis_forgets_whom_the_worker_forgot(kafka: str, prefix: str, tmp_path: Path) -> None:
    """By the changes, and by a rebuild of a Redis that never saw them."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    await pipeline.produce(life())
    with LocalRedis() as server, redis.Redis.from_url(server.url) as reader:
        with pipeline.worker() as worker:
            await pipeline.wait_until_done(worker)
            assert pipeline.command("sink", "redis", "--once", redis_url=server.url).returncode == 0
            assert any(ANN.encode() in key for key in reader.scan_iter())
            held = {key: reader.dump(key) for key in reader.scan_iter()}
            await pipeline.produce([event("Erased", ANN, T0 + 102 * HOUR_MS), *ticks(T0 + 103 * HOUR_MS)])
            await pipeline.wait_until_done(worker)
        for arguments in (("--once",), ("--rebuild", "--once")):
            done = pipeline.command("sink", "redis", *arguments, redis_url=server.url)
            assert done.returncode == 0 and ANN not in done.stderr + done.stdout, done.stderr
            raw = {key: reader.dump(key) or b"" for key in reader.scan_iter()}
            assert not any(ANN.encode() in key + content for key, content in raw.items())
            assert any(b"bob-" in key for key in raw)
            # As it was before the erasure, for the rebuild to find.
            for key, content in held.items():
                reader.restore(key, 0, content, replace=True)
