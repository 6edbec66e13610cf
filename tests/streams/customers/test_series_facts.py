"""Series say the same as a brute-force oracle, whatever the order, the cuts, the repetitions and restarts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.customers.changes import PlanChange
from streams.customers.facts import Facts, Kind, RefundKind, SeriesEntries
from streams.customers.rows import Restorer
from streams.customers.series import Comparison, Series
from streams.customers.series_facts import DAY_MS
from streams.customers.series_layout import link_of
from streams.customers.table import CustomerTable, Result
from tests.streams.customers.building import DIMENSIONS, VALUES, Event, facts_of, observed, purchase, refund

COUNT = Series("activity", "export")
SUM = Series("activity", "export", value="bytes")
OTHER = Series("activity", "import", distinct=True, value="file")
DAYS = Series("active_day")
NAMED_DAYS = Series("active_day", "export")
SHARE = Series("order", where=Comparison("category", "==", "books"))
SKUS = Series("order", value="sku", distinct=True)
ALL = (COUNT, DAYS, SHARE, SUM, SKUS, OTHER, NAMED_DAYS)
PLACE = {series: place for place, series in enumerate(ALL)}

Said = tuple[tuple[Series, int, int], ...]
"""(series, value, whole) of each entry of one event."""


@dataclass(frozen=True)
class Telling:
    """An event and what it adds to series, as the reader would say it."""

    event: Event
    says: Said = ()


def activity(customer: str, time: int, event_id: str, *says: tuple[Series, int]) -> Telling:
    """An activity; every one makes a day."""
    event = Event(Kind.ACTIVITY, customer, time, event_id)
    return Telling(event, ((DAYS, 1, 0), *((series, value, 0) for series, value in says)))


def order(customer: str, time: int, order_id: str, amount: int, *says: tuple[Series, int, int]) -> Telling:
    """An order and what its lines say."""
    return Telling(purchase(customer, time, order_id, amount), ((DAYS, 1, 0), *says))


def told(tellings: Sequence[Telling], series: tuple[Series, ...] = ALL) -> Facts:
    """Pack events with their entries, for a table that declares `series`."""
    entries = [
        (row, series.index(each), value, whole)
        for row, telling in enumerate(tellings)
        for each, value, whole in telling.says
        if each in series
    ]
    entries.sort()
    columns = np.array(entries, np.int64).reshape(len(entries), 4)
    facts = facts_of([telling.event for telling in tellings])
    return replace(facts, entries=SeriesEntries(*(np.ascontiguousarray(columns[:, i]) for i in range(4))))


def new_table(series: tuple[Series, ...] = ALL, **since: int) -> CustomerTable:
    return CustomerTable(
        fact_key=b"key", dimensions=DIMENSIONS, values=VALUES, series=series, complete_since_ms=since
    )


def tell(
    table: CustomerTable, tellings: Sequence[Telling], line: int = -1000, series: Any = ALL
) -> list[int]:
    facts = told(tellings, series)
    slots = table.slots.find_or_add(facts.customer)
    return table.apply(facts, np.arange(len(tellings)), slots, np.full(len(tellings), line)).tolist()


def restored(table: CustomerTable, rows: dict[bytes, bytes | None], series: Any = ALL) -> CustomerTable:
    copy = new_table(series)
    restorer = Restorer(copy)
    for key, value in rows.items():
        restorer.add(key, value)
    restorer.finish()
    return copy


def run_of(table: CustomerTable, series: Series, slot: int) -> list[tuple[int, int]]:
    """A run's (time, value) pairs, sorted; of days only the time, which is all that is read of them."""
    histories, one = table.series(series.key), np.array([slot])
    start, end = int(histories.start(one)[0]), int(histories.end(one)[0])
    times = histories.times[start:end].tolist()
    assert times == sorted(times)
    values = np.diff(histories.sums[start:end], prepend=0).tolist()
    return sorted(zip(times, values, strict=True))


def seen(table: CustomerTable, series: tuple[Series, ...] = ALL) -> dict[str, Any]:
    return {
        table.slots.id_of(slot).decode(): {each.key: run_of(table, each, slot) for each in series}
        for slot in range(table.count)
    }


def rank(telling: Telling) -> tuple[Any, ...]:
    """Of several contents of an activity, or of an order's lines, the least stands."""
    says = [(link_of(s.key, 0), v, w) for s, v, w in telling.says if s.event != "active_day"]
    return (telling.event.time, sorted(says))


def expected(tellings: Sequence[Telling]) -> dict[str, Any]:
    """What the rules say, as plainly as possible."""
    found: dict[str, Any] = {}
    for customer in {telling.event.customer for telling in tellings}:
        mine = [telling for telling in tellings if telling.event.customer == customer]
        runs: dict[Series, list[tuple[int, int]]] = {series: [] for series in ALL}
        for series in (DAYS, NAMED_DAYS):
            times = [t.event.time for t in mine if any(s is series for s, _, _ in t.says)]
            firsts: dict[int, int] = {}
            for time in sorted(times, reverse=True):
                firsts[time // DAY_MS * DAY_MS] = time % DAY_MS
            runs[series] = sorted(firsts.items())
        activities: dict[str, Telling] = {}
        for telling in sorted(
            (t for t in mine if t.event.kind == Kind.ACTIVITY and len(rank(t)[1])), key=rank
        ):
            activities.setdefault(telling.event.id, telling)
        for telling in activities.values():
            for series, value, _ in telling.says:
                if series.event == "activity":
                    runs[series].append((telling.event.time, value))
        _orders(mine, runs)
        found[customer] = {series.key: sorted(runs[series]) for series in ALL}
    return found


def _orders(mine: list[Telling], runs: dict[Series, list[tuple[int, int]]]) -> None:
    orders: dict[str, list[Telling]] = {}
    refunds: dict[str, Event] = {}
    for telling in mine:
        if telling.event.kind == Kind.PURCHASED:
            orders.setdefault(telling.event.id, []).append(telling)
        elif telling.event.kind == Kind.REFUNDED:
            held = refunds.get(telling.event.id)
            key = (telling.event.time, telling.event.amount)
            if held is None or key < (held.time, held.amount):
                refunds[telling.event.id] = telling.event
    for order_id, tellings in orders.items():
        time, paid = min((t.event.time, t.event.amount) for t in tellings)
        standing = [t for t in tellings if (t.event.time, t.event.amount) == (time, paid) and rank(t)[1]]
        net = max(0, paid - sum(r.amount for r in refunds.values() if r.order == order_id))
        linked = [r for r in refunds.values() if r.order == order_id]
        if any(r.refund_kind == RefundKind.CANCELLATION for r in linked):
            net = 0
        if standing and net:
            for series, value, whole in min(standing, key=rank).says:
                if series is SHARE:
                    runs[series].append((time, net * value // whole if whole else 0))
                elif series is SKUS:
                    runs[series].append((time, value))


CUSTOMERS = st.sampled_from(["a", "b"])
HOURS = st.integers(0, 9).map(lambda number: number * (DAY_MS // 3))
HASHES = st.sampled_from([-(1 << 63), (1 << 63) - 1, 7])
TELLINGS = st.one_of(
    st.builds(
        lambda customer, time, number, says: activity(customer, time, f"e{number}", *says),
        CUSTOMERS,
        HOURS,
        st.integers(0, 4),
        st.lists(
            st.one_of(
                st.tuples(st.just(COUNT), st.just(1)),
                st.tuples(st.just(SUM), st.sampled_from([-5, 0, 9])),
                st.tuples(st.just(OTHER), HASHES),
                st.tuples(st.just(NAMED_DAYS), st.just(1)),
            ),
            max_size=3,
            unique_by=lambda said: said[0],
        ),
    ),
    st.builds(
        lambda customer, time, number, amount, part, hashes: order(
            customer,
            time,
            f"o{number}",
            amount,
            *([(SHARE, min(part), max(part))] if part else []),
            *((SKUS, value, 0) for value in hashes),
        ),
        CUSTOMERS,
        HOURS,
        st.integers(0, 4),
        st.integers(0, 7),
        st.none() | st.tuples(st.integers(0, 5), st.integers(0, 5)),
        st.sets(HASHES),
    ),
    st.builds(
        lambda customer, time, number, amount, kind: Telling(
            refund(customer, time, f"r{number}", amount, f"o{number % 5}", kind)
        ),
        CUSTOMERS,
        HOURS,
        st.integers(0, 7),
        st.integers(0, 4),
        st.sampled_from([RefundKind.REFUND, RefundKind.CANCELLATION]),
    ),
)


def unambiguous(tellings: list[Telling]) -> list[Telling]:
    """Leave out contents of a refund that differ in its kind alone, which is settled by what is on record."""
    kinds: dict[tuple[str, str], RefundKind] = {}
    return [
        t
        for t in tellings
        if t.event.kind != Kind.REFUNDED
        or kinds.setdefault((t.event.customer, t.event.id), t.event.refund_kind) == t.event.refund_kind
    ]


@settings(max_examples=150)
@given(st.data(), st.lists(TELLINGS, max_size=40).map(unambiguous))
def test_series_are_a_function_of_the_set_of_facts(data: st.DataObject, tellings: list[Telling]) -> None:
    """Any order, chunking, repetition and restart in between: the oracle's runs, and nothing else."""
    wanted = expected(tellings)
    table = new_table()
    tell(table, tellings)
    assert seen(table) == wanted
    again = data.draw(st.permutations(tellings))
    if tellings:
        again += data.draw(st.lists(st.sampled_from(tellings), max_size=10))
    other, rows = new_table(), dict[bytes, bytes | None]()
    while again:
        count = data.draw(st.integers(1, len(again)))
        tell(other, again[:count])
        again = again[count:]
        if data.draw(st.booleans()):
            rows.update(other.take_rows())
            other = restored(other, rows)
    assert seen(other) == wanted
    rows.update(other.take_rows())
    assert seen(restored(other, rows)) == wanted


@settings(max_examples=100)
@given(st.lists(TELLINGS, max_size=30))
def test_results_are_those_of_one_event_at_a_time(tellings: list[Telling]) -> None:
    """One call over many rows gives every row the result it has when it comes alone."""
    whole, single = new_table(), new_table()
    assert tell(whole, tellings) == [tell(single, [telling])[0] for telling in tellings]
    assert seen(whole) == seen(single)


@settings(max_examples=100)
@given(st.lists(TELLINGS, max_size=25), st.permutations(ALL), st.integers(0, len(ALL)))
def test_an_edit_keeps_the_facts_of_the_series_it_keeps(
    tellings: list[Telling], order_after: list[Series], kept: int
) -> None:
    """Declared in another order, some no longer: a restored table knows the same of those that stay."""
    table = new_table()
    tell(table, tellings)
    rows = dict(table.take_rows())
    series = tuple(order_after[:kept])
    copy = restored(table, rows, series)
    if {s for s in series if s.event != "order"} == {s for s in ALL if s.event != "order"}:
        assert seen(copy, series) == {
            c: {s.key: runs[s.key] for s in series} for c, runs in seen(table).items()
        }
    assert [observed(copy, slot) for slot in range(copy.count)] == [
        observed(table, int(table.slots.find(_one(copy.slots.id_of(slot)))[0])) for slot in range(copy.count)
    ]


def _one(identity: bytes) -> Any:
    from streams.customers.facts import Strings

    return Strings.from_list([identity])


def test_a_series_declared_again_does_not_take_facts_from_before_it_was_dropped() -> None:
    """What stands for a series on record depends on since when it is complete."""
    table = new_table()
    tell(table, [activity("a", 5, "e", (COUNT, 1), (SUM, 3))])
    copy = new_table((COUNT, SUM), **{COUNT.key: 77})
    restorer = Restorer(copy)
    for key, value in table.take_rows():
        restorer.add(key, value)
    restorer.finish()
    assert run_of(copy, COUNT, 0) == []
    assert run_of(copy, SUM, 0) == [(5, 3)]


def test_a_refund_and_its_end_move_the_shares_of_its_order() -> None:
    """Half of the order gone, then all of it, then a lesser refund stands again: the share follows."""
    table = new_table()
    tell(table, [order("a", 5, "o", 101, (SHARE, 1, 3), (SKUS, 7, 0))])
    assert (run_of(table, SHARE, 0), run_of(table, SKUS, 0)) == ([(5, 33)], [(5, 7)])
    tell(table, [Telling(refund("a", 8, "r", 50, "o"))])
    assert run_of(table, SHARE, 0) == [(5, 17)]
    tell(table, [Telling(refund("a", 9, "s", 51, "o"))])
    assert (run_of(table, SHARE, 0), run_of(table, SKUS, 0)) == ([], [])
    tell(table, [Telling(refund("a", 7, "s", 1, "o"))])
    assert (run_of(table, SHARE, 0), run_of(table, SKUS, 0)) == ([(5, 16)], [(5, 7)])


def test_an_activity_nothing_keeps_makes_a_customer_and_touches_no_other() -> None:
    """The first makes its customer pending; the next one changes nothing, not even a row."""
    table = new_table(())
    first, second = (Telling(Event(Kind.ACTIVITY, "a", at, f"e{at}")) for at in (5, 6))
    assert tell(table, [first, second], series=()) == [Result.APPLIED, Result.IDLE]
    table.take_rows()
    table.value[0] = 0
    assert tell(table, [first, second], series=()) == [Result.IDLE, Result.IDLE]
    assert table.dirty_count == 0


def test_a_day_is_kept_once_and_costs_nothing_more() -> None:
    """Of a day only what came earlier than all before it is news."""
    table = new_table((DAYS,))
    hour = DAY_MS // 24
    tellings = [activity("a", at, f"e{at}") for at in (5 * hour, 7 * hour, 4 * hour, DAY_MS, 6 * hour)]
    table.value[0] = 0
    found = tell(table, tellings, series=(DAYS,))
    assert found == [Result.APPLIED, Result.IDLE, Result.APPLIED, Result.APPLIED, Result.IDLE]
    assert run_of(table, DAYS, 0) == [(0, 4 * hour), (DAY_MS, 0)]


def test_folding_takes_series_with_it() -> None:
    """Facts past the fold line leave runs and pages together, also after a restart."""
    table = new_table()
    old = [activity("a", 10 * DAY_MS + i, f"e{i}", (COUNT, 1), (SUM, 1)) for i in range(20)]
    late = [activity("a", 50 * DAY_MS + i, f"l{i}", (COUNT, 1)) for i in range(40)]
    tell(table, old)
    tell(table, late, line=40 * DAY_MS)
    assert len(run_of(table, COUNT, 0)) == 40
    rows = dict(table.take_rows())
    assert seen(restored(table, rows)) == seen(table)


def test_a_lost_content_does_not_come_back_when_the_other_is_folded() -> None:
    """What won is older than what lost: they are folded together or not at all."""
    table, rows = new_table(), dict[bytes, bytes | None]()
    tell(table, [activity("a", 41 * DAY_MS, "e", (COUNT, 1)), activity("a", 10 * DAY_MS, "e", (COUNT, 1))])
    for i in range(80):
        tell(table, [activity("a", 60 * DAY_MS + i, f"l{i}", (COUNT, 1))], line=(20 + i // 4) * DAY_MS)
        rows.update(table.take_rows())
    assert seen(restored(table, rows)) == seen(table)


def test_changes_are_stored_in_the_row_and_bounded_beforehand() -> None:
    """The row that is written is never longer than was said, and restores the same subscriptions."""
    table = new_table(())
    events = [Event(Kind.PLAN_CHANGED, "a", at, f"e{at}") for at in range(60)]
    changes = {
        at: PlanChange(at, f"e{at}".encode(), "s", "renewed", plan="pro" * 20, mrr_minor=at)
        for at in range(60)
    }
    facts = replace(facts_of(events), changes=changes)
    slots = table.slots.find_or_add(facts.customer)
    for rows in (np.arange(20), np.arange(60)):
        results = table.apply(facts, rows, slots[rows], np.zeros(len(rows), np.int64))
    assert results.tolist() == [Result.DUPLICATE] * 20 + [Result.APPLIED] * 40
    bound = table.dirty_bytes_max
    taken = table.take_rows()
    assert sum(len(key) + len(value or b"") for key, value in taken) <= bound
    copy = restored(table, dict(taken), ())
    assert copy.subscriptions(slots[:1]) == table.subscriptions(slots[:1])
    assert copy.standings(slots[:1])[0].payments_ms == tuple(range(1, 60))


def test_a_change_beyond_the_bound_is_refused() -> None:
    """It changes nothing, and its customer is not touched."""
    table = new_table(())
    change = PlanChange(5, b"e", "s", "started", plan="x" * (64 << 10))
    facts = replace(facts_of([Event(Kind.PLAN_CHANGED, "a", 5, "e")]), changes={0: change})
    slots = table.slots.find_or_add(facts.customer)
    assert table.apply(facts, np.arange(1), slots, np.zeros(1, np.int64)).tolist() == [Result.REFUSED]
    assert table.dirty_count == 0


def test_a_series_is_declared_once() -> None:
    """Two of one key would be one set of facts under two numbers."""
    with pytest.raises(ValueError, match="declared twice"):
        new_table((COUNT, COUNT))


def test_lines_go_with_the_content_of_the_order_that_lost() -> None:
    """A lesser content of an order that says nothing of lines takes those of the greater one away."""
    for tellings in (
        [order("a", 5, "o", 9, (SHARE, 1, 3), (SKUS, 7, 0)), order("a", 5, "o", 8)],
        [order("a", 5, "o", 8), order("a", 5, "o", 9, (SHARE, 1, 3), (SKUS, 7, 0))],
    ):
        table = new_table()
        for telling in tellings:
            tell(table, [telling])
        assert (run_of(table, SHARE, 0), run_of(table, SKUS, 0)) == ([], [])


def test_of_lines_told_twice_of_one_order_the_least_stand_in_any_order() -> None:
    """Same instant and amount, other lines: settled by what they say, also when both are on record."""
    both = [order("a", 5, "o", 9, (SHARE, part, 3), (SKUS, part, 0)) for part in (1, 2, 3)]
    least = min(both, key=rank)
    wanted = expected([least])["a"]
    for tellings in (both, both[::-1], [both[1], both[0], both[2]]):
        table, rows = new_table(), dict[bytes, bytes | None]()
        for telling in tellings:
            tell(table, [telling])
            rows.update(table.take_rows())
        assert seen(table)["a"] == wanted
        assert seen(restored(table, rows))["a"] == wanted


def test_what_was_folded_is_still_told() -> None:
    """How often, how much, first and last, of each series; days count as days; also after a restart."""
    table = new_table()
    old = [activity("a", 10 * DAY_MS + 7 * i, f"e{i}", (COUNT, 1), (SUM, i)) for i in range(20)]
    tell(table, old)
    tell(table, [activity("a", 50 * DAY_MS + i, f"l{i}", (COUNT, 1)) for i in range(40)], line=40 * DAY_MS)
    bound = table.dirty_bytes_max
    rows = dict(table.take_rows())
    assert sum(len(key) + len(value or b"") for key, value in rows.items()) <= bound
    one = np.array([0])
    for each in (table, restored(table, rows)):
        found = {series: [int(column[0]) for column in each.folded(series.key, one)] for series in ALL}
        assert found[COUNT] == [20, 20, 10 * DAY_MS, 10 * DAY_MS + 133]
        assert found[SUM] == [20, 190, 10 * DAY_MS, 10 * DAY_MS + 133]
        assert found[DAYS] == [1, 1, 10 * DAY_MS, 10 * DAY_MS]
        assert found[SHARE][:2] == [0, 0]
