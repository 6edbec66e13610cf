"""Whoever writes definitions and is not told that it was committed: it finds out, and does nothing twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from clock import FrozenClock
from streams import definitions
from streams.definitions import claim_rebuild, in_force, publish, publish_rebuild, read_held
from streams.segments.loading import load
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
