"""When wall time may pass for an idle partition: only after everything older has been applied."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from agents import sweep_deadlines
from clock import FrozenClock
from errors import ClockSkew, KafkaUnavailable
from streams.kafka import reading


@dataclass
class Idle:
    """What the sweeper asks of a partition."""

    number: int
    position: int
    is_idle: bool = True
    swept_ms: list[int] = field(default_factory=list)

    def sweep(self, now_ms: int) -> None:
        """Remember."""
        self.swept_ms.append(now_ms)


class Faust:
    """Takes the registration and keeps the timer's function."""

    events_topic, bootstrap = "t.events", "nowhere:1"

    def __init__(self, *partitions: Idle) -> None:
        self.owner = self
        self.partitions = {partition.number: partition for partition in partitions}
        self.on_before_shutdown = self
        self.tick: Any = None
        self.given_up: list[BaseException] = []

    def give_up(self, error: BaseException) -> None:
        """Remember."""
        self.given_up.append(error)

    def timer(self, interval_s: float, *, name: str) -> Callable[[Any], None]:
        """As Faust's."""
        return lambda function: setattr(self, "tick", function)

    def connect(self, function: Any, weak: bool) -> None:
        """As a signal's."""


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The end of every partition's log; `on_read` is called when it is asked for."""
    state: dict[str, Any] = {"end": 10, "on_read": lambda: None, "isolation": None}

    @asynccontextmanager
    async def reader(bootstrap: str, isolation: str) -> AsyncIterator[object]:
        state["isolation"] = isolation
        yield object()

    async def ends(consumer: object, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        state["on_read"]()
        return dict.fromkeys(partitions, state["end"])

    monkeypatch.setattr(reading, "reader", reader)
    monkeypatch.setattr(reading, "ends", ends)
    return state


class Broker:
    """The broker's clock; it agrees, or raises."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def vouch(self, now_ms: int) -> None:
        """Agree, or not."""
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        """Nothing to let go of."""


def registered(*partitions: Idle, clock: FrozenClock, error: Exception | None = None) -> Faust:
    """An app with the sweep registered."""
    app = Faust(*partitions)
    sweep_deadlines.register(app, clock, Broker(error))  # type: ignore[arg-type]  # All that is used of them.
    return app


async def test_a_partition_that_applied_everything_is_swept(log: dict[str, Any]) -> None:
    """At the time read, up to the very end, open transactions included."""
    partition = Idle(0, position=10)
    await registered(partition, clock=FrozenClock(5_000)).tick()
    assert partition.swept_ms == [5_000]
    assert log["isolation"] == "read_uncommitted"


async def test_a_partition_that_is_behind_is_not_swept(log: dict[str, Any]) -> None:
    """A login still in the log comes before the decision who stopped logging in."""
    behind, ahead = Idle(0, position=9), Idle(1, position=10)
    await registered(behind, ahead, clock=FrozenClock(5_000)).tick()
    assert (behind.swept_ms, ahead.swept_ms) == ([], [5_000])


async def test_the_time_is_read_before_the_end(log: dict[str, Any]) -> None:
    """Otherwise a record appended between the two would be older than the sweep it comes after."""
    partition, clock = Idle(0, position=10), FrozenClock(5_000)
    log["on_read"] = lambda: clock.set(6_000)
    await registered(partition, clock=clock).tick()
    assert partition.swept_ms == [5_000]


async def test_a_partition_that_got_busy_meanwhile_is_left_alone(log: dict[str, Any]) -> None:
    """Its own records move its clock."""
    partition = Idle(0, position=10)
    log["on_read"] = lambda: setattr(partition, "is_idle", False)
    await registered(partition, clock=FrozenClock(5_000)).tick()
    assert partition.swept_ms == []


async def test_kafka_away_only_delays_the_sweep(log: dict[str, Any]) -> None:
    """The next tick does it."""

    def fail() -> None:
        raise KafkaUnavailable("away")

    partition = Idle(0, position=10)
    app = registered(partition, clock=FrozenClock(5_000))
    log["on_read"] = fail
    await app.tick()
    log["on_read"] = lambda: None
    await app.tick()
    assert partition.swept_ms == [5_000]


async def test_a_time_the_broker_does_not_agree_with_sweeps_nothing_and_ends_the_worker(
    log: dict[str, Any],
) -> None:
    """Ending memberships by a wrong clock cannot be taken back."""
    partition = Idle(0, position=10)
    app = registered(partition, clock=FrozenClock(5_000), error=ClockSkew("wrong"))
    await app.tick()
    assert partition.swept_ms == [] and [str(error) for error in app.given_up] == ["wrong"]
