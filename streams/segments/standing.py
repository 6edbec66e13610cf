"""Subscriptions of those who have any: sums, conditions, instants. Everybody else costs one look."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from streams.customers.entities import Standing, Subscription, settled, stops_ms
from streams.customers.facts import Bools, Int64s
from streams.customers.series import MILLIONTHS, Comparison, Joined, Where
from streams.segments.measures import MISSING, PaidAt
from streams.segments.view import FAR_MS, View, Window


@dataclass(frozen=True, slots=True)
class Settled:
    """The subscriptions of k of the customers in a view, as they are at each one's instant."""

    places: Int64s
    """int64[k]: where in the view they are, ascending."""
    subscriptions: list[tuple[Subscription, ...]]
    standings: list[Standing]
    next_stop_ms: list[int]
    """When the next of them stops by itself, FAR_MS if none does."""


class Subscriptions:
    """What time has made of everybody's subscriptions, worked out once for all that reads them."""

    def evaluate(self, view: View) -> Settled:
        """Return those who have any."""
        places = view.table.booked(view.slots)
        if not len(places):
            return Settled(places, [], [], [])
        slots, now = view.slots[places], view.now_ms[places].tolist()
        subscriptions, standings = view.table.subscriptions(slots), view.table.standings(slots)
        stops = [
            min((ms for each in held if (ms := stops_ms(each)) is not None and ms > now_ms), default=FAR_MS)
            for held, now_ms in zip(subscriptions, now, strict=True)
        ]
        both = list(map(settled, subscriptions, standings, now))
        return Settled(places, [held for held, _ in both], [standing for _, standing in both], stops)


class _OfSubscriptions:
    """What nodes on subscriptions have in common."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self._subscriptions = subscriptions

    def windows(self) -> Iterable[Window]:
        """Return none."""
        return ()

    def _stops(self, view: View) -> Int64s:
        found: Settled = view.value(self._subscriptions)
        due = view.never()
        due[found.places] = found.next_stop_ms
        return due


class SubscriptionSum(_OfSubscriptions):
    """A sum over the active subscriptions."""

    optional = False

    def __init__(self, subscriptions: Subscriptions, of: Literal["mrr", "seats"], times: int) -> None:
        super().__init__(subscriptions)
        self._of: Callable[[Subscription], int] = _mrr if of == "mrr" else _seats
        self._times = times

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n]: minor units, or seats; 0 for who has none."""
        found: Settled = view.value(self._subscriptions)
        total = np.zeros(len(view.slots), np.int64)
        total[found.places] = [
            self._times * sum(self._of(each) for each in held if each.active) for held in found.subscriptions
        ]
        return total

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Only what stops by itself changes it."""
        return self._stops(view)


class SubscriptionTime(_OfSubscriptions):
    """The next renewal of an active subscription, or the next end of a trial; MISSING without."""

    optional = True

    def __init__(self, subscriptions: Subscriptions, which: Literal["renews_at", "trial_ends_at"]) -> None:
        super().__init__(subscriptions)
        self._which = which

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] in UTC ms."""
        found: Settled = view.value(self._subscriptions)
        next_ms = np.full(len(view.slots), MISSING)
        for place, held in zip(found.places.tolist(), found.subscriptions, strict=True):
            now_ms = int(view.now_ms[place])
            coming = [ms for each in held if (ms := self._of(each)) is not None and ms > now_ms]
            if coming:
                next_ms[place] = min(coming)
        return next_ms

    def _of(self, subscription: Subscription) -> int | None:
        if self._which == "renews_at":
            return subscription.renews_at_ms if subscription.active else None
        return subscription.trial_ends_at_ms if subscription.state == "trial" else None

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """It moves on when it comes, or when what it belongs to stops."""
        at = view.value(self)
        return np.minimum(np.where(at != MISSING, at, FAR_MS), self._stops(view))


class Subscribed(_OfSubscriptions):
    """Whether any active subscription fits."""

    timeless = False

    def __init__(self, subscriptions: Subscriptions, where: Where | None) -> None:
        super().__init__(subscriptions)
        self._where = where

    def evaluate(self, view: View) -> Bools:
        """Return bool[n]."""
        found: Settled = view.value(self._subscriptions)
        truth = np.zeros(len(view.slots), np.bool_)
        truth[found.places] = [
            any(each.active and (self._where is None or fits(self._where, each)) for each in held)
            for held in found.subscriptions
        ]
        return truth

    def due(self, view: View) -> Int64s:
        """Return when the next subscription stops by itself."""
        return self._stops(view)


class FirstPaidAt:
    """When the customer first paid: an order with a net above 0, or a subscription with a price."""

    optional = True

    def __init__(self, orders: PaidAt, subscriptions: Subscriptions) -> None:
        self._orders, self._subscriptions = orders, subscriptions

    def windows(self) -> Iterable[Window]:
        """Return none: both are kept for ever."""
        return ()

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] in UTC ms, MISSING for who never paid."""
        first: Int64s = view.value(self._orders)
        found: Settled = view.value(self._subscriptions)
        if not len(found.places):
            return first
        first = first.copy()
        for place, standing in zip(found.places.tolist(), found.standings, strict=True):
            if standing.payments_ms:
                ordered_ms = int(first[place])
                paid_ms = standing.payments_ms[0]
                first[place] = paid_ms if ordered_ms == MISSING else min(ordered_ms, paid_ms)
        return first

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Time alone does not move it."""
        return view.never()


def fits(where: Where, subscription: Subscription) -> bool:
    """Tell whether a subscription fits a condition; one on what it does not have is false."""
    if isinstance(where, Joined):
        return (all if where.all else any)(fits(part, subscription) for part in where.parts)
    if not isinstance(where, Comparison):
        return not fits(where.part, subscription)
    value = _field(subscription, where.field)
    if value is None:
        return False
    operand = where.operand
    if where.operator == "in":
        return value in (operand if isinstance(operand, tuple) else (operand,))
    return _COMPARISONS[where.operator](value, operand)


def _field(subscription: Subscription, name: str) -> str | int | None:
    if name == "mrr":
        return subscription.mrr_minor
    if name == "seats":
        return None if subscription.seats is None else subscription.seats * MILLIONTHS
    value: str | None = getattr(subscription, name)
    return value


def _mrr(subscription: Subscription) -> int:
    return subscription.mrr_minor


def _seats(subscription: Subscription) -> int:
    return subscription.seats or 0


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
