"""On the wall clock, right after a restart: nobody is judged at an instant that has passed."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from clock import FrozenClock
from streams.segments.loading import load
from streams.segments.versions import Versions
from streams.steps.room import Bounds
from tests.simulation import SimulatedPartition
from tests.streams.segments.edits import TEXT, version
from tests.streams.steps.test_epochs import claim_of
from tests.streams.steps.test_live_clock import DAY, T0, moves, order, partition, read, sweep

DUE = T0 + 30 * DAY
FRESH = TEXT + "\nsegments:\n  fresh: {name: Fresh, description: Bought, owner: o, when: orders(10d) >= 1}\n"


def on_the_wall(text: str = TEXT) -> SimulatedPartition:
    """A partition whose clock is the wall's, and a customer who bought on day 0."""
    versions = Versions([version(1, text)])
    p = SimulatedPartition(load(text, "x").numbered(1), mode="wall", versions=versions, wall=FrozenClock(T0))
    order(p, "ann", T0)
    read(p)
    return p


def idle_until(p: SimulatedPartition, now_ms: int) -> None:
    """Let time pass; nobody is due, so nothing is written."""
    count = len(p.transactions)
    p.wall.set(now_ms)
    sweep(p, now_ms)
    assert p.engine.clock_ms == now_ms and len(p.transactions) == count


def fresh(p: SimulatedPartition) -> list[tuple[Any, ...]]:
    """What was said of the new segment: to, cause, days since T0."""
    return [(to, cause, (at - T0) / DAY) for to, cause, at in moves(p, "ann", "fresh")]


@pytest.mark.parametrize("how", ["runs on", "restart", "rebuild"])
@pytest.mark.parametrize("day", [5, 20])
def test_an_edit_counts_from_when_it_was_made(how: str, day: int) -> None:
    """Nothing happened since day 0; on day 20 an order of ten days back is no news, on day 5 it is."""
    p = on_the_wall()
    idle_until(p, T0 + day * DAY)
    assert p.versions is not None
    p.versions.add(claim_of(FRESH, 2, 2 if how == "rebuild" else 1))
    if how == "rebuild":
        p.rebuild(claim_of(FRESH, 2, 2), until=len(p.log))
    if how == "restart":
        p.crash()
        assert p.engine.clock_ms == T0, "the last commit's"
    p.convert()
    sweep(p, T0 + day * DAY + 1_000)
    p.convert()
    assert p.engine.definition.version == 2 and not p.engine.unconverted and not p.engine.changing
    (told,) = fresh(p) or [None]
    if day == 20:
        assert told is None
    else:
        assert told is not None and told[:2] == ("fresh", "rule_changed") and day <= told[2] < day + 1


def test_an_edit_made_during_an_outage_finds_what_came_before_it() -> None:
    """Down from day 0 to 20: the order of day 8 was fresh until day 18, before anybody asked on day 19."""
    p = on_the_wall()
    p.crash()
    order(p, "ann", T0 + 8 * DAY)
    assert p.versions is not None
    p.versions.add(claim_of(FRESH, 2, 1))
    p.wall.set(T0 + 19 * DAY)
    assert not p.engine.converting
    p.wall.set(T0 + 20 * DAY)
    read(p)
    p.convert()
    sweep(p, T0 + 20 * DAY)
    p.convert()
    assert p.engine.definition.version == 2 and fresh(p) == []


def test_an_edit_made_during_an_outage_counts_for_what_came_after_it() -> None:
    """Down from day 0 to 20, edited on day 10: the order of day 11 is judged by it, days before now."""
    p = on_the_wall()
    p.crash()
    assert p.versions is not None
    p.versions.add(replace(version(2, FRESH), applied_at_ms=T0 + 10 * DAY))
    p.wall.set(T0 + 20 * DAY)
    assert not p.engine.converting
    order(p, "ann", T0 + 11 * DAY)
    read(p)
    assert p.engine.definition.version == 1 and p.engine.converting
    p.convert()
    sweep(p, T0 + 22 * DAY)
    assert fresh(p) == [("fresh", "rule_changed", 11.0), (None, "time_elapsed", 21.0)]


def test_somebody_elses_clock_that_is_ahead_holds_nothing_up() -> None:
    """Applied, they say, in ten years: it counts from when this worker heard of it."""
    p = on_the_wall()
    idle_until(p, T0 + 5 * DAY)
    assert p.versions is not None
    later = version(2, FRESH)
    assert later.applied_at_ms > T0 + 5 * DAY
    p.versions.add(later)
    assert p.engine.converting
    p.convert()
    assert fresh(p) == [("fresh", "rule_changed", 5.0)]


def test_members_are_sent_again_as_of_now() -> None:
    """After a restart first the clock comes back: the order of day 0 is in no window of 10 days any more."""
    p = on_the_wall(TEXT.replace("  window: 365d", "  window: 20d"))
    idle_until(p, T0 + 19 * DAY)
    p.crash()
    p.wall.set(T0 + 25 * DAY)
    assert p.versions is not None
    p.versions.resend_run_id = "again"
    assert not p.engine.converting
    sweep(p, T0 + 25 * DAY)
    p.convert()
    sent = [c for c in p.changes if c["run_id"] == "again"]
    assert {c["dimension"]: c["facts"]["orders"] for c in sent} == {"rfm": 0, "lifecycle": 0}


@pytest.mark.parametrize("kill", [False, True])
def test_a_record_below_the_tick_of_a_half_sweep_changes_nothing_back(kill: bool) -> None:
    """Two are due, one is evaluated; what comes for it was appended before that, by another clock."""
    p = partition(bounds=Bounds(rows_max=1))
    for customer in ("a", "b"):
        order(p, customer, T0)
    order(p, "z", DUE - 60_000)
    read(p)
    assert not p.engine.sweep(DUE + 10_000)
    p.commit()
    if kill:
        p.crash()
        assert p.engine.half_swept and p.engine.converting
    else:
        sweep(p, DUE + 10_000)
    p.event("ProfileUpdated", "a", {"event_id": "t", "occurred_at": DUE - 5_000, "traits": {}}, DUE - 5_000)
    read(p)
    sweep(p, DUE + 60_000)
    assert [to for to, *_ in moves(p, "a")] == [to for to, *_ in moves(p, "b")] == ["new", "promising"]


def test_a_chunk_is_not_begun_before_a_half_sweep_is_finished() -> None:
    """Whoever owns a partition on the wall clock finishes it first; a bug if not."""
    p = partition(bounds=Bounds(rows_max=1))
    for customer in ("a", "b"):
        order(p, customer, T0)
    read(p)
    assert not p.engine.sweep(DUE + 10_000)
    p.commit()
    p.crash()
    order(p, "a", DUE)
    p.finish_sweep()
    assert p.engine.clock_ms == DUE + 10_000 and not p.engine.half_swept
    p.run(itertools.repeat(9))
    assert [(to, at) for to, _, at in moves(p, "b")] == [("new", T0), ("promising", DUE)]
