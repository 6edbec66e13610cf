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
    for number in range(draw(st.integers(1, 8))):
        common = {
            "event_id": f"e{number}",
            # Few days, so that gaps and windows end exactly where something else happens.
            "occurred_at": START + draw(st.integers(0, 24)) * 30 * DAY,
            "amount_minor": draw(st.sampled_from((1, 5_000, 100_00, 250_00, 1000_00))),
        }
        if draw(st.integers(0, 2)):
            events.append(("Purchased", {**common, "order_id": f"o{number}"}))
        else:
            linked = draw(st.sampled_from((None, *(f"o{each}" for each in range(number)))))
            kind = draw(st.sampled_from(("refund", "cancellation")))
            refund = {**common, "refund_id": f"r{number}", "order_id": linked, "kind": kind}
            events.append(("Refunded", refund))
        if draw(st.booleans()):
            events.append(events[-1])
    return events


@given(histories())
def test_values_and_deadlines_are_those_of_the_oracle(history: list[Any]) -> None:
    """At every instant at which something could change, and just before it; no deadline comes too late."""
    state, oracle = new_customer(), Oracle()
    for type_name, fields in history:
        apply(state, type_name, fields)
        oracle.event(type_name, "c", {"kind": "refund", **fields})
    customer: Customer = oracle.customers["c"]
    instants = customer.instants(START, START + 1_200 * DAY)
    values, due = None, START
    for now in sorted({at - early for at in instants for early in (0, 1)}):
        rfm, lifecycle, scores, next_due = RULES.evaluate(state, now)
        assert ({"rfm": rfm, "lifecycle": lifecycle}, scores) == customer.evaluate(now)
        # All facts are there from the start: between two instants only time passes.
        if values is not None and (rfm, lifecycle) != values:
            assert due <= now
        values, due = (rfm, lifecycle), next_due
