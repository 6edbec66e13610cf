"""The table says the same as a brute-force oracle, whatever the order, the cuts and the repetitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.customers.facts import NEVER_MS, PENDING_MS, RefundKind, Strings
from streams.customers.profiles import PROFILE_BYTES_MAX, TRAITS_MAX
from streams.customers.table import CustomerTable, Result
from tests.streams.customers.building import (
    Event,
    Oracle,
    all_observed,
    apply,
    facts_of,
    new_table,
    observed,
    profile,
    purchase,
    refund,
    restored,
    sign_up,
)

APPLIED, DUPLICATE, TOO_OLD, REFUSED = Result.APPLIED, Result.DUPLICATE, Result.TOO_OLD, Result.REFUSED

CUSTOMERS = st.sampled_from(["a", "b", "longer-customer-id-3"])
TIMES = st.integers(0, 30)
AMOUNTS = st.integers(0, 6)
ORDERS = st.sampled_from(["o1", "o2", "o3", "o4", "o5"])
EVENTS = st.one_of(
    st.builds(purchase, CUSTOMERS, TIMES, ORDERS, AMOUNTS, st.sampled_from([None, None, "acme", "globex"])),
    # Which order a refund names follows from its id and kind, as contents differing in that alone
    # are settled by a hash.
    st.builds(
        lambda customer, time, number, amount, kind: refund(
            customer, time, f"r{number}", amount, "" if kind == 2 else f"o{number % 5 + 1}", kind
        ),
        CUSTOMERS,
        TIMES,
        st.integers(0, 7),
        AMOUNTS,
        st.sampled_from([RefundKind.REFUND, RefundKind.RETURN, RefundKind.CANCELLATION]),
    ),
    st.builds(
        lambda customer, time, number, plan: profile(customer, time, f"e{number}-{time}-{plan}", plan=plan),
        CUSTOMERS,
        TIMES,
        st.integers(0, 3),
        st.sampled_from([None, "free", "pro", ("x", "y"), 3, True, (5,)]),
    ),
    st.builds(sign_up, CUSTOMERS, TIMES, st.sampled_from(["s1", "s2"])),
)


def cut(draw: st.DrawFn, events: list[Event]) -> list[list[Event]]:
    cuts = sorted(draw(st.lists(st.integers(0, len(events)), max_size=6)))
    return [events[a:b] for a, b in zip([0, *cuts], [*cuts, len(events)], strict=True)]


@st.composite
def two_deliveries(draw: st.DrawFn) -> tuple[list[list[Event]], list[list[Event]]]:
    """The same events twice: cut anyhow, and shuffled with repetitions and cut anyhow."""
    events = draw(st.lists(EVENTS, max_size=60))
    again = draw(
        st.permutations(
            events + draw(st.lists(st.sampled_from(events), max_size=10) if events else st.just([]))
        )
    )
    return cut(draw, events), cut(draw, again)


@settings(max_examples=150)
@given(two_deliveries())
def test_state_is_a_function_of_the_set_of_facts(
    deliveries: tuple[list[list[Event]], list[list[Event]]],
) -> None:
    """Order, chunking, duplicates and the key of the hashes change nothing; the oracle agrees."""
    oracle, first, second = Oracle(), new_table(b"one"), new_table(b"two")
    for chunk in deliveries[0]:
        apply(first, chunk)
        for event in chunk:
            oracle.apply(event)
    for chunk in deliveries[1]:
        apply(second, chunk)
    assert all_observed(first) == oracle.observed()
    assert all_observed(second) == oracle.observed()


@settings(max_examples=100)
@given(st.data())
def test_results_are_those_of_one_event_at_a_time(data: st.DataObject) -> None:
    """One call over many rows gives every row the result it has when it comes alone."""
    events = data.draw(st.lists(EVENTS, max_size=30))
    # Enough repetitions in one call for duplicates to be found by column.
    events += data.draw(st.lists(st.sampled_from(events), max_size=20)) if events else []
    whole, single = new_table(), new_table()
    lines = sorted(data.draw(st.lists(st.integers(-5, 12), min_size=len(events), max_size=len(events))))
    together = apply(whole, events, lines)
    assert together == [apply(single, [e], line)[0] for e, line in zip(events, lines, strict=True)]
    assert all_observed(whole) == all_observed(single)
    assert whole.conflicts == single.conflicts


@settings(max_examples=100)
@given(st.data())
def test_a_restored_table_is_the_table(data: st.DataObject) -> None:
    """Rows taken at any times rebuild the same state, which behaves the same afterwards."""
    events = data.draw(st.lists(EVENTS, max_size=80))
    later = data.draw(st.lists(EVENTS, max_size=30))
    table = new_table()
    rows: dict[bytes, bytes | None] = {}
    for chunk in cut(data.draw, events):
        apply(table, chunk)
        bound = table.dirty_bytes_max
        taken = table.take_rows()
        assert sum(len(key) + len(value or b"") for key, value in taken) <= bound
        rows.update(taken)
    copy = restored(data.draw(st.permutations(list(rows.items()))))
    assert all_observed(copy) == all_observed(table)
    assert apply(copy, later) == apply(table, later)
    assert all_observed(copy) == all_observed(table)


def test_a_new_customer_is_due_never_and_after_a_fact_at_any_clock() -> None:
    """Adding a slot makes nobody due; an applied fact makes its customer pending."""
    table = new_table()
    apply(table, [purchase("a", 5, "o", 1)])
    table.slots.find_or_add(Strings.from_list([b"b"]))
    assert table.due_ms[: table.count].tolist() == [PENDING_MS, NEVER_MS]
    assert table.customers_due(-(10**15)).tolist() == [0]


def test_a_duplicate_wakes_nobody() -> None:
    """A fact that is known leaves its customer clean and not due."""
    table = new_table()
    apply(table, [purchase("a", 5, "o", 1), sign_up("a", 3, "s", plan="pro")])
    table.take_rows()
    table.due_ms[0] = 77
    assert apply(table, [purchase("a", 5, "o", 1), sign_up("a", 3, "s", plan="pro")]) == [
        DUPLICATE,
        DUPLICATE,
    ]
    assert (table.dirty_count, table.take_rows(), table.due_ms[0]) == (0, [], 77)


def test_one_id_in_three_families_is_three_facts() -> None:
    """An order, a refund and another event may share an id."""
    table = new_table()
    assert (
        apply(table, [purchase("a", 5, "x", 9), refund("a", 6, "x", 2), sign_up("a", 4, "x")])
        == [APPLIED] * 3
    )
    assert observed(table, 0)["lifetime"] == (1, 9, 2)


def test_an_order_is_never_worth_less_than_nothing() -> None:
    """Refunds beyond what was paid leave 0, not a debt, and another refund changes nothing."""
    table = new_table()
    apply(table, [purchase("a", 5, "o", 10), purchase("a", 6, "p", 10), refund("a", 7, "r", 25, "o")])
    assert observed(table, 0)["orders"] == [(6, 10)]
    apply(table, [refund("a", 8, "q", 1, "o")])
    assert observed(table, 0)["lifetime"] == (1, 10, 0)


def test_a_refund_waits_for_its_order() -> None:
    """Until the order comes the refund reduces nothing; then it reduces the order."""
    table = new_table()
    assert apply(table, [refund("a", 7, "r", 4, "o")]) == [APPLIED]
    assert observed(table, 0)["lifetime"] == (0, 0, 4)
    assert apply(table, [purchase("a", 5, "o", 10)]) == [APPLIED]
    assert observed(table, 0)["orders"] == [(5, 6)]


def test_the_least_content_wins_and_the_loser_is_counted() -> None:
    """Of two contents under one order id the earlier, then the smaller, is the order."""
    table = new_table()
    events = [
        purchase("a", 5, "o", 10),
        purchase("a", 6, "o", 1),
        purchase("a", 5, "o", 9),
        purchase("a", 5, "o", 9),
    ]
    assert apply(table, events) == [APPLIED, DUPLICATE, APPLIED, DUPLICATE]
    assert (table.conflicts, observed(table, 0)["orders"]) == (2, [(5, 9)])


def test_which_order_a_conflicting_refund_names_does_not_depend_on_the_key() -> None:
    """Two refunds that differ in their order only: one wins, under every key and in both orders."""
    both = [refund("a", 7, "r", 4, "o1"), refund("a", 7, "r", 4, "o2")]
    orders = [purchase("a", 5, "o1", 10), purchase("a", 6, "o2", 10)]
    found = []
    for number in range(20):
        table = new_table(b"%d" % number)
        apply(table, [*orders, *(both if number % 2 else reversed(both))])
        found.append(observed(table, 0)["orders"])
    assert found.count(found[0]) == 20


def test_what_is_older_than_the_fold_line_changes_nothing() -> None:
    """A fact before the line is too old, one at the line is not."""
    table = new_table()
    events = [purchase("a", 9, "o", 1), purchase("a", 10, "p", 1), profile("a", 9, "e", plan="pro")]
    assert apply(table, events, 10) == [TOO_OLD, APPLIED, TOO_OLD]
    assert observed(table, 0)["orders"] == [(10, 1)]
    assert table.traits(0) == {}


def test_a_refund_of_an_order_past_the_fold_line_only_counts_for_the_lifetime() -> None:
    """The order keeps its net; the refund is a lifetime refund, after a restore too."""
    table = new_table()
    apply(table, [purchase("a", 5, "o", 10)], 0)
    apply(table, [refund("a", 20, "r", 4, "o")], 10)
    assert (observed(table, 0)["orders"], observed(table, 0)["lifetime"]) == ([(5, 10)], (1, 10, 4))
    assert all_observed(restored(table.take_rows())) == all_observed(table)


def test_traits_beyond_the_bound_are_refused() -> None:
    """An event that would make the profile too large changes nothing; small ones still go through."""
    table = new_table()
    huge = "x" * PROFILE_BYTES_MAX
    assert apply(table, [profile("a", 1, "e1", plan="pro"), profile("a", 2, "e2", note=huge)]) == [
        APPLIED,
        REFUSED,
    ]
    assert apply(table, [profile("a", 2, "e2", note="short")]) == [APPLIED]
    many = {f"t{number}": number for number in range(TRAITS_MAX)}
    assert apply(table, [profile("a", 3, "e3", **many)]) == [REFUSED]
    assert table.traits(0) == {"plan": "pro", "note": "short"}


def test_an_event_that_sets_older_traits_changes_none_and_is_still_a_fact() -> None:
    """The stamp decides, not arrival; null deletes and is stamped."""
    table = new_table()
    apply(table, [profile("a", 5, "e5", plan=None), profile("a", 3, "e3", plan="pro", tier=1)])
    assert table.traits(0) == {"tier": 1}
    assert observed(table, 0)["others"] == [(3, 0), (5, 0)]


def test_wrong_dimensions_are_an_error() -> None:
    """Literals must come for each dimension."""
    with pytest.raises(ValueError, match="1 dimensions, but literals for 0"):
        CustomerTable(fact_key=b"", dimensions=("rfm",), values=())


def test_only_the_given_rows_are_applied() -> None:
    """apply() takes any rows of a chunk, so that a step can go in rounds."""
    table = new_table()
    facts = facts_of([purchase("a", 1, "o1", 1), purchase("b", 2, "o2", 2), purchase("a", 3, "o3", 3)])
    slots = table.slots.find_or_add(facts.customer)
    for rows in ([2], [0, 1]):
        table.apply(facts, np.array(rows), slots[rows], np.zeros(len(rows), np.int64))
    assert observed(table, 0)["orders"] == [(1, 1), (3, 3)]
    assert observed(table, 1)["orders"] == [(2, 2)]


def test_of_two_traits_of_one_instant_the_greater_event_id_wins() -> None:
    """Whichever comes first."""
    both = [profile("a", 5, "e1", plan="pro"), profile("a", 5, "e2", plan="free")]
    for events in (both, both[::-1]):
        table = new_table()
        for event in events:
            apply(table, [event])
        assert table.traits(0) == {"plan": "free"}


def test_many_contents_under_known_ids_are_conflicts_not_duplicates() -> None:
    """Same id and time, another amount: the smaller wins, however many come in one call."""
    table = new_table()
    apply(table, [purchase("a", i, f"o{i}", 5) for i in range(40)])
    events = [purchase("a", i, f"o{i}", 5 + (i % 3) - 1) for i in range(40)]
    assert apply(table, events) == [APPLIED if i % 3 == 0 else DUPLICATE for i in range(40)]
    assert table.conflicts == sum(1 for i in range(40) if i % 3 != 1)
