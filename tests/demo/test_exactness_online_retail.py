"""The pure engine against SQL on the whole data set: every customer, every measure, at many instants."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest

from demo.check import compare
from demo.oracle import Standing, standings
from demo.purchases import INVOICE_LINES, Invoices, Purchase, Refund
from streams.customers.facts import NEVER_MS, Facts, Int64s, Kind, RefundKind, Strings
from streams.customers.table import CustomerTable, Result
from streams.segments.evaluate import Evaluator, Outcome
from streams.segments.loading import default_definition

DAY_MS = 86_400_000

INSTANTS = [
    "2009-12-01 12:00",  # The first day, at noon.
    "2010-01-31 23:59",
    "2010-07-15 00:00",
    "2010-12-01 07:45",  # 365 days after the first invoice, to the minute.
    "2011-01-18 10:17",  # The instant of the great cancellation, inclusive.
    "2011-05-30 12:00",  # 180 days and a bit after the winter.
    "2011-09-30 00:00",
    "2011-12-10 00:00",  # The final tick of the demo.
]


def ms(text: str) -> int:
    """Return a UTC time in milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def as_facts(events: list[Purchase | Refund]) -> Facts:
    """Return what the reader makes of these events, in their order."""
    ids = [e.order_id if isinstance(e, Purchase) else e.refund_id for e in events]
    refunded = np.array([isinstance(e, Refund) for e in events], np.bool_)
    return Facts(
        position=np.arange(len(events)),
        kind=np.where(refunded, Kind.REFUNDED, Kind.PURCHASED).astype(np.uint8),
        customer=Strings.from_list(e.customer_id.encode() for e in events),
        event_id=Strings.from_list(f"event-{i}".encode() for i in ids),
        occurred_at_ms=np.array([e.occurred_at_ms for e in events], np.int64),
        natural_id=Strings.from_list(i.encode() for i in ids),
        order_id=Strings.from_list(b"" for _ in events),
        refund_kind=np.where(refunded, RefundKind.REFUND, RefundKind.NONE).astype(np.uint8),
        amount_minor=np.array([e.amount_minor for e in events], np.int64),
        traits={},
        account_id={},
    )


def as_standings(
    table: CustomerTable, evaluator: Evaluator, slots: Int64s, outcome: Outcome, at_ms: int
) -> dict[str, Standing]:
    """Return an evaluation in the oracle's terms."""
    columns = zip(
        table.slots.ids_of(slots),
        outcome.last_purchase_ms.tolist(),
        outcome.orders.tolist(),
        outcome.net_minor.tolist(),
        outcome.scores.tolist(),
        outcome.value.tolist(),
        strict=True,
    )
    return {
        customer.decode(): Standing(
            recency_ms=None if last == NEVER_MS else at_ms - last,
            orders=orders,
            net_minor=net,
            scores=(r, f, m),
            rfm=evaluator.values[0][rfm],
            lifecycle=evaluator.values[1][lifecycle],
        )
        for customer, last, orders, net, (r, f, m), (rfm, lifecycle) in columns
    }


def apply(table: CustomerTable, events: list[Purchase | Refund], fold_line_ms: int) -> None:
    """Apply events as one chunk; all of them are new and none is too old."""
    if not events:
        return
    facts = as_facts(events)
    slots = table.slots.find_or_add(facts.customer)
    fold_lines = np.full(len(events), fold_line_ms, np.int64)
    result = table.apply(facts, np.arange(len(events)), slots, fold_lines)
    assert (result == Result.APPLIED).all()


@pytest.fixture(scope="module")
def events() -> list[Purchase | Refund]:
    """All events of the data set."""
    return list(Invoices().events())


@pytest.mark.parametrize("backwards", [False, True], ids=["in order", "each period backwards"])
def test_every_customer_is_what_sql_says_at_every_instant(
    events: list[Purchase | Refund], backwards: bool
) -> None:
    """R, F, M, scores, segment and lifecycle of everybody: nobody differs, whichever way the events come."""
    definition = default_definition()
    evaluator = Evaluator(definition)
    table = CustomerTable(fact_key=b"k" * 16, dimensions=evaluator.dimensions, values=evaluator.values)
    keep_ms = definition.longest_window_ms + 7 * DAY_MS
    times = [event.occurred_at_ms for event in events]
    checked = 0
    for before_ms, at_ms in pairwise([0, *map(ms, INSTANTS)]):
        # After `before_ms`, up to and including `at_ms`: what the oracle counts.
        part = events[bisect_left(times, before_ms + 1) : bisect_left(times, at_ms + 1)]
        apply(table, part[::-1] if backwards else part, before_ms - keep_ms)
        slots = np.arange(len(table.slots))
        outcome = evaluator.evaluate(table, slots, np.full(len(slots), at_ms, np.int64))

        actual = as_standings(table, evaluator, slots, outcome, at_ms)
        assert compare(standings(INVOICE_LINES, at_ms), actual) == []
        checked += len(actual)
    assert len(table.slots) == 5_942
    assert checked > 25_000
