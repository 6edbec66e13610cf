"""What the asynchronous shop tells Shoal, request by request."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fastapi_shop import create_app
from httpx import ASGITransport, AsyncClient

from shoal_sdk import Item, Money
from shoal_sdk.testing import RecordingAsyncShoal


@pytest.fixture
async def shop(async_shoal: RecordingAsyncShoal) -> AsyncIterator[AsyncClient]:
    """A browser in front of the shop, which runs from start to end; `async_shoal` comes with the SDK."""
    app = create_app(async_shoal)
    to_shop = AsyncClient(transport=ASGITransport(app), base_url="http://shop")
    async with app.router.lifespan_context(app), to_shop as browser:
        yield browser


async def test_a_sign_up_is_told(shop: AsyncClient, async_shoal: RecordingAsyncShoal) -> None:
    """With how the customer heard of the shop, and what they chose."""
    await shop.post("/customers/c1", json={"source": "a friend", "newsletter": True})
    async_shoal.assert_sent("signed_up", customer_id="c1", source="a friend", traits={"newsletter": True})


async def test_an_order_and_its_refund_are_told(shop: AsyncClient, async_shoal: RecordingAsyncShoal) -> None:
    """In this order, with the same amount."""
    await shop.post("/customers/c1/orders/o1", json={"herring": 2})
    await shop.post("/customers/c1/orders/o1/refund")
    paid = Money.of("12.50", "EUR")
    line = Item("herring", 2, Money.of("6.25", "EUR"), category="fish")
    async_shoal.assert_sent("purchased", customer_id="c1", order_id="o1", amount=paid, items=[line])
    async_shoal.assert_sent("refunded", customer_id="c1", order_id="o1", amount=paid)
    assert [event.type for event in async_shoal.of("c1")] == ["purchased", "refunded"]


async def test_what_is_refused_is_not_told(shop: AsyncClient, async_shoal: RecordingAsyncShoal) -> None:
    """Neither a basket of nothing nor a refund of no order."""
    assert (await shop.post("/customers/c1/orders/o1", json={"whale": 1})).status_code == 422
    assert (await shop.post("/customers/c1/orders/o9/refund")).status_code == 404
    async_shoal.assert_nothing_sent()
