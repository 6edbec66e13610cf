"""The client an application holds: checks, encodes, hands over; never waits, never fails its caller."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self, get_args

from shoal_sdk import arguments
from shoal_sdk.arguments import Item, TraitValue
from shoal_sdk.context import Context
from shoal_sdk.encoding import EventType, encode, schema_of
from shoal_sdk.errors import BufferFull, ClientClosed
from shoal_sdk.ids import TimeOrderedIds, app_namespace, natural_id
from shoal_sdk.money import Money
from shoal_sdk.outbox import Counters, Entry, Outbox, Refusal
from shoal_sdk.sender import Sender

_LOG = logging.getLogger("shoal_sdk")

RECORD_BYTES_MAX = 1 << 20
"""What brokers take by default, key and framing included."""
FRAMING_BYTES = 128
EXIT_S_MAX = 4.0
"""How long a process that ends waits for delivery; ending the thread takes up to a second more."""
STOP_S_MAX = 1.0

RefundKind = Literal["refund", "return", "cancellation"]
_REFUND_KINDS = get_args(RefundKind)


@dataclass(frozen=True, slots=True)
class Drop:
    """An event that will not be delivered, and why.

    `reason` is "full" (no room), "closed" (the client was closed before, or before Kafka took it),
    or "refused" (Kafka never takes it).
    """

    event_type: str
    customer_id: str
    event_id: str
    reason: Literal["full", "closed", "refused"]


class Receipt:
    """What became of one call. Dropping it costs nothing; waiting for it is optional."""

    __slots__ = ("_client", "_entry", "accepted", "event_id")

    def __init__(self, event_id: str, client: Shoal, entry: Entry | None) -> None:
        self.event_id = event_id
        self.accepted = entry is not None
        self._client = client
        self._entry = entry

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds (None: until settled) and return whether Kafka has the event.

        False at once for an event that was not accepted.
        """
        return self._entry is not None and self._client._wait_for(self._entry, timeout)

    def __repr__(self) -> str:
        return f"Receipt(event_id={self.event_id!r}, accepted={self.accepted})"


class Shoal:
    """Sends tracking events of one application to the topic `<prefix>.events`, in the background.

    Safe from any thread. Wrong arguments are a ValueError; anything else that goes wrong drops the
    event, counts it and calls `on_drop`, or with `strict=True` raises BufferFull or ClientClosed.
    With `on_full="wait"` a call blocks while there is no room. `disabled=True` checks arguments and
    sends nothing. Between acceptance and delivery at most `max_events` events and `max_bytes` bytes
    are held.
    """

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        app: str,
        prefix: str = "shoal",
        max_events: int = 10_000,
        max_bytes: int = 32 << 20,
        linger_s: float = 0.05,
        strict: bool = False,
        disabled: bool = False,
        on_full: Literal["drop", "wait"] = "drop",
        on_drop: Callable[[Drop], None] | None = None,
    ) -> None:
        if not bootstrap:
            raise ValueError(f"bootstrap={bootstrap!r}: empty; pass 'host:port' of a broker")
        for field, text in (("app", app), ("prefix", prefix)):
            arguments.identifier(field, text)
        arguments.at_least("max_events", max_events, 1)
        arguments.at_least("max_bytes", max_bytes, 1)
        arguments.at_least("linger_s", linger_s, 0)
        if on_full not in {"drop", "wait"}:
            raise ValueError(f"on_full={on_full!r}: expected 'drop' or 'wait'")
        self._namespace = app_namespace(app)
        self._ids = TimeOrderedIds()
        self._strict = strict
        self._wait_when_full = on_full == "wait"
        self._on_drop = on_drop
        self._disabled = disabled
        self._sender = Sender(
            bootstrap,
            f"{prefix}.events",
            client_id=f"shoal-sdk-{app}",
            linger_s=linger_s,
            on_refused=self._refused,
        )
        self._outbox = Outbox(max_events, max_bytes, self._sender.wake)
        for event_type in EventType:
            schema_of(event_type)
        if not disabled:
            self._sender.start(self._outbox)
            atexit.register(self.close, EXIT_S_MAX)

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
    ) -> Receipt:
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
    ) -> Receipt:
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
    ) -> Receipt:
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
    ) -> Receipt:
        """`amount` was given back, for the order if it is known. One refund_id, one event."""
        natural = ("refunded", arguments.identifier("refund_id", refund_id))
        record = self._common(customer_id, occurred_at, event_id, context, account_id, natural)
        if kind not in _REFUND_KINDS:
            raise ValueError(f"kind={arguments.shown(kind)}: expected one of {', '.join(_REFUND_KINDS)}")
        money = arguments.paid("amount", amount)
        record["refund_id"] = refund_id
        record["order_id"] = None if order_id is None else arguments.identifier("order_id", order_id)
        record["kind"] = kind
        record["amount_minor"] = money.amount_minor
        record["currency"] = money.currency
        record["reason"] = arguments.text_or_none("reason", reason)
        return self._send(EventType.REFUNDED, record)

    def flush(self, timeout: float = 5.0) -> int:
        """Send at once and wait up to `timeout` seconds; return how many events are not delivered.

        Of the events accepted before the call: those still waiting, which stay buffered, and those
        given up since the last flush.
        """
        if self._sender.is_current_thread():
            # A callback of ours: whoever waits here waits for itself.
            timeout = 0.0
        return self._outbox.flush(timeout)

    def close(self, timeout: float = 5.0) -> int:
        """Flush, then end the background thread; return how many events were not delivered.

        Those are given up: counted as failed, `on_drop` is called for each. A second call does
        nothing and returns 0. Takes up to a second longer than `timeout`.
        """
        if not self._outbox.close():
            return 0
        if self._disabled:
            return 0
        atexit.unregister(self.close)
        self.flush(timeout)
        self._sender.stop(STOP_S_MAX)
        return self._give_up_rest()

    @property
    def counters(self) -> Counters:
        """Numbers of events accepted, delivered, dropped (never accepted) and failed (given up) so far."""
        return self._outbox.counters

    @property
    def waiting(self) -> int:
        """Events accepted, neither delivered nor given up yet."""
        return self._outbox.waiting

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _common(
        self,
        customer_id: str,
        occurred_at: datetime | None,
        event_id: str | None,
        context: Context | None,
        account_id: str | None,
        natural: tuple[str, str] | None,
    ) -> dict[str, Any]:
        """Return the fields all events share; `natural` is the kind and key an event id comes from."""
        arguments.identifier("customer_id", customer_id)
        if event_id is not None:
            arguments.identifier("event_id", event_id)
        elif natural is not None:
            event_id = natural_id(self._namespace, natural[0], customer_id, natural[1])
        else:
            event_id = self._ids.next()
        return {
            "event_id": event_id,
            "customer_id": customer_id,
            "account_id": None if account_id is None else arguments.identifier("account_id", account_id),
            "occurred_at": arguments.occurred_at_ms(occurred_at),
            "context": arguments.context_value(context),
        }

    def _send(self, event_type: EventType, record: Mapping[str, Any]) -> Receipt:
        """Encode and hand over; a ValueError if the record is too large."""
        event_id, customer_id = record["event_id"], record["customer_id"]
        try:
            value = encode(event_type, record)
        except UnicodeEncodeError as error:
            name = event_type.name.lower()
            raise ValueError(f"{name}: a text holds half a surrogate pair: {error}") from None
        entry = Entry(customer_id.encode(), value, event_type.name.lower(), event_id)
        size = len(entry.key) + len(value) + FRAMING_BYTES
        largest = min(RECORD_BYTES_MAX, self._outbox.max_bytes)
        if size > RECORD_BYTES_MAX or entry.cost_bytes > self._outbox.max_bytes:
            raise ValueError(
                f"{entry.event_type}: {size} bytes, at most {largest}; send fewer items or shorter texts"
            )
        if self._disabled:
            return Receipt(event_id, self, None)
        wait = self._wait_when_full and not self._sender.is_current_thread()
        refusal = self._outbox.offer(entry, wait=wait)
        if refusal is None:
            return Receipt(event_id, self, entry)
        if self._strict:
            raise _as_error(refusal, self._outbox)
        self._dropped(entry, "full" if refusal is Refusal.FULL else "closed")
        return Receipt(event_id, self, None)

    def _wait_for(self, entry: Entry, timeout: float | None) -> bool:
        """Wait for one event, for its receipt."""
        return self._outbox.wait_for(entry, 0.0 if self._sender.is_current_thread() else timeout)

    def _refused(self, entry: Entry) -> None:
        """Kafka will never take this event: count it and say so."""
        _LOG.error("Kafka refuses the %s event %s: it is given up", entry.event_type, entry.event_id)
        self._outbox.settle([entry], delivered=False)
        self._dropped(entry, "refused")

    def _give_up_rest(self) -> int:
        """After the sender has ended: count what is left as failed; return how many."""
        rest = self._outbox.abandon()
        for entry in rest:
            self._dropped(entry, "closed")
        if rest:
            _LOG.error("closed with %d events undelivered: they are given up", len(rest))
        return len(rest)

    def _dropped(self, entry: Entry, reason: Literal["full", "closed", "refused"]) -> None:
        """Call `on_drop`; its errors are the application's, but not its caller's."""
        if self._on_drop is None:
            return
        try:
            self._on_drop(Drop(entry.event_type, entry.key.decode(), entry.event_id, reason))
        except Exception:  # noqa: BLE001  # Tracking must not fail the code path it sits in.
            _LOG.exception("on_drop failed")


def _as_error(refusal: Refusal, outbox: Outbox) -> BufferFull | ClientClosed:
    """Return what a strict client raises."""
    if refusal is Refusal.CLOSED:
        return ClientClosed("the client is closed")
    bounds = f"{outbox.max_events} events and {outbox.max_bytes} bytes"
    return BufferFull(f"{outbox.waiting} events wait for Kafka, at most {bounds}")
