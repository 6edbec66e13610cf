"""What `shoal customer ID` shows of a customer whose every figure is known."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.events import encode_event, encode_tick
from tests.pipeline.running import Pipeline, Produced, home

pytestmark = pytest.mark.kafka

PARTITIONS = 2


def ms(text: str) -> int:
    """A UTC time in milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def event(type_name: str, customer: str, at: str, **fields: Any) -> Produced:
    """One event in the customer's own partition."""
    content = {"event_id": f"{customer}-{at}", "customer_id": customer, "occurred_at": ms(at), **fields}
    return home(customer, PARTITIONS), customer.encode(), encode_event(type_name, content)


def order(customer: str, at: str, amount_minor: int, currency: str = "GBP") -> Produced:
    """One order."""
    fields = {"order_id": f"{customer} {at}", "amount_minor": amount_minor, "currency": currency}
    return event("Purchased", customer, at, **fields)


def ticks(at: str) -> list[Produced]:
    """A Tick to every partition."""
    return [(p, b"%d" % p, encode_tick(ms(at))) for p in range(PARTITIONS)]


LOG = [
    event("SignedUp", "anna", "2024-01-01 09:00", source="friend"),
    event("SignedUp", "ben", "2024-01-01 10:00"),
    order("anna", "2024-01-02 12:00", 80_00),
    *ticks("2024-01-03"),
    order("anna", "2024-01-10 12:00", 100_00, "EUR"),
    event(
        "Refunded", "anna", "2024-01-11 08:00",
        refund_id="r", order_id="anna 2024-01-02 12:00", kind="refund", amount_minor=30_00, currency="GBP",
    ),
    order("anna", "2024-01-12 12:00", 150_00),
    *ticks("2024-01-13"),
    event("SignedUp", "carl", "2024-01-13 10:00"),
]  # fmt: skip

ANNA = f"""\
customer    anna
as of       2024-01-13 00:00:00 UTC (partition {home("anna", PARTITIONS)})
rfm         potential_loyalist since 2024-01-12 12:00:00 UTC
lifecycle   new since 2024-01-02 12:00:00 UTC
scores      R5 F3 M3
last order  2024-01-12 12:00:00 UTC
orders      3 in 365 days
net         286.00 GBP in 365 days
next        2024-02-01 12:00:00 UTC: the first instant at which time alone could change this
trait       signup_source = 'friend'
"""


async def test_a_customers_card_after_a_small_run(kafka: str, prefix: str, tmp_path: Path) -> None:
    """Values and since when, scores, figures, next deadline, traits; a lead has none; nobody is exit 1."""
    pipeline = await Pipeline(kafka, prefix, tmp_path, PARTITIONS).create()
    await pipeline.produce(LOG)
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0

    anna = pipeline.command("customer", "anna")
    assert (anna.returncode, anna.stdout, anna.stderr) == (0, ANNA, "")
    ben = pipeline.command("customer", "ben").stdout
    assert "prospect since 2024-01-01 10:00:00" in ben and "lead since 2024-01-01 10:00:00" in ben
    assert "scores" not in ben and "next        never" in ben
    # Known, though no tick has come since: nothing is made up.
    carl = pipeline.command("customer", "carl").stdout
    assert carl.count("not evaluated yet") == 2
    nobody = pipeline.command("customer", "dora")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert nobody.stderr == "nothing is known of customer 'dora'\n"
