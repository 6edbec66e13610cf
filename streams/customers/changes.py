"""Changes of subscriptions and tickets, and what a customer's changes together make of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from streams.customers.entities import (
    NOTHING,
    Standing,
    Subscription,
    Ticket,
    ended,
    settled,
    stopped,
)

T = TypeVar("T")
D = TypeVar("D")

PLAN_CHANGES = (
    "trial_started", "trial_ended", "started", "upgraded", "downgraded", "renewed", "paused", "resumed",
    "payment_failed", "cancellation_scheduled", "cancelled", "ended",
)  # fmt: skip
"""What a PlanChanged may say. Within one instant the later in this list decides: ends come last."""

TICKET_CHANGES = ("opened", "reopened", "replied", "rated", "closed")
"""What a TicketChanged may say, in the same sense."""

_ACTIVATES = frozenset(("started", "upgraded", "downgraded", "renewed", "resumed"))
_KEEPS_GOING = frozenset(("started", "upgraded", "renewed", "resumed"))
"""These take back a scheduled cancellation, if they come before it takes effect."""
_PAYS = frozenset(("started", "renewed"))
_SETTLES = frozenset(("renewed", "resumed"))
"""These, and every end, make good a failed payment."""
_SETS_GOING = _ACTIVATES | {"trial_started", "paused"}
_GOING = frozenset(("active", "trial", "paused"))


@dataclass(frozen=True, slots=True)
class PlanChange:
    """One PlanChanged; what is None is left as it was. Money in minor units of the reporting currency."""

    at_ms: int
    event_id: bytes
    subscription: str
    change: str
    product: str | None = None
    plan: str | None = None
    tier: str | None = None
    seats: int | None = None
    addons: tuple[str, ...] | None = None
    interval: str | None = None
    mrr_minor: int | None = None
    trial_ends_at_ms: int | None = None
    renews_at_ms: int | None = None
    cancel_at_ms: int | None = None
    card_on_file: bool | None = None

    @property
    def order(self) -> tuple[int, int, bytes]:
        """The greatest of a customer's changes is the latest."""
        return self.at_ms, PLAN_CHANGES.index(self.change), self.event_id


@dataclass(frozen=True, slots=True)
class TicketChange:
    """One TicketChanged; what is None is left as it was."""

    at_ms: int
    event_id: bytes
    ticket: str
    change: str
    author: str | None = None
    rating: int | None = None
    channel: str | None = None
    topic: str | None = None

    @property
    def order(self) -> tuple[int, int, bytes]:
        """The greatest of a customer's changes is the latest."""
        return self.at_ms, TICKET_CHANGES.index(self.change), self.event_id


Change = PlanChange | TicketChange


@dataclass(frozen=True, slots=True)
class Known:
    """Everything known of one customer's subscriptions and tickets after some changes."""

    subscriptions: tuple[Subscription, ...] = ()
    """By id."""
    standing: Standing = NOTHING
    tickets: tuple[Ticket, ...] = ()
    """By id."""


def folded(known: Known, changes: Iterable[Change]) -> Known:
    """Return what is known after further changes, in their order, the first not before those in `known`."""
    plans = [change for change in changes if isinstance(change, PlanChange)]
    subscriptions, standing = known.subscriptions, known.standing
    for step in replayed(subscriptions, standing, plans):
        subscriptions, standing = step
    tickets = {ticket.id: ticket for ticket in known.tickets}
    for change in changes:
        if isinstance(change, TicketChange):
            tickets[change.ticket] = ticket_after(tickets.get(change.ticket), change)
    return Known(subscriptions, standing, tuple(tickets[name] for name in sorted(tickets)))


def replayed(
    subscriptions: tuple[Subscription, ...], standing: Standing, changes: Sequence[PlanChange]
) -> Iterator[tuple[tuple[Subscription, ...], Standing]]:
    """Yield the subscriptions by id and the standing after each of `changes`, which are in their order.

    Before a change everything that stopped by itself earlier than it has stopped; what stops at the
    very instant of a change stops after it.
    """
    for change in changes:
        subscriptions, standing = settled(subscriptions, standing, change.at_ms - 1)
        held = {each.id: each for each in subscriptions}
        before = held.get(change.subscription) or Subscription(change.subscription)
        after = held[change.subscription] = subscription_after(before, change)
        subscriptions = tuple(held[name] for name in sorted(held))
        if change.change in _PAYS and after.price_minor > 0:
            paid = tuple(sorted({*standing.payments_ms, change.at_ms}))
            standing = replace(standing, payments_ms=paid)
        if before.ended_ms is None and after.ended_ms is not None:
            standing = ended(subscriptions, standing, change.at_ms)
        yield subscriptions, standing


def subscription_after(before: Subscription, change: PlanChange) -> Subscription:
    """Return a subscription after one more change.

    What has stopped begins anew with the change that sets it going: nothing is left as it was.
    """
    what, goes_on = change.change, before.state in _GOING
    if not goes_on and what in _SETS_GOING:
        before = Subscription(before.id)
    now = replace(
        before,
        product=_or(change.product, before.product),
        plan=_or(change.plan, before.plan),
        tier=_or(change.tier, before.tier),
        seats=_or(change.seats, before.seats),
        addons=_or(change.addons, before.addons),
        interval=_or(change.interval, before.interval),
        price_minor=_or(change.mrr_minor, before.price_minor),
        renews_at_ms=_or(change.renews_at_ms, before.renews_at_ms),
        card_on_file=_or(change.card_on_file, before.card_on_file),
        changed_ms=change.at_ms,
    )
    if what in _KEEPS_GOING and (before.cancel_at_ms is None or change.at_ms < before.cancel_at_ms):
        now = replace(now, cancellation_scheduled=False, cancel_at_ms=None)
    if what in _SETTLES:
        now = replace(now, payment_failed=False)
    if what in _ACTIVATES:
        return replace(now, state="active", was_active=True, trial_ends_at_ms=None)
    if what == "trial_started":
        ends_ms = change.trial_ends_at_ms
        return replace(now, state="trial", trial_ends_at_ms=ends_ms)
    if what == "paused":
        return replace(now, state="paused", trial_ends_at_ms=None)
    if not goes_on:
        return now
    if what == "trial_ended":
        return stopped(now, change.at_ms, "ended") if before.state == "trial" else now
    if what in ("cancelled", "ended"):
        return stopped(now, change.at_ms, "ended" if what == "ended" else "cancelled")
    if what == "payment_failed":
        return replace(now, payment_failed=True)
    return replace(now, cancellation_scheduled=True, cancel_at_ms=change.cancel_at_ms)


def ticket_after(before: Ticket | None, change: TicketChange) -> Ticket:
    """Return a ticket after one more change."""
    held = before or Ticket(change.ticket)
    now = replace(
        held,
        channel=_or(change.channel, held.channel),
        topic=_or(change.topic, held.topic),
        changed_ms=change.at_ms,
    )
    if change.change == "opened":
        return replace(now, is_open=True, opened_ms=_or(now.opened_ms, change.at_ms), closed_ms=None)
    if change.change == "reopened":
        reopened_ms = (*now.reopened_ms, change.at_ms)
        return replace(now, is_open=True, closed_ms=None, reopened_ms=reopened_ms)
    if change.change == "closed":
        closed_ms = now.closed_ms if not now.is_open and now.closed_ms is not None else change.at_ms
        return replace(now, is_open=False, closed_ms=closed_ms)
    if change.change == "rated":
        return replace(now, rating=_or(change.rating, now.rating), rated_ms=change.at_ms)
    answered = change.author in ("agent", "bot") and now.opened_ms is not None
    if answered and now.first_reply_ms is None:
        return replace(now, first_reply_ms=change.at_ms)
    return now


def _or(said: T | None, before: D) -> T | D:
    """Return what a change said, or what was so before when it said nothing."""
    return before if said is None else said
