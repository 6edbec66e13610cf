"""Whoever writes definitions and is not told that it was committed: it finds out, and does nothing twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

from clock import FrozenClock
from streams import definitions
from streams.definitions import claim_rebuild, in_force, publish_rebuild, read_held
from streams.segments.loading import load
from tests.pipeline.running import Pipeline
from tests.streams.segments.edits import TEXT, version

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

CLOCK = FrozenClock(1_700_000_000_000)


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
