"""Online Retail II as records: the demo's purchases and refunds, framed, shifted in time if asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from benchmarks.synthetic import Encoder, Stamped
from demo.purchases import CURRENCY, Invoices, Purchase, Refund

LAST_MIDNIGHT_MS = int(datetime(2011, 12, 10, tzinfo=UTC).timestamp() * 1000)
"""The midnight after the last invoice."""


def arrivals(*, shift_ms: int = 0) -> Iterator[Stamped]:
    """Yield every invoice of an identified customer by time; each is sent at once, so none is late."""
    encode = Encoder()
    for event in Invoices().events():
        at_ms = event.occurred_at_ms + shift_ms
        type_name, fields = _refunded(event) if isinstance(event, Refund) else _purchased(event)
        common = {"customer_id": event.customer_id, "occurred_at": at_ms, "currency": CURRENCY}
        yield at_ms, event.customer_id.encode(), encode(type_name, {**common, **fields})


def _purchased(event: Purchase) -> tuple[str, dict[str, Any]]:
    items = [
        {"sku": line.sku, "quantity": line.quantity, "unit_price_minor": line.unit_price_minor}
        for line in event.lines
    ]
    identity = {"event_id": f"order-{event.order_id}", "order_id": event.order_id}
    return "Purchased", {**identity, "amount_minor": event.amount_minor, "items": items}


def _refunded(event: Refund) -> tuple[str, dict[str, Any]]:
    identity = {"event_id": f"refund-{event.refund_id}", "refund_id": event.refund_id, "order_id": None}
    return "Refunded", {**identity, "kind": "refund", "amount_minor": event.amount_minor}
