"""Facts and tables for tests, and a brute-force oracle: dictionaries, one event at a time, no pages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streams.customers.facts import NEVER_MS, Facts, Int64s, Kind, RefundKind, Strings, TraitValue
from streams.customers.rows import Restorer
from streams.customers.table import CustomerTable

DIMENSIONS = ("rfm", "lifecycle")
VALUES = (("prospect", "champions", "at_risk"), ("lead", "active"))


@dataclass(frozen=True)
class Event:
    """One event in a test; `order` links a refund."""

    kind: Kind
    customer: str
    time: int
    id: str
    amount: int = 0
    order: str = ""
    refund_kind: RefundKind = RefundKind.NONE
    traits: tuple[tuple[str, TraitValue], ...] = ()
    account: str | None = None


def purchase(customer: str, time: int, order: str, amount: int, account: str | None = None) -> Event:
    return Event(Kind.PURCHASED, customer, time, order, amount, account=account)


def refund(
    customer: str,
    time: int,
    refund_id: str,
    amount: int,
    order: str = "",
    kind: RefundKind = RefundKind.REFUND,
) -> Event:
    return Event(Kind.REFUNDED, customer, time, refund_id, amount, order, kind)


def profile(customer: str, time: int, event_id: str, **traits: TraitValue) -> Event:
    return Event(Kind.PROFILE_UPDATED, customer, time, event_id, traits=tuple(traits.items()))


def sign_up(customer: str, time: int, event_id: str, **traits: TraitValue) -> Event:
    return Event(Kind.SIGNED_UP, customer, time, event_id, traits=tuple(traits.items()))


def facts_of(events: Sequence[Event]) -> Facts:
    """Pack events as the columns of one chunk."""
    return Facts(
        position=np.arange(len(events)),
        kind=np.array([e.kind for e in events], np.uint8),
        customer=Strings.from_list([e.customer.encode() for e in events]),
        event_id=Strings.from_list([e.id.encode() for e in events]),
        occurred_at_ms=np.array([e.time for e in events], np.int64),
        natural_id=Strings.from_list([e.id.encode() for e in events]),
        order_id=Strings.from_list([e.order.encode() for e in events]),
        refund_kind=np.array([e.refund_kind for e in events], np.uint8),
        amount_minor=np.array([e.amount for e in events], np.int64),
        traits={row: dict(e.traits) for row, e in enumerate(events) if e.traits},
        account_id={row: e.account for row, e in enumerate(events) if e.account is not None},
    )


def new_table(fact_key: bytes = b"key") -> CustomerTable:
    return CustomerTable(fact_key=fact_key, dimensions=DIMENSIONS, values=VALUES)


def apply(
    table: CustomerTable, events: Sequence[Event], fold_line_ms: int | Sequence[int] = -1000
) -> list[int]:
    """Apply events as one call; return the results."""
    facts = facts_of(events)
    slots = table.slots.find_or_add(facts.customer)
    lines = np.broadcast_to(np.asarray(fold_line_ms, np.int64), (len(events),)).copy()
    return table.apply(facts, np.arange(len(events)), slots, lines).tolist()


def restored(rows: Iterable[tuple[bytes, bytes | None]], fact_key: bytes = b"key") -> CustomerTable:
    table = new_table(fact_key)
    restorer = Restorer(table)
    for key, value in rows:
        restorer.add(key, value)
    restorer.finish()
    return table


def run_of(table: CustomerTable, name: str, slot: int) -> list[tuple[int, int]]:
    """Return a run's (time, value) pairs, sorted: the order of equal times means nothing."""
    runs = getattr(table, name)
    start, end = int(runs.start(np.array([slot]))[0]), int(runs.end(np.array([slot]))[0])
    times = runs.times[start:end].tolist()
    assert times == sorted(times)
    assert len(set(runs.ids[start:end].tolist())) == end - start
    return sorted(zip(times, np.diff(runs.sums[start:end], prepend=0).tolist(), strict=True))


def observed(table: CustomerTable, slot: int) -> dict[str, Any]:
    """Return everything that can be asked about one customer's facts."""
    one: Int64s = np.array([slot])
    account = table.account_id(slot)
    return {
        "orders": run_of(table, "orders", slot),
        "refunds": run_of(table, "refunds", slot),
        "others": run_of(table, "others", slot),
        "first": int(table.first_paid_ms(one)[0]),
        "last": int(table.last_paid_ms(one)[0]),
        "lifetime": tuple(int(column[0]) for column in table.lifetime(one)),
        "signed_up": int(table.signed_up_ms[slot]),
        "traits": table.traits(slot),
        "account": account,
    }


def all_observed(table: CustomerTable) -> dict[str, dict[str, Any]]:
    return {table.slots.id_of(slot).decode(): observed(table, slot) for slot in range(table.count)}


@dataclass
class Oracle:
    """The rules, as plainly as they can be said. Holds the winning content per customer and id."""

    facts: dict[tuple[str, str, str], Event] = field(default_factory=dict)
    delivered: list[Event] = field(default_factory=list)

    def apply(self, event: Event) -> None:
        family = {Kind.PURCHASED: "order", Kind.REFUNDED: "refund"}.get(event.kind, "other")
        key = (event.customer, family, event.id)
        held = self.facts.get(key)
        if held is None or _rank(event) < _rank(held):
            self.facts[key] = event
        self.delivered.append(event)

    def observed(self) -> dict[str, dict[str, Any]]:
        return {customer: self._one(customer) for customer in {e.customer for e in self.delivered}}

    def _one(self, customer: str) -> dict[str, Any]:
        mine = [e for (owner, _, _), e in self.facts.items() if owner == customer]
        orders = {e.id: e for e in mine if e.kind == Kind.PURCHASED}
        linked = [e for e in mine if e.kind == Kind.REFUNDED and e.order]
        nets = []
        for order in orders.values():
            net = order.amount - sum(r.amount for r in linked if r.order == order.id)
            if any(r.order == order.id and r.refund_kind == RefundKind.CANCELLATION for r in linked):
                net = 0
            if net > 0:
                nets.append((order.time, net))
        unlinked = [(e.time, e.amount) for e in mine if e.kind == Kind.REFUNDED and not e.order and e.amount]
        waiting = sum(r.amount for r in linked if r.order not in orders)
        seen = [e for e in self.delivered if e.customer == customer]
        stamped: dict[str, Any] = {}
        for event in sorted(seen, key=lambda e: (e.time, e.id)):
            stamped |= dict(event.traits)
        accounts = [(e.time, e.id, e.account) for e in seen if e.account is not None]
        return {
            "orders": sorted(nets),
            "refunds": sorted(unlinked),
            "others": sorted((e.time, 0) for e in mine if e.kind <= Kind.PROFILE_UPDATED),
            "first": min((time for time, _ in nets), default=NEVER_MS),
            "last": max((time for time, _ in nets), default=NEVER_MS),
            "lifetime": (len(nets), sum(n for _, n in nets), sum(a for _, a in unlinked) + waiting),
            "signed_up": min((e.time for e in seen if e.kind == Kind.SIGNED_UP), default=NEVER_MS),
            "traits": {name: value for name, value in stamped.items() if value is not None},
            "account": max(accounts)[2] if accounts else None,
        }


def _rank(event: Event) -> tuple[Any, ...]:
    """The least content under one id wins; tests never tie on all but the linked order."""
    return (event.time, event.amount, bool(event.order), int(event.refund_kind) if event.order else 0)
