"""One known customer through everything: SDK, Kafka, a worker process, changes, memberships, state, SQL."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from demo import worker
from demo.check import compare
from demo.display import Scene
from demo.follow import Follower
from demo.oracle import standings
from demo.purchases import INVOICE_LINES, Invoices
from demo.readback import pipeline_standings
from demo.replay import KafkaTicks, midnights, replay
from demo.summary import grid_of
from demo.topics import fresh_topics
from schemas.changes import decode_change
from shoal_sdk import Shoal
from streams.kafka.reading import committed_rows, reader
from streams.segments.loading import default_definition
from streams.topics import EVENTS, SEGMENT_CHANGES, topic_name, wait_for_kafka

pytestmark = pytest.mark.kafka

CUSTOMER = "12346"
PARTITIONS = 2
MINUTE_MS = 60_000
FOLLOW_S_MAX = 90


def ms(text: str) -> int:
    """Return a UTC time in milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


LAST_MS = ms("2011-01-18 10:30")
TICKS = [
    *midnights(ms("2009-12-01"), ms("2011-01-18")),
    *range(ms("2011-01-18 10:00"), LAST_MS + 1, MINUTE_MS),
]


async def test_the_great_purchase_and_its_cancellation_move_the_customer_twice(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """77,183.60 bought at 10:01 makes a champion; given back at 10:17, a potential loyalist again.

    With a tick a minute both moves are seen, each once, with its cause and its own instant; state and
    memberships end where SQL says; and nothing of the run is left on the cluster.
    """
    definition = default_definition()
    scene = Scene(grid_of(definition), TICKS[0], LAST_MS)
    settings = {"SHOAL_KAFKA": kafka, "SHOAL_PREFIX": prefix, "SHOAL_CLOCK": "event"}
    settings["SHOAL_PARTITIONS"] = str(PARTITIONS)
    async with (
        fresh_topics(kafka, prefix, PARTITIONS),
        worker.running(tmp_path / "worker.log", settings) as running,
        reader(kafka) as consumer,
    ):
        await _replay_customer(kafka, prefix)
        follower = Follower(kafka, consumer, prefix, PARTITIONS, scene)
        async with asyncio.timeout(FOLLOW_S_MAX):
            while follower.clock_ms < LAST_MS:
                running.check()
                await follower.follow()
            await follower.catch_up()
        changes = await _changes(kafka, prefix)
        actual = await pipeline_standings(kafka, prefix, PARTITIONS, LAST_MS)

    told = [
        (c["dimension"], c["from"], c["to"], c["cause"], c["effective_at"])
        for c in changes
        if c["effective_at"] >= ms("2011-01-18")
    ]
    assert told == [
        ("rfm", "lost", "champions", "event", ms("2011-01-18 10:01")),
        ("lifecycle", "churned", "reactivated", "event", ms("2011-01-18 10:01")),
        ("rfm", "champions", "potential_loyalist", "refund", ms("2011-01-18 10:17")),
    ]
    assert len({c["event_id"] for c in changes}) == len(changes) == scene.changes
    assert +scene.members == {"potential_loyalist": 1}
    assert compare({CUSTOMER: standings(INVOICE_LINES, LAST_MS)[CUSTOMER]}, actual) == []
    admin = await wait_for_kafka(kafka, 10.0)
    try:
        assert not [name for name in await admin.list_topics() if name.startswith(prefix)]
    finally:
        await admin.close()


async def _replay_customer(kafka: str, prefix: str) -> None:
    async with KafkaTicks(kafka, topic_name(prefix, EVENTS), PARTITIONS) as ticks:

        def send() -> None:
            with Shoal(kafka, app="golden", prefix=prefix, on_full="wait") as shoal:
                events = Invoices().events(frozenset({CUSTOMER}))
                replay((e for e in events if e.occurred_at_ms <= LAST_MS), TICKS, shoal, ticks)

        await asyncio.to_thread(send)


async def _changes(kafka: str, prefix: str) -> list[dict[str, Any]]:
    """Return all changes of all partitions; one customer's are in order."""
    async with reader(kafka) as consumer:
        return [
            decode_change(value)
            for partition in range(PARTITIONS)
            async for _, value in committed_rows(consumer, topic_name(prefix, SEGMENT_CHANGES), partition)
            if value is not None
        ]


async def test_a_worker_that_cannot_start_is_reported_with_its_last_words(tmp_path: Path) -> None:
    """A wrong setting ends the worker; the error says with what status and what its log says."""
    with pytest.raises(worker.WorkerEnded, match="SHOAL_PARTITIONS"):
        await _watched_to_its_end(tmp_path / "worker.log", {"SHOAL_PARTITIONS": "none"})


async def _watched_to_its_end(log: Path, settings: dict[str, str]) -> None:
    async with worker.running(log, settings) as running, asyncio.timeout(60):
        while True:
            running.check()
            await asyncio.sleep(0.05)
