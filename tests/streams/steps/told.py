"""Customers as the log tells of them: random events of every kind, and what is known once some have come.

What is known is the plain description that the rules of `brute_force` are put to; nothing here asks
the customer table or what folds changes into subscriptions and tickets.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from streams.customers.changes import PLAN_CHANGES, TICKET_CHANGES
from streams.customers.entities import Standing, Subscription, Ticket, stops_ms
from tests.streams.segments.brute_force import HOUR, T0
from tests.streams.segments.described import DAY, Customer, Did, Order

START = T0 - 8 * DAY
HOURS = [START + hour * HOUR for hour in range(1, 20 * 24)]
"""When a Tick comes; what customers do ends a week before the last of them."""

Fields = dict[str, Any]
Told = tuple[int, str, str, Fields]
"""(the Tick it comes before, type, customer, fields)."""

PRICES = (0, 1, 333, 500, 999, 1_000)
GOING = ("active", "trial", "paused")
ACTIVATING = ("started", "upgraded", "downgraded", "renewed", "resumed")


def stories(
    rng: random.Random,
    customers: Sequence[str],
    events_max: int = 40,
    *,
    days: int = 14,
    tick_ms: int = HOUR,
    offsets_ms: Sequence[int] = (0, 0, 1, HOUR - 1, 1_234_567),
) -> list[Told]:
    """What customers do in some days, in the order in which it reaches the log, with a Tick every `tick_ms`.

    A tenth comes hours or days late, a twentieth twice, and some from an hour ahead. All of it happens
    one of `offsets_ms` after a full hour.
    """
    told = []
    for customer in customers:
        orders: list[str] = []
        for number in range(rng.randrange(events_max + 1)):
            at = START + rng.randrange(1, days * 24) * HOUR + rng.choice(offsets_ms)
            type_name, fields = _event(rng, f"{customer}-{number}", at, orders)
            # Up to an hour before the clock is on time, and then true since before its Tick.
            comes = at + rng.choice((0,) * 9 + (3 * HOUR, DAY, 3 * DAY))
            if comes == at and type_name in ("Purchased", "Activity") and rng.random() < 0.03:
                comes -= HOUR
            told.append((_tick_after(comes, tick_ms), type_name, customer, fields))
            if rng.random() < 0.05:
                comes += rng.choice((0, 5 * HOUR))
                told.append((_tick_after(comes, tick_ms), type_name, customer, fields))
    # Between two Ticks the log has no order of its own.
    rng.shuffle(told)
    return sorted(told, key=lambda each: each[0])


def _tick_after(at_ms: int, tick_ms: int) -> int:
    """The first Tick at or after an instant."""
    return max(START + tick_ms, START - (START - at_ms) // tick_ms * tick_ms)


def _event(rng: random.Random, number: str, at: int, orders: list[str]) -> tuple[str, Fields]:
    fields: Fields = {"event_id": f"e{number}", "occurred_at": at}
    draw = rng.random()
    if draw < 0.25:
        orders.append(f"o{number}")
        return "Purchased", {**fields, "order_id": orders[-1], **_money(rng), "items": _lines(rng)}
    if draw < 0.35:
        linked = rng.choice([None, *orders[-3:]])
        kind = rng.choice(("refund", "return", "cancellation"))
        return "Refunded", {
            **fields, "refund_id": f"r{number}", "order_id": linked, "kind": kind, **_money(rng)
        }  # fmt: skip
    if draw < 0.65:
        properties = {
            "feature": rng.choice(("export", "share", "print")),
            "size": rng.choice((-1, 0, 1, 2.5, 3, 3.333333, 7)),
            "beta": rng.random() < 0.5,
        }
        kept = {name: value for name, value in properties.items() if rng.random() < 0.8}
        return "Activity", {**fields, "name": rng.choice(("login", "feature_used")), "properties": kept}
    if draw < 0.75:
        type_name = "SignedUp" if draw < 0.66 else "ProfileUpdated"
        return type_name, {**fields, "traits": _traits(rng, at)}
    if draw < 0.9:
        return "PlanChanged", {**fields, **_plan(rng, at), "subscription_id": rng.choice("st")}
    return "TicketChanged", {
        **fields,
        "ticket_id": rng.choice("xyz"),
        "change": rng.choice(TICKET_CHANGES),
        "author": rng.choice((None, "customer", "agent", "bot")),
        "rating": rng.choice((None, 1, 3, 5)),
    }


def _money(rng: random.Random) -> Fields:
    return {"amount_minor": rng.choice((*PRICES, 3_000)), "currency": "GBP"}


def _lines(rng: random.Random) -> list[Fields]:
    return [
        {
            "sku": "s",
            "category": rng.choice(("books", "toys", "food", None)),
            "quantity": rng.randrange(1, 5),
            "unit_price_minor": rng.choice(PRICES),
        }
        for _ in range(rng.randrange(4))
    ]


def _traits(rng: random.Random, at: int) -> Fields:
    drawn = {
        "company_size": rng.choice((1, 2.5, 10, 250)),
        "country": rng.choice(("DE", "AT", "FR")),
        "vip": rng.random() < 0.5,
        "contract_end": ("shoal.events.Instant", {"at": at + rng.randrange(-3 * 24, 9 * 24) * HOUR}),
        "apps": rng.choice(([], ["slack"], ["jira", "slack"])),
    }
    return {
        name: None if rng.random() < 0.15 else value for name, value in drawn.items() if rng.random() < 0.4
    }


def _plan(rng: random.Random, at: int) -> Fields:
    # Half of them set a subscription going, or most would be of none.
    change = rng.choice((*PLAN_CHANGES, *ACTIVATING, *ACTIVATING))
    fields: Fields = {
        "change": change,
        "product": rng.choice(("crm", "mail", None)),
        "plan": rng.choice(("pro", "basic", None)),
        "tier": rng.choice(("gold", "silver", None)),
        "seats": rng.choice((None, 1, 3, 5)),
        "mrr_minor": rng.choice((None, 0, 1_000, 1_999)),
        "currency": "GBP",
    }
    if change in ACTIVATING and rng.random() < 0.7:
        fields["renews_at"] = at + rng.randrange(8 * 24) * HOUR
    if change == "trial_started":
        fields["trial_ends_at"] = at + rng.randrange(5 * 24) * HOUR
    if change == "cancellation_scheduled" and rng.random() < 0.8:
        fields["cancel_at"] = at + rng.randrange(5 * 24) * HOUR
    return fields


@dataclass
class Heard:
    """What has come of one customer."""

    events: dict[str, tuple[str, Fields]] = field(default_factory=dict)
    """By event id."""

    def hear(self, type_name: str, fields: Fields) -> None:
        """Take one more event; one that comes twice says nothing new."""
        self.events[fields["event_id"]] = type_name, fields

    def known(self) -> Customer:
        """Everything these events say together, whatever order they came in."""
        plans = _by_id(self._of("PlanChanged"), "subscription_id", PLAN_CHANGES)
        folded = [_subscription(name, changes) for name, changes in sorted(plans.items())]
        paid = {at for _, payments in folded for at in payments}
        tickets = _by_id(self._of("TicketChanged"), "ticket_id", TICKET_CHANGES)
        refunds = [f for f in self._of("Refunded") if f["amount_minor"] > 0 and not f["order_id"]]
        return Customer(
            orders=[order for order in map(self._order, self._of("Purchased")) if order.net > 0],
            refunds=[(each["occurred_at"], each["amount_minor"]) for each in refunds],
            did=list(self._did()),
            traits=self._traits(),
            subscriptions=tuple(subscription for subscription, _ in folded),
            standing=Standing(tuple(sorted(paid))),
            tickets=tuple(_ticket(name, changes) for name, changes in sorted(tickets.items())),
        )

    def _of(self, *types: str) -> list[Fields]:
        return [fields for type_name, fields in self.events.values() if type_name in types]

    def _order(self, order: Fields) -> Order:
        back = [each for each in self._of("Refunded") if each["order_id"] == order["order_id"]]
        net = max(0, order["amount_minor"] - sum(each["amount_minor"] for each in back))
        if any(each["kind"] == "cancellation" for each in back):
            net = 0
        lines = tuple(
            (
                {name: line[name] for name in ("category", "quantity") if line[name] is not None},
                line["quantity"] * line["unit_price_minor"],
            )
            for line in order["items"]
        )
        return Order(order["occurred_at"], net, lines)

    def _did(self) -> Iterator[Did]:
        for each in self._of("Activity"):
            yield Did(each["occurred_at"], each["name"], each["properties"])
        # A day on which somebody bought or signed up is one of activity, whatever came back later.
        for each in self._of("Purchased", "SignedUp"):
            yield Did(each["occurred_at"], "no activity")

    def _traits(self) -> Fields:
        said = sorted(self._of("SignedUp", "ProfileUpdated"), key=_stamp)
        latest = {name: value for each in said for name, value in each["traits"].items()}
        found = {name: value for name, value in latest.items() if value is not None}
        return {
            name: (value[1]["at"],) if name == "contract_end" else tuple(value) if name == "apps" else value
            for name, value in found.items()
        }


def _stamp(fields: Fields) -> tuple[int, bytes]:
    return fields["occurred_at"], fields["event_id"].encode()


def _by_id(changes: list[Fields], name: str, ranks: Sequence[str]) -> dict[str, list[Fields]]:
    """The changes of each, in their order."""
    found: dict[str, list[Fields]] = {}
    for each in sorted(changes, key=lambda c: (c["occurred_at"], ranks.index(c["change"]), _stamp(c))):
        found.setdefault(each[name], []).append(each)
    return found


def _subscription(name: str, changes: list[Fields]) -> tuple[Subscription, list[int]]:
    """What changes make of a subscription, change by change, and when it was paid."""
    now: Fields = {"state": "none"}
    payments = []
    for change in changes:
        at, what = change["occurred_at"], change["change"]
        stop = stops_ms(Subscription(name, **now))
        if stop is not None and stop < at:
            now = _stopped(now, "cancelled")
        going = now["state"] in GOING
        if not going and what in (*ACTIVATING, "trial_started", "paused"):
            now = {"state": "none"}
        said = {"product": "product", "plan": "plan", "tier": "tier", "seats": "seats"}
        said |= {"mrr_minor": "price_minor", "renews_at": "renews_at_ms"}
        now |= {to: change[key] for key, to in said.items() if change.get(key) is not None}
        now["changed_ms"] = at
        if what in ("started", "renewed") and now.get("price_minor", 0) > 0:
            payments.append(at)
        too_late = now.get("cancel_at_ms") is not None and at >= now["cancel_at_ms"]
        if what in ("started", "upgraded", "renewed", "resumed") and not too_late:
            now |= {"cancellation_scheduled": False, "cancel_at_ms": None}
        if what in ("renewed", "resumed"):
            now["payment_failed"] = False
        if what in ACTIVATING:
            now |= {"state": "active", "was_active": True, "trial_ends_at_ms": None}
        elif what in ("trial_started", "paused"):
            now["state"] = "trial" if what == "trial_started" else "paused"
            now["trial_ends_at_ms"] = change.get("trial_ends_at") if what == "trial_started" else None
        elif (what in ("cancelled", "ended") and going) or (
            what == "trial_ended" and now["state"] == "trial"
        ):
            now = _stopped(now, "cancelled" if what == "cancelled" else "ended")
        elif what == "payment_failed" and going:
            now["payment_failed"] = True
        elif what == "cancellation_scheduled" and going:
            now |= {"cancellation_scheduled": True, "cancel_at_ms": change.get("cancel_at")}
    return Subscription(name, **now), payments


def _stopped(now: Fields, state: str) -> Fields:
    """It ends only if it was active; what it was to do is nothing any more."""
    ended = {"state": state if now.get("was_active") else "none", "was_active": False}
    kept = ("product", "plan", "tier", "seats", "price_minor", "changed_ms")
    return {name: now[name] for name in kept if name in now} | ended


def _ticket(name: str, changes: list[Fields]) -> Ticket:
    now: Fields = {}
    for change in changes:
        at, what = change["occurred_at"], change["change"]
        if what == "opened":
            now |= {"is_open": True, "opened_ms": now.get("opened_ms", at), "closed_ms": None}
        elif what == "reopened":
            now |= {"is_open": True, "closed_ms": None, "reopened_ms": (*now.get("reopened_ms", ()), at)}
        elif what == "closed":
            if now.get("is_open") or now.get("closed_ms") is None:
                now["closed_ms"] = at
            now["is_open"] = False
        elif what == "rated":
            now |= {
                "rated_ms": at,
                "rating": now.get("rating") if change["rating"] is None else change["rating"],
            }
        elif change["author"] in ("agent", "bot") and "opened_ms" in now:
            now.setdefault("first_reply_ms", at)
    return Ticket(name, **now)
