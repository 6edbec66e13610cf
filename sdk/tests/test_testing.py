"""The clients that record: the checks and bytes of the real one, and assertions that say what is wrong."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import io
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from typing import Any
from unittest.mock import ANY

import pytest
from fastavro import schemaless_writer

from shoal_sdk import (
    BufferFull,
    Campaign,
    ClientClosed,
    Context,
    Counters,
    Drop,
    Item,
    Money,
    Shoal,
)
from shoal_sdk import encoding as encoding_module
from shoal_sdk.encoding import EventType
from shoal_sdk.testing import RecordingAsyncShoal, RecordingShoal
from shoal_sdk.testing.events import METHODS, TYPES, decode, names_of

EUR = Money.of("12.50", "EUR")
AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=timezone.utc)
TRAITS: dict[str, Any] = {
    "plan": "pro",
    "seats": 3,
    "score": 0.5,
    "vip": True,
    "since": AT,
    "apps": {"b", "a"},
    "old": None,
}
CONTEXT = Context(channel="web", campaign=Campaign(source="ads", term="fish"), country="DE")
EVERYTHING: dict[str, dict[str, Any]] = {
    "signed_up": {"source": "a friend", "traits": TRAITS},
    "identify": {"traits": TRAITS},
    "purchased": {
        "order_id": "o1",
        "amount": EUR,
        "items": [Item("s1", 2, 300, name="Herring", category="fish", line_id="1"), Item("s2", -1, EUR)],
        "shipping": Money(100, "EUR"),
        "tax": 50,
        "discount": 0,
        "coupon": "SPRING",
        "perks": ["gift"],
        "payment_method": "card",
        "trigger": "mail",
    },
    "refunded": {"refund_id": "r1", "order_id": "o1", "amount": EUR, "kind": "return", "reason": "late"},
    "plan_changed": {
        "subscription_id": "s1",
        "change": "upgraded",
        "plan": "pro",
        "mrr": EUR,
        "product": "app",
        "previous_plan": "free",
        "tier": "gold",
        "seats": 3,
        "addons": ["backup"],
        "interval": "month",
        "usage": Money(40, "EUR"),
        "trial_ends_at": AT,
        "renews_at": AT + timedelta(days=30),
        "cancel_at": AT + timedelta(days=60),
        "card_on_file": True,
        "reason": "growth",
        "competitor": "none",
    },
    "ticket": {
        "ticket_id": "t1",
        "change": "rated",
        "author": "customer",
        "rating": 4,
        "channel": "mail",
        "topic": "billing",
    },
    "track": {"name": "export", "properties": {"format": "csv", "rows": 3, "share": 0.5, "again": True}},
    "erase": {},
}
"""Every method that sends, with every argument it has."""
COMMON: dict[str, Any] = {"occurred_at": AT, "event_id": "e1", "context": CONTEXT, "account_id": "acme"}


def send_methods() -> list[str]:
    """Return the names of the public methods of Shoal that take a customer."""
    return [
        name
        for name, method in inspect.getmembers(Shoal, inspect.isfunction)
        if not name.startswith("_") and "customer_id" in inspect.signature(method).parameters
    ]


def said(raised: pytest.ExceptionInfo[BaseException]) -> str:
    return str(raised.value)


@pytest.mark.parametrize("method", send_methods())
def test_what_was_passed_can_be_asserted_as_it_was_passed(shoal: RecordingShoal, method: str) -> None:
    """Every argument of every method is a field, with the value in the types of the call."""
    arguments = {**EVERYTHING[method], **COMMON}
    assert arguments.keys() == inspect.signature(getattr(Shoal, method)).parameters.keys() - {
        "self",
        "customer_id",
    }
    getattr(shoal, method)("zoë", **arguments)
    event = shoal.assert_sent(method, times=1, customer_id="zoë", **arguments)
    for name, value in arguments.items():
        other = Money(7, "EUR") if isinstance(value, (Money, list)) else "another"
        with pytest.raises(AssertionError, match=f"- {name}: expected"):
            shoal.assert_sent(method, **{name: other})
        assert name in event.fields


def test_every_event_type_is_sent_by_some_method(shoal: RecordingShoal) -> None:
    """So the tests of this module see each of them, a new one included."""
    for method in send_methods():
        getattr(shoal, method)("c1", **EVERYTHING[method])
    assert {event.type for event in shoal.events} == set(TYPES) == {each.name.lower() for each in EventType}
    assert set(send_methods()) == (set(TYPES) - set(METHODS.values())) | set(METHODS)


def test_an_event_is_what_kafka_would_get(shoal: RecordingShoal) -> None:
    """Milliseconds are left of an instant, minor units of money, and the parts have all their fields."""
    shoal.purchased("zoë", **EVERYTHING["purchased"], **COMMON)
    (event,) = shoal.events.purchased
    assert event.occurred_at == AT.replace(microsecond=123000)
    assert (event.amount_minor, event.currency, event.amount) == (1250, "EUR", EUR)
    assert (event.tax, event.shipping_minor, event.discount) == (Money(50, "EUR"), 100, Money(0, "EUR"))
    assert event.items[0] == Item("s1", 2, Money(300, "EUR"), name="Herring", category="fish", line_id="1")
    assert (event.perks, event.context) == (("gift",), CONTEXT)
    shoal.identify("zoë", TRAITS)
    assert dict(shoal.events[-1].traits) == TRAITS | {
        "since": AT.replace(microsecond=123000),
        "apps": frozenset("ab"),
    }


def test_what_is_recorded_went_through_the_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the encoder to write another value, a test of the application would see that one."""

    def write(out: io.BytesIO, schema: Any, record: dict[str, Any]) -> None:
        schemaless_writer(out, schema, {**record, "order_id": "from the bytes"})

    monkeypatch.setattr("shoal_sdk.encoding.schemaless_writer", write)
    shoal = RecordingShoal()
    shoal.purchased("c1", order_id="1", amount=EUR)
    assert shoal.events[0].order_id == "from the bytes"


def test_a_record_cannot_be_changed(shoal: RecordingShoal) -> None:
    """Nor what is in it, so a test cannot alter what the next assertion sees."""
    shoal.signed_up("c1", traits=TRAITS)
    (event,) = shoal.events
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.type = "purchased"  # type: ignore[misc]  # The subject of this test.
    for mapping in (event.fields, event.traits):
        with pytest.raises(TypeError):
            mapping["plan"] = "free"
    assert hash(event) == hash(shoal.events[0])
    assert copy.copy(event) == event and "RecordingShoal" in repr(shoal) and "signed_up" in repr(shoal)
    with pytest.raises(
        AttributeError, match=r"signed_up has no field 'order_id'; did .* \(one of event_id, customer_"
    ):
        _ = event.order_id


def test_events_are_asked_for_by_customer_and_type(shoal: RecordingShoal) -> None:
    """In the order of the calls; both kinds of question combine."""
    for number in range(3):
        shoal.purchased(f"c{number % 2}", order_id=str(number), amount=EUR)
    shoal.identify("c0", {"plan": "pro"})
    assert [event.order_id for event in shoal.events.purchased] == ["0", "1", "2"]
    assert [event.order_id for event in shoal.of("c0").purchased] == ["0", "2"]
    assert [event.type for event in shoal.of("c0")] == ["purchased", "purchased", "profile_updated"]
    assert shoal.events.identify == shoal.events.profile_updated == shoal.events.of_type("identify")
    assert shoal.events.refunded == () and len(shoal.events) == 4
    assert {"purchased", "identify", "of"} <= set(dir(shoal.events))
    with pytest.raises(AttributeError, match="there is no event 'purchsed'; did you mean 'purchased'"):
        _ = shoal.events.purchsed
    shoal.clear()
    shoal.assert_nothing_sent()


def test_a_failed_assertion_shows_the_nearest_event(shoal: RecordingShoal) -> None:
    """Field by field, with what was expected and got; the nearest has the fewest differences."""
    shoal.purchased("c2", order_id="9", amount=EUR)
    shoal.purchased("c1", order_id="1001", amount=EUR)
    shoal.signed_up("c1")
    with pytest.raises(AssertionError) as raised:
        shoal.assert_sent("purchased", customer_id="c1", order_id="1002", amount=EUR)
    assert said(raised) == (
        "no purchased event with customer_id='c1', order_id='1002',"
        " amount=Money(amount_minor=1250, currency='EUR') was sent; the nearest is number 2 of 3 events:\n"
        "    customer_id: 'c1'\n"
        "  - order_id: expected '1002'\n"
        "  + order_id: got      '1001'\n"
        "    amount: Money(amount_minor=1250, currency='EUR')"
    )


def test_traits_nobody_named_are_not_compared(shoal: RecordingShoal) -> None:
    """So that "never told the plan" does not hold because another trait was told with it."""
    shoal.identify("c1", {"plan": "pro", "seats": 3})
    shoal.assert_sent("identify", traits={"plan": "pro"})
    with pytest.raises(AssertionError):
        shoal.assert_not_sent("identify", traits={"plan": "pro"})
    shoal.assert_not_sent("identify", traits={"plan": "pro", "city": "Bonn"})


def test_differing_traits_are_shown_key_by_key(shoal: RecordingShoal) -> None:
    """What is equal is left out, and so is what was not asked; what is missing is said to be."""
    shoal.identify("c1", {"plan": "pro", "seats": 3, "extra": 1})
    with pytest.raises(AssertionError) as raised:
        shoal.assert_sent("identify", traits={"plan": "pro", "seats": 4, "city": "Bonn"})
    assert said(raised).splitlines()[1:] == [
        "  - traits['seats']: expected 4",
        "  + traits['seats']: got      3",
        "  - traits['city']: expected 'Bonn'",
        "  + traits['city']: got      nothing",
    ]


def test_without_an_event_of_the_type_the_others_are_listed(shoal: RecordingShoal) -> None:
    """At most ten of them; and when there is nothing at all, that is said."""
    with pytest.raises(AssertionError, match="no refunded event was sent; nothing was sent"):
        shoal.assert_sent("refunded")
    for number in range(12):
        shoal.purchased("c1", order_id=str(number), amount=EUR, occurred_at=AT, event_id=f"e{number}")
    with pytest.raises(AssertionError) as raised:
        shoal.assert_sent("refunded", customer_id="c1")
    lines = said(raised).splitlines()
    assert lines[0] == "no refunded event with customer_id='c1' was sent; sent (12):"
    assert lines[1].startswith("  1. purchased(event_id='e0', customer_id='c1', occurred_at=datetime")
    assert "order_id='0', amount=Money(amount_minor=1250, currency='EUR')" in lines[1]
    assert lines[11:] == ["  ... and 2 more"]
    with pytest.raises(AssertionError, match=r"expected nothing; sent \(12\):"):
        shoal.assert_nothing_sent()


@pytest.mark.parametrize("ask", ["assert_sent", "assert_not_sent"])
def test_a_mistake_in_an_assertion_is_an_error_of_its_own(shoal: RecordingShoal, ask: str) -> None:
    """Otherwise `assert_not_sent` with a misspelt name would pass for ever."""
    shoal.purchased("c1", order_id="1", amount=EUR)
    with pytest.raises(
        ValueError, match=r"there is no event 'purchase'; did you mean 'purchased'\? \(one of sig"
    ):
        getattr(shoal, ask)("purchase")
    with pytest.raises(
        ValueError, match=r"purchased has no field 'order'; did you mean 'order_id'\? \(one of"
    ):
        getattr(shoal, ask)("purchased", customer_id="c1", order="1")
    with pytest.raises(ValueError, match=r"purchased has no field 'paid' \(one of event_id, .*, discount\)"):
        getattr(shoal, ask)("purchased", paid=3)
    with pytest.raises(ValueError, match="expected=.*no time zone"):
        getattr(shoal, ask)("purchased", occurred_at=datetime(2026, 1, 1))  # noqa: DTZ001  # On purpose.


def test_not_sent_and_times_count_calls(shoal: RecordingShoal) -> None:
    """Also those of a retry, which Kafka gets twice under one id and Shoal counts once."""
    shoal.assert_not_sent("purchased", customer_id="c1")
    for _ in range(2):
        shoal.purchased("c1", order_id="1", amount=EUR)
    assert shoal.assert_sent("purchased", times=2, order_id="1").order_id == "1"
    assert len({event.event_id for event in shoal.events}) == 1
    with pytest.raises(AssertionError, match=r"with order_id='1' was sent 2 times, expected 1; sent \(2\):"):
        shoal.assert_sent("purchased", times=1, order_id="1")
    with pytest.raises(AssertionError, match="was sent 2 times, expected 0"):
        shoal.assert_not_sent("purchased", customer_id="c1")
    shoal.assert_not_sent("purchased", customer_id="c2")
    with pytest.raises(ValueError, match="times=0: expected at least 1; assert_not_sent says never"):
        shoal.assert_sent("purchased", times=0)


@pytest.mark.parametrize(
    ("fits", "expected"),
    [
        (True, {"amount_minor": 1250}),
        (True, {"amount": 1250}),
        (True, {"occurred_at": AT.astimezone(timezone(timedelta(hours=2)))}),
        (True, {"perks": ("gift",)}),
        (True, {"event_id": ANY, "items": [ANY, ANY]}),
        (True, {"items": (Item("s1", 2, 300, "Herring", "fish", "1"), Item("s2", -1, 1250))}),
        (False, {"amount": 1250.0}),
        (False, {"amount": Money(1250, "USD")}),
        (False, {"occurred_at": AT + timedelta(milliseconds=1)}),
        (False, {"perks": []}),
        (False, {"items": [Item("s1", 2, 300, "Herring", "fish", "1"), Item("s2", 1, 1250)]}),
        (False, {"items": [Item("s1", 2, 301, "Herring", "fish", "1"), Item("s2", -1, 1250)]}),
        (False, {"items": [Item("s1", 2, 300, "Herring", "fish", "1")]}),
        (False, {"coupon": None}),
        (False, {"context": Context(channel="web")}),
    ],
)
def test_values_may_be_given_as_the_sdk_takes_them(
    shoal: RecordingShoal, fits: bool, expected: dict[str, Any]
) -> None:
    """Ints of minor units, other zones, other sequences, matchers with an `==` of their own."""
    shoal.purchased("c1", **EVERYTHING["purchased"], **COMMON)
    (shoal.assert_sent if fits else shoal.assert_not_sent)("purchased", **expected)


@pytest.mark.parametrize("value", [True, 1, 1.0])
def test_true_is_not_one(shoal: RecordingShoal, value: float) -> None:
    """They are equal in Python and three different values in Kafka."""
    shoal.identify("c1", {"n": value})
    for other in (True, 1, 1.0):
        same = type(other) is type(value)
        (shoal.assert_sent if same else shoal.assert_not_sent)("identify", traits={"n": other})


def test_arguments_are_checked_as_by_the_real_client(shoal: RecordingShoal) -> None:
    """The same errors, and nothing is recorded."""
    for wrong in ({"amount": 12.5}, {"coupon": "\ud800"}, {"coupon": "x" * (1 << 20)}, {"order_id": ""}):
        with pytest.raises(ValueError, match=r"amount=12\.5|coupon=|purchased: .* bytes|order_id=''"):
            shoal.purchased("c1", **{"order_id": "1", "amount": EUR, **wrong})
    with pytest.raises(ValueError, match="app=''"):
        RecordingShoal(app="")
    with pytest.raises(TypeError, match="lingers"):
        RecordingShoal(lingers=3)
    shoal.assert_nothing_sent()
    assert RecordingShoal("broker:9092", app="shop", max_events=3, linger_s=1).waiting == 0


def test_receipts_ids_and_counters_are_the_real_ones(shoal: RecordingShoal) -> None:
    """Accepted is delivered; the id is the one the real client gives."""
    receipt = shoal.purchased("c1", order_id="1", amount=EUR)
    assert receipt.accepted and receipt.wait() and shoal.flush() == 0
    real = Shoal("localhost:9092", app="app", disabled=True).purchased("c1", order_id="1", amount=EUR)
    assert receipt.event_id == real.event_id == shoal.events[0].event_id
    assert shoal.counters == Counters(accepted=1, delivered=1, dropped=0, failed=0)


def test_with_kafka_away_nothing_is_delivered_until_it_is_back() -> None:
    """Within the bounds; nobody waits; what is left at the close is given up and said to be."""
    drops: list[Drop] = []
    shoal = RecordingShoal(max_events=2, on_drop=drops.append, on_full="wait")
    with shoal.kafka_away():
        receipts = [shoal.purchased("c1", order_id=str(number), amount=EUR) for number in range(3)]
        assert [(each.accepted, each.wait()) for each in receipts] == [
            (True, False),
            (True, False),
            (False, False),
        ]
        assert shoal.flush() == shoal.waiting == 2
        assert [drop.reason for drop in drops] == ["full"]
    assert [each.wait() for each in receipts] == [True, True, False]
    with shoal.kafka_away():
        shoal.purchased("c1", order_id="4", amount=EUR)
        assert shoal.close() == 1
    assert [drop.reason for drop in drops] == ["full", "closed"]
    assert shoal.counters == Counters(accepted=3, delivered=2, dropped=1, failed=1)


def test_a_closed_or_strict_client_behaves_like_the_real_one() -> None:
    """Dropped after the close; raised when strict; recorded in neither case."""
    drops: list[Drop] = []
    with RecordingShoal(on_drop=drops.append) as shoal:
        pass
    assert not shoal.signed_up("c1").accepted
    assert [drop.reason for drop in drops] == ["closed"]
    strict = RecordingShoal(strict=True, max_events=1)
    with strict.kafka_away():
        strict.signed_up("c1")
        with pytest.raises(BufferFull):
            strict.signed_up("c2")
    strict.close()
    with pytest.raises(ClientClosed):
        strict.signed_up("c3")
    shoal.assert_nothing_sent()
    assert [event.customer_id for event in strict.events] == ["c1"]


def test_ten_threads_lose_and_mix_nothing(shoal: RecordingShoal) -> None:
    """Every call once, in the order of its thread."""

    def work(thread: int) -> None:
        for number in range(100):
            shoal.purchased(f"c{thread}", order_id=str(number), amount=EUR)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(10):
        assert [event.order_id for event in shoal.of(f"c{number}")] == [str(each) for each in range(100)]
    assert shoal.counters.delivered == 1000 and shoal.waiting == 0


async def test_the_async_twin_records_the_same(async_shoal: RecordingAsyncShoal) -> None:
    """Every method of Shoal that sends is a coroutine with its arguments; questions are not awaited."""
    for method in send_methods():
        arguments = {**EVERYTHING[method], **COMMON}
        call = getattr(async_shoal, method)("zoë", **arguments)
        assert inspect.iscoroutine(call)
        assert (await call).accepted
        async_shoal.assert_sent(method, times=1, customer_id="zoë", **arguments)
    with async_shoal.kafka_away():
        await async_shoal.signed_up("c2")
        assert await async_shoal.flush() == async_shoal.waiting == 1
    assert async_shoal.counters.delivered == len(send_methods()) + 1
    assert len(async_shoal.of("zoë")) == len(send_methods())
    async_shoal.clear()
    async_shoal.assert_nothing_sent()
    async with async_shoal:
        pass
    assert not (await async_shoal.signed_up("c3")).accepted


def test_names_of_a_type_are_those_of_its_schema_and_the_moneys() -> None:
    """What an assertion may name is exactly what an event has."""
    shoal = RecordingShoal()
    for method in send_methods():
        getattr(shoal, method)("c1", **EVERYTHING[method])
        assert tuple(shoal.events[-1].fields) == names_of(shoal.events[-1].type)


def test_decoding_reads_the_schema_the_fingerprint_names() -> None:
    """A sign-up is no refund, whatever its fields look like."""
    client = RecordingShoal()
    client.signed_up("c1", event_id="e1", occurred_at=AT)
    record = {"event_id": "e2", "customer_id": "c1", "account_id": None, "occurred_at": 0, "context": None}
    value = encoding_module.encode(EventType.PROFILE_UPDATED, {**record, "traits": {}})
    assert [client.events[0].type, decode(value).type] == ["signed_up", "profile_updated"]


def test_importing_the_sdk_or_the_plugin_brings_nothing_of_the_other() -> None:
    """An application in production never imports pytest; a suite that does not ask imports no SDK."""
    code = (
        "import sys, shoal_sdk, shoal_sdk.testing; assert 'pytest' not in sys.modules\n"
        "for name in [name for name in sys.modules if name.startswith('shoal')]: del sys.modules[name]\n"
        "import shoal_pytest; assert 'pytest' in sys.modules and 'shoal_sdk' not in sys.modules"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)})
    assert (done.returncode, done.stderr) == (0, "")


def test_one_change_at_one_instant_is_one_event(shoal: RecordingShoal) -> None:
    """Of a subscription or ticket: its id, the change and the instant make the event's id, all three.

    Of an erasure the customer and the instant do: who comes back may be erased again.
    """
    later = AT + timedelta(milliseconds=1)
    said = [("s1", "started", AT), ("s1", "started", AT), ("s2", "started", AT), ("s1", "ended", AT)]
    for subscription, change, at in [*said, ("s1", "started", later)]:
        shoal.plan_changed("c1", subscription_id=subscription, change=change, occurred_at=at)
    ids = [event.event_id for event in shoal.events]
    assert ids[0] == ids[1] and len(set(ids)) == 4
    shoal.clear()
    for ticket, change, at in [("t1", "opened", AT), ("t1", "opened", AT), ("t1", "closed", AT)]:
        shoal.ticket("c1", ticket_id=ticket, change=change, occurred_at=at)
    ids = [event.event_id for event in shoal.events]
    assert ids[0] == ids[1] != ids[2]
    shoal.clear()
    for customer, at in [("c1", AT), ("c1", AT), ("c2", AT), ("c1", later)]:
        shoal.erase(customer, occurred_at=at)
    ids = [event.event_id for event in shoal.events.erase]
    assert ids[0] == ids[1] and len(set(ids)) == 3
    shoal.clear()
    shoal.track("c1", "login", occurred_at=AT)
    shoal.track("c1", "login", occurred_at=AT)
    assert len({event.event_id for event in shoal.events}) == 2
