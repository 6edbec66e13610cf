"""Any tree of nodes: its truth against a scalar reading of the same tree, its deadline never late."""

from __future__ import annotations

import operator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.segments.choices import FirstMatch
from streams.segments.conditions import And, Compare, HasPaid, Not, Or, Returned
from streams.segments.measures import BOUND, Age, Bands, Count, Net, PaidAt, Sum
from streams.segments.view import FAR_MS, Plan, View, Window

T0 = 1_000_000
COMPARISONS = {
    ">=": operator.ge,
    ">": operator.gt,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
OPERATORS = tuple(COMPARISONS)

# Short windows over few instants, so that edges of different facts and windows meet.
entries = st.lists(st.tuples(st.integers(T0 - 60, T0 + 2), st.integers(1, 9)), max_size=9)
lengths = st.sampled_from((5, 10, 20))
thresholds = st.integers(-6, 25)
measures = st.one_of(
    st.tuples(st.just("count"), st.sampled_from(("orders", "refunds")), lengths),
    st.tuples(st.just("sum"), st.sampled_from(("orders", "refunds")), lengths),
    st.tuples(st.just("net"), st.just(""), lengths),
    st.tuples(st.just("age"), st.sampled_from(("first", "last")), st.just(0)),
    st.tuples(st.just("bands"), st.just(""), lengths),
)
leaves = st.one_of(
    st.tuples(st.just("compare"), measures, st.sampled_from(OPERATORS), thresholds),
    st.just(("paid",)),
    st.tuples(st.just("returned"), lengths),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(("and", "or")), st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=5,
)
EDGES = (2, 5, 9)


def build_measure(shape):
    """Make the node of a measure."""
    name, of, length = shape
    made = {
        "count": lambda: Count(Window(of, length)),
        "sum": lambda: Sum(Window(of, length)),
        "net": lambda: Net(length),
        "age": lambda: Age(PaidAt(of)),
        "bands": lambda: Bands(Net(length), EDGES),
    }
    return made[name]()


def build(tree):
    """Make the node of a condition."""
    if tree[0] == "compare":
        return Compare(build_measure(tree[1]), tree[2], tree[3])
    if tree[0] == "paid":
        return HasPaid()
    if tree[0] == "returned":
        return Returned(tree[1], 25)
    if tree[0] == "not":
        return Not(build(tree[1]))
    return (And if tree[0] == "and" else Or)(*map(build, tree[1]))


def measured(shape, orders, refunds, now):
    """Read a measure, None when it is missing."""
    name, of, length = shape
    inside = {
        series: [v for t, v in side if t + length > now]
        for series, side in (("orders", orders), ("refunds", refunds))
    }
    net = sum(inside["orders"]) - sum(inside["refunds"])
    if name == "age":
        paid = [t for t, _ in orders]
        return max(0, now - (min if of == "first" else max)(paid)) if paid else None
    if name == "bands":
        return 1 + sum(net >= edge for edge in EDGES)
    return net if name == "net" else (len if name == "count" else sum)(inside[of])


def truth(tree, orders, refunds, now):
    """Read a condition."""
    if tree[0] == "compare":
        value = measured(tree[1], orders, refunds, now)
        if value is None:
            return False
        k = tree[3]
        return COMPARISONS[tree[2]](value, k)
    if tree[0] == "paid":
        return bool(orders)
    if tree[0] == "returned":
        paid = sorted(t for t, _ in orders)
        pairs = pairwise(paid)
        return any(t + tree[1] > now and t - before >= 25 for before, t in pairs)
    if tree[0] == "not":
        return not truth(tree[1], orders, refunds, now)
    return (all if tree[0] == "and" else any)(truth(child, orders, refunds, now) for child in tree[1])


def view_of(table, node, now: int) -> View:
    """Look at the first customer at one instant."""
    return View(table, np.array([0]), np.array([now]), Plan(node.windows()))


@settings(max_examples=400, deadline=None)
@given(tree=trees, orders=entries, refunds=entries, now=st.integers(T0, T0 + 40))
def test_a_condition_is_true_when_read_so_and_flips_no_sooner_than_due(
    tree, orders, refunds, now, table_of
) -> None:
    """Truth equals the scalar reading; from now to 1 ms before the deadline it stays what it is."""
    node = build(tree)
    view = view_of(table_of([(orders, refunds)]), node, now)
    held, due = bool(view.value(node)[0]), int(view.due(node)[0])
    assert held == truth(tree, orders, refunds, now)
    assert due > now
    # After 100 ms everything has left every window and no age passes another threshold.
    for moment in range(now, min(due, now + 100)):
        assert truth(tree, orders, refunds, moment) == held, (moment, due)


@settings(max_examples=200, deadline=None)
@given(
    cases=st.lists(trees, min_size=1, max_size=4),
    orders=entries,
    refunds=entries,
    now=st.integers(T0, T0 + 40),
)
def test_first_match_is_the_first_that_holds_until_due(cases, orders, refunds, now, table_of) -> None:
    """The code is that of the first true case, and stays so until the deadline."""
    node = FirstMatch([(build(tree), code) for code, tree in enumerate(cases)], otherwise=99)
    view = view_of(table_of([(orders, refunds)]), node, now)
    code, due = int(view.value(node)[0]), int(view.due(node)[0])
    assert due > now
    for moment in range(now, min(due, now + 100)):
        held = [truth(tree, orders, refunds, moment) for tree in cases]
        assert (held.index(True) if any(held) else 99) == code


@settings(max_examples=200, deadline=None)
@given(
    shape=measures,
    sign=st.sampled_from(OPERATORS),
    k=thresholds,
    orders=entries,
    now=st.integers(T0 + 2, T0 + 40),
)
def test_without_refunds_a_comparisons_deadline_is_exact(shape, sign, k, orders, now, table_of) -> None:
    """Where time moves a measure one way only, a deadline inside the next 100 ms is a real flip."""
    if shape[0] == "bands":
        return
    tree = ("compare", shape, sign, k)
    node = build(tree)
    view = view_of(table_of([(orders, [])]), node, now)
    due = int(view.due(node)[0])
    # `== k` may leave a band for one beyond the other cut at once; `!=` likewise. Both skip k.
    if sign in ("==", "!="):
        return
    if due < FAR_MS:
        assert truth(tree, orders, [], due) != truth(tree, orders, [], due - 1)


def test_what_never_changes_by_time_has_no_deadline(table_of) -> None:
    """Whether someone ever paid is settled by orders alone, whatever is around it."""
    node = Not(HasPaid())
    view = view_of(table_of([([], [])]), node, T0)
    assert view.value(node).tolist() == [True]
    assert view.due(node).tolist() == [FAR_MS]


def test_a_false_partner_that_time_cannot_change_silences_and(table_of) -> None:
    """`never paid and 1 order` cannot become true by time, so nobody is woken for it."""
    node = And(Not(HasPaid()), Compare(Count(Window("orders", 10)), ">=", 1))
    view = view_of(table_of([([(T0, 1)], [])]), node, T0)
    assert view.due(node).tolist() == [FAR_MS]


def test_windows_of_one_series_are_searched_once(table_of, monkeypatch) -> None:
    """However many windows a tree reads, there is one search per series."""
    calls = []
    from streams.segments import view as module

    search = module.first_above
    monkeypatch.setattr(module, "first_above", lambda *args: calls.append(1) or search(*args))
    node = And(*(Compare(Count(Window("orders", length)), ">=", 0) for length in (5, 10, 20)))
    view = view_of(table_of([([(T0, 1)], [])]), node, T0)
    assert view.value(node).tolist() == [True]
    assert len(calls) == 1


def test_sums_near_the_stated_bound_do_not_overflow(table_of) -> None:
    """Just below 2**61 in total, values and deadlines are still exact."""
    most = BOUND - 10
    node = Compare(Net(10), ">=", most)
    view = view_of(table_of([([(T0, most - 1), (T0 + 1, 1)], [])]), node, T0 + 2)
    assert view.value(node).tolist() == [True]
    assert view.due(node).tolist() == [T0 + 10]


@pytest.mark.parametrize("edges", [(3, 2), (2, 2)])
def test_edges_must_ascend(edges: tuple[int, int]) -> None:
    """Bands refuse edges that do not ascend strictly."""
    with pytest.raises(ValueError, match="strictly ascending"):
        Bands(Net(10), edges)


def test_a_return_needs_a_silence_longer_than_its_window() -> None:
    """Otherwise not only the first order of the window could end a silence."""
    with pytest.raises(ValueError, match="expected less than silence_ms"):
        Returned(25, 25)


def test_joining_nothing_is_refused() -> None:
    """`and` of no conditions has no meaning here."""
    with pytest.raises(ValueError, match="at least one"):
        And()


def test_an_age_is_never_negative(table_of) -> None:
    """An order dated a little ahead has age 0 until its time has come."""
    node = Compare(Age(PaidAt("last")), ">=", 0)
    view = view_of(table_of([([(T0 + 2, 1)], [])]), node, T0)
    assert view.value(node).tolist() == [True]
    assert view.value(node.measure).tolist() == [0]
