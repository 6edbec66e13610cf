"""What a PlanChanged or TicketChanged says of a subscription or ticket, checked field by field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import errors
from streams.checks import AMOUNT_LIMIT_MINOR, TIME_LIMIT_MS, Checks
from streams.columns import int64s_of
from streams.customers.changes import PLAN_CHANGES, TICKET_CHANGES, Change, PlanChange, TicketChange
from streams.customers.facts import Kind
from streams.segments.currencies import Rates

TEXT_BYTES_MAX = 256
"""Bytes of a plan, tier, product and the like."""
ADDONS_MAX = 64
"""Add-ons of one subscription."""

_TEXTS = {
    Kind.PLAN_CHANGED: ("product", "plan", "tier", "interval"),
    Kind.TICKET_CHANGED: ("channel", "topic"),
}
_TIMES = ("trial_ends_at", "renews_at", "cancel_at")
_AUTHORS = ("customer", "agent", "bot")

Row = Mapping[str, Any]
Fields = Mapping[str, list[Any]]


def changes_of(checks: Checks, kind: Kind, rates: Rates) -> dict[int, Change]:
    """Return position to change for every row that is not refused.

    Refuses a change or an author the writer's schema does not say, texts and add-ons out of bounds,
    seats or money below 0, money without a currency or in one without a rate, and instants outside
    1970..9999. Money is converted to the reporting currency as that of purchases is.
    """
    batch = checks.group.batch
    names = [name for name in batch.schema.names if name not in ("context", "occurred_at", *_TIMES)]
    fields: dict[str, list[Any]] = {name: batch.column(name).to_pylist() for name in names}
    for name in ("occurred_at", *(_TIMES if kind is Kind.PLAN_CHANGED else ())):
        column = batch.column(name)
        filled = int64s_of(column).tolist()
        fields[name] = [
            at if there else None for at, there in zip(filled, column.is_valid().to_pylist(), strict=True)
        ]
    rows = range(len(checks))
    changes = PLAN_CHANGES if kind is Kind.PLAN_CHANGED else TICKET_CHANGES
    _check(checks, fields, "change", lambda said: said in changes, "one of " + ", ".join(changes), _NEWER)
    for name in _TEXTS[kind]:
        _check(
            checks, fields, name, _is_short, f"at most {TEXT_BYTES_MAX} bytes", "keep bulky text elsewhere"
        )
    found: dict[int, Change] = {}
    if kind is Kind.PLAN_CHANGED:
        _check_plan(checks, fields)
        mrr = _money(checks, fields, rates)
    else:
        known = ", ".join(_AUTHORS)
        _check(checks, fields, "author", lambda said: said in _AUTHORS, f"one of {known}", _NEWER)
        _check(checks, fields, "rating", _is_amount, f"0 to {AMOUNT_LIMIT_MINOR - 1}", "rate from 0 upwards")
        mrr = []
    positions = checks.group.rows.tolist()
    for row in rows:
        if row not in checks.failed:
            said = {name: values[row] for name, values in fields.items()}
            found[positions[row]] = (
                _plan_change(said, mrr[row]) if kind is Kind.PLAN_CHANGED else _ticket_change(said)
            )
    return found


_NEWER = "write it with a schema this worker knows, or upgrade the workers first"


def _check(
    checks: Checks, fields: Fields, name: str, fits: Callable[[Any], bool], expected: str, fix: str
) -> None:
    """Refuse the rows whose field is there and does not fit."""
    values = fields[name]
    wrong = [row for row, value in enumerate(values) if value is not None and not fits(value)]
    checks.refuse(wrong, name, expected, lambda row: repr(values[row])[:60], fix)


def _is_short(text: str) -> bool:
    return 0 < len(text.encode()) <= TEXT_BYTES_MAX


def _is_amount(number: int) -> bool:
    return 0 <= number < AMOUNT_LIMIT_MINOR


def _is_instant(at_ms: int) -> bool:
    return 0 <= at_ms < TIME_LIMIT_MS


def _check_plan(checks: Checks, fields: Fields) -> None:
    amounts = f"0 to {AMOUNT_LIMIT_MINOR - 1}"
    _check(checks, fields, "seats", _is_amount, amounts, "count seats from 0 upwards")
    for name in ("mrr_minor", "usage_minor"):
        _check(
            checks,
            fields,
            name,
            _is_amount,
            f"{amounts} (minor units)",
            "a discount lowers the price, not below 0",
        )
    for name in _TIMES:
        _check(
            checks, fields, name, _is_instant, "a time from 1970 to 9999 in UTC ms",
            "check the unit: milliseconds, not seconds or microseconds",
        )  # fmt: skip
    _check(
        checks, fields, "addons",
        lambda addons: len(addons) <= ADDONS_MAX and all(map(_is_short, addons)),
        f"at most {ADDONS_MAX} texts of 1 to {TEXT_BYTES_MAX} bytes", "keep bulky text elsewhere",
    )  # fmt: skip


def _money(checks: Checks, fields: Fields, rates: Rates) -> list[int | None]:
    """Return what each row pays a month in minor units of the reporting currency, None if unsaid."""
    mrr: list[int | None] = [None] * len(checks)
    known = ", ".join(sorted({rates.reporting_currency, *rates.declared}))
    for row, currency in enumerate(fields["currency"]):
        amount = fields["mrr_minor"][row]
        if row in checks.failed or (amount is None and fields["usage_minor"][row] is None):
            continue
        if currency is None:
            checks.refuse([row], "currency", "one with mrr_minor or usage_minor", lambda _: "null", "name it")
        elif currency not in rates:
            checks.refuse(
                [row],
                "currency",
                f"one with a rate ({known})",
                lambda row: repr(fields["currency"][row])[:60],
                "declare its rate in segments.yaml, then replay the dead letter",
                errors.CurrencyWithoutRate,
            )
        elif amount is not None and amount > rates.limit_minor(currency):
            limit = f"at most {rates.limit_minor(currency)} in {currency}"
            checks.refuse(
                [row], "mrr_minor", limit, lambda row: str(fields["mrr_minor"][row]), "check the unit"
            )
        elif amount is not None:
            mrr[row] = int(rates.convert(np.array([amount]), currency)[0])
    return mrr


def _plan_change(said: Row, mrr_minor: int | None) -> PlanChange:
    addons = said["addons"]
    return PlanChange(
        at_ms=said["occurred_at"],
        event_id=said["event_id"].encode(),
        subscription=said["subscription_id"],
        change=said["change"],
        product=said["product"],
        plan=said["plan"],
        tier=said["tier"],
        seats=said["seats"],
        addons=None if addons is None else tuple(sorted(set(addons))),
        interval=said["interval"],
        mrr_minor=mrr_minor,
        trial_ends_at_ms=said["trial_ends_at"],
        renews_at_ms=said["renews_at"],
        cancel_at_ms=said["cancel_at"],
        card_on_file=said["card_on_file"],
    )


def _ticket_change(said: Row) -> TicketChange:
    return TicketChange(
        at_ms=said["occurred_at"],
        event_id=said["event_id"].encode(),
        ticket=said["ticket_id"],
        change=said["change"],
        author=said["author"],
        rating=said["rating"],
        channel=said["channel"],
        topic=said["topic"],
    )
