"""A small shop in Flask that tells Shoal who signed up, who bought and who got money back.

To try it: `make up`, `shoal topics`, then `flask --app sdk/examples/flask_shop.py run`.
"""

from __future__ import annotations

from typing import Any

from flask import Flask, abort, request

from shoal_sdk import Item, Money, Shoal

PRICES = {"herring": Money.of("6.25", "EUR"), "salmon": Money.of("19.00", "EUR")}


def create_app(shoal: Shoal | None = None) -> Flask:
    """Return the shop; its tests pass a client that records."""
    client = Shoal("localhost:9092", app="shop") if shoal is None else shoal
    app = Flask(__name__)
    orders: dict[str, Money] = {}

    @app.post("/customers/<customer>")
    def sign_up(customer: str) -> Any:
        form = request.get_json()
        client.signed_up(customer, source=form.get("source"), traits={"newsletter": form["newsletter"]})
        return {}, 201

    @app.post("/customers/<customer>/orders/<order>")
    def check_out(customer: str, order: str) -> Any:
        basket = request.get_json()
        if not basket or not basket.keys() <= PRICES.keys():
            abort(422, "a basket holds what we sell")
        items = [Item(fish, count, PRICES[fish], category="fish") for fish, count in basket.items()]
        total = sum(PRICES[fish].amount_minor * count for fish, count in basket.items())
        orders[order] = Money(total, "EUR")
        client.purchased(customer, order_id=order, amount=orders[order], items=items)
        return {"total_minor": total}, 201

    @app.post("/customers/<customer>/orders/<order>/refund")
    def refund(customer: str, order: str) -> Any:
        if order not in orders:
            abort(404)
        client.refunded(customer, refund_id=f"refund-of-{order}", order_id=order, amount=orders[order])
        return {}, 201

    return app
