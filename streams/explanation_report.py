"""An explained customer as people read it, and as programs do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from streams.customers.revenue import Movement
from streams.explanation import Change, Explained
from streams.segments import clauses
from streams.segments.clauses import Clause, Fact, instant, lines
from streams.segments.currencies import EXPONENTS
from streams.segments.explaining import Explanation

_CAUSES = {
    "erasure": "erasure",
    "rule_changed": "an edited rule",
    "refund": "refund",
    "late_event": "late event",
    "event": "event",
    "time_elapsed": "time passing",
}


def as_text(explained: Explained) -> str:
    """Return it as lines for a terminal."""
    return "\n".join(_lines(explained))


def _lines(explained: Explained) -> Iterator[str]:
    card = explained.card
    yield f"customer {card.customer_id} at {instant(explained.at_ms)}, by definition {explained.version}"
    yield from (f"note: {note}" for note in explained.notes)
    net = f"{card.net:,.{EXPONENTS[card.currency]}f} {card.currency}"
    yield f"{card.orders} orders and {net} in {card.days} days, as of {instant(card.as_of_ms)}"
    yield from _of_revenue(explained)
    for each in explained.explanations:
        since = explained.since_ms.get(each.dimension)
        shadow = " (shadow: nobody is told)" if each.shadow else ""
        yield (
            f"{each.dimension}{shadow}: {each.value or '(none)'}"
            f"{'' if since is None else f' since {instant(since)}'}"
        )
        if each.dimension in explained.made_by:
            yield f"  made so by {_cause(explained.made_by[each.dimension])}"
        yield from (f"  note: {note}" for note in each.notes)
        for clause in each.clauses:
            yield from lines(clause, 1)
        if each.more:
            yield f"  and {each.more:,} clauses more"
        for coming in explained.coming:
            if coming.dimension == each.dimension:
                at = instant(coming.at_ms)
                yield f"  next: {coming.after or '(none)'} at {at}, if nothing else happens"
    yield from _of_kept(explained)


def _of_revenue(explained: Explained) -> Iterator[str]:
    """Yield the revenue of a month, and how it came to that."""
    revenue, money = explained.revenue, clauses.money(explained.card.currency)
    if revenue is None:
        return
    yield f"revenue of a month: {money(revenue.mrr_minor)}"
    if revenue.more:
        yield f"  after {revenue.more:,} earlier movements"
    for movement in revenue.movements:
        sign = "+" if movement.amount_minor > 0 else ""
        yield f"  {movement.kind} {sign}{money(movement.amount_minor)} at {instant(movement.at_ms)}"


def _of_kept(explained: Explained) -> Iterator[str]:
    """Yield since when facts are kept."""
    later = {name: since for name, since in explained.kept_since_ms.items() if since > 0}
    yield "facts are kept from the beginning" + (", but for" if later else "")
    yield from (f"  {name}, since {instant(since)}" for name, since in sorted(later.items()))


def _cause(change: Change | None) -> str:
    if change is None:
        return "a change that is not kept any more"
    event = f" {change['cause_event_id']}" if change["cause_event_id"] else ""
    before = "" if change["from"] is None else f", from {change['from']}"
    return (
        f"{_CAUSES.get(change['cause'], change['cause'])}{event}{before},"
        f" by definition {change['definition_version']}"
        f" (change {change['epoch']}/{change['partition']}/{change['seq']})"
    )


def as_json(explained: Explained) -> dict[str, Any]:
    """Return it for a program: times in ISO 8601, money as text in major units."""
    revenue, exponent = explained.revenue, EXPONENTS[explained.card.currency]
    return {
        "customer_id": explained.card.customer_id,
        "at": _instant(explained.at_ms),
        "definition_version": explained.version,
        "orders": explained.card.orders,
        "net": str(explained.card.net),
        "currency": explained.card.currency,
        "window_days": explained.card.days,
        "notes": list(explained.notes),
        "revenue": None
        if revenue is None
        else {
            "mrr": _major(revenue.mrr_minor, exponent),
            "movements": [_movement(movement, exponent) for movement in revenue.movements],
            "more": revenue.more,
        },
        "kept_since": {
            name: _instant(since) if since > 0 else None for name, since in explained.kept_since_ms.items()
        },
        "dimensions": {each.dimension: _dimension(each, explained) for each in explained.explanations},
    }


def _dimension(each: Explanation, explained: Explained) -> dict[str, Any]:
    following = [coming for coming in explained.coming if coming.dimension == each.dimension]
    return {
        "value": each.value,
        "shadow": each.shadow,
        "since": _instant(explained.since_ms.get(each.dimension)),
        "made_by": _change(explained.made_by.get(each.dimension)),
        "notes": list(each.notes),
        "clauses": [_clause(clause) for clause in each.clauses],
        "clauses_more": each.more,
        "next": {"at": _instant(following[0].at_ms), "value": following[0].after} if following else None,
    }


def _clause(clause: Clause) -> dict[str, Any]:
    return {
        "text": clause.text,
        "holds": clause.holds,
        "figure": clause.figure,
        "until": _instant(clause.until_ms),
        "facts": [_fact(fact) for fact in clause.facts],
        "facts_more": clause.facts_more,
        "parts": [_clause(part) for part in clause.parts],
    }


def _fact(fact: Fact) -> dict[str, Any]:
    return {
        "text": fact.text,
        "at": _instant(fact.at_ms),
        "until": _instant(fact.until_ms),
        "counts": fact.counts,
    }


def _movement(movement: Movement, exponent: int) -> dict[str, Any]:
    amount = _major(movement.amount_minor, exponent)
    return {"at": _instant(movement.at_ms), "kind": movement.kind, "amount": amount}


def _major(minor: int, exponent: int) -> str:
    """Return an amount as text in major units."""
    return f"{Decimal(minor).scaleb(-exponent):.{exponent}f}"


def _change(change: Change | None) -> dict[str, Any] | None:
    if change is None:
        return None
    kept = ("event_id", "cause", "cause_event_id", "from", "definition_version")
    return {**{name: change[name] for name in kept}, "effective_at": _instant(change["effective_at"])}


def _instant(at_ms: int | None) -> str | None:
    """Return an instant in ISO 8601; as it is where no calendar has a name for it."""
    if at_ms is None:
        return None
    try:
        at = datetime.fromtimestamp(at_ms // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return instant(at_ms)
    return at.replace(microsecond=at_ms % 1000 * 1000).isoformat(timespec="milliseconds")
