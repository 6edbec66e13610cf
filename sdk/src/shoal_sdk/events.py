"""The calls an application makes, one per event: arguments checked, the record built."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar, get_args

from shoal_sdk import arguments
from shoal_sdk.arguments import Item, PropertyValue, TraitValue
from shoal_sdk.context import Context
from shoal_sdk.encoding import EventType
from shoal_sdk.ids import TimeOrderedIds, app_namespace, natural_id
from shoal_sdk.money import Money

RefundKind = Literal["refund", "return", "cancellation"]
_REFUND_KINDS = get_args(RefundKind)

PlanChange = Literal[
    "trial_started",
    "trial_ended",
    "started",
    "upgraded",
    "downgraded",
    "renewed",
    "paused",
    "resumed",
    "payment_failed",
    "cancellation_scheduled",
    "cancelled",
    "ended",
]
_PLAN_CHANGES = get_args(PlanChange)

TicketChange = Literal["opened", "replied", "closed", "reopened", "rated"]
_TICKET_CHANGES = get_args(TicketChange)

TicketAuthor = Literal["customer", "agent", "bot"]
_TICKET_AUTHORS = get_args(TicketAuthor)

Sent = TypeVar("Sent", covariant=True)
"""What a call returns: a Receipt, or something to await that gives one."""


class Events(ABC, Generic[Sent]):
    """One method per event type; every client has them, so all take the same arguments.

    Wrong arguments are a ValueError that names the field, raised by the call itself.
    """

    def __init__(self, app: str) -> None:
        self._namespace = app_namespace(app)
        self._ids = TimeOrderedIds()

    @abstractmethod
    def _send(self, event_type: EventType, record: Mapping[str, Any]) -> Sent:
        """Encode a checked record and send it on its way."""

    def signed_up(
        self,
        customer_id: str,
        *,
        source: str | None = None,
        traits: Mapping[str, TraitValue] | None = None,
        occurred_at: datetime | None = None,
        event_id: str | None = None,
        context: Context | None = None,
        account_id: str | None = None,
    ) -> Sent:
        """A customer signed up; `source` is how they heard of it.

        One sign-up per customer: a second call is a retry, whatever it says.
        """
        record = self._common(customer_id, occurred_at, event_id, context, account_id, ("signed_up", ""))
        record["source"] = arguments.text_or_none("source", source)
        record["traits"] = {} if traits is None else arguments.trait_values(traits)
        return self._send(EventType.SIGNED_UP, record)

    def identify(
        self,
        customer_id: str,
        traits: Mapping[str, TraitValue],
        *,
        occurred_at: datetime | None = None,
        event_id: str | None = None,
        context: Context | None = None,
        account_id: str | None = None,
    ) -> Sent:
        """Set traits of a customer: None deletes one, those left out stay as they are."""
        record = self._common(customer_id, occurred_at, event_id, context, account_id, None)
        record["traits"] = arguments.trait_values(traits)
        return self._send(EventType.PROFILE_UPDATED, record)

    def purchased(
        self,
        customer_id: str,
        *,
        order_id: str,
        amount: Money,
        items: Iterable[Item] = (),
        shipping: Money | int | None = None,
        tax: Money | int | None = None,
        discount: Money | int | None = None,
        coupon: str | None = None,
        perks: Iterable[str] = (),
        payment_method: str | None = None,
        trigger: str | None = None,
        occurred_at: datetime | None = None,
        event_id: str | None = None,
        context: Context | None = None,
        account_id: str | None = None,
    ) -> Sent:
        """A customer paid `amount` for an order. An int among the parts is minor units of its currency.

        One order_id, one event: a second call for it is a retry, whatever it says.
        """
        natural = ("purchased", arguments.identifier("order_id", order_id))
        record = self._common(customer_id, occurred_at, event_id, context, account_id, natural)
        money = arguments.paid("amount", amount)
        currency = money.currency
        record["order_id"] = order_id
        record["amount_minor"] = money.amount_minor
        record["currency"] = currency
        record["shipping_minor"] = arguments.part_minor("shipping", shipping, currency)
        record["tax_minor"] = arguments.part_minor("tax", tax, currency)
        record["discount_minor"] = arguments.part_minor("discount", discount, currency)
        record["coupon"] = arguments.text_or_none("coupon", coupon)
        record["perks"] = arguments.texts("perks", perks)
        record["payment_method"] = arguments.text_or_none("payment_method", payment_method)
        record["trigger"] = arguments.text_or_none("trigger", trigger)
        record["items"] = arguments.item_records(items, currency)
        return self._send(EventType.PURCHASED, record)

    def refunded(
        self,
        customer_id: str,
        *,
        refund_id: str,
        amount: Money,
        order_id: str | None = None,
        kind: RefundKind = "refund",
        reason: str | None = None,
        occurred_at: datetime | None = None,
        event_id: str | None = None,
        context: Context | None = None,
        account_id: str | None = None,
    ) -> Sent:
        """`amount` was given back, for the order if it is known. One refund_id, one event."""
        natural = ("refunded", arguments.identifier("refund_id", refund_id))
        record = self._common(customer_id, occurred_at, event_id, context, account_id, natural)
        money = arguments.paid("amount", amount)
        record["refund_id"] = refund_id
        record["order_id"] = None if order_id is None else arguments.identifier("order_id", order_id)
        record["kind"] = arguments.one_of("kind", kind, _REFUND_KINDS)
        record["amount_minor"] = money.amount_minor
        record["currency"] = money.currency
        record["reason"] = arguments.text_or_none("reason", reason)
        return self._send(EventType.REFUNDED, record)

    def plan_changed(
        self,
        customer_id: str,
        *,
        subscription_id: str,
        change: PlanChange,
        plan: str | None = None,
        mrr: Money | None = None,
        product: str | None = None,
        previous_plan: str | None = None,
        tier: str | None = None,
        seats: int | None = None,
        addons: Iterable[str] | None = None,
        interval: str | None = None,
        usage: Money | None = None,
        trial_ends_at: datetime | None = None,
        renews_at: datetime | None = None,
        cancel_at: datetime | None = None,
        card_on_file: bool | None = None,
        reason: str | None = None,
        competitor: str | None = None,
        occurred_at: datetime | None = None,
        event_id: str | None = None,
        context: Context | None = None,
        account_id: str | None = None,
    ) -> Sent:
        """A subscription changed. What is left out stays as it was.

        `mrr` is what it pays a month, whatever the interval it is billed at; `usage` comes beside it, in
        the same currency. One change of one subscription at one instant, one event: pass `occurred_at`,
        and a second call is a retry.
        """
        arguments.one_of("change", change, _PLAN_CHANGES)
        key = arguments.identifier("subscription_id", subscription_id)
        natural = ("plan_changed", f"{change}:{key}")
        record = self._common(customer_id, occurred_at, event_id, context, account_id, natural, dated=True)
        record["subscription_id"] = subscription_id
        record["change"] = change
        names = {"product": product, "plan": plan, "tier": tier, "interval": interval}
        record.update({name: arguments.name_or_none(name, value) for name, value in names.items()})
        words = {"previous_plan": previous_plan, "reason": reason, "competitor": competitor}
        record.update({name: arguments.text_or_none(name, value) for name, value in words.items()})
        record["seats"] = arguments.count_or_none("seats", seats)
        record["addons"] = None if addons is None else arguments.names("addons", addons)
        record |= arguments.plan_money(mrr, usage)
        times = {"trial_ends_at": trial_ends_at, "renews_at": renews_at, "cancel_at": cancel_at}
        for name, value in times.items():
            record[name] = None if value is None else arguments.instant_ms(name, value)
        record["card_on_file"] = arguments.truth_or_none("card_on_file", card_on_file)
        return self._send(EventType.PLAN_CHANGED, record)

    def ticket(
        self,
        customer_id: str,
        *,
        ticket_id: str,
        change: TicketChange,
        author: TicketAuthor | None = None,
        rating: int | None = None,
        channel: str | None = None,
        topic: str | None = None,
        occurred_at: datetime | None = None,
        event_id: str | None = None,
        context: Context | None = None,
        account_id: str | None = None,
    ) -> Sent:
        """Something happened to a support ticket; `author` is who did it.

        One change of one ticket at one instant, one event: pass `occurred_at`, and a second call is a
        retry.
        """
        arguments.one_of("change", change, _TICKET_CHANGES)
        natural = ("ticket_changed", f"{change}:{arguments.identifier('ticket_id', ticket_id)}")
        record = self._common(customer_id, occurred_at, event_id, context, account_id, natural, dated=True)
        record["ticket_id"] = ticket_id
        record["change"] = change
        if author is not None:
            arguments.one_of("author", author, _TICKET_AUTHORS)
        record["author"] = author
        record["rating"] = arguments.count_or_none("rating", rating)
        record["channel"] = arguments.name_or_none("channel", channel)
        record["topic"] = arguments.name_or_none("topic", topic)
        return self._send(EventType.TICKET_CHANGED, record)

    def track(
        self,
        customer_id: str,
        name: str,
        properties: Mapping[str, PropertyValue] | None = None,
        *,
        occurred_at: datetime | None = None,
        event_id: str | None = None,
        context: Context | None = None,
        account_id: str | None = None,
    ) -> Sent:
        """A customer did something: logged in, used a feature, saw a page, answered a survey.

        Every call is an event of its own, unless it brings an `event_id` of yours.
        """
        record = self._common(customer_id, occurred_at, event_id, context, account_id, None)
        record["name"] = arguments.identifier("name", name)
        record["properties"] = {} if properties is None else arguments.property_values(properties)
        return self._send(EventType.ACTIVITY, record)

    def erase(
        self,
        customer_id: str,
        *,
        occurred_at: datetime | None = None,
        event_id: str | None = None,
        context: Context | None = None,
        account_id: str | None = None,
    ) -> Sent:
        """Forget a customer: everything Shoal keeps of them, and every event up to `occurred_at`.

        What happens later is a new customer's. One erasure of a customer at one instant, one event: pass
        `occurred_at`, and a second call is a retry. Events that were accepted and not delivered yet are
        delivered, and dropped on arrival.
        """
        record = self._common(
            customer_id, occurred_at, event_id, context, account_id, ("erased", ""), dated=True
        )
        return self._send(EventType.ERASED, record)

    def _common(
        self,
        customer_id: str,
        occurred_at: datetime | None,
        event_id: str | None,
        context: Context | None,
        account_id: str | None,
        natural: tuple[str, str] | None,
        *,
        dated: bool = False,
    ) -> dict[str, Any]:
        """Return the fields all events share; `natural` is the kind and key an event id comes from.

        With `dated` the instant is part of the key.
        """
        arguments.identifier("customer_id", customer_id)
        at_ms = arguments.occurred_at_ms(occurred_at)
        if event_id is not None:
            arguments.identifier("event_id", event_id)
        elif natural is not None:
            key = f"{at_ms}:{natural[1]}" if dated else natural[1]
            event_id = natural_id(self._namespace, natural[0], customer_id, key)
        else:
            event_id = self._ids.next()
        return {
            "event_id": event_id,
            "customer_id": customer_id,
            "account_id": None if account_id is None else arguments.identifier("account_id", account_id),
            "occurred_at": at_ms,
            "context": arguments.context_value(context),
        }
