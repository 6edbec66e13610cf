"""The wall clock across outages: who came back counts before it is decided who stayed away."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.segments.loading import default_definition
from streams.steps.room import Bounds
from streams.steps.ticks import MINUTE_MS, append_ticks, sweep_ticks
from tests.simulation import SimulatedPartition

DEFINITION = default_definition()
DAY = 86_400_000
T0 = 1_600_000_000_000


def partition(**options: Any) -> SimulatedPartition:
    """A partition on the wall clock."""
    return SimulatedPartition(DEFINITION, mode="wall", **options)


def order(p: SimulatedPartition, customer: str, at: int, *, appended: int | None = None) -> None:
    """One order of 100.00, appended as it happened unless said otherwise."""
    fields = {"event_id": f"e{customer}{at}", "occurred_at": at, "order_id": f"o{at}"}
    fields |= {"amount_minor": 10_000, "currency": "GBP"}
    p.event("Purchased", customer, fields, timestamp=at if appended is None else appended)


def read(p: SimulatedPartition, chunk: int = 100) -> None:
    """Read the log to its end."""
    p.run(itertools.repeat(chunk))


def sweep(p: SimulatedPartition, now_ms: int) -> None:
    """Let the wall clock pass, a transaction at a time."""
    while not p.engine.sweep(now_ms):
        p.commit()
    p.commit()


def moves(p: SimulatedPartition, customer: str, dimension: str = "rfm") -> list[tuple[Any, ...]]:
    """(to, cause, effective) of a customer's changes."""
    return [
        (c["to"], c["cause"], c["effective_at"])
        for c in p.changes
        if (c["customer_id"], c["dimension"]) == (customer, dimension)
    ]


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_who_came_back_during_an_outage_is_not_let_go(chunk: int) -> None:
    """Down from day 2 to 35: an order of day 29 waits in the log, and no exit of day 30 is made."""
    p = partition()
    order(p, "back", T0)
    order(p, "gone", T0)
    read(p, chunk)
    sweep(p, T0 + 2 * DAY)
    p.crash()
    order(p, "back", T0 + 29 * DAY)
    order(p, "other", T0 + 34 * DAY)
    read(p, chunk)
    sweep(p, T0 + 35 * DAY)
    assert [move[1:] for move in moves(p, "back")] == [("event", T0), ("event", T0 + 29 * DAY)]
    assert moves(p, "gone") == [("new", "event", T0), ("promising", "time_elapsed", T0 + 30 * DAY)]


def test_who_came_back_too_late_was_away() -> None:
    """The deadline of day 30 comes before the order of day 33, though both are read on day 35."""
    p = partition()
    order(p, "late", T0)
    read(p)
    p.crash()
    order(p, "late", T0 + 33 * DAY)
    read(p)
    assert [move[:2] for move in moves(p, "late")][:2] == [("new", "event"), ("promising", "time_elapsed")]
    assert moves(p, "late")[1][2] == T0 + 30 * DAY
    assert moves(p, "late")[2][1:] == ("event", T0 + 33 * DAY)


def daily(until_days: int, outage: tuple[int, int]) -> SimulatedPartition:
    """Three customers, swept every hour but for an outage, in days."""
    p = partition()
    for n in range(3):
        order(p, f"c{n}", T0 + n)
    read(p)
    for hour in range(1, until_days * 24 + 1):
        if not outage[0] * 24 <= hour < outage[1] * 24:
            sweep(p, T0 + hour * 3_600_000 + 7)
    return p


@pytest.mark.parametrize("outage", [(29, 31), (20, 100), (1, 399)])
def test_an_idle_partition_makes_up_for_an_outage(outage: tuple[int, int]) -> None:
    """The changes are those of a partition that was never down: each one, with cause and instant."""
    wanted, got = daily(400, (0, 0)), daily(400, outage)
    for customer in ("c0", "c1", "c2"):
        for dimension in ("rfm", "lifecycle"):
            assert moves(got, customer, dimension) == moves(wanted, customer, dimension)
    assert len(moves(got, "c0")) == 5
    assert got.values() == wanted.values()


def test_a_cut_sweep_goes_on_after_a_crash_and_keeps_its_clock() -> None:
    """50 due at once, 8 at a time, with a crash before every other commit: each exactly once."""
    p = partition(bounds=Bounds(rows_max=8))
    for n in range(50):
        order(p, f"c{n:02}", T0 + n)
    read(p)
    turns = itertools.count()
    while not p.engine.sweep(T0 + 31 * DAY):
        if next(turns) % 2:
            p.crash()
        p.commit()
        assert not len(p.engine.table.customers_due(p.engine.clock_ms))
    p.commit()
    moved = [c["customer_id"] for c in p.changes if c["cause"] == "time_elapsed" and c["dimension"] == "rfm"]
    assert sorted(moved) == [f"c{n:02}" for n in range(50)]
    assert [c["seq"] for c in p.changes] == list(range(1, len(p.changes) + 1))


@pytest.mark.parametrize("rows_max", [1, 8, 50])
def test_a_chunk_ends_with_its_own_tick_however_it_is_cut(rows_max: int) -> None:
    """Everybody is evaluated at the append time of the last record, before anything else is read."""
    p = partition(bounds=Bounds(rows_max=rows_max))
    for n in range(50):
        order(p, f"c{n:02}", T0 + n)
    read(p)
    assert p.engine.clock_ms == T0 + 49
    assert [c["customer_id"] for c in p.changes if c["dimension"] == "rfm"] == [f"c{n:02}" for n in range(50)]


def test_a_sweep_never_moves_the_clock_back() -> None:
    """A wall clock behind the last append time sweeps nothing."""
    p = partition()
    order(p, "c", T0)
    read(p)
    assert p.engine.sweep(T0 - DAY)
    assert (p.engine.clock_ms, p.engine.has_pending()) == (T0, False)


def test_append_times_that_fall_do_not_move_the_clock_back() -> None:
    """Brokers' clocks differ: a record stamped before the one in front of it comes at the same time."""
    p = partition()
    order(p, "a", T0, appended=T0 + DAY)
    order(p, "b", T0, appended=T0)
    read(p, 1)
    assert p.engine.clock_ms == T0 + DAY


@given(
    clock=st.integers(0, 10**7),
    steps=st.lists(st.integers(-100_000, 400_000), max_size=20),
    cut=st.integers(0, 20),
)
@settings(max_examples=100)
def test_minute_ticks_do_not_depend_on_the_chunk(clock: int, steps: list[int], cut: int) -> None:
    """Whatever is fetched together, every minute is cut once, before the first record at or after it."""
    times = np.cumsum([clock + 1, *steps]).astype(np.int64)
    facts = np.arange(len(times))
    clock = max(clock, 1)

    def minutes(times: Any, clock: int, first: int) -> list[tuple[int, int]]:
        ticks = append_ticks(times, facts[: len(times)], clock)
        pairs = zip(ticks.row.tolist(), ticks.time_ms.tolist(), strict=True)
        return [(row + first, at) for row, at in list(pairs)[:-1]]

    whole = minutes(times, clock, 0)
    cut = min(cut, len(times))
    head = minutes(times[:cut], clock, 0)
    between = max([clock, *times[:cut].tolist()])
    assert head + minutes(times[cut:], between, cut) == whole
    assert all(at % MINUTE_MS == 0 for _, at in whole)


def test_a_sweep_is_cut_at_every_minute_it_passes() -> None:
    """And ends at its own time, once."""
    assert sweep_ticks(59_999, 180_000).time_ms.tolist() == [60_000, 120_000, 180_000]
    assert sweep_ticks(60_000, 60_500).time_ms.tolist() == [60_500]
