"""Movements of a customer's monthly recurring revenue: why it is what it is, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from streams.customers.changes import PlanChange, replayed
from streams.customers.entities import Standing, Subscription, settled, stops_ms

MovementKind = Literal["new", "expansion", "contraction", "churn", "reactivation"]


@dataclass(frozen=True, slots=True)
class Movement:
    """One movement of the MRR; the MRR at the end is that at the start plus all movements between."""

    at_ms: int
    kind: MovementKind
    amount_minor: int
    """What was added, below 0 for contraction and churn; in minor units of the reporting currency."""


def movement_kind(before_minor: int, after_minor: int, *, had_revenue: bool) -> MovementKind | None:
    """Return what a step of a customer's MRR is called, None when it is no step.

    The terms are those of SaaS metrics: from nothing is new the first time and a reactivation
    afterwards, to nothing is churn, and anything between is an expansion or a contraction.
    """
    if before_minor == after_minor:
        return None
    if before_minor == 0:
        return "reactivation" if had_revenue else "new"
    if after_minor == 0:
        return "churn"
    return "expansion" if after_minor > before_minor else "contraction"


def mrr_minor(subscriptions: Sequence[Subscription]) -> int:
    """Return the MRR of a customer: the sum over the active subscriptions."""
    return sum(subscription.mrr_minor for subscription in subscriptions)


def movements(
    subscriptions: tuple[Subscription, ...],
    standing: Standing,
    changes: Sequence[PlanChange],
    until_ms: int,
) -> list[Movement]:
    """Return the movements from `subscriptions` on, by `changes` in order and by time, up to an instant.

    What several changes do within one instant is one movement: an upgrade and a second
    subscription bought together expand the revenue once.
    """
    found: list[Movement] = []
    revenue = mrr_minor(subscriptions)
    had_revenue = revenue > 0 or bool(standing.payments_ms or standing.ends_ms)
    todo = [change for change in changes if change.at_ms <= until_ms]
    while True:
        stops = [at_ms for each in subscriptions if (at_ms := stops_ms(each)) is not None]
        times = [at_ms for at_ms in (*stops, *(change.at_ms for change in todo[:1])) if at_ms <= until_ms]
        if not times:
            return found
        at_ms = min(times)
        together = [change for change in todo if change.at_ms == at_ms]
        todo = todo[len(together) :]
        *_, last = ((subscriptions, standing), *replayed(subscriptions, standing, together))
        subscriptions, standing = settled(*last, at_ms)
        kind = movement_kind(revenue, mrr_minor(subscriptions), had_revenue=had_revenue)
        if kind is not None:
            found.append(Movement(at_ms, kind, mrr_minor(subscriptions) - revenue))
        revenue = mrr_minor(subscriptions)
        had_revenue |= revenue > 0
