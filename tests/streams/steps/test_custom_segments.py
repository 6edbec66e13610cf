"""Custom segments and dimensions through the engine: changes, memberships, restarts, shadows, drafts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from errors import DefinitionMismatch
from schemas.memberships import decode_membership
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.segments.loading import default_definition
from tests.simulation import SimulatedPartition
from tests.streams.segments.custom import defined, segments

DAY = 86_400_000
T0 = 1_700_000_000_000 // DAY * DAY

RULES = """
segments:
  repeat_buyers:
    when: orders(30d) >= 2
  big_spenders:
    when: spend(30d) > 100 and not in_segment("repeat_buyers")
  quiet_test:
    when: orders(30d) >= 1
    state: shadow
  idea:
    when: orders(30d) >= 9
    state: draft
  spring:
    when: orders(ever) >= 1
    valid_from: 2023-11-17T00:00:00Z
    valid_until: 2023-11-20T00:00:00Z
dimensions:
  value_tier:
    values:
      gold: spend(30d) >= 100
      silver: spend(30d) >= 20
    otherwise: bronze
"""


def bought(partition: SimulatedPartition, customer: str, day: float, amount: int) -> None:
    at = T0 + round(day * DAY)
    partition.event(
        "Purchased",
        customer,
        {
            "event_id": f"e{customer}{day}",
            "order_id": f"o{customer}{day}",
            "occurred_at": at,
            "amount_minor": amount,
            "currency": "GBP",
        },
    )


def run(partition: SimulatedPartition, size: int = 7) -> None:
    partition.run(itertools.repeat(size))


def story(definition: Definition, size: int = 7) -> SimulatedPartition:
    """One customer who buys twice and stops; a tick every six hours."""
    partition = SimulatedPartition(definition)
    bought(partition, "ann", 0.1, 5_000)
    for quarter in range(1, 8):
        partition.tick(T0 + quarter * DAY // 4)
    bought(partition, "ann", 2, 15_000)
    for quarter in range(8, 34 * 4):
        partition.tick(T0 + quarter * DAY // 4)
    run(partition, size)
    return partition


def told(partition: SimulatedPartition, dimension: str) -> list[tuple[Any, ...]]:
    """What was said of a dimension: (change, from, to, cause, days since T0)."""
    return [
        (c["change"], c["from"], c["to"], c["cause"], (c["effective_at"] - T0) / DAY)
        for c in partition.changes
        if c["dimension"] == dimension
    ]


def test_a_segment_is_entered_by_an_event_and_left_by_a_deadline() -> None:
    """In with the second order, out the instant the first of them leaves the window."""
    partition = story(defined(RULES))
    assert told(partition, "repeat_buyers") == [
        ("entered", None, "repeat_buyers", "event", 2.0),
        ("exited", "repeat_buyers", None, "time_elapsed", 30.1),
    ]
    kinds = {c["dimension"]: c["dimension_kind"] for c in partition.changes}
    assert kinds["repeat_buyers"] == "custom" and kinds["value_tier"] == kinds["rfm"] == "exclusive"


def test_a_rule_may_read_another_segment() -> None:
    """Spent much, and no repeat buyer: true once the second order is alone in the window."""
    assert told(story(defined(RULES)), "big_spenders") == [
        ("entered", None, "big_spenders", "time_elapsed", 30.1),
        ("exited", "big_spenders", None, "time_elapsed", 32.0),
    ]


def test_a_custom_dimension_is_total_and_moves() -> None:
    """Everybody has a value from the first evaluation on; the first rule that holds gives it."""
    assert told(story(defined(RULES)), "value_tier") == [
        ("entered", None, "silver", "event", 0.1),
        ("moved", "silver", "gold", "event", 2.0),
        ("moved", "gold", "bronze", "time_elapsed", 32.0),
    ]


def test_validity_begins_and_ends_at_its_instants() -> None:
    """Without any event a segment opens and closes by the calendar."""
    assert told(story(defined(RULES)), "spring") == [
        ("entered", None, "spring", "time_elapsed", 3.0),
        ("exited", "spring", None, "time_elapsed", 6.0),
    ]


def test_shadows_are_computed_and_not_told_drafts_are_not_computed() -> None:
    """A shadow has members in the table, and no change, no membership and no number in the sequence."""
    definition = defined(RULES)
    partition = story(definition)
    names = Evaluator(definition).dimensions
    assert "idea" not in names
    assert told(partition, "quiet_test") == []
    assert partition.engine.table.since_ms[0, names.index("quiet_test (shadow)")] > T0
    assert [c["seq"] for c in partition.changes] == list(range(1, len(partition.changes) + 1))
    written = [value for step in partition.transactions for _, value in step.memberships if value is not None]
    held = {each["dimension"] for value in written for each in decode_membership(value)["values"]}
    assert "quiet_test" not in held and "value_tier" in held


def test_initial_absence_is_silent() -> None:
    """Who is never in a segment never leaves it."""
    partition = story(segments(whales="spend(30d) > 100000"))
    assert told(partition, "whales") == []


@pytest.mark.parametrize("size", [1, 3, 500])
def test_chunks_and_crashes_change_nothing(size: int) -> None:
    """Whatever a chunk holds, and whenever the worker dies, the same changes are told once."""
    whole = story(defined(RULES))
    assert told(story(defined(RULES), size), "value_tier") == told(whole, "value_tier")
    partition = SimulatedPartition(defined(RULES), log=list(whole.log))
    calls = itertools.count(1)
    partition.run(itertools.repeat(size), crash=lambda: next(calls) % 3 == 0)
    assert [summary(c) for c in partition.changes] == [summary(c) for c in whole.changes]
    assert partition.values() == whole.values()


def summary(change: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(
        change[name] for name in ("seq", "dimension", "from", "to", "effective_at", "previous_since")
    )


def test_a_definition_without_custom_parts_has_the_hash_it_always_had() -> None:
    """State built before there were custom segments stays valid; with them it is another definition."""
    assert defined("").hash == default_definition().hash
    partition = SimulatedPartition(defined(""))
    bought(partition, "ann", 0, 5_000)
    run(partition)
    partition.definition = defined(RULES)
    partition.evaluator = Evaluator(partition.definition)
    with pytest.raises(DefinitionMismatch):
        partition.crash()


EVERYTHING = """
traits: {country: string, apps: set}
segments:
  exporters: {when: 'count("feature_used", 7d where feature == "export") >= 2'}
  quiet: {when: days_since("feature_used") > 3}
  active_days: {when: days_active(7d) >= 2}
  readers: {when: 'spend(30d where category == "books") > 10'}
  germans: {when: 'country == "DE" and "slack" in apps'}
  pro: {when: plan == "pro"}
  earning: {when: mrr >= 10}
  renewing: {when: days_until(renews_at) < 2}
  waiting: {when: ticket_open}
"""


def test_every_kind_of_fact_makes_and_unmakes_members() -> None:
    """Activities, days, order lines, traits, subscriptions and tickets, from the log to the changes."""
    partition = SimulatedPartition(defined(EVERYTHING))

    def event(type_name: str, day: float, **fields: Any) -> None:
        at = T0 + round(day * DAY)
        partition.event(type_name, "ann", {"event_id": f"{type_name}{day}", "occurred_at": at, **fields})
        partition.tick(at + 60_000)

    event("Activity", 0, name="feature_used", properties={"feature": "export"})
    event("Activity", 1, name="feature_used", properties={"feature": "export"})
    event("ProfileUpdated", 1.25, traits={"country": "DE", "apps": ["jira", "slack"]})
    plan = {"subscription_id": "s", "plan": "pro", "currency": "GBP"}
    event("PlanChanged", 1.5, change="started", mrr_minor=1_500, renews_at=T0 + 5 * DAY, **plan)
    line = {"line_id": "1", "sku": "b", "category": "books", "quantity": 1, "unit_price_minor": 1_200}
    event("Purchased", 1.75, order_id="o", amount_minor=1_200, currency="GBP", items=[line])
    event("TicketChanged", 2, ticket_id="t", change="opened", author="customer")
    event("TicketChanged", 2.5, ticket_id="t", change="closed", author="agent")
    partition.tick(T0 + 4 * DAY)
    partition.tick(T0 + 5 * DAY)
    event("PlanChanged", 6, change="cancelled", mrr_minor=0, **plan)
    for hour in range(6 * 24 + 1, 40 * 24, 6):
        partition.tick(T0 + hour * DAY // 24)
    run(partition)
    found = {
        name: [(c[0], c[4]) for c in told(partition, name)] for name in partition.evaluator.dimensions[2:]
    }
    assert found == {
        "exporters": [("entered", 1.0), ("exited", 7.0)],
        "quiet": [("entered", 4 + 1 / DAY)],
        "active_days": [("entered", 1.0), ("exited", 7.0)],
        "readers": [("entered", 1.75), ("exited", 31.75)],
        "germans": [("entered", 1.25)],
        "pro": [("entered", 1.5), ("exited", 6.0)],
        "earning": [("entered", 1.5), ("exited", 6.0)],
        "renewing": [("entered", 3 + 1 / DAY), ("exited", 5.0)],
        "waiting": [("entered", 2.0), ("exited", 2.5)],
    }
    again = SimulatedPartition(partition.definition, log=list(partition.log))
    calls = itertools.count(1)
    again.run(itertools.repeat(3), crash=lambda: next(calls) % 3 == 0)
    assert [summary(c) for c in again.changes] == [summary(c) for c in partition.changes]
