"""Subscriptions and tickets of one customer, as all changes known of them together say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

SubscriptionState = Literal["active", "trial", "paused", "cancelled", "ended", "none"]
"""`none`: nothing known that says more, or it stopped without having been active."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """One subscription after its latest change; what a change left out is as it was before.

    `cancel_at_ms` and `trial_ends_at_ms` act by themselves when their time comes: a customer is read
    through `settled`, which says what they make of it at an instant.
    """

    id: str
    state: SubscriptionState = "none"
    product: str | None = None
    plan: str | None = None
    tier: str | None = None
    seats: int | None = None
    addons: tuple[str, ...] = ()
    interval: str | None = None
    price_minor: int = 0
    """The price of a month as last said, in minor units of the reporting currency, active or not."""
    payment_failed: bool = False
    """Since a failed payment nothing was renewed, resumed, cancelled or ended."""
    cancellation_scheduled: bool = False
    cancel_at_ms: int | None = None
    """When the scheduled cancellation takes effect; None also when none was named."""
    trial_ends_at_ms: int | None = None
    renews_at_ms: int | None = None
    card_on_file: bool | None = None
    changed_ms: int = 0
    """When the latest change happened."""
    ended_ms: int | None = None
    """When it was cancelled or ended, None while it is neither, or if it had never been active."""
    was_active: bool = False
    """It has been active since it last ended."""

    @property
    def active(self) -> bool:
        """Whether it counts as an active subscription; paused and trial do not."""
        return self.state == "active"

    @property
    def mrr_minor(self) -> int:
        """Monthly recurring revenue in minor units of the reporting currency: 0 unless active."""
        return self.price_minor if self.state == "active" else 0


@dataclass(frozen=True, slots=True)
class Standing:
    """What is derived from all subscriptions of one customer together; times ascending, in UTC ms."""

    payments_ms: tuple[int, ...] = ()
    """Every started or renewed with a price above 0; of those past the fold line the first and last."""
    ends_ms: tuple[int, ...] = ()
    """Every end that left no subscription active; of those past the fold line the last."""

    @property
    def last_end_ms(self) -> int | None:
        """The last end that left no subscription active, kept for ever."""
        return self.ends_ms[-1] if self.ends_ms else None


NOTHING = Standing()
"""The standing of a customer without subscriptions."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One ticket after all its changes; a change may come without those before it."""

    id: str
    is_open: bool = False
    opened_ms: int | None = None
    reopened_ms: tuple[int, ...] = ()
    """Every time it was opened again, ascending."""
    first_reply_ms: int | None = None
    """The first reply by an agent or a bot at or after it was opened."""
    closed_ms: int | None = None
    """The first close at or after the last time it was opened or reopened; None while it is open."""
    rating: int | None = None
    rated_ms: int | None = None
    """When the rating was given that stands: the latest."""
    channel: str | None = None
    topic: str | None = None
    changed_ms: int = 0


def settled(
    subscriptions: tuple[Subscription, ...], standing: Standing, now_ms: int
) -> tuple[tuple[Subscription, ...], Standing]:
    """Return the subscriptions and standing at `now_ms`: with what cancel_at and trial_ends_at made of them.

    A cancellation takes effect at cancel_at itself, or with the latest change if that is
    later; a trial stops at trial_ends_at.
    """
    due = sorted(
        (at_ms, place)
        for place, subscription in enumerate(subscriptions)
        if (at_ms := stops_ms(subscription)) is not None and at_ms <= now_ms
    )
    if not due:
        return subscriptions, standing
    now = list(subscriptions)
    for at_ms, place in due:
        before = now[place]
        now[place] = stopped(before, at_ms)
        if now[place].ended_ms is not None:
            standing = ended(now, standing, at_ms)
    return tuple(now), standing


def stops_ms(subscription: Subscription) -> int | None:
    """Return when it stops by itself if nothing else happens, None when it does not."""
    at_ms = None
    if subscription.state in ("active", "paused", "trial") and subscription.cancel_at_ms is not None:
        at_ms = max(subscription.cancel_at_ms, subscription.changed_ms)
    if subscription.state == "trial" and subscription.trial_ends_at_ms is not None:
        trial_ms = max(subscription.trial_ends_at_ms, subscription.changed_ms)
        at_ms = trial_ms if at_ms is None else min(at_ms, trial_ms)
    return at_ms


def stopped(
    subscription: Subscription, at_ms: int, state: Literal["cancelled", "ended"] = "cancelled"
) -> Subscription:
    """Return it after it stopped at `at_ms`: that is an end only if it had been active."""
    return replace(
        subscription,
        state=state if subscription.was_active else "none",
        ended_ms=at_ms if subscription.was_active else None,
        payment_failed=False,
        cancellation_scheduled=False,
        cancel_at_ms=None,
        trial_ends_at_ms=None,
        renews_at_ms=None,
        was_active=False,
    )


def ended(subscriptions: Iterable[Subscription], standing: Standing, at_ms: int) -> Standing:
    """Return the standing after a subscription ended at `at_ms`: unless another goes on, that is an end."""
    for each in subscriptions:
        stop_ms = stops_ms(each)
        if each.active and (stop_ms is None or stop_ms > at_ms):
            return standing
    return replace(standing, ends_ms=tuple(sorted({*standing.ends_ms, at_ms})))
