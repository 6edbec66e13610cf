"""Every function of the language against plain loops: at every hour, at every deadline and 1 ms beside it."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.customers.entities import Subscription
from streams.segments import tree
from streams.segments.checking import check
from streams.segments.conditions import Condition
from streams.segments.evaluate import Evaluator
from streams.segments.functions import FUNCTIONS, NAMES
from streams.segments.literals import Vocabulary
from streams.segments.loading import default_definition
from streams.segments.rules import Segment, parts_of
from streams.segments.stages import VALUES
from streams.segments.view import FAR_MS, Plan, View
from tests.streams.segments.brute_force import HOUR, T0, TRAITS, Rule, customer, rule
from tests.streams.segments.described import Customer, DescribedTable, Did

CORE = default_definition()
VOCABULARY = Vocabulary(2, TRAITS, {"rfm": ("prospect", *CORE.grid.names), "lifecycle": VALUES})
HOURS = T0 + np.arange(14 * 24) * HOUR
CUSTOMERS, RULES, EXAMPLES = 5, 12, 80
# A seed cannot be shrunk to anything simpler.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


def compiled(rules: list[Rule]) -> tuple[list[Condition], list[Segment]]:
    """The nodes of rules, sharing what they share in a definition."""
    segments = []
    for number, each in enumerate(rules):
        checked = check(each.text, VOCABULARY)
        series = tuple(checked.series.values())
        segments.append(Segment(f"s{number}", each.text, checked.rule, series))
    evaluator = Evaluator(replace(CORE, segments=tuple(segments)))
    return list(evaluator.segments), segments


def view_at(table: DescribedTable, nodes: list[Condition], slots: np.ndarray, now: np.ndarray) -> View:
    plan = Plan(window for node in nodes for window in node.windows())
    return View(table, slots, now, plan)


def judge(rules: list[Rule], customers: list[Customer]) -> int:
    """Compare rules and nodes at every hour and around every deadline; return how many that was."""
    nodes, segments = compiled(rules)
    series = {one.key: one for segment in segments for one in segment.series}
    table = DescribedTable(customers, list(series.values()))
    slots = np.repeat(np.arange(len(customers)), len(HOURS))
    now = np.tile(HOURS, len(customers))
    view = view_at(table, nodes, slots, now)
    count = 0
    for node, each in zip(nodes, rules, strict=True):
        held = np.array(view.value(node)).reshape(len(customers), len(HOURS))
        due = np.array(view.due(node)).reshape(len(customers), len(HOURS))
        assert (due > HOURS).all(), each.text
        for slot, person in enumerate(customers):
            truth = [each.holds(person, at) for at in HOURS.tolist()]
            assert held[slot].tolist() == truth, (each.text, person)
            never_late(each, person, truth, due[slot].tolist())
            count += len(truth) + around_deadlines(each, person, table, node, slot, due[slot])
    return count


def never_late(rule: Rule, person: Customer, truth: list[bool], due: list[int]) -> None:
    """Until its deadline the truth stays what it is, at every hour and at the last millisecond."""
    for hour, at in enumerate(HOURS.tolist()):
        last = min((due[hour] - 1 - T0) // HOUR, len(truth) - 1)
        assert truth[hour : last + 1] == [truth[hour]] * (last + 1 - hour), (rule.text, person, at, due[hour])
        if due[hour] <= HOURS[-1] and (hour == 0 or due[hour] != due[hour - 1]):
            assert rule.holds(person, due[hour] - 1) == truth[hour], (rule.text, person, at, due[hour])


def around_deadlines(
    rule: Rule, person: Customer, table: DescribedTable, node: Condition, slot: int, due: np.ndarray
) -> int:
    """The nodes agree with the loops just before, at and just after every deadline."""
    instants = np.unique(due[due < FAR_MS])
    instants = (instants[:, None] + np.array([-1, 0, 1])).ravel()
    if not len(instants):
        return 0
    view = view_at(table, [node], np.full(len(instants), slot), instants)
    assert view.value(node).tolist() == [rule.holds(person, at) for at in instants.tolist()], rule.text
    return len(instants)


OTHERWISE = {"in_segment", "bucket", "lifecycle", "rfm.segment", "rfm.r", "rfm.f", "rfm.m", "product"}
"""What the tests of the evaluator and of the page cover."""
COUNTED: list[int] = []
SEEN: set[str] = set()


@settings(max_examples=EXAMPLES, deadline=None, phases=PHASES)
@given(st.integers(0, 1 << 60))
def test_every_rule_is_what_plain_loops_say_and_no_deadline_is_late(seed: int) -> None:
    """Random rules, random customers: one truth at every hour and beside every deadline; due never late."""
    rng = random.Random(seed)
    rules = [rule(rng) for _ in range(RULES)]
    COUNTED.append(judge(rules, [customer(rng) for _ in range(CUSTOMERS)]))
    SEEN.update(word for each in rules for word in (*FUNCTIONS, *NAMES) if word in each.text)


@pytest.mark.parametrize("word", sorted({*FUNCTIONS, *NAMES} - OTHERWISE))
def test_each_word_of_the_language_is_what_plain_loops_say(word: str) -> None:
    """Two dozen rules with this word, on as many customers as it takes to meet its edges."""
    rng = random.Random(word)
    asks = re.compile(rf"(?<![\w\"]){re.escape(word)}(?![\w\"])")
    rules = []
    while len(rules) < 24:
        drawn = rule(rng, depth=0)
        if asks.search(drawn.text):
            rules.append(drawn)
    COUNTED.append(judge(rules, [customer(rng) for _ in range(7)]))


def test_means_are_compared_exactly() -> None:
    """10 / 3 is above 3.333333 and below 3.333334, and equal to neither."""
    person = Customer(did=[Did(T0 - i, "login", {"size": size}) for i, size in enumerate((3, 3, 4))])
    truths = {">= 3.333333": 1, "> 3.333333": 1, "== 3.333333": 0, "!= 3.333333": 1, "<= 3.333333": 0}
    truths |= {"< 3.333334": 1, "<= 3.333334": 1, ">= 3.333334": 0, "== 3.333334": 0, "> 3.333334": 0}
    for compared, truth in truths.items():
        text = f'avg("login", size, 1d) {compared}'
        nodes, segments = compiled([Rule(text, lambda c, now: True)])
        view = view_at(DescribedTable([person], segments[0].series), nodes, np.array([0]), np.array([T0]))
        assert view.value(nodes[0]).tolist() == [bool(truth)], text


def test_a_renewal_that_ends_with_its_subscription_is_a_deadline() -> None:
    """Three days to the renewal, but cancelled in one: then nothing is to come, and that is seen in time."""
    plan = Subscription("s", "active", cancel_at_ms=T0 + 24 * HOUR, renews_at_ms=T0 + 72 * HOUR)
    nodes, _ = compiled([Rule("days_until(renews_at) > 1", lambda c, now: True)])
    table = DescribedTable([Customer(subscriptions=(plan,))])
    now = T0 + np.array([0, 24 * HOUR - 1, 24 * HOUR])
    view = view_at(table, nodes, np.zeros(3, np.int64), now)
    assert view.value(nodes[0]).tolist() == [True, True, False]
    assert view.due(nodes[0])[:2].tolist() == [T0 + 24 * HOUR] * 2


def test_a_million_evaluations_covered_the_language() -> None:
    """The test above has run, on every function and every name that random rules can be made of."""
    if not COUNTED:
        pytest.skip("the comparison has not run")
    assert sum(COUNTED) >= 1_000_000
    assert ({*FUNCTIONS, *NAMES} - OTHERWISE) - SEEN == set()


def test_segments_that_share_windows_share_the_search_and_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty times as many rules on the same windows: no further search, and no further measure."""
    from streams.segments import view as module

    def searches(texts: list[str]) -> tuple[int, int]:
        nodes, segments = compiled([Rule(text, lambda c, now: True) for text in texts])
        parts = {part for segment in segments for part in parts_of(segment.rule)}
        calls: list[int] = []
        search = module.first_above
        with monkeypatch.context() as patch:
            patch.setattr(module, "first_above", lambda *args: calls.append(1) or search(*args))
            table = DescribedTable([customer(random.Random(1))])
            view = view_at(table, nodes, np.zeros(3, np.int64), HOURS[:3])
            for node in nodes:
                view.value(node)
        return len(calls), sum(isinstance(part, tree.Counted) for part in parts)

    few = [f"orders({days}d) >= 1" for days in (1, 2, 3)]
    many = [f"orders({days}d) >= {least}" for days in (1, 2, 3) for least in range(20)]
    assert searches(few) == searches(many) == (1, 3)
