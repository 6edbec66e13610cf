"""RFM and lifecycle of one customer in plain Python, as a good Faust user would write them."""

from __future__ import annotations

import itertools
from typing import Any

from streams.segments.definition import Definition
from streams.segments.loading import default_definition

State = dict[str, Any]
"""One customer, as JSON can hold it:

orders: order id to [occurred_at, paid]; linked: order id to refund id to [amount, kind];
refunds: refund id to [occurred_at, amount]; traits: name to [occurred_at, event id, value];
rfm, lifecycle: the values last told, None before the first.
"""


def new_customer() -> State:
    """Return a customer nothing is known of."""
    return {"orders": {}, "linked": {}, "refunds": {}, "traits": {}, "rfm": None, "lifecycle": None}


def apply(state: State, type_name: str, event: dict[str, Any]) -> None:
    """Add one event; what came before under the same id counts once."""
    at = event["occurred_at"]
    if type_name == "Purchased":
        state["orders"].setdefault(event["order_id"], [at, event["amount_minor"]])
    elif type_name == "Refunded":
        if event["order_id"]:
            linked = state["linked"].setdefault(event["order_id"], {})
            linked.setdefault(event["refund_id"], [event["amount_minor"], event["kind"]])
        else:
            state["refunds"].setdefault(event["refund_id"], [at, event["amount_minor"]])
    else:
        for name, value in (event["traits"] or {}).items():
            stamped = [at, event["event_id"], value]
            if stamped[:2] > state["traits"].get(name, [0, ""])[:2]:
                state["traits"][name] = stamped


class Rules:
    """The constants of a definition, and what they say of a customer at an instant."""

    def __init__(self, definition: Definition | None = None) -> None:
        definition = definition or default_definition()
        self._window_ms = definition.window_ms
        self._edges = definition.r_edges_ms, definition.f_edges, definition.m_edges_minor
        names = ("prospect", *definition.grid.names)
        self._grid = [[[names[m] for m in f] for f in r] for r in definition.grid.codes().tolist()]
        self._lifecycle = definition.lifecycle

    def evaluate(self, state: State, now: int) -> tuple[str, str, tuple[int, int, int], int]:
        """Return (rfm, lifecycle, scores, the next instant at which time alone could change any of them)."""
        orders = _net_orders(state)
        since = now - self._window_ms
        returned = sorted(refund for refund in state["refunds"].values() if refund[0] > since)
        if not orders:
            return "prospect", "lead", (0, 0, 0), returned[0][0] + self._window_ms if returned else 1 << 62
        within = [order for order in orders if order[0] > since]
        first, last = orders[0][0], orders[-1][0]
        age = max(0, now - last)
        net = sum(order[1] for order in within) - sum(refund[1] for refund in returned)
        r_edges, f_edges, m_edges = self._edges
        r = 5 - sum(age >= edge for edge in r_edges)
        f = 1 + sum(len(within) >= edge for edge in f_edges)
        m = 1 + sum(net >= edge for edge in m_edges)
        rules = self._lifecycle
        comebacks = [b[0] for a, b in itertools.pairwise(orders) if b[0] - a[0] >= rules.churned_ms]
        if age >= rules.churned_ms:
            stage = "churned"
        elif any(back > now - rules.recent_ms for back in comebacks):
            stage = "reactivated"
        elif age >= rules.at_risk_ms:
            stage = "at_risk"
        elif now - first < rules.recent_ms:
            stage = "new"
        elif now - first >= rules.loyal_tenure_ms and r >= rules.loyal_recency and f >= rules.loyal_frequency:
            stage = "loyal"
        else:
            stage = "active"
        instants = [last + edge for edge in (*r_edges, rules.at_risk_ms, rules.churned_ms)]
        instants += [first + rules.recent_ms, first + rules.loyal_tenure_ms]
        instants += [entries[0][0] + self._window_ms for entries in (within, returned) if entries]
        instants += [back + rules.recent_ms for back in comebacks]
        due = min((instant for instant in instants if instant > now), default=1 << 62)
        return self._grid[r][f][m], stage, (r, f, m), due


def _net_orders(state: State) -> list[list[int]]:
    """Return [occurred_at, net] of every order worth more than its refunds, by time."""
    linked = state["linked"]
    nets = []
    for order_id, (at, paid) in state["orders"].items():
        refunds = linked.get(order_id)
        net = _net(paid, refunds) if refunds else paid
        if net > 0:
            nets.append([at, net])
    nets.sort()
    return nets


def _net(paid: int, refunds: dict[str, list[Any]]) -> int:
    if any(kind == "cancellation" for _, kind in refunds.values()):
        return 0
    return paid - sum(int(amount) for amount, _ in refunds.values())
