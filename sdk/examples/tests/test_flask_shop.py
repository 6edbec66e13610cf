"""What the shop tells Shoal, request by request."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from flask_shop import create_app

from shoal_sdk import Item, Money
from shoal_sdk.testing import RecordingShoal


@pytest.fixture
def shop(shoal: RecordingShoal) -> FlaskClient:
    """A browser in front of the shop; `shoal` comes with the SDK."""
    return create_app(shoal).test_client()


def test_a_sign_up_is_told(shop: FlaskClient, shoal: RecordingShoal) -> None:
    """With how the customer heard of the shop, and what they chose."""
    shop.post("/customers/c1", json={"source": "a friend", "newsletter": True})
    shoal.assert_sent("signed_up", customer_id="c1", source="a friend", traits={"newsletter": True})


def test_an_order_is_told_with_its_items(shop: FlaskClient, shoal: RecordingShoal) -> None:
    """And its total, whatever the browser says."""
    assert shop.post("/customers/c1/orders/o1", json={"herring": 2}).json == {"total_minor": 1250}
    shoal.assert_sent(
        "purchased",
        customer_id="c1",
        order_id="o1",
        amount=Money.of("12.50", "EUR"),
        items=[Item("herring", 2, Money.of("6.25", "EUR"), category="fish")],
    )


def test_a_second_click_is_no_second_order(shop: FlaskClient, shoal: RecordingShoal) -> None:
    """Shoal hears of it twice, under one id, and counts it once."""
    for _ in range(2):
        shop.post("/customers/c1/orders/o1", json={"salmon": 1})
    assert len({event.event_id for event in shoal.events.purchased}) == 1


def test_a_refund_names_its_order(shop: FlaskClient, shoal: RecordingShoal) -> None:
    """With what was paid for it."""
    shop.post("/customers/c1/orders/o1", json={"salmon": 1})
    shop.post("/customers/c1/orders/o1/refund")
    shoal.assert_sent("refunded", customer_id="c1", order_id="o1", amount=Money.of("19.00", "EUR"))


def test_what_is_refused_is_not_told(shop: FlaskClient, shoal: RecordingShoal) -> None:
    """Neither a basket of nothing nor a refund of no order."""
    assert shop.post("/customers/c1/orders/o1", json={"whale": 1}).status_code == 422
    assert shop.post("/customers/c1/orders/o9/refund").status_code == 404
    shoal.assert_nothing_sent()
