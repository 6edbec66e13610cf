"""The same shop in FastAPI: the client opens and closes with the application.

To try it: `make up`, `shoal topics`, then `uvicorn --app-dir sdk/examples --factory fastapi_shop:create_app`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from shoal_sdk import AsyncShoal, Item, Money

PRICES = {"herring": Money.of("6.25", "EUR"), "salmon": Money.of("19.00", "EUR")}


class SignUp(BaseModel):
    """What a new customer tells."""

    source: str | None = None
    newsletter: bool = False


def create_app(shoal: AsyncShoal | None = None) -> FastAPI:
    """Return the shop; its tests pass a client that records."""
    client = AsyncShoal("localhost:9092", app="shop") if shoal is None else shoal
    orders: dict[str, Money] = {}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with client:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/customers/{customer}", status_code=201)
    async def sign_up(customer: str, form: SignUp) -> None:
        await client.signed_up(customer, source=form.source, traits={"newsletter": form.newsletter})

    @app.post("/customers/{customer}/orders/{order}", status_code=201)
    async def check_out(customer: str, order: str, basket: dict[str, int]) -> dict[str, int]:
        if not basket or not basket.keys() <= PRICES.keys():
            raise HTTPException(422, "a basket holds what we sell")
        items = [Item(fish, count, PRICES[fish], category="fish") for fish, count in basket.items()]
        total = sum(PRICES[fish].amount_minor * count for fish, count in basket.items())
        orders[order] = Money(total, "EUR")
        await client.purchased(customer, order_id=order, amount=orders[order], items=items)
        return {"total_minor": total}

    @app.post("/customers/{customer}/orders/{order}/refund", status_code=201)
    async def refund(customer: str, order: str) -> None:
        if order not in orders:
            raise HTTPException(404)
        await client.refunded(customer, refund_id=f"refund-of-{order}", order_id=order, amount=orders[order])

    return app
