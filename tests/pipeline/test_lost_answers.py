"""Whoever writes definitions and is not told that it was committed: it finds out, and does nothing twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from clock import FrozenClock
from streams import definitions
from streams.definitions import (
    RESEND_KEY,
    claim_rebuild,
    in_force,
    publish,
    publish_rebuild,
    read_held,
    request_resend,
)
from streams.kafka import reading
from streams.segments.loading import load
from streams.topics import DEFINITIONS, topic_name
from tests.pipeline.running import Pipeline
from tests.streams.segments.edits import TEXT, version

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

CLOCK = FrozenClock(1_700_000_000_000)
EDIT = TEXT.replace("    5: 30d", "    5: 45d")


async def _nothing() -> None:
    """What others do meanwhile, unless a test says."""


Lose = Callable[[Callable[[], Awaitable[object]]], None]


@pytest.fixture
def lose(monkeypatch: pytest.MonkeyPatch) -> Lose:
    """Has the answer to the next commit lost; before it is missed, others do what they are told."""

    def lose(meanwhile: Callable[[], Awaitable[object]] = _nothing) -> None:
        class Losing(AIOKafkaProducer):  # type: ignore[misc]  # aiokafka has no types.
            async def commit_transaction(self) -> None:
                await super().commit_transaction()
                monkeypatch.undo()
                await meanwhile()
                raise KafkaConnectionError("the answer is lost")

        monkeypatch.setattr(definitions, "AIOKafkaProducer", Losing)

    return lose


@pytest.fixture
async def first(kafka: str, prefix: str, tmp_path: Path) -> None:
    """Version 1 is in force."""
    await Pipeline(kafka, prefix, tmp_path).create()
    await in_force(kafka, prefix, 2, CLOCK, (load(TEXT, "x"), TEXT), "worker")


@pytest.mark.usefixtures("first")
async def test_a_rebuild_that_was_published_says_so(kafka: str, prefix: str, lose: Lose) -> None:
    """Workers go over to it, so nobody is told that it is another's."""
    claim = await claim_rebuild(kafka, prefix, version(1, TEXT), base=1)
    lose(_nothing)
    published = await publish_rebuild(kafka, prefix, claim, CLOCK)
    held = await read_held(kafka, prefix)
    assert held.versions[1:] == [published] and held.claim is not None and held.claim.state == "published"


@pytest.mark.usefixtures("first")
async def test_what_was_applied_counts_also_when_another_applied_on_top(
    kafka: str, prefix: str, lose: Lose
) -> None:
    """Nobody was first but the one who was not told."""
    lose(lambda: publish(kafka, prefix, replace(version(1, EDIT), by="another"), base=2))
    mine = await publish(kafka, prefix, version(1, EDIT), base=1)
    held = await read_held(kafka, prefix)
    assert [each.number for each in held.versions] == [1, 2, 3]
    assert held.versions[1] == mine and held.versions[2].by == "another"


@pytest.mark.usefixtures("first")
async def test_members_asked_for_again_are_asked_for_once(kafka: str, prefix: str, lose: Lose) -> None:
    """The request whose answer is lost is not written a second time: everybody would be sent twice."""
    lose(_nothing)
    run_id = await request_resend(kafka, prefix, CLOCK, "ann")
    assert (await read_held(kafka, prefix)).resend_run_id == run_id
    assert await _requests(kafka, prefix) == [run_id]


@pytest.mark.usefixtures("first")
async def test_a_request_is_not_written_behind_one_that_came_meanwhile(
    kafka: str, prefix: str, lose: Lose
) -> None:
    """Whoever asked since asked for the same: that run is what is waited for."""
    others: list[str] = []

    async def another() -> None:
        others.append(await request_resend(kafka, prefix, CLOCK, "bob"))

    lose(another)
    run_id = await request_resend(kafka, prefix, CLOCK, "ann")
    assert [run_id] == others
    assert (await _requests(kafka, prefix))[1:] == others


@pytest.mark.usefixtures("first")
async def test_two_who_ask_at_once_are_both_answered(kafka: str, prefix: str) -> None:
    """Each shuts the other out, and is heard all the same; the latest run is one that was returned."""
    asked = await asyncio.gather(*(request_resend(kafka, prefix, CLOCK, by) for by in ("ann", "bob")))
    requests = await _requests(kafka, prefix)
    assert set(requests) <= set(asked) and requests[-1] in asked


async def _requests(kafka: str, prefix: str) -> list[str]:
    """The run of every request that was committed, oldest first."""
    topic = topic_name(prefix, DEFINITIONS)
    async with (
        reading.reader(kafka) as consumer,
        aclosing(reading.committed_rows(consumer, topic, 0)) as rows,
    ):
        return [json.loads(value)["run_id"] async for key, value in rows if key == RESEND_KEY and value]
