"""docs/expressions.md: every example is so of Ann, and changes when the page says."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from streams.customers.entities import Standing, Subscription, Ticket
from streams.segments.checking import check
from streams.segments.evaluate import Evaluator
from streams.segments.functions import FUNCTIONS, NAMES
from streams.segments.literals import Vocabulary
from streams.segments.loading import DEFAULT_PATH, default_definition
from streams.segments.rules import Case, CustomDimension, Segment
from streams.segments.stages import VALUES
from streams.segments.view import FAR_MS, Plan, View
from tests.streams.segments.described import Customer, DescribedTable, Did, Order

PAGE = (DEFAULT_PATH.parent / "docs/expressions.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \| (yes|no) \| ([^|]+) \|", PAGE, re.MULTILINE)
CORE = default_definition()
DAY = 86_400_000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW = at("2026-06-15 12:00")
BOOKS, TOYS, FOOD = (
    {"category": each, "sku": f"{each}-1", "quantity": 2} for each in ("books", "toys", "food")
)
ANN = Customer(
    orders=[
        Order(at("2026-01-10 12:00"), 40_00, ((BOOKS, 30_00), (TOYS, 10_00))),
        Order(at("2026-05-20 12:00"), 100_00, ((BOOKS, 100_00),)),
        Order(at("2026-06-10 12:00"), 25_00, ((FOOD, 25_00),)),
    ],
    refunds=[(at("2026-06-01 12:00"), 5_00)],
    did=[
        Did(at("2026-06-01 12:00"), "login", {"app": "web"}),
        Did(at("2026-06-12 12:00"), "feature_used", {"feature": "export", "size": 3}),
        Did(at("2026-06-13 12:00"), "login", {"app": "ios"}),
        Did(at("2026-06-13 12:00"), "feature_used", {"feature": "export", "size": 5}),
        Did(at("2026-06-14 12:00"), "feature_used", {"feature": "share", "size": 1}),
    ],
    traits={
        "company_size": 250,
        "country": "DE",
        "newsletter": True,
        "contract_end": (at("2026-06-20 12:00"),),
        "apps": ("jira", "slack"),
    },
    subscriptions=(
        Subscription(
            *("s1", "active", "crm", "pro", "gold", 5),
            price_minor=49_00,
            renews_at_ms=at("2026-06-21 12:00"),
        ),
        Subscription("s2", "trial", "mail", "basic", trial_ends_at_ms=at("2026-06-18 12:00")),
    ),
    standing=Standing((at("2026-02-01 12:00"),)),
    tickets=(
        Ticket(
            "t1",
            opened_ms=at("2026-06-10 12:00"),
            first_reply_ms=at("2026-06-10 16:00"),
            closed_ms=at("2026-06-11 12:00"),
            rating=4,
            rated_ms=at("2026-06-11 12:00"),
        ),
        Ticket("t2", is_open=True, opened_ms=at("2026-06-14 12:00"), reopened_ms=(at("2026-06-15 06:00"),)),
    ),
    name=b"ann",
)
TRAITS = {
    "company_size": "number",
    "country": "string",
    "newsletter": "boolean",
    "contract_end": "timestamp",
    "apps": "set",
}
VOCABULARY = Vocabulary(
    2,
    TRAITS,
    {"rfm": ("prospect", *CORE.grid.names), "lifecycle": VALUES, "value_tier": ("gold", "silver", "bronze")},
    frozenset({"readers"}),
)


def said_of_ann(text: str) -> tuple[str, str]:
    """Whether a rule holds for Ann, and when time alone may next change that."""
    checked = check(text, VOCABULARY)
    readers = check('spend(90d where category == "books") >= 50', VOCABULARY)
    cases = [check(f"spend(365d) >= {least}", VOCABULARY).rule for least in (500, 100)]
    tier = CustomDimension(
        "value_tier",
        tuple(Case(v, "", rule) for v, rule in zip(("gold", "silver"), cases, strict=True)),
        "bronze",
    )
    segments = [Segment("readers", "", readers.rule), Segment("asked", text, checked.rule)]
    evaluator = Evaluator(replace(CORE, segments=tuple(segments), dimensions=(tier,)))
    node = evaluator.segments[1]
    table = DescribedTable([ANN], list({**checked.series, **readers.series}.values()))
    view = View(
        table, np.array([0]), np.array([NOW]), Plan((*evaluator.segments[0].windows(), *node.windows()))
    )
    truth, due = bool(view.value(node)[0]), int(view.due(node)[0])
    if due >= FAR_MS:
        return "yes" if truth else "no", "never"
    days = (due - NOW) / DAY
    return "yes" if truth else "no", f"after {days:g} d" if days == round(days, 3) else f"after {days:.3f} d"


@pytest.mark.parametrize(("rule", "truth", "change"), ROWS, ids=[row[0] for row in ROWS])
def test_an_example_says_what_is_so(rule: str, truth: str, change: str) -> None:
    """Yes or no for Ann on the page's day, and the next instant at which time alone may change it."""
    assert said_of_ann(rule) == (truth, change.strip())


@pytest.mark.parametrize("word", [*FUNCTIONS, *NAMES])
def test_every_word_of_the_language_has_an_example(word: str) -> None:
    """No function and no name is left out of the page."""
    pattern = re.compile(rf"(?<![\w.\"]){re.escape(word)}" + (r"\(" if word in FUNCTIONS else r"(?![\w(.])"))
    assert any(pattern.search(rule) for rule, _, _ in ROWS)
