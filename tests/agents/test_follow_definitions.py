"""A version applied while a worker runs: compiled beside the event loop, then put before the partitions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agents import follow_definitions
from benchmarks.many_segments import definition_text, edited_text
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.segments.loading import load
from streams.segments.versions import Version, Versions

TEXT, EDITED = definition_text(3), edited_text(3)


class Topic:
    """What a feed read since it was last asked."""

    resend_run_id = None

    def __init__(self, *news: Version) -> None:
        self._news = list(news)

    async def news(self) -> Sequence[Version]:
        """As a DefinitionFeed's."""
        news, self._news = self._news, []
        return news


class Faust:
    """Keeps the timer's function; is its own only partition, which notes what is newest when it looks."""

    def __init__(self, versions: Versions) -> None:
        self.owner = self.on_before_shutdown = self
        self.partitions = {0: self}
        self.look: Any = None
        self.looked: list[int] = []
        self._versions = versions

    def timer(self, interval_s: float, *, name: str) -> Callable[[Any], None]:
        """As Faust's."""
        return lambda function: setattr(self, "look", function)

    def connect(self, function: Any, weak: bool) -> None:
        """As a signal's."""

    def look_up(self) -> None:
        """As a partition's."""
        self.looked.append(self._versions.newest_number)


def following(*news: Version) -> tuple[Faust, Versions]:
    """A worker on version 1 whose topic has news."""
    versions = Versions([Version(1, TEXT, load(TEXT, "first").hash, 0, "mia")])
    app = Faust(versions)
    topic: Any = Topic(*news)
    stands_in: Any = app
    follow_definitions.register(stands_in, topic, versions)
    return app, versions


async def test_an_applied_version_is_compiled_in_a_thread_before_partitions_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No live event waits for hundreds of rules to be read, and no partition compiles them again."""
    made: list[tuple[int, Evaluator]] = []

    class Noted(Evaluator):
        def __init__(self, definition: Definition) -> None:
            super().__init__(definition)
            made.append((threading.get_ident(), self))

    monkeypatch.setattr(follow_definitions, "Evaluator", Noted)
    app, versions = following(Version(2, EDITED, load(EDITED, "edited").hash, 0, "mia"))
    await app.look()
    ((thread, evaluator),) = made
    assert thread != threading.get_ident()
    assert versions.newest is evaluator and evaluator.definition.version == 2
    assert app.looked == [2]


async def test_a_version_that_cannot_run_here_leaves_the_one_in_force(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The worker goes on as before, and says why."""
    app, versions = following(Version(2, EDITED, "0" * 64, 0, "mia"))
    with caplog.at_level(logging.ERROR):
        await app.look()
    assert versions.newest_number == 1
    assert "definition 2 cannot run here" in caplog.text


async def test_a_version_that_is_known_stays_as_it_is() -> None:
    """What a partition goes by is not exchanged under it."""
    app, versions = following()
    before = versions.newest
    record = versions.records()[0]
    versions.add(record, Evaluator(record.definition()))
    assert versions.newest is before
    await app.look()
    assert app.looked == []
