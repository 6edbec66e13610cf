"""The scalar rules of one step, as plainly as possible: one event, one tick, one customer at a time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

DAY = 86_400_000
HOUR = 3_600_000
WINDOW = 365 * DAY
R_DAYS = (30, 60, 90, 180)
F_FLOORS = (2, 3, 6, 12)
M_FLOORS = (100_00, 250_00, 500_00, 1000_00)
GRID = {
    5: "new potential_loyalist potential_loyalist champions champions",
    4: "promising potential_loyalist potential_loyalist loyal loyal",
    3: "about_to_sleep about_to_sleep need_attention loyal loyal",
    2: "hibernating hibernating at_risk at_risk cant_lose",
    1: "lost lost at_risk at_risk cant_lose",
}
FM = {2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 7: 3, 8: 4, 9: 5, 10: 5}
# How long after a fact anything can change by time alone.
EDGES = sorted({WINDOW, *(d * DAY for d in (30, 60, 90, 180))})


@dataclass
class Customer:
    """Everything known of one customer."""

    orders: dict[str, tuple[int, int]] = field(default_factory=dict)
    refunds: dict[str, tuple[int, int, int, str]] = field(default_factory=dict)
    account: tuple[int, str, str | None] = (0, "", None)
    others: set[str] = field(default_factory=set)
    stored: dict[str, str | None] = field(default_factory=lambda: {"rfm": None, "lifecycle": None})
    since: dict[str, int] = field(default_factory=dict)
    pending: tuple[int, str, str, bool] | None = None
    instants_seen: list[tuple[bool, int]] = field(default_factory=list)

    def net_orders(self) -> list[tuple[int, int]]:
        """(time, net) of every order whose net is above 0, by time."""
        nets = []
        for order_id, (at, paid) in self.orders.items():
            linked = [r for r in self.refunds.values() if r[3] == order_id]
            net = (
                0 if any(kind == 3 for _, _, kind, _ in linked) else max(0, paid - sum(r[1] for r in linked))
            )
            if net > 0:
                nets.append((at, net))
        return sorted(nets)

    def evaluate(self, now: int) -> tuple[dict[str, str], tuple[int, int, int]]:
        """The values and scores at `now`."""
        nets = self.net_orders()
        if not nets:
            return {"rfm": "prospect", "lifecycle": "lead"}, (0, 0, 0)
        age = max(0, now - nets[-1][0])
        r = 5 - sum(age >= days * DAY for days in R_DAYS)
        within = [net for at, net in nets if at > now - WINDOW]
        f = 1 + sum(len(within) >= floor for floor in F_FLOORS)
        given_back = sum(a for at, a, _, order in self.refunds.values() if not order and at > now - WINDOW)
        m = 1 + sum(sum(within) - given_back >= floor for floor in M_FLOORS)
        rfm = GRID[r].split()[FM[f + m] - 1]
        times = [at for at, _ in nets]
        if age >= 180 * DAY:
            lifecycle = "churned"
        elif any(b > now - 30 * DAY and b - a >= 180 * DAY for a, b in itertools.pairwise(times)):
            lifecycle = "reactivated"
        elif age >= 60 * DAY:
            lifecycle = "at_risk"
        elif now - times[0] < 30 * DAY:
            lifecycle = "new"
        elif now - times[0] >= 180 * DAY and r >= 4 and f >= 4:
            lifecycle = "loyal"
        else:
            lifecycle = "active"
        return {"rfm": rfm, "lifecycle": lifecycle}, (r, f, m)

    def instants(self, after: int, until: int) -> list[int]:
        """Every instant in (after, until] at which time alone could change something."""
        facts = [at for at, _ in self.orders.values()] + [r[0] for r in self.refunds.values()]
        return sorted({at + edge for at in facts for edge in EDGES if after < at + edge <= until})


class Oracle:
    """A partition in event time.

    `changes` are (customer, dimension, from, to, cause, cause event, effective, scores,
    account).
    """

    def __init__(self) -> None:
        self.customers: dict[str, Customer] = {}
        self.clock = 0
        self.changes: list[tuple[Any, ...]] = []

    def event(self, type_name: str, customer_id: str, fields: dict[str, Any]) -> None:
        """Apply one event, ignoring what was seen before."""
        at, amount = fields["occurred_at"], fields.get("amount_minor", 0)
        fold_line = self.clock - WINDOW - 7 * DAY
        if at < fold_line:
            return
        customer = self.customers.setdefault(customer_id, Customer())
        # An account counts from whatever names it, be it a content that loses.
        renamed = False
        if fields.get("account_id"):
            account = (at, fields["event_id"], fields["account_id"])
            renamed, customer.account = account > customer.account, max(customer.account, account)
        if type_name == "Purchased":
            # Of two contents under one id the lesser stands.
            if customer.orders.get(fields["order_id"], (at + 1, 0)) <= (at, amount):
                if not renamed:
                    return
            else:
                customer.orders[fields["order_id"]] = (at, amount)
        elif type_name == "Refunded":
            if fields["refund_id"] in customer.refunds:
                return
            kind = ("unknown", "refund", "return", "cancellation").index(fields["kind"])
            order_id = fields["order_id"] or ""
            if order_id in customer.orders and customer.orders[order_id][0] < fold_line:
                order_id = "an order that is past the fold line"
            customer.refunds[fields["refund_id"]] = (at, amount, kind, order_id)
        else:
            if fields["event_id"] in customer.others:
                return
            customer.others.add(fields["event_id"])
        late = at < self.clock - HOUR
        cause = "refund" if type_name == "Refunded" else "late_event" if late else "event"
        money = type_name in ("Purchased", "Refunded")
        rank = 4 + late if cause == "refund" else 2 * late + money
        if customer.pending is None or rank >= customer.pending[0]:
            customer.pending = (rank, cause, fields["event_id"], late)
        if not late:
            customer.instants_seen.append((money, at))

    def tick(self, now: int) -> None:
        """Evaluate everybody."""
        if now < self.clock:
            return
        for customer_id in sorted(self.customers, key=str.encode):
            self._evaluate(customer_id, self.customers[customer_id], now)
        self.clock = now

    def _evaluate(self, customer_id: str, customer: Customer, now: int) -> None:
        values, scores = customer.evaluate(now)
        _, cause, event_id, late = customer.pending or (0, "time_elapsed", None, False)
        # The latest event that moved money stands for all that came on time in this step.
        at = None if late or not customer.instants_seen else max(customer.instants_seen)[1]
        for dimension in ("rfm", "lifecycle"):
            before, after = customer.stored[dimension], values[dimension]
            if before == after:
                continue
            effective = self._effective(customer, dimension, cause, at, now)
            if before is not None:
                effective = max(effective, customer.since[dimension])
            account = customer.account[2]
            self.changes.append(
                (customer_id, dimension, before, after, cause, event_id, effective, scores, account)
            )
            customer.stored[dimension], customer.since[dimension] = after, effective
        customer.pending, customer.instants_seen = None, []

    def _effective(self, customer: Customer, dimension: str, cause: str, at: int | None, now: int) -> int:
        """The last instant, up to now, at which the value became another one; else the event's own."""
        if cause != "time_elapsed":
            if at is None or at >= now:
                return now
            start, effective = max(at, self.clock), at
            current: str | None = customer.evaluate(start)[0][dimension] if start < now else None
        else:
            start, effective, current = self.clock, now, customer.stored[dimension]
        if start >= now:
            return effective
        for instant in customer.instants(start, now):
            value = customer.evaluate(instant)[0][dimension]
            if value != current:
                effective, current = instant, value
        return effective
