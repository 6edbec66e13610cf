"""Wrong arguments are a ValueError that names the field, its value and the way out; nothing else raises."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from shoal_sdk import Campaign, Context, Item, Money, Shoal

EUR = Money(1250, "EUR")


@pytest.fixture
def client() -> Iterator[Shoal]:
    """A client that checks everything and sends nothing."""
    with Shoal("127.0.0.1:1", app="shop", disabled=True) as made:
        yield made


def buy(client: Shoal, customer_id: Any = "c1", **changed: Any) -> None:
    """Call purchased() with valid arguments but for `changed`."""
    client.purchased(customer_id, **{"order_id": "o1", "amount": EUR, **changed})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"customer_id": ""}, "customer_id='': an id is not empty"),
        ({"customer_id": None}, "customer_id=None: an id is text"),
        ({"customer_id": 7}, r"customer_id=7: an id is text; pass str\(...\)"),
        ({"customer_id": "x" * 257}, "customer_id='xxx.*257 bytes of UTF-8, at most 256"),
        ({"customer_id": "é" * 129}, "258 bytes of UTF-8, at most 256"),
        ({"customer_id": "\ud800"}, "customer_id='.ud800': holds half a surrogate pair"),
        ({"order_id": ""}, "order_id='': an id is not empty"),
        ({"event_id": "e" * 257}, "event_id="),
        ({"account_id": ""}, "account_id=''"),
        ({"occurred_at": datetime(2026, 1, 1)}, "occurred_at=.*: no time zone.*datetime.now"),  # noqa: DTZ001  # On purpose.
        ({"occurred_at": 1_700_000_000}, "occurred_at=1700000000: expected an aware datetime"),
        ({"amount": 12.5}, r"amount=12.5: expected Money, got float; pass Money.of\('12.50', 'EUR'\)"),
        ({"amount": 1250}, "amount=1250: expected Money, got int"),
        ({"amount": Money(-1, "EUR")}, "amount=Money.*: below zero; send what was given back with refunded"),
        ({"shipping": 1.0}, "shipping=1.0: minor units are an int, got float"),
        ({"tax": Money(1, "USD")}, "tax=Money.*: the order is in EUR"),
        ({"discount": -1}, "discount=-1: below zero"),
        ({"coupon": 5}, "coupon=5: expected text or None, got int"),
        ({"payment_method": "\udfff"}, "payment_method='.udfff': holds half"),
        ({"perks": "gift"}, "perks='gift': expected several texts, got str"),
        ({"perks": ["gift", None]}, r"perks\[1\]=None"),
        ({"perks": ["gift", 3]}, r"perks\[1\]=3"),
        ({"items": [{"sku": "a"}]}, r"items\[0\]={'sku': 'a'}: expected an Item, got dict"),
        ({"items": 5}, "items=5: expected Items, got int"),
        ({"items": [Item("a", 1.5, 100)]}, r"items\[0\].quantity=1.5: expected an int"),  # type: ignore[arg-type]  # On purpose.
        ({"items": [Item("a", 1, 100), Item("", 1, 1)]}, r"items\[1\].sku='': an id is not empty"),
        ({"items": [Item("a", 1, Money(1, "GBP"))]}, r"items\[0\].unit_price=Money.*: the order is in EUR"),
        ({"items": [Item("a", 1, 0.5)]}, r"items\[0\].unit_price=0.5: minor units"),  # type: ignore[arg-type]  # On purpose.
        ({"context": {"channel": "web"}}, "context={'channel': 'web'}: expected a Context, got dict"),
    ],
)
def test_a_wrong_purchase_is_named(client: Shoal, wrong: dict[str, Any], says: str) -> None:
    """Each field of an order, and those all events share."""
    with pytest.raises(ValueError, match=says):
        buy(client, **wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"refund_id": ""}, "refund_id=''"),
        ({"order_id": ""}, "order_id=''"),
        ({"kind": "voucher"}, "kind='voucher': expected one of refund, return, cancellation"),
        ({"kind": "unknown"}, "kind='unknown'"),
        ({"kind": ["refund"]}, "kind="),
        ({"amount": Money(-5, "EUR")}, "amount=.*below zero"),
        ({"reason": 1}, "reason=1"),
    ],
)
def test_a_wrong_refund_is_named(client: Shoal, wrong: dict[str, Any], says: str) -> None:
    """Each field of a refund."""
    with pytest.raises(ValueError, match=says):
        client.refunded("c1", **{"refund_id": "r1", "amount": EUR, **wrong})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"subscription_id": ""}, "subscription_id='': an id is not empty"),
        ({"change": "churned"}, "change='churned': expected one of trial_started, trial_ended, started"),
        ({"change": "unknown"}, "change='unknown': expected one of"),
        ({"plan": ""}, "plan='': pass None for what is not known"),
        ({"tier": "x" * 257}, "tier='xxx.*257 bytes of UTF-8, at most 256"),
        ({"mrr": 12.5}, "mrr=12.5: expected Money, got float"),
        ({"mrr": Money(-1, "EUR")}, "mrr=.*below zero"),
        ({"usage": Money(1, "GBP")}, "usage=.*mrr is in EUR; convert it"),
        ({"seats": -1}, "seats=-1: expected an int of at least 0, or None"),
        ({"seats": True}, "seats=True: expected an int"),
        ({"addons": "backup"}, "addons='backup': expected several texts, got str"),
        ({"addons": ["a"] * 65}, "addons: 65 texts, at most 64"),
        ({"cancel_at": datetime(2026, 1, 1)}, "cancel_at=.*: no time zone"),  # noqa: DTZ001  # On purpose.
        ({"card_on_file": 1}, "card_on_file=1: expected True, False or None"),
    ],
)
def test_a_wrong_plan_change_is_named(client: Shoal, wrong: dict[str, Any], says: str) -> None:
    """What a worker would refuse, the caller is told."""
    right: dict[str, Any] = {"subscription_id": "s1", "change": "started", "mrr": Money(900, "EUR")}
    with pytest.raises(ValueError, match=says):
        client.plan_changed("c1", **{**right, **wrong})


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"ticket_id": 7}, "ticket_id=7: an id is text"),
        ({"change": "solved"}, "change='solved': expected one of opened, replied, closed, reopened, rated"),
        ({"author": "unknown"}, "author='unknown': expected one of customer, agent, bot"),
        ({"rating": 4.5}, "rating=4.5: expected an int of at least 0, or None"),
        ({"topic": ""}, "topic='': pass None"),
    ],
)
def test_a_wrong_ticket_is_named(client: Shoal, wrong: dict[str, Any], says: str) -> None:
    """As for plans."""
    with pytest.raises(ValueError, match=says):
        client.ticket("c1", **{"ticket_id": "t1", "change": "opened", **wrong})


@pytest.mark.parametrize(
    ("name", "properties", "says"),
    [
        ("", {}, "name='': an id is not empty"),
        ("export", [("rows", 3)], "properties=.*: expected a mapping, got list"),
        ("export", {"": 3}, "properties: a name=''"),
        ("export", {str(n): n for n in range(65)}, "properties: 65 names, at most 64"),
        ("export", {"when": {1}}, "properties.'when'.=.*: a property is text, a number or"),
        ("export", {"rows": None}, "properties.'rows'.=None: a property is text, a number or a bool"),
        ("export", {"rows": float("nan")}, "properties.'rows'.=nan: not a number that compares"),
        ("export", {"rows": 2**63}, "properties.'rows'.=.*: more than 64 bits hold"),
    ],
)
def test_a_wrong_activity_is_named(client: Shoal, name: str, properties: Any, says: str) -> None:
    """Its name, and each property by its own."""
    with pytest.raises(ValueError, match=says):
        client.track("c1", name, properties)


@pytest.mark.parametrize(
    ("traits", "says"),
    [
        ({"": 1}, "traits: the name '' is not"),
        ({3: 1}, "traits: the name 3 is not"),
        ({"a": datetime(2026, 1, 1)}, r"traits\['a'\]=.*: no time zone"),  # noqa: DTZ001  # On purpose.
        ({"a": float("nan")}, r"traits\['a'\]=nan"),
        ({"a": 2**63}, r"traits\['a'\]=.*64 bits"),
        ({"a": {"b": 1}}, r"traits\['a'\]={'b': 1}: a trait is text.*got dict"),
        ({"a": ["x"]}, r"traits\['a'\]=\['x'\]: a trait is"),
        ({"a": {1, 2}}, r"traits\['a'\]\[0\]=1"),
        ({"a": "\ud800"}, r"traits\['a'\]=.*surrogate"),
        ("plan", "traits='plan': expected a mapping, got str"),
        (None, "traits=None"),
    ],
)
def test_wrong_traits_are_named(client: Shoal, traits: Any, says: str) -> None:
    """Each way in which a trait can be wrong."""
    with pytest.raises(ValueError, match=says):
        client.identify("c1", traits)


def test_a_wrong_source_is_named(client: Shoal) -> None:
    """Sign-ups too."""
    with pytest.raises(ValueError, match="source=1: expected text or None"):
        client.signed_up("c1", source=1)  # type: ignore[arg-type]  # On purpose.


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Context(channel=1), "context.channel=1"),  # type: ignore[arg-type]  # On purpose.
        (lambda: Context(campaign="x"), "context.campaign='x': expected a Campaign"),  # type: ignore[arg-type]  # On purpose.
        (lambda: Campaign(source=2), "campaign.source=2"),  # type: ignore[arg-type]  # On purpose.
    ],
)
def test_a_wrong_context_is_named_when_built(make: Any, says: str) -> None:
    """So that reusing one costs nothing."""
    with pytest.raises(ValueError, match=says):
        make()


def test_text_utf8_cannot_hold_in_a_context_is_a_value_error(client: Shoal) -> None:
    """Found by the encoder only, and still a ValueError of ours."""
    with pytest.raises(ValueError, match="purchased: a text holds half a surrogate pair"):
        buy(client, context=Context(channel="\ud800"))


def test_a_record_over_1_mib_is_refused(client: Shoal) -> None:
    """Kafka would not take it; the caller learns so at once."""
    with pytest.raises(ValueError, match="purchased: 10.* bytes, at most 1048576; send fewer items"):
        buy(client, perks=["x" * 1024] * 1024)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"bootstrap": ""}, "bootstrap=''"),
        ({"app": ""}, "app=''"),
        ({"prefix": ""}, "prefix=''"),
        ({"max_events": 0}, "max_events=0: expected a number of at least 1"),
        ({"max_bytes": "32M"}, "max_bytes='32M'"),
        ({"linger_s": float("nan")}, "linger_s=nan"),
        ({"on_full": "block"}, "on_full='block': expected 'drop' or 'wait'"),
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, Any], says: str) -> None:
    """When the client is made, not when the first event is lost."""
    with pytest.raises(ValueError, match=says):
        Shoal(**{"bootstrap": "127.0.0.1:1", "app": "shop", "disabled": True, **wrong})


def test_a_record_larger_than_the_whole_buffer_is_refused() -> None:
    """It would never find room, and with on_full="wait" its caller would wait for ever."""
    client = Shoal("127.0.0.1:1", app="shop", max_bytes=1000, on_full="wait", disabled=True)
    with pytest.raises(ValueError, match="at most 1000"):
        buy(client, perks=["x" * 1000])


def test_ids_of_256_bytes_are_fine(client: Shoal) -> None:
    """The longest allowed, in one- and in two-byte characters."""
    buy(client, "x" * 256)
    buy(client, "é" * 128)
    buy(client, occurred_at=datetime(1960, 1, 1, tzinfo=timezone.utc))


def test_disabled_counts_and_sends_nothing(client: Shoal) -> None:
    """Receipts are not accepted, and waiting for one ends at once."""
    receipt = client.purchased("c1", order_id="o1", amount=EUR)
    assert not receipt.accepted
    assert not receipt.wait()
    assert client.flush() == 0
    assert client.counters.accepted == 0
