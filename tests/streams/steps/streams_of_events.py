"""Random logs of one partition: late, doubled, linked, waiting, cancelled, at the edges of windows."""

from __future__ import annotations

import random
from typing import Any

DAY = 86_400_000
T0 = 1_600_000_000_000
JUMPS_MS = (1, 60_000, 3_600_000, DAY, 29 * DAY, 30 * DAY, 59 * DAY, 60 * DAY, 90 * DAY, 180 * DAY, 300 * DAY)

Entry = tuple[str, str, dict[str, Any]]
"""(type, customer, fields); a Tick has no customer and one field, `at`."""


def random_log(rng: random.Random, entries: int, customers: int = 5) -> list[Entry]:
    """A log whose event times mostly rise, with ticks in between and one at the end."""
    now, log, sent = T0, [], []
    for i in range(entries):
        now += rng.choice(JUMPS_MS[:4]) if rng.random() < 0.8 else rng.choice(JUMPS_MS)
        at = now
        if rng.random() < 0.15:
            at -= rng.choice((1_800_000, 3_600_001, DAY, 100 * DAY))
        if rng.random() < 0.05:
            at += rng.choice((60_000, 3_600_000))
        draw = rng.random()
        if draw < 0.25:
            log.append(("Tick", "", {"at": now}))
            continue
        if draw < 0.35 and sent:
            log.append(rng.choice(sent[-20:]))
            continue
        orders = [fields["order_id"] for type_name, _, fields in sent if type_name == "Purchased"]
        entry = _event(rng, i, at, f"c{rng.randrange(customers)}", orders)
        sent.append(entry)
        log.append(entry)
    log.append(("Tick", "", {"at": now + rng.choice((0, DAY, 400 * DAY))}))
    return log


def _event(rng: random.Random, i: int, at: int, customer: str, orders: list[str]) -> Entry:
    """One event; a refund is for any earlier order, however old, or for one that may come within weeks."""
    coming = f"w{rng.randrange(6)}-{at // (100 * DAY)}"
    fields: dict[str, Any] = {"event_id": f"e{i}", "occurred_at": at}
    if rng.random() < 0.05:
        fields["account_id"] = f"a{i}"
    draw = rng.random()
    if draw < 0.05:
        return ("ProfileUpdated", customer, {**fields, "traits": {"plan": f"p{i}"}})
    amount = rng.choice((0, 1, 9_999, 10_000, 25_000, 60_000, 200_000))
    if draw < 0.7:
        order = f"o{i}" if rng.random() < 0.7 else coming
        return (
            "Purchased",
            customer,
            {**fields, "order_id": order, "amount_minor": amount, "currency": "GBP"},
        )
    linked = rng.choice([*orders[-10:], *orders[:3], coming, coming, None, None, None, None])
    kind = rng.choice(("refund", "return", "cancellation"))
    return (
        "Refunded",
        customer,
        {
            **fields,
            "refund_id": f"r{i}",
            "order_id": linked,
            "kind": kind,
            "amount_minor": amount,
            "currency": "GBP",
        },
    )
