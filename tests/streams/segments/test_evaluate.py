"""Values, scores and deadlines against a scalar oracle that knows nothing of nodes or NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.customers.facts import NEVER_MS
from streams.segments.evaluate import Evaluator
from streams.segments.loading import default_definition

DAY = 86_400_000
HOUR = DAY // 24
T0 = 1_300_000_000_000
EDGES_DAYS = (0, 30, 60, 90, 180, 365)
GRID = {
    5: "new potential_loyalist potential_loyalist champions champions",
    4: "promising potential_loyalist potential_loyalist loyal loyal",
    3: "about_to_sleep about_to_sleep need_attention loyal loyal",
    2: "hibernating hibernating at_risk at_risk cant_lose",
    1: "lost lost at_risk at_risk cant_lose",
}
EVALUATOR = Evaluator(default_definition())

Entries = list[tuple[int, int]]


@dataclass(frozen=True)
class Expected:
    segment: str
    lifecycle: str
    scores: tuple[int, int, int]
    last: int
    orders: int
    net: int


def _score(value: int, thresholds: tuple[int, ...]) -> int:
    return 1 + sum(value >= threshold for threshold in thresholds)


def oracle(orders: Entries, refunds: Entries, now: int) -> Expected:
    """Say by the rules, one fact at a time, what a customer is at one instant."""
    window = [(t, v) for t, v in orders if t + 365 * DAY > now]
    net = sum(v for _, v in window) - sum(v for t, v in refunds if t + 365 * DAY > now)
    if not orders:
        return Expected("prospect", "lead", (0, 0, 0), NEVER_MS, 0, net)
    paid = sorted(t for t, _ in orders)
    gap, tenure = max(0, now - paid[-1]), max(0, now - paid[0])
    r = 6 - _score(gap, (30 * DAY, 60 * DAY, 90 * DAY, 180 * DAY))
    f = _score(len(window), (2, 3, 6, 12))
    m = _score(net, (100_00, 250_00, 500_00, 1000_00))
    column = {2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 7: 3, 8: 4, 9: 5, 10: 5}[f + m]
    back = any(t + 30 * DAY > now and t - before >= 180 * DAY for before, t in pairwise(paid))
    if gap >= 180 * DAY:
        lifecycle = "churned"
    elif back:
        lifecycle = "reactivated"
    elif gap >= 60 * DAY:
        lifecycle = "at_risk"
    elif tenure < 30 * DAY:
        lifecycle = "new"
    elif tenure >= 180 * DAY and r >= 4 and f >= 4:
        lifecycle = "loyal"
    else:
        lifecycle = "active"
    return Expected(GRID[r].split()[column - 1], lifecycle, (r, f, m), paid[-1], len(window), net)


def evaluated(table, slots: list[int], nows: list[int]) -> tuple[list[Expected], list[int]]:
    """Evaluate customers at instants and put the outcome into words."""
    out = EVALUATOR.evaluate(table, np.array(slots), np.array(nows))
    rows = zip(out.value, out.scores, out.last_purchase_ms, out.orders, out.net_minor, strict=True)
    said = [
        Expected(
            EVALUATOR.values[0][value[0]],
            EVALUATOR.values[1][value[1]],
            (int(scores[0]), int(scores[1]), int(scores[2])),
            int(last),
            int(orders),
            int(net),
        )
        for value, scores, last, orders, net in rows
    ]
    return said, out.due_ms.tolist()


def _outputs(expected: Expected) -> tuple[str, str, tuple[int, int, int]]:
    return expected.segment, expected.lifecycle, expected.scores


# Times lie where windows and edges begin and end, seen from T0, and a little beside.
times = st.builds(
    lambda days, shift, ms: T0 - days * DAY + shift * DAY + ms,
    st.sampled_from((*EDGES_DAYS, 31, 210, 211, 400, 545)),
    st.sampled_from((0, 0, 0, 1, 30, -30)),
    st.sampled_from((-1, 0, 0, 1, 12_345_678)),
) | st.integers(T0 - 800 * DAY, T0 + 300_000)
amounts = st.sampled_from((1, 99_99, 100_00, 100_01, 150_00, 250_00, 499_99, 500_00, 1000_00)) | st.integers(
    1, 60_000
)
entries = st.lists(st.tuples(times, amounts), max_size=14)
few = st.lists(st.tuples(times, amounts), max_size=5)
customers = st.lists(st.tuples(entries, few), min_size=1, max_size=5)


def _in_reach(orders: Entries, refunds: Entries, now: int) -> tuple[Entries, Entries]:
    """Keep what a customer can have at `now`: facts are at most five minutes ahead of the clock."""
    return tuple([(t, v) for t, v in side if t <= now + 300_000] for side in (orders, refunds))  # type: ignore[return-value]  # A pair, as the sides are.


def _instants(orders: Entries, refunds: Entries) -> list[int]:
    """Return every instant at which anything about these facts can change by time alone."""
    days = (30, 60, 90, 180, 365)
    return sorted({t + day * DAY for t, _ in [*orders, *refunds] for day in days})


@settings(max_examples=200, deadline=None)
@given(customers=customers, data=st.data())
def test_values_equal_the_oracle_at_edges_and_between(customers, data, table_of) -> None:
    """At random instants and at every edge, and 1 ms beside it, all outputs equal the oracle's."""
    kept, slots, nows = [], [], []
    for orders, refunds in customers:
        edges = _instants(orders, refunds)
        now = data.draw(st.sampled_from(edges) if edges else st.just(T0)) + data.draw(
            st.sampled_from((-1, 0, 1))
        )
        now = data.draw(st.sampled_from((now, T0)))
        kept.append(_in_reach(orders, refunds, now))
        for moment in {now, *(e + ms for e in _instants(*kept[-1]) if e > now for ms in (-1, 0, 1))}:
            slots.append(len(kept) - 1)
            nows.append(moment)
    said, _ = evaluated(table_of(kept), slots, nows)
    for slot, now, outcome in zip(slots, nows, said, strict=True):
        assert outcome == oracle(*kept[slot], now), (slot, now)


@settings(max_examples=200, deadline=None)
@given(customers=customers, data=st.data())
def test_no_deadline_is_late(customers, data, table_of) -> None:
    """Nothing changes between now and 1 ms before the deadline, and the deadline lies after now."""
    kept, nows = [], []
    for orders, refunds in customers:
        edges = _instants(orders, refunds) or [T0]
        now = data.draw(st.sampled_from([*edges, T0])) + data.draw(st.sampled_from((-1, 0, 1)))
        kept.append(_in_reach(orders, refunds, now))
        nows.append(now)
    said, dues = evaluated(table_of(kept), list(range(len(kept))), nows)
    for (orders, refunds), now, outcome, due in zip(kept, nows, said, dues, strict=True):
        assert due > now
        quiet = [e + ms for e in _instants(orders, refunds) for ms in (-1, 0, 1) if now < e + ms < due]
        last = due - 1 if due < NEVER_MS else now + 4000 * DAY
        between = [data.draw(st.integers(now, last)) for _ in range(3)]
        for moment in [*quiet, last, *between]:
            assert _outputs(oracle(orders, refunds, moment)) == _outputs(outcome), (now, due, moment)


@settings(max_examples=25, deadline=None)
@given(orders=entries, refunds=few)
def test_sweeping_by_deadline_equals_evaluating_every_hour(orders, refunds, table_of) -> None:
    """Waking only at deadlines shows, at every hour of 500 days, what an evaluation then would say."""
    orders, refunds = _in_reach(orders, refunds, T0)
    table = table_of([(orders, refunds)])
    hours = np.arange(T0, T0 + 500 * DAY, HOUR)
    hourly = EVALUATOR.evaluate(table, np.zeros(len(hours), np.int64), hours)
    wakes, values, scores = [], [], []
    now = T0
    while now < hours[-1]:
        out = EVALUATOR.evaluate(table, np.array([0]), np.array([now]))
        wakes.append(now)
        values.append(out.value[0])
        scores.append(out.scores[0])
        now = int(out.due_ms[0])
    current = np.searchsorted(wakes, hours, "right") - 1
    assert np.array_equal(np.array(values)[current], hourly.value)
    assert np.array_equal(np.array(scores)[current], hourly.scores)


def _rounds(table, start: int, end: int) -> tuple[int, int]:
    rounds = changes = 0
    before = None
    while start < end:
        said, dues = evaluated(table, [0], [start])
        changes += before is not None and _outputs(said[0]) != before
        before = _outputs(said[0])
        start = dues[0]
        rounds += 1
    return rounds, changes


def test_a_whale_without_refunds_wakes_only_to_change(table_of) -> None:
    """Without refunds every deadline but the reactivation's is a change: no round is wasted."""
    random = np.random.default_rng(3)
    orders = list(
        zip(
            (T0 + random.integers(-700, 1, 20_000) * DAY).tolist(),
            random.integers(1, 50, 20_000).tolist(),
            strict=True,
        )
    )
    rounds, changes = _rounds(table_of([(orders, [])]), T0, T0 + 800 * DAY)
    assert changes >= 8
    assert rounds <= changes + 2


def test_a_whale_with_refunds_wakes_a_small_multiple_of_its_refunds(table_of) -> None:
    """A deadline may come early only once per refund, never once per order."""
    random = np.random.default_rng(4)
    orders = list(
        zip(
            (T0 - random.integers(0, 700 * DAY, 20_000)).tolist(),
            random.integers(1, 50, 20_000).tolist(),
            strict=True,
        )
    )
    refunds = list(
        zip(
            (T0 - random.integers(0, 700 * DAY, 300)).tolist(),
            random.integers(1, 3000, 300).tolist(),
            strict=True,
        )
    )
    rounds, changes = _rounds(table_of([(orders, refunds)]), T0, T0 + 800 * DAY)
    assert rounds <= changes + len(refunds)


def test_negative_net_scores_one_and_its_deadline_is_a_refund_leaving(table_of) -> None:
    """With more refunded than paid M is 1, until enough refunds leave the window."""
    table = table_of([([(T0, 300_00)], [(T0 - 10 * DAY, 400_00), (T0 - 20 * DAY, 100_00)])])
    said, dues = evaluated(table, [0, 0], [T0 + 300 * DAY, T0 + 355 * DAY])
    assert [(s.net, s.scores[2]) for s in said] == [(-200_00, 1), (300_00, 3)]
    assert dues[0] == T0 + 355 * DAY


def test_a_refund_leaving_may_lift_the_net_exactly_to_a_threshold(table_of) -> None:
    """The deadline is the instant the net reaches 100.00, not the one it exceeds it."""
    refunds = [(T0 - 10 * DAY, 1_00), (T0 - 5 * DAY, 1_00)]
    said, dues = evaluated(table_of([([(T0, 101_00)], refunds)]), [0, 0], [T0 + 354 * DAY, T0 + 355 * DAY])
    assert [s.scores[2] for s in said] == [1, 2]
    assert dues[0] == T0 + 355 * DAY


@pytest.mark.parametrize(
    ("days", "r"), [(0, 5), (30, 4), (60, 3), (90, 2), (180, 1)], ids=["now", "30", "60", "90", "180"]
)
def test_recency_edges_are_half_open(days: int, r: int, table_of) -> None:
    """An order exactly d days ago has left the younger band; 1 ms earlier it is still in it."""
    table = table_of([([(T0, 1)], [])])
    said, _ = evaluated(table, [0, 0], [T0 + days * DAY, T0 + days * DAY - 1])
    assert said[0].scores[0] == r
    assert said[1].scores[0] == min(5, r + 1)


@pytest.mark.parametrize(("count", "f"), [(1, 1), (2, 2), (3, 3), (5, 3), (6, 4), (11, 4), (12, 5), (40, 5)])
def test_frequency_thresholds(count: int, f: int, table_of) -> None:
    """F is by the number of orders in the window: 12, 6, 3 and 2 begin a band."""
    said, _ = evaluated(table_of([([(T0 + i, 1) for i in range(count)], [])]), [0], [T0 + DAY])
    assert said[0].scores[1] == f


@pytest.mark.parametrize(
    ("minor", "m"),
    [
        (1, 1),
        (99_99, 1),
        (100_00, 2),
        (249_99, 2),
        (250_00, 3),
        (499_99, 3),
        (500_00, 4),
        (999_99, 4),
        (1000_00, 5),
    ],
)
def test_monetary_thresholds_are_in_major_units(minor: int, m: int, table_of) -> None:
    """M is by pounds, compared in pence: 1000, 500, 250 and 100 begin a band."""
    said, _ = evaluated(table_of([([(T0, minor)], [])]), [0], [T0])
    assert said[0].scores[2] == m


def test_window_is_half_open(table_of) -> None:
    """An order counts in F and M for exactly 365 days: not at t + 365 d, still 1 ms before."""
    table = table_of([([(T0, 500_00), (T0 + 1, 500_00)], [])])
    said, _ = evaluated(table, [0, 0, 0], [T0 + 365 * DAY - 1, T0 + 365 * DAY, T0 + 365 * DAY + 1])
    assert [(s.orders, s.net) for s in said] == [(2, 1000_00), (1, 500_00), (0, 0)]


def test_folded_predecessor_still_reactivates(table_of) -> None:
    """An order whose predecessors were all folded away came after the longest silence there is."""
    table = table_of([([(T0, 1)], [])])
    table.first[0] = T0 - 900 * DAY
    said, dues = evaluated(table, [0], [T0 + DAY])
    assert said[0].lifecycle == "reactivated"
    assert dues == [T0 + 30 * DAY]


def test_nobody_is_evaluated_to_nothing(table_of) -> None:
    """No slots give empty arrays of the right shapes."""
    out = EVALUATOR.evaluate(table_of([]), np.empty(0, np.int64), np.empty(0, np.int64))
    assert (out.value.shape, out.scores.shape, out.due_ms.shape) == ((0, 2), (0, 3), (0,))


def test_a_deadline_that_is_not_after_now_is_refused(table_of, monkeypatch) -> None:
    """A deadline at or before now would be swept for ever, so the evaluation raises."""
    monkeypatch.setattr(
        "streams.segments.measures.Age.leaves", lambda self, view, floor, ceiling: view.now_ms
    )
    with pytest.raises(AssertionError, match="is not after"):
        evaluated(table_of([([(T0, 1)], [])]), [0], [T0])


def test_values_are_in_a_stable_order() -> None:
    """Codes are stored in rows only as literals, but the order is still the declared one."""
    assert EVALUATOR.dimensions == ("rfm", "lifecycle")
    assert EVALUATOR.values[0][:3] == ("prospect", "champions", "loyal")
    assert EVALUATOR.values[1] == ("lead", "churned", "reactivated", "at_risk", "new", "loyal", "active")


def test_answers_do_not_depend_on_company(table_of) -> None:
    """A customer evaluated alone, in a crowd or twice in one call gets one answer."""
    random = np.random.default_rng(9)
    crowd = [
        (
            [
                (int(T0 - random.integers(0, 600 * DAY)), int(random.integers(1, 40_000)))
                for _ in range(k % 30)
            ],
            [
                (int(T0 - random.integers(0, 600 * DAY)), int(random.integers(1, 40_000)))
                for _ in range(k % 3)
            ],
        )
        for k in range(400)
    ]
    table = table_of(crowd)
    together, dues = evaluated(table, [*range(400), 7], [T0] * 401)
    assert together[7] == together[400]
    for slot in range(0, 400, 37):
        alone, due = evaluated(table, [slot], [T0])
        assert (alone[0], due[0]) == (together[slot], dues[slot])
        assert alone[0] == oracle(*crowd[slot], T0)
