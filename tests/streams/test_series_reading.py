"""What events add to series is what a plain evaluation of each event says; bad ones name field and fix."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import encode_event
from streams.customers.changes import PlanChange, TicketChange
from streams.customers.facts import Strings
from streams.customers.hashing import KeyedHash
from streams.customers.series import MILLIONTHS, Comparison, Joined, Negated, Series, Where
from streams.reading import Reading, read
from streams.segments.currencies import Rates
from streams.segments.loading import default_definition
from streams.series_reading import VALUE_MAX, SeriesReader

KEY = b"key"
RATES = Rates("GBP", {"EUR": Fraction(4, 5), "JPY": Fraction(1, 200)})
NAMES = ("export", "login")


@dataclass(frozen=True)
class Priced:
    rates: Rates = RATES


@dataclass(frozen=True)
class Record:
    key: bytes | None
    value: bytes | None
    offset: int = 0
    timestamp: int = 4_000_000_000_000


def read_events(events: list[tuple[str, dict[str, Any]]], series: tuple[Series, ...]) -> Reading:
    records = [
        Record(
            b"c",
            encode_event(name, {"event_id": f"e{i}", "customer_id": "c", "occurred_at": i, **fields}),
            i,
        )
        for i, (name, fields) in enumerate(events)
    ]
    return read(records, partition=0, definition=Priced(), series=SeriesReader(series, RATES, KEY))


def in_millionths(value: Any) -> Any:
    """A number as rules see it: Decimal says exactly what a double is."""
    if isinstance(value, bool | str) or value is None:
        return value
    return int((Decimal(value) * MILLIONTHS).quantize(Decimal(1), ROUND_HALF_EVEN))


def true(where: Where | None, fields: dict[str, Any]) -> bool:
    """The condition, as plainly as possible; `fields` are as rules see them, or Fractions."""
    if where is None:
        return True
    if isinstance(where, Joined):
        found = [true(part, fields) for part in where.parts]
        return all(found) if where.all else any(found)
    if isinstance(where, Negated):
        return not true(where.part, fields)
    value = fields.get(where.field)

    def alike(operand: Any) -> bool:
        number = isinstance(operand, int) and not isinstance(operand, bool)
        return (
            isinstance(value, int | Fraction) and not isinstance(value, bool)
            if number
            else type(operand) is type(value)
        )

    if where.operator == "in":
        assert isinstance(where.operand, tuple)
        return any(alike(operand) and value == operand for operand in where.operand)
    compare = {"==": "eq", "!=": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}[where.operator]
    return value is not None and alike(where.operand) and getattr(operator, compare)(value, where.operand)


def hashed(value: Any) -> int:
    text = f"{type(value).__name__}:{value}".encode()
    return int(KeyedHash(KEY).hash(Strings.from_list([text])).view("int64")[0])


TEXTS = st.sampled_from(["csv", "pdf", "é", ""])
NUMBERS = st.one_of(st.integers(-3, 3), st.sampled_from([0.5, 2.0000005, -1.5, 0.1, 1e9, -(10**15)]))
PROPERTIES = st.dictionaries(
    st.sampled_from(["a", "b", "c"]), st.one_of(TEXTS, NUMBERS, st.booleans()), max_size=3
)
OPERANDS = st.one_of(TEXTS, NUMBERS.map(in_millionths), st.booleans())
ORDERED = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])


def wheres(fields: list[str], operands: st.SearchStrategy[Any]) -> st.SearchStrategy[Where]:
    plain = st.one_of(
        st.builds(Comparison, st.sampled_from(fields), ORDERED, operands),
        st.builds(
            Comparison,
            st.sampled_from(fields),
            st.just("in"),
            st.lists(operands, min_size=1, max_size=3).map(tuple),
        ),
    ).filter(lambda where: not (isinstance(where.operand, bool) and where.operator not in ("==", "!=")))
    return st.recursive(
        plain,
        lambda parts: st.one_of(
            st.builds(Negated, parts),
            st.builds(Joined, st.booleans(), st.lists(parts, min_size=1, max_size=3).map(tuple)),
        ),
        max_leaves=4,
    )


ACTIVITY_SERIES = st.one_of(
    st.builds(
        Series, st.just("activity"), st.sampled_from(NAMES), st.none() | wheres(["a", "b", "x"], OPERANDS)
    ),
    st.builds(
        Series,
        st.just("activity"),
        st.sampled_from(NAMES),
        st.none() | wheres(["a", "b"], OPERANDS),
        st.sampled_from(["a", "b", "x"]),
        st.booleans(),
    ),
    st.builds(Series, st.just("active_day"), st.sampled_from([None, "login"])),
)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from([*NAMES, "other"]), PROPERTIES), min_size=1, max_size=12),
    st.lists(ACTIVITY_SERIES, max_size=5, unique_by=lambda series: series.key),
)
def test_activities_add_what_a_plain_evaluation_says(
    activities: list[tuple[str, dict[str, Any]]], series: list[Series]
) -> None:
    """Every where, number, truth and text, missing ones too; a number too large to add up is dead."""
    reading = read_events([("Activity", {"name": n, "properties": p}) for n, p in activities], tuple(series))
    wanted, dead = [], set()
    for row, (name, properties) in enumerate(activities):
        fields = {field: in_millionths(value) for field, value in properties.items()}
        for k, each in enumerate(series):
            if each.name not in (None, name) or not true(each.where, fields):
                continue
            if each.value is None:
                wanted.append((row, k, 1, 0))
                continue
            value = fields.get(each.value)
            if each.distinct and value is not None:
                wanted.append((row, k, hashed(value), 0))
            elif isinstance(value, int) and not isinstance(value, bool):
                wanted.append((row, k, value, 0))
                dead |= {row} if abs(value) > VALUE_MAX else set()
    assert [at for at, _ in reading.dead] == sorted(dead)
    position = reading.facts.position.tolist()
    assert entries_of(reading, position) == [entry for entry in wanted if entry[0] not in dead]


def entries_of(reading: Reading, position: list[int]) -> list[tuple[int, int, int, int]]:
    entries = reading.facts.entries
    columns = (entries.row, entries.series, entries.value, entries.whole)
    return [
        (position[row], *rest) for row, *rest in zip(*(column.tolist() for column in columns), strict=True)
    ]


ITEMS = st.fixed_dictionaries(
    {
        "sku": st.sampled_from("xyz"),
        "category": st.sampled_from(["books", "food", None]),
        "quantity": st.sampled_from([1, 2, -1, 0, 1 << 62]),
        "unit_price_minor": st.sampled_from([0, 1, 499, 500, 501, -5]),
    }
)
ITEM_OPERANDS = st.one_of(
    st.sampled_from(["x", "books"]), st.sampled_from([0, 1_000_000, 4_000_000, 5_000_000, 2_500_000])
)
ORDER_SERIES = st.builds(
    lambda where, field: Series("order", where=where, value=field, distinct=field is not None),
    wheres(["sku", "category", "quantity", "unit_price", "x"], ITEM_OPERANDS),
    st.sampled_from([None, "sku", "category"]),
)


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(st.lists(ITEMS, max_size=4), st.sampled_from(["GBP", "EUR", "JPY"])), min_size=1, max_size=6
    ),
    st.lists(ORDER_SERIES, max_size=4, unique_by=lambda series: series.key),
)
def test_orders_add_what_a_plain_evaluation_of_their_lines_says(
    orders: list[tuple[list[dict[str, Any]], str]], series: list[Series]
) -> None:
    """Shares and distinct values, by text, quantity and price in the reporting currency, in any currency."""
    events = [
        ("Purchased", {"order_id": f"o{i}", "amount_minor": 1, "currency": currency, "items": items})
        for i, (items, currency) in enumerate(orders)
    ]
    wanted = []
    for row, (items, currency) in enumerate(orders):
        unit = {"GBP": Fraction(1, 100), "EUR": Fraction(4, 500), "JPY": Fraction(1, 200)}[currency]
        seen = [
            {
                **item,
                "quantity": item["quantity"] * MILLIONTHS,
                "unit_price": item["unit_price_minor"] * unit * MILLIONTHS,
            }
            for item in items
        ]
        worth = [item["quantity"] * item["unit_price_minor"] for item in items]
        for k, each in enumerate(series):
            matching = [true(each.where, item) for item in seen]
            if each.distinct:
                values = {
                    item[each.value]
                    for item, m in zip(items, matching, strict=True)
                    if m and item[each.value]
                }
                wanted += sorted((row, k, hashed(value), 0) for value in values)
            elif any(matching):
                whole = min(max(sum(worth), 0), (1 << 62) - 1)
                part = min(max(sum(w for w, m in zip(worth, matching, strict=True) if m), 0), whole)
                wanted.append((row, k, part, whole))
    reading = read_events(events, tuple(series))
    assert not reading.dead
    assert entries_of(reading, list(range(len(orders)))) == wanted


def test_days_come_from_sign_ups_purchases_and_activities() -> None:
    """And not from profiles, refunds, plans or tickets; types in any order keep the log's order."""
    events: list[tuple[str, dict[str, Any]]] = [
        ("Activity", {"name": "x"}),
        ("ProfileUpdated", {}),
        ("Purchased", {"order_id": "o", "amount_minor": 1, "currency": "GBP"}),
        ("Refunded", {"refund_id": "r", "amount_minor": 1, "currency": "GBP", "kind": "refund"}),
        ("SignedUp", {}),
        ("PlanChanged", {"subscription_id": "s", "change": "started"}),
        ("TicketChanged", {"ticket_id": "t", "change": "opened"}),
        ("Activity", {"name": "y"}),
    ]
    reading = read_events(events, (Series("active_day"),))
    assert reading.facts.entries.row.tolist() == [0, 2, 4, 7]


def test_changes_are_read_as_sent_with_money_in_the_reporting_currency() -> None:
    """Every field that is kept; what is left out is None, so that it leaves things as they were."""
    plan = {
        "subscription_id": "s",
        "change": "upgraded",
        "product": "crm",
        "plan": "pro",
        "tier": "gold",
        "seats": 3,
        "addons": ["b", "a", "b"],
        "interval": "year",
        "mrr_minor": 1000,
        "currency": "EUR",
        "trial_ends_at": 5,
        "renews_at": 6,
        "cancel_at": 7,
        "card_on_file": True,
    }
    ticket = {
        "ticket_id": "t",
        "change": "rated",
        "author": "bot",
        "rating": 4,
        "channel": "mail",
        "topic": "bill",
    }
    reading = read_events(
        [
            ("PlanChanged", plan),
            ("TicketChanged", ticket),
            ("PlanChanged", {"subscription_id": "s", "change": "ended"}),
        ],
        (),
    )
    assert reading.facts.changes == {
        0: PlanChange(
            0, b"e0", "s", "upgraded", "crm", "pro", "gold", 3, ("a", "b"), "year", 800, 5, 6, 7, True
        ),
        1: TicketChange(1, b"e1", "t", "rated", "bot", 4, "mail", "bill"),
        2: PlanChange(2, b"e2", "s", "ended"),
    }


PLAN = {"subscription_id": "s", "change": "started"}
TICKET = {"ticket_id": "t", "change": "opened"}


@pytest.mark.parametrize(
    ("type_name", "fields", "message"),
    [
        (
            "PlanChanged",
            {**PLAN, "change": "unknown"},
            r"PlanChanged\.change: expected one of trial_started.*got 'unknown'.*upgrade",
        ),
        (
            "PlanChanged",
            {**PLAN, "subscription_id": ""},
            r"PlanChanged\.subscription_id: expected 1 to 256 bytes",
        ),
        ("PlanChanged", {**PLAN, "seats": -1}, r"PlanChanged\.seats: expected 0 to .*got -1"),
        (
            "PlanChanged",
            {**PLAN, "mrr_minor": -1, "currency": "GBP"},
            r"PlanChanged\.mrr_minor: expected 0 to",
        ),
        (
            "PlanChanged",
            {**PLAN, "mrr_minor": 1},
            r"PlanChanged\.currency: expected one with mrr_minor.*null",
        ),
        (
            "PlanChanged",
            {**PLAN, "usage_minor": 1, "currency": "XXX"},
            r"PlanChanged\.currency: expected one with a rate \(EUR, GBP, JPY\), got 'XXX'; declare its",
        ),
        (
            "PlanChanged",
            {**PLAN, "mrr_minor": 1 << 52, "currency": "GBP"},
            r"PlanChanged\.mrr_minor: expected at most",
        ),
        (
            "PlanChanged",
            {**PLAN, "cancel_at": -1},
            r"PlanChanged\.cancel_at: expected a time from 1970 to 9999",
        ),
        ("PlanChanged", {**PLAN, "renews_at": 10**15}, r"PlanChanged\.renews_at: expected a time"),
        ("PlanChanged", {**PLAN, "plan": "x" * 257}, r"PlanChanged\.plan: expected at most 256 bytes"),
        ("PlanChanged", {**PLAN, "addons": ["a"] * 65}, r"PlanChanged\.addons: expected at most 64 texts"),
        ("TicketChanged", {**TICKET, "change": "unknown"}, r"TicketChanged\.change: expected one of opened"),
        (
            "TicketChanged",
            {**TICKET, "author": "unknown"},
            r"TicketChanged\.author: expected one of customer, agent, bot",
        ),
        ("TicketChanged", {**TICKET, "rating": -1}, r"TicketChanged\.rating: expected 0 to"),
        (
            "TicketChanged",
            {**TICKET, "ticket_id": "t" * 257},
            r"TicketChanged\.ticket_id: expected 1 to 256 bytes",
        ),
        ("Activity", {"name": ""}, r"Activity\.name: expected 1 to 256 bytes"),
        ("Activity", {"name": "x" * 257}, r"Activity\.name: expected 1 to 256 bytes.*properties"),
        (
            "Activity",
            {"name": "x", "properties": {str(i): 1 for i in range(65)}},
            r"Activity\.properties: expected at most 64 names, got 65",
        ),
        (
            "Activity",
            {"name": "x", "properties": {"": 1}},
            r"Activity\.properties: expected names of 1 to 256 bytes",
        ),
        (
            "Activity",
            {"name": "x", "properties": {"a": float("nan")}},
            r"Activity\.properties: expected finite numbers, got 'a' = nan",
        ),
        (
            "Activity",
            {"name": "x", "properties": {"a": "y" * 8192}},
            r"Activity\.properties: expected at most 8192 bytes in all, got 8\d\d\d; keep bulky",
        ),
    ],
)
def test_what_is_out_of_bounds_is_a_dead_letter(type_name: str, fields: dict[str, Any], message: str) -> None:
    """The message names place, field, what was expected and got, and the fix; its neighbours are read."""
    good = ("Activity", {"name": "fine", "properties": {"a": "y" * 8000}})
    reading = read_events([good, (type_name, fields), good], ())
    assert [at for at, _ in reading.dead] == [1]
    assert reading.facts.position.tolist() == [0, 2]
    with pytest.raises(type(reading.dead[0][1]), match="partition 0 offset 1: " + message):
        raise reading.dead[0][1]


def test_the_default_definition_reads_new_types_without_series() -> None:
    """Nothing has to be declared for an activity to make a customer."""
    value = encode_event("Activity", {"event_id": "e", "customer_id": "c", "occurred_at": 1, "name": "x"})
    reading = read([Record(b"c", value)], partition=0, definition=default_definition())
    assert (len(reading.facts), len(reading.facts.entries)) == (1, 0)


@pytest.mark.parametrize("operand", [2 * MILLIONTHS, 2 * MILLIONTHS + 500_000, -1])
@pytest.mark.parametrize("sign", ["==", "!=", "<", "<=", ">", ">="])
def test_numbers_of_lines_are_compared_exactly(sign: Any, operand: int) -> None:
    """Quantities and prices on either side of a whole or a broken number, in every comparison."""
    quantities = [-1, 0, 1, 2, 3]
    items = [{"sku": str(q), "quantity": q, "unit_price_minor": q * 100} for q in quantities]
    fields = {"order_id": "o", "amount_minor": 1, "currency": "GBP", "items": items}
    for field in ("quantity", "unit_price"):
        where = Comparison(field, sign, operand)
        found = read_events(
            [("Purchased", fields)], (Series("order", None, where, "sku", True),)
        ).facts.entries
        expected = {hashed(str(q)) for q in quantities if true(where, {field: q * MILLIONTHS})}
        assert set(found.value.tolist()) == expected
