"""An explanation against the evaluation itself: every word of the language, with the number behind it."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from fractions import Fraction
from hashlib import sha256
from math import floor

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.segments import tree
from streams.segments.checking import check
from streams.segments.clauses import CLAUSES_MAX, FACTS_MAX, Clause, lines, span
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.segments.explaining import Explainer, Explanation, vocabulary_of
from streams.segments.figures import Figures
from streams.segments.following import Stored
from streams.segments.loading import default_definition
from streams.segments.rules import Segment
from streams.segments.stages import VALUES, stage
from streams.segments.view import FAR_MS
from tests.streams.segments.brute_force import HOUR, NUMBERS, T0, TRAITS, customer, rule
from tests.streams.segments.custom import defined
from tests.streams.segments.described import DAY, Customer, DescribedTable, Did, Order
from tests.streams.segments.test_expressions_page import ANN, NOW, ROWS
from tests.streams.segments.test_expressions_page import TRAITS as ANNS_TRAITS
from tests.streams.segments.test_stages import someone

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
CORE = default_definition()
FIRST = np.array([0])

TIER = """dimensions:
  value_tier:
    values:
      gold: spend(365d) >= 500
      silver: spend(365d) >= 100
    otherwise: bronze
"""

FIGURES = {
    "orders(30d) >= 2": "2",
    "orders(ever) >= 3": "3",
    'orders(90d where category == "books") >= 1': "1",
    "spend(30d) > 100": "125.00 GBP",
    'spend(365d where category == "books") >= 130': "130.00 GBP",
    "refunds(30d) > 0": "5.00 GBP",
    "net(30d) >= 120": "120.00 GBP",
    "avg(spend, 365d) >= 55": "55.00 GBP: 165.00 GBP in 3",
    "max(spend, 365d) >= 100": "100.00 GBP",
    "distinct(category, 90d) >= 2": "2",
    "tenure >= 120d": "156d",
    "days_since(last()) > 3": "5d",
    'first() >= "2026-01-01"': "2026-01-10 12:00:00 UTC",
    'count("login", 7d) >= 1': "1",
    'count("feature_used", 7d where feature == "export") >= 2': "2",
    'sum("feature_used", size, 7d) >= 9': "9",
    'avg("feature_used", size, 7d) >= 3': "3: 9 in 3",
    'max("feature_used", size, 7d) >= 5': "5",
    'min("feature_used", size, 7d) >= 2': "1",
    'distinct("feature_used", feature, 7d) >= 2': "2",
    "days_active(7d) >= 3": "4",
    'days_active("login", 7d) >= 1': "1",
    'days_since("login") > 14': "2d",
    'last("login") >= "2026-06-01"': "2026-06-13 12:00:00 UTC",
    'ever("login" where app == "ios")': "2026-06-13 12:00:00 UTC",
    'country in ("DE", "AT")': '"DE"',
    "company_size >= 100": "250",
    "newsletter": "true",
    '"slack" in apps': '"jira", "slack"',
    'contract_end < "2026-07-01"': "2026-06-20 12:00:00 UTC",
    "days_until(contract_end) < 7": "5d",
    "has(company_size)": "250",
    'plan == "pro"': "pro",
    'product in ("crm", "mail")': "crm",
    'tier != "gold"': "gold",
    'subscribed(product == "crm" and seats >= 5)': "1 of 1 active",
    "mrr >= 49": "49.00 GBP",
    "arr >= 600": "588.00 GBP",
    "seats > 5": "5",
    "days_until(renews_at) < 7": "6d",
    "days_until(trial_ends_at) < 3": "3d",
    "ticket_open": "1",
    "tickets_open >= 2": "1",
    "tickets(7d) >= 2": "2",
    "reopened(7d) >= 1": "1",
    "first_reply_time(30d) <= 4h": "4h",
    "close_time(30d) < 2": "1d",
    "rating(30d) >= 4": "4",
    'rfm.segment in ("champions", "loyal")': "potential_loyalist",
    "rfm.r >= 4": "5",
    "rfm.f >= 4": "3",
    "rfm.m >= 2": "2",
    'lifecycle == "active"': "active",
    'value_tier == "silver"': "silver",
    'in_segment("readers")': None,
    'bucket("spring test") < 10': str(int(sha256(b"spring test\0ann").hexdigest(), 16) % 100),
}
"""Every rule of docs/expressions.md, and the number that is true of Ann."""


def about_ann(when: str) -> tuple[Definition, Explainer, DescribedTable]:
    """A definition that asks one thing of Ann, as `asked`, after what the page declares."""
    traits = "".join(f"  {name}: {kind}\n" for name, kind in ANNS_TRAITS.items())
    quoted = when.replace("'", "''")
    segments = (
        'segments:\n  readers:\n    when: spend(90d where category == "books") >= 50\n'
        f"  asked:\n    when: '{quoted}'\n"
    )
    definition = defined(f"traits:\n{traits}{segments}{TIER}")
    evaluator = Evaluator(definition)
    return definition, Explainer(evaluator), DescribedTable([ANN], evaluator.series)


def asked_of_ann(when: str) -> Explanation:
    """What is said of Ann and one rule."""
    _, explainer, table = about_ann(when)
    return next(each for each in explainer.explain(table, 0, NOW) if each.dimension == "asked")


@pytest.mark.parametrize(("when", "truth"), [row[:2] for row in ROWS], ids=[row[0] for row in ROWS])
def test_every_word_of_the_language_is_explained_in_its_own_words_and_with_its_number(
    when: str, truth: str
) -> None:
    """Each rule of the page that documents them all: its text, yes or no, and what was compared."""
    explained = asked_of_ann(when)
    (clause,) = explained.clauses
    assert (clause.text, clause.holds, clause.figure) == (when, truth == "yes", FIGURES[when])
    assert (explained.value == "asked") == clause.holds
    if clause.figure is None:
        assert [part.figure for part in clause.parts] == ["100.00 GBP"]


def test_no_part_of_the_language_is_without_a_figure() -> None:
    """Every measure and condition there is; what joins others has parts instead."""
    _, explainer, table = about_ann("true")
    joins = {tree.Every, tree.Some, tree.Opposite, tree.Member, tree.Compared, tree.Known, tree.During}
    figures = Figures(explainer.evaluator, explainer.evaluator.view(table, FIRST, np.array([NOW])), {})
    measures = {*tree.Measure.__args__, *tree.Moment.__args__}
    assert figures.parts | joins == measures | set(tree.Rule.__args__)
    assert FIGURES.keys() == {row[0] for row in ROWS}


@given(st.integers(0, 1 << 60))
@settings(max_examples=40, deadline=None, phases=PHASES)
def test_an_explanation_is_what_plain_loops_say_and_the_evaluator_does(seed: int) -> None:
    """Random rules, customers and instants: yes or no, until when, and what its parts come to."""
    rng = random.Random(seed)
    rules = [rule(rng) for _ in range(6)]
    vocabulary = vocabulary_of(replace(CORE, traits=tuple(TRAITS.items())))
    segments = []
    for number, each in enumerate(rules):
        checked = check(each.text, vocabulary)
        segments.append(Segment(f"s{number}", each.text, checked.rule, tuple(checked.series.values())))
    evaluator = Evaluator(replace(CORE, traits=tuple(TRAITS.items()), segments=tuple(segments)))
    people = [customer(rng) for _ in range(3)]
    table, explainer = DescribedTable(people, evaluator.series), Explainer(evaluator)
    for slot, person in enumerate(people):
        now = T0 + rng.randrange(14 * 24) * HOUR
        outcome = evaluator.evaluate(table, np.array([slot]), np.array([now]))
        told = explainer.explain(table, slot, now)
        for d, (explained, code) in enumerate(zip(told, outcome.value[0].tolist(), strict=True)):
            assert explained.value == (evaluator.values[d][code] if code >= 0 else None)
        untils = [clause.until_ms or FAR_MS for explained in told[2:] for clause in explained.clauses]
        assert min(untils) >= min(int(outcome.due_ms[0]), FAR_MS)
        for explained, drawn, node in zip(told[2:], rules, evaluator.segments, strict=True):
            (clause,) = explained.clauses
            due = int(evaluator.view(table, np.array([slot]), np.array([now])).due(node)[0])
            assert clause.holds == drawn.holds(person, now), drawn.text
            assert (clause.until_ms or FAR_MS) == min(due, FAR_MS), drawn.text
            assert_adds_up(clause)
        for coming in explainer.coming(table, slot, now):
            d = explainer.dimensions.index(coming.dimension)
            values = evaluator.evaluate(
                table, np.full(3, slot), np.array([now, coming.at_ms - 1, coming.at_ms])
            ).value[:, d]
            names = [evaluator.values[d][code] if code >= 0 else None for code in values.tolist()]
            assert names[0] == names[1] == coming.before and names[2] == coming.after != coming.before
            if d >= 2:
                assert rules[d - 2].holds(person, coming.at_ms) == (coming.after is not None)


def assert_adds_up(clause: Clause) -> None:
    """What is joined is what its parts come to; nothing else is said than yes or no."""
    truths = [part.holds for part in clause.parts]
    if truths:
        assert clause.holds in (all(truths), any(truths), not truths[0])
        assert clause.figure is None
    for part in clause.parts:
        assert_adds_up(part)


DAYS = ("tenure", "days_", "first_reply_time", "close_time")


@given(st.integers(0, 1 << 60))
@settings(max_examples=150, deadline=None, phases=PHASES)
def test_a_figure_is_the_number_plain_loops_come_to(seed: int) -> None:
    """Of any number of the language, about a random customer at a random instant."""
    rng = random.Random(seed)
    text, number, edges = rng.choice(NUMBERS)(rng)
    edge = "5" if text.startswith("avg(spend") else rng.choice(edges)
    person, now = customer(rng), T0 + rng.randrange(14 * 24) * HOUR
    vocabulary = vocabulary_of(replace(CORE, traits=tuple(TRAITS.items())))
    sign = rng.choice((">=", "<"))
    checked = check(f"{text} {sign} {edge}", vocabulary)
    segment = Segment("s", f"{text} {sign} {edge}", checked.rule, tuple(checked.series.values()))
    evaluator = Evaluator(replace(CORE, traits=tuple(TRAITS.items()), segments=(segment,)))
    table = DescribedTable([person], evaluator.series)
    (clause,) = Explainer(evaluator).explain(table, 0, now)[-1].clauses
    value = number(person, now)
    assert clause.figure is not None
    assert len(clause.facts) <= FACTS_MAX
    told = clause.figure.partition(":")[0].replace(",", "")
    if value is None:
        assert (
            told in ("none", "never", "not set")
            or "which has come" in clause.figure
            or "to come" in clause.figure
        )
    elif text.startswith(DAYS) and not text.startswith("days_active"):
        length_ms = floor(value * DAY)
        assert clause.figure in (span(length_ms), span(length_ms, 5))
    else:
        exact = Fraction(told.removesuffix(" GBP"))
        places = 100 if told.endswith(" GBP") else 1_000_000
        assert exact == Fraction(floor(value * places), places), (text, value)


@pytest.mark.parametrize("seed", range(20))
def test_a_subscribers_stage_is_told_by_the_rules_that_judge_it(seed: int) -> None:
    """Each stage in order up to the first whose rule holds, which is the value."""
    rng = random.Random(seed)
    people = [someone(rng) for _ in range(5)]
    evaluator = Evaluator(CORE)
    table, explainer = DescribedTable(people), Explainer(evaluator)
    for slot in range(len(people)):
        now = T0 + rng.randrange(-10, 300) * DAY
        told = explainer.explain(table, slot, now)[1]
        stages = evaluator.nodes()[1]
        situation = stages.situation(evaluator.view(table, np.array([slot]), np.array([now])))  # type: ignore[union-attr]  # It is Stages.
        assert situation is not None and told.value == stage(situation, CORE.lifecycle)
        assert [clause.holds for clause in told.clauses] == [False] * (len(told.clauses) - 1) + [True]
        names = [clause.text.partition(",")[0] for clause in told.clauses]
        assert names == list(VALUES[: len(names)]) and names[-1] == told.value


def test_a_custom_dimension_tells_the_first_rule_that_holds_and_those_before_it() -> None:
    """Gold was asked and is not so; silver is, so nothing behind it was asked."""
    _, explainer, table = about_ann("true")
    told = next(each for each in explainer.explain(table, 0, NOW) if each.dimension == "value_tier")
    assert [(clause.text, clause.holds, clause.figure) for clause in told.clauses] == [
        ("gold, spend(365d) >= 500", False, "165.00 GBP"),
        ("silver, spend(365d) >= 100", True, "165.00 GBP"),
    ]
    assert told.value == "silver"


def test_what_is_joined_is_told_part_by_part() -> None:
    """`and`, `or`, and `not` before a group have parts; `not` before one question has its figure."""
    told = asked_of_ann('orders(30d) >= 3 or not (ticket_open and plan == "pro") or not newsletter')
    assert list(lines_of(told)) == [
        'orders(30d) >= 3 or not (ticket_open and plan == "pro") or not newsletter: no',
        "  orders(30d) >= 3: no, 2",
        '  not (ticket_open and plan == "pro"): no',
        '    ticket_open and plan == "pro": yes',
        "      ticket_open: yes, 1",
        '      plan == "pro": yes, pro',
        "  not newsletter: no, true",
    ]


def lines_of(told: Explanation) -> list[str]:
    """The clauses as they are shown, without facts and instants."""
    shown = [line for clause in told.clauses for line in lines(clause)]
    return [re.sub("; may change .*", "", line) for line in shown if not line.lstrip().startswith("- ")]


def test_blanks_in_quotes_are_part_of_a_rule() -> None:
    """They decide who is meant, so they are told, asked, and part of the hash; other blanks are not."""
    one, two, same = (
        about_ann(when)[0] for when in ('country == "D E"', 'country == "D  E"', 'country   == "D E"')
    )
    assert one.hash == same.hash != two.hash
    assert two.segments[-1].when == 'country == "D  E"'
    assert asked_of_ann('country ==   "D  E"').clauses[0].text == 'country == "D  E"'


def test_facts_are_bounded_and_what_is_left_out_is_counted() -> None:
    """The newest orders are shown; in a window without any, the last one before it."""
    person = Customer(orders=[Order(T0 + day * DAY, 1_000) for day in range(9)])
    evaluator = Evaluator(defined("segments:\n  s: {when: orders(30d) > 1 or orders(2d) > 1}\n"))
    table = DescribedTable([person])
    (clause,) = Explainer(evaluator).explain(table, 0, T0 + 10 * DAY)[-1].clauses
    month, days = clause.parts
    assert [fact.at_ms for fact in month.facts] == [T0 + day * DAY for day in (8, 7, 6, 5, 4)]
    assert month.facts_more == 9 - FACTS_MAX and month.facts[0].until_ms == T0 + 38 * DAY
    assert [(fact.at_ms, fact.counts) for fact in days.facts] == [(T0 + 8 * DAY, False)]
    assert "  - and 4 more" in "\n".join(lines(month))


def test_facts_are_the_customers_own() -> None:
    """Each order with what it is worth, whoever lies before in the table; each stage up to the first."""
    before = Customer(orders=[Order(T0, 7_000)] * 8)
    asked = Customer(orders=[Order(T0 + DAY, 1_000), Order(T0 + 2 * DAY, 2_500)])
    evaluator = Evaluator(defined("segments:\n  s: {when: spend(30d) > 1}\n"))
    rfm, lifecycle, told = Explainer(evaluator).explain(DescribedTable([before, asked]), 1, T0 + 40 * DAY)
    assert [fact.text for fact in rfm.clauses[2].facts] == ["order of 25.00 GBP", "order of 10.00 GBP"]
    assert [(fact.text, fact.counts) for fact in told.clauses[0].facts] == [("order of 25.00 GBP", False)]
    assert [(clause.text.partition(",")[0], clause.holds) for clause in lifecycle.clauses] == [
        *((name, False) for name in VALUES[:-1]),
        ("active", True),
    ]
    late = Explainer(evaluator).explain(DescribedTable([before, asked]), 1, T0 + 400 * DAY)[1]
    assert [clause.holds for clause in late.clauses] == [False, True] and late.value == "churned"


def test_clauses_are_bounded_and_what_is_left_out_is_counted() -> None:
    """A rule nobody can read is told up to a bound; its truth is not touched by that."""
    parts = " and ".join(f"(orders({n}d) >= 1 or spend({n}d) > 0)" for n in range(1, 120))
    evaluator = Evaluator(defined(f"segments:\n  s: {{when: '{parts}'}}\n"))
    table = DescribedTable([Customer(orders=[Order(T0, 1_000)])])
    told = Explainer(evaluator).explain(table, 0, T0)[-1]
    assert told.value == "s" and told.clauses[0].holds
    assert sum(1 for _ in lines_of(told)) <= CLAUSES_MAX and told.more > 100


def test_a_segment_asked_for_is_told_once_with_its_own_rule() -> None:
    """Behind in_segment stands the rule of the other one, a draft's too; twice it is not told."""
    sections = (
        "segments:\n  base: {when: orders(30d) > 1, state: draft}\n"
        '  s: {when: in_segment("base") or not in_segment("base")}\n'
    )
    explainer = Explainer(Evaluator(defined(sections)))
    told = explainer.explain(DescribedTable([ANN]), 0, NOW)[-1]
    assert explainer.dimensions == ("rfm", "lifecycle", "s")
    first, second = told.clauses[0].parts
    assert [(part.text, part.figure) for part in first.parts] == [("orders(30d) > 1", "2")]
    assert second.parts == () and not second.holds


def test_validity_and_shadow_are_told() -> None:
    """A segment outside its validity has nobody in, whatever its rule says; nobody is told of a shadow."""
    sections = (
        "segments:\n  s:\n    when: orders(30d) > 1\n    valid_from: 2026-07-01T00:00:00Z\n"
        "    valid_until: 2026-08-01T00:00:00Z\n    state: shadow\n"
    )
    evaluator = Evaluator(defined(sections))
    explainer, table = Explainer(evaluator), DescribedTable([replace(ANN, orders=[])])
    told = explainer.explain(table, 0, NOW)[-1]
    valid, asked = told.clauses
    assert told.shadow and told.value is None
    assert valid.text == "valid from 2026-07-01 00:00:00 UTC until 2026-08-01 00:00:00 UTC"
    assert (valid.holds, asked.holds, asked.figure) == (False, False, "0")
    assert valid.until_ms == 1_782_864_000_000


def test_a_trait_of_another_type_is_shown_as_it_is() -> None:
    """What was sent is no number: that is said with what it is, and since when."""
    table = DescribedTable([replace(ANN, traits={"company_size": "many"})])
    _, explainer, _ = about_ann("company_size >= 100")
    told = explainer.explain(table_of(explainer, table), 0, NOW, trait_set_ms={"company_size": NOW - DAY})[-1]
    (clause,) = told.clauses
    assert (clause.holds, clause.figure) == (False, '"many", which is no number')
    assert [fact.at_ms for fact in clause.facts] == [NOW - DAY]


def table_of(explainer: Explainer, table: DescribedTable) -> DescribedTable:
    """The customers of a table, with the series a definition needs."""
    return DescribedTable(table.customers, explainer.evaluator.series)


def test_a_length_of_time_never_reads_like_the_edge_it_is_not() -> None:
    """Two units are enough, except beside an edge."""
    assert [span(ms) for ms in (0, 1, 61_000, DAY, DAY + 59_999, 40 * DAY + 1, -HOUR)] == [
        "0d", "1ms", "1min 1s", "1d", "1d", "40d", "-1h",
    ]  # fmt: skip
    just = replace(ANN, did=[Did(NOW - 14 * DAY - 1, "login")])
    explainer = about_ann('days_since("login") <= 14')[1]
    told = explainer.explain(DescribedTable([just], explainer.evaluator.series), 0, NOW)[-1]
    assert (told.clauses[0].holds, told.clauses[0].figure) == (False, "14d 1ms")


DELAYED = """segments:
  s:
    when: orders(30d) >= 1
    dwell_enter: 2d
    dwell_exit: 3d
    cooldown: 10d
"""


def delayed(orders: list[int]) -> tuple[Explainer, DescribedTable]:
    """A segment with all delays, and a customer with orders at these days."""
    person = Customer(orders=[Order(T0 + day * DAY, 1_000) for day in orders])
    return Explainer(Evaluator(defined(DELAYED))), DescribedTable([person])


def stored(explainer: Explainer, at_ms: int, member: tuple[int, int], holds: tuple[int, int]) -> Stored:
    """What is on record: the membership's code and since, and those of its rule's truth."""
    value, since = np.full(4, -1, np.int16), np.zeros(4, np.int64)
    (value[2], since[2]), (value[3], since[3]) = member, holds
    return Stored(at_ms, value, since)


def test_a_dwell_says_since_when_the_rule_holds_and_when_the_customer_enters() -> None:
    """One day of two is over; what comes next is the entry, then nothing before the rule ends to hold."""
    explainer, table = delayed([0])
    now = T0 + DAY
    held = stored(explainer, now, (-1, 0), (0, T0))
    told = explainer.explain(table, 0, now, held)[-1]
    assert told.value is None and told.clauses[0].holds
    assert told.clauses[1] == Clause(
        "dwell_enter 2d is over", False, "the rule holds since 2023-11-14 00:00:00 UTC", T0 + 2 * DAY
    )
    (coming,) = [each for each in explainer.coming(table, 0, now, held) if each.dimension == "s"]
    assert (coming.at_ms, coming.before, coming.after) == (T0 + 2 * DAY, None, "s")
    later = explainer.explain(table, 0, T0 + 2 * DAY, held)[-1]
    assert later.value == "s" and len(later.clauses) == 1


def test_a_cooldown_and_a_dwell_before_leaving_say_when_they_are_over() -> None:
    """Who left a day ago waits for both; who is still in leaves three days after the rule ended to hold."""
    explainer, table = delayed([0])
    now = T0 + DAY
    held = stored(explainer, now, (-1, T0 - DAY), (0, T0))
    told = explainer.explain(table, 0, now, held)[-1]
    assert [(clause.text, clause.until_ms) for clause in told.clauses[1:]] == [
        ("dwell_enter 2d is over", T0 + 2 * DAY),
        ("cooldown 10d is over", T0 + 9 * DAY),
    ]
    (coming,) = [each for each in explainer.coming(table, 0, now, held) if each.dimension == "s"]
    assert coming.at_ms == T0 + 9 * DAY
    held = stored(explainer, now, (-1, T0 - 9 * DAY), (0, T0 + DAY // 2))
    _, *waiting = explainer.explain(table, 0, now, held)[-1].clauses
    assert [(clause.holds, clause.until_ms) for clause in waiting] == [
        (False, T0 + 5 * DAY // 2),
        (True, None),
    ]
    now = T0 + 31 * DAY
    held = stored(explainer, now, (0, T0), (-1, T0 + 30 * DAY))
    told = explainer.explain(table, 0, now, held)[-1]
    assert told.value == "s"
    assert told.clauses[1].text == "still in for dwell_exit 3d" and told.clauses[1].until_ms == T0 + 33 * DAY
    away = explainer.explain(table, 0, T0 + 34 * DAY, held)[-1]
    assert away.value is None and away.clauses[1].text == "cooldown 10d is over"
    assert away.clauses[1].until_ms == T0 + 43 * DAY


def test_without_what_was_held_a_delay_is_said_to_be_left_out() -> None:
    """An instant before what is stored: the rule's truth, and a note."""
    explainer, table = delayed([0])
    held = stored(explainer, T0 + 5 * DAY, (0, T0 + 2 * DAY), (0, T0))
    for given_ in (None, held):
        told = explainer.explain(table, 0, T0 + DAY, given_)[-1]
        assert told.value == "s" and "delays are left out" in told.notes[0]
    assert [each.dimension for each in explainer.coming(table, 0, T0 + DAY)].count("s") == 0
