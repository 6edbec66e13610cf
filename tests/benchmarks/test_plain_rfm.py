"""The plain rules Faust runs agree with the scalar rules the engine is tested by."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.plain_rfm import Rules, apply, new_customer
from tests.streams.steps.oracle import DAY, Customer, Oracle

START = 20_000 * DAY
RULES = Rules()


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, dict[str, Any]]]:
    """Orders, linked and unlinked refunds of one customer over two years, some of them twice."""
    events: list[tuple[str, dict[str, Any]]] = []
    for number in range(draw(st.integers(1, 12))):
        common = {
            "event_id": f"e{number}",
            "occurred_at": START + draw(st.integers(0, 730)) * DAY,
            "amount_minor": draw(st.integers(1, 120_000)),
        }
        order_id = f"o{draw(st.integers(0, 5))}"
        kind = draw(st.sampled_from(("refund", "cancellation")))
        if draw(st.booleans()):
            events.append(("Purchased", {**common, "order_id": f"o{number}"}))
        else:
            linked = draw(st.sampled_from((None, order_id)))
            refund = {**common, "refund_id": f"r{number}", "order_id": linked, "kind": kind}
            events.append(("Refunded", refund))
        if draw(st.booleans()):
            events.append(events[-1])
    return events


@given(histories(), st.integers(0, 800))
def test_values_and_deadline_are_those_of_the_oracle(history: list[Any], days: int) -> None:
    """What it says holds until its deadline, and is what plain loops over all facts say."""
    state, oracle, now = new_customer(), Oracle(), START + days * DAY
    for type_name, fields in history:
        apply(state, type_name, fields)
        oracle.event(type_name, "c", {"kind": "refund", **fields})
    customer: Customer = oracle.customers["c"]
    rfm, lifecycle, scores, due = RULES.evaluate(state, now)
    assert ({"rfm": rfm, "lifecycle": lifecycle}, scores) == customer.evaluate(now)
    for instant in customer.instants(now, now + 400 * DAY):
        if instant < due:
            assert customer.evaluate(instant)[0] == {"rfm": rfm, "lifecycle": lifecycle}
