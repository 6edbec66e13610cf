"""dwell_enter, dwell_exit and cooldown through the engine, and as a function of what is stored."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from streams.segments.settling import Delay, Held, settle
from streams.segments.view import FAR_MS
from tests.simulation import SimulatedPartition
from tests.streams.segments.custom import defined
from tests.streams.steps.test_custom_segments import DAY, T0, bought, run, told

HOUR = DAY // 24


def story(
    when: str, orders: list[float], hours: int = 1, until: int = 40, **delays: str
) -> SimulatedPartition:
    """One customer's orders, with a tick every so many hours."""
    lines = "".join(f"    {name}: {length}\n" for name, length in delays.items())
    partition = SimulatedPartition(defined(f"segments:\n  s:\n    when: {when}\n{lines}"))
    events = [(day, "order") for day in orders]
    events += [(hour / 24, "tick") for hour in range(0, until * 24, hours)]
    for day, what in sorted(events):
        if what == "order":
            bought(partition, "ann", day, 1_000)
        else:
            partition.tick(T0 + round(day * DAY))
    run(partition, 50)
    return partition


def test_entering_waits_for_the_dwell_and_is_effective_when_it_is_over() -> None:
    """True from day 1.25 on, in from day 3.25 on, by time, to the millisecond; leaving does not wait."""
    partition = story("orders(10d) >= 1", [1.25], dwell_enter="2d")
    assert told(partition, "s") == [
        ("entered", None, "s", "time_elapsed", 3.25),
        ("exited", "s", None, "time_elapsed", 11.25),
    ]


def test_who_is_true_for_too_short_never_enters() -> None:
    """A window of one day and a dwell of two: nobody hears of it."""
    assert told(story("orders(1d) >= 1", [1.25], dwell_enter="2d"), "s") == []


def test_leaving_waits_and_coming_back_meanwhile_is_silent() -> None:
    """The rule is false from day 2 to day 3 only: shorter than the dwell, nobody leaves."""
    partition = story("orders(1d) >= 1", [1, 3], dwell_exit="36h")
    assert told(partition, "s") == [
        ("entered", None, "s", "event", 1.0),
        ("exited", "s", None, "time_elapsed", 5.5),
    ]


def test_after_an_exit_nobody_comes_back_before_the_cooldown_is_over() -> None:
    """Out on day 2, true again on day 4 and still on day 9: in on day 9; a first entry never waits."""
    partition = story("orders(1d) >= 1", [1, 4, 4.8, 5.6, 6.4, 7.2, 8, 8.8], cooldown="7d")
    assert told(partition, "s") == [
        ("entered", None, "s", "event", 1.0),
        ("exited", "s", None, "time_elapsed", 2.0),
        ("entered", None, "s", "time_elapsed", 9.0),
        ("exited", "s", None, "time_elapsed", 9.8),
    ]


@pytest.mark.parametrize("hours", [1, 6, 24])
def test_ticks_may_be_coarse(hours: int) -> None:
    """A delay that ends between two ticks ends at its instant all the same."""
    partition = story("orders(10d) >= 1", [1.25], hours, dwell_enter="30h", dwell_exit="18h")
    assert [(c[0], c[4]) for c in told(partition, "s")] == [("entered", 2.5), ("exited", 12.0)]


@pytest.mark.parametrize("seed", range(6))
def test_a_restart_at_any_commit_changes_nothing(seed: int) -> None:
    """The memory of a delay is in the row: killed again and again, the worker tells the same changes."""
    rng = random.Random(seed)
    days = sorted(rng.randrange(20 * 96) / 96 for _ in range(12))
    delays = {"dwell_enter": "30h", "dwell_exit": "12h", "cooldown": "3d"}
    whole = story("orders(2d) >= 2", days, **delays)
    broken = SimulatedPartition(whole.definition, log=list(whole.log))
    calls = itertools.count(1)
    broken.run(itertools.repeat(5), crash=lambda: next(calls) % 2 == 0)
    assert told(broken, "s") == told(whole, "s")
    assert [(change[0], change[4]) for change in told(whole, "s")] == told_by_the_quarter(days)


def told_by_the_quarter(days: list[float]) -> list[tuple[str, float]]:
    """What dwell_enter 30h, dwell_exit 12h, cooldown 3d make of `orders(2d) >= 2`, every 15 minutes."""
    times = [round(day * DAY) for day in days]
    inside, true_since, false_since, left = False, None, None, None
    found: list[tuple[str, float]] = []
    for now in range(0, 40 * DAY, HOUR // 4):
        true = sum(at <= now < at + 2 * DAY for at in times) >= 2
        true_since = (now if true_since is None else true_since) if true else None
        false_since = (now if false_since is None else false_since) if not true else None
        waits = left is not None and now < left + 3 * DAY
        if not inside and true_since is not None and now >= true_since + 30 * HOUR and not waits:
            inside = True
            found.append(("entered", now / DAY))
        elif inside and false_since is not None and now >= false_since + 12 * HOUR:
            inside, left = False, now
            found.append(("exited", now / DAY))
    return found


def settled(
    delay: Delay, membership: tuple[int, int], before: tuple[int, int], after: tuple[int, int], now: int
) -> tuple[int, int, int]:
    def held(pair: tuple[int, int]) -> Held:
        return Held(np.array([pair[0]], np.int16), np.array([pair[1]]))

    found, due = settle(delay, held(membership), held(before), held(after), np.array([now]))
    return int(found.code[0]), int(found.since_ms[0]), int(due[0])


def test_a_delay_that_ended_before_the_rule_turned_is_not_lost() -> None:
    """True since 100 with a dwell of 50, false since 180, seen at 200 only: in since 150, out at 210."""
    delay = Delay(0, 1, 50, 30, 0)
    assert settled(delay, (-1, 0), (0, 100), (-1, 180), 200) == (0, 150, 210)
    assert settled(delay, (-1, 0), (0, 100), (-1, 140), 200) == (-1, 0, FAR_MS)
    assert settled(delay, (-1, 0), (0, 100), (-1, 160), 200) == (-1, 190, FAR_MS)
