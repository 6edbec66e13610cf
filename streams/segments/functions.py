"""What the language has: every function and name, how it is written and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Gives = Literal["number", "money", "duration", "timestamp", "boolean", "text"]

DAYS_ACTIVE_MAX = 64


@dataclass(frozen=True, slots=True)
class Word:
    """One name of the language; `form` is how it is written."""

    form: str
    gives: Gives


FUNCTIONS: dict[str, Word] = {
    "orders": Word("orders(90d)", "number"),
    "spend": Word("spend(90d)", "money"),
    "refunds": Word("refunds(90d)", "money"),
    "net": Word("net(90d)", "money"),
    "count": Word('count("name", 90d)', "number"),
    "sum": Word('sum("name", property, 90d)', "number"),
    "avg": Word('avg("name", property, 90d)', "number"),
    "max": Word('max("name", property, 90d)', "number"),
    "min": Word('min("name", property, 90d)', "number"),
    "distinct": Word('distinct("name", property, 90d) or distinct(category, 90d)', "number"),
    "days_active": Word('days_active(28d) or days_active("name", 28d)', "number"),
    "days_since": Word('days_since("name") or days_since(last())', "duration"),
    "days_until": Word("days_until(renews_at)", "duration"),
    "first": Word('first() or first("name")', "timestamp"),
    "last": Word('last() or last("name")', "timestamp"),
    "ever": Word('ever("name")', "boolean"),
    "has": Word("has(x)", "boolean"),
    "subscribed": Word('subscribed() or subscribed(product == "crm")', "boolean"),
    "tickets": Word("tickets(90d)", "number"),
    "reopened": Word("reopened(90d)", "number"),
    "first_reply_time": Word("first_reply_time(90d)", "duration"),
    "close_time": Word("close_time(90d)", "duration"),
    "rating": Word("rating(90d)", "number"),
    "in_segment": Word('in_segment("key")', "boolean"),
    "bucket": Word('bucket("salt")', "number"),
}

NAMES: dict[str, Word] = {
    "tenure": Word("tenure", "duration"),
    "rfm.segment": Word("rfm.segment", "text"),
    "rfm.r": Word("rfm.r", "number"),
    "rfm.f": Word("rfm.f", "number"),
    "rfm.m": Word("rfm.m", "number"),
    "lifecycle": Word("lifecycle", "text"),
    "plan": Word("plan", "text"),
    "product": Word("product", "text"),
    "tier": Word("tier", "text"),
    "mrr": Word("mrr", "money"),
    "arr": Word("arr", "money"),
    "seats": Word("seats", "number"),
    "renews_at": Word("renews_at", "timestamp"),
    "trial_ends_at": Word("trial_ends_at", "timestamp"),
    "tickets_open": Word("tickets_open", "number"),
    "ticket_open": Word("ticket_open", "boolean"),
}

WORDS = {"and", "or", "not", "in", "where", "ever", "true", "false"}

ITEM_FIELDS = {
    "sku": "string",
    "name": "string",
    "category": "string",
    "line_id": "string",
    "quantity": "number",
    "unit_price": "number",
}
"""What an order's lines have."""

SUBSCRIPTION_FIELDS = {
    "product": "string",
    "plan": "string",
    "tier": "string",
    "seats": "number",
    "mrr": "money",
}
TRAIT_TYPES = ("string", "number", "boolean", "timestamp", "set")
