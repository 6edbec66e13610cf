"""Runs are sorted lists with prefix sums, whatever comes in whichever order."""

from __future__ import annotations

import bisect

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.customers.arena import ROWS_MIN
from streams.customers.runs import Entries, Runs

SLOTS = 4
ENTRIES = st.lists(st.tuples(st.integers(0, SLOTS - 1), st.integers(0, 20), st.integers(-5, 50)), max_size=60)


def runs_for(slots: int) -> Runs:
    runs = Runs()
    runs.hold_slots(slots)
    return runs


def insert(runs: Runs, entries: list[tuple[int, int, int]], first_id: int) -> None:
    columns = np.array(entries, np.int64).reshape(-1, 3).T
    ids = np.arange(first_id, first_id + len(entries)).astype(np.uint64)
    runs.insert(columns[0], columns[1], columns[2], ids)


def listed(runs: Runs, slot: int) -> list[tuple[int, int, int]]:
    """Return (time, value, id) of a run."""
    start = int(runs.starts[slot])
    return [
        (*runs.entry(slot, at), int(runs.ids[at])) for at in range(start, start + int(runs.lengths[slot]))
    ]


@settings(max_examples=100)
@given(st.lists(ENTRIES, max_size=6))
def test_a_run_is_a_stable_sort_of_what_was_inserted(batches: list[list[tuple[int, int, int]]]) -> None:
    """Times, values and ids are those of a sorted list in which equal times keep arrival order."""
    runs = runs_for(SLOTS)
    expected: list[list[tuple[int, int, int]]] = [[] for _ in range(SLOTS)]
    fact_id = 1
    for batch in batches:
        insert(runs, batch, fact_id)
        for slot, time, value in batch:
            expected[slot].append((time, value, fact_id))
            fact_id += 1
    for slot in range(SLOTS):
        assert listed(runs, slot) == sorted(expected[slot], key=lambda entry: entry[0])


@settings(max_examples=100)
@given(ENTRIES, st.lists(st.tuples(st.integers(0, SLOTS - 1), st.integers(-2, 23)), max_size=12))
def test_first_after_and_sums_are_those_of_a_list(
    entries: list[tuple[int, int, int]], asked: list[tuple[int, int]]
) -> None:
    """A window's start is bisect_right of its lower end, its sum that of the entries after it."""
    runs = runs_for(SLOTS)
    insert(runs, entries, 1)
    slots, after = (np.array([pair[i] for pair in asked], np.int64) for i in (0, 1))
    found = runs.first_after(slots, after)
    sums = runs.sum_between(slots, found, runs.end(slots)).tolist()
    for (slot, time), at, total in zip(asked, (found - runs.start(slots)).tolist(), sums, strict=True):
        times = sorted(t for s, t, _ in entries if s == slot)
        assert at == bisect.bisect_right(times, time)
        assert total == sum(value for s, t, value in entries if s == slot and t > time)
    whole = np.arange(SLOTS)
    assert runs.total(whole).tolist() == [sum(v for s, _, v in entries if s == slot) for slot in range(SLOTS)]


def test_first_after_in_runs_of_very_different_length() -> None:
    """Long bisect steps look only at long runs; every run still gets its own answer."""
    runs = runs_for(3)
    insert(runs, [(1, time, 1) for time in range(1000)] + [(2, 5, 1), (2, 7, 1)], 1)
    slots = np.array([0, 1, 1, 1, 2, 2])
    found = runs.first_after(slots, np.array([3, -1, 499, 5000, 4, 5])) - runs.start(slots)
    assert found.tolist() == [0, 0, 500, 1000, 0, 1]
    whale = np.ones(1000, np.int64)
    found = runs.first_after(whale, np.arange(1000)) - runs.start(whale)
    assert found.tolist() == list(range(1, 1001))


@settings(max_examples=100)
@given(ENTRIES, st.lists(st.integers(1, 60), max_size=10), st.integers(0, 21))
def test_entries_can_be_taken_out_replaced_and_cut(
    entries: list[tuple[int, int, int]], touched: list[int], before: int
) -> None:
    """Removing, replacing and cutting leave the sums of the rest right."""
    runs = runs_for(SLOTS)
    insert(runs, entries, 1)
    model = dict(enumerate(entries, 1))
    for turn, fact_id in enumerate(touched):
        if fact_id in model and turn % 2:
            slot, time, _ = model[fact_id]
            model[fact_id] = (slot, time + turn, turn)
            runs.put(slot, time + turn, turn, fact_id)
        else:
            known = fact_id in model
            assert runs.remove(model.pop(fact_id, (0, 0, 0))[0], fact_id) == known
    for slot in range(SLOTS):
        mine = sorted((t, v, i) for i, (s, t, v) in model.items() if s == slot)
        assert sorted(listed(runs, slot)) == mine
        times, values = runs.cut(slot, before)
        gone = [(t, v) for t, v, _ in mine if t < before]
        assert sorted(zip(times.tolist(), values.tolist(), strict=True)) == gone
        assert sorted(listed(runs, slot)) == [entry for entry in mine if entry[0] >= before]


def test_removing_what_is_not_there_says_so() -> None:
    """remove() is False for an id the run does not have, and changes nothing."""
    runs = runs_for(1)
    insert(runs, [(0, 1, 5)], 7)
    assert (runs.remove(0, 8), listed(runs, 0), runs.remove(0, 7), listed(runs, 0)) == (
        False,
        [(1, 5, 7)],
        True,
        [],
    )


def test_a_whale_leaves_the_arena_within_its_bound() -> None:
    """Appending to one run among many keeps the allocated rows below four times those held."""
    runs = runs_for(101)
    insert(runs, [(slot, 0, 1) for slot in range(101)], 1)
    for batch in range(200):
        insert(runs, [(100, batch * 100 + i, 1) for i in range(100)], 1000 + batch * 100)
        assert runs.allocated <= 4 * runs.rows + ROWS_MIN
    assert runs.total(np.arange(101)).tolist() == [1] * 100 + [20001]


@given(ENTRIES, ENTRIES)
def test_series_in_one_arena_do_not_meet(
    orders: list[tuple[int, int, int]], refunds: list[tuple[int, int, int]]
) -> None:
    """Runs that share an arena hold what runs of their own would, also when filled in one call."""
    shared = Entries()
    series = [Runs(shared, number, 2) for number in range(2)]
    series[0].hold_slots(SLOTS)
    alone = [runs_for(SLOTS), runs_for(SLOTS)]
    for runs, entries in zip(alone, (orders, refunds), strict=True):
        insert(runs, entries, 1)
        insert(runs, entries[::2], 1000)
    both = [(slot * 2 + number, *rest) for number in range(2) for slot, *rest in (orders, refunds)[number]]
    columns = np.array(both, np.int64).reshape(-1, 3).T
    ids = np.array([i + 1 for entries in (orders, refunds) for i in range(len(entries))], np.uint64)
    shared.insert(columns[0], columns[1], columns[2], ids)
    for runs, entries in zip(series, (orders, refunds), strict=True):
        insert(runs, entries[::2], 1000)
    for runs, own in zip(series, alone, strict=True):
        assert [listed(runs, slot) for slot in range(SLOTS)] == [listed(own, slot) for slot in range(SLOTS)]
        assert runs.total(np.arange(SLOTS)).tolist() == own.total(np.arange(SLOTS)).tolist()
        assert runs.rows == own.rows
