"""What an explanation is made of: clauses with the figures and facts behind them, as people read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from streams.customers.facts import TraitValue
from streams.segments.currencies import EXPONENTS

FACTS_MAX = 5
"""Facts shown with one clause, the newest ones; how many more there are is said."""

CLAUSES_MAX = 200
"""Clauses shown of one dimension; an expression has more only if nobody can read it."""

_TEXT_MAX = 100
"""Characters shown of a text somebody sent, and of an expression whose parts follow it."""

_ITEMS_MAX = 10


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is known of a customer and was looked at."""

    text: str
    at_ms: int | None = None
    """When it was; None for what has no instant, or whose instant is not kept."""
    until_ms: int | None = None
    """When time alone makes it count no more; None: never."""
    counts: bool = True
    """Whether it counts; what does not is shown where nothing else is."""


@dataclass(frozen=True, slots=True)
class Clause:
    """One part of a rule, what became of it, and what it was judged by."""

    text: str
    """As it was written, where somebody wrote it."""
    holds: bool
    figure: str | None = None
    """What was compared, as people write it."""
    until_ms: int | None = None
    """The next instant at which time alone could change it; None: never."""
    parts: tuple[Clause, ...] = ()
    facts: tuple[Fact, ...] = ()
    facts_more: int = 0
    """How many further facts there are."""


def lines(clause: Clause, depth: int = 0) -> Iterator[str]:
    """Yield a clause as lines for a terminal, its facts and parts below it."""
    figure = "" if clause.figure is None else f", {clause.figure}"
    until = "" if clause.until_ms is None else f"; may change {instant(clause.until_ms)}"
    yield f"{'  ' * depth}{clause.text}: {'yes' if clause.holds else 'no'}{figure}{until}"
    indent = "  " * (depth + 1)
    for fact in clause.facts:
        at = "" if fact.at_ms is None else f" at {instant(fact.at_ms)}"
        until = "" if fact.until_ms is None else f", counts until {instant(fact.until_ms)}"
        yield f"{indent}- {'' if fact.counts else 'does not count: '}{fact.text}{at}{until}"
    if clause.facts_more:
        yield f"{indent}- and {clause.facts_more:,} more"
    for part in clause.parts:
        yield from lines(part, depth + 1)


def shortened(text: str, most: int = _TEXT_MAX) -> str:
    """Return a text, its end cut off and said so when it is long."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def instant(at_ms: int) -> str:
    """Return an instant in UTC; milliseconds only where there are some."""
    try:
        at = datetime.fromtimestamp(at_ms // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        # A trait may hold an instant no calendar has a name for.
        return f"{at_ms} ms after 1970"
    rest = f".{at_ms % 1000:03}" if at_ms % 1000 else ""
    return f"{at:%Y-%m-%d %H:%M:%S}{rest} UTC"


_SPANS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"), (1, "ms"))


def span(length_ms: int, units: int = 2) -> str:
    """Return a length of time in its largest units, rounded down: no edge looks reached that is not."""
    found: list[str] = []
    rest = abs(length_ms)
    for unit_ms, name in _SPANS:
        some, rest = divmod(rest, unit_ms)
        if found or some:
            found.append(f"{some}{name}" if some else "")
    told = " ".join(each for each in found[:units] if each) or "0d"
    return f"-{told}" if length_ms < 0 else told


def span_beside(length_ms: int, edges: Iterable[int]) -> str:
    """Return a length of time so exactly that it does not read like an edge it is not."""
    told = span(length_ms)
    confused = any(span(edge) == told and edge != length_ms for edge in edges)
    return span(length_ms, len(_SPANS)) if confused else told


def count(value: int) -> str:
    """Return a whole number."""
    return f"{value:,}"


def number(millionths: int) -> str:
    """Return a number kept in millionths, with as many decimals as it has."""
    return f"{Decimal(millionths).scaleb(-6).normalize():,f}"


def money(currency: str) -> Callable[[int], str]:
    """Return what writes minor units of a currency."""
    exponent = EXPONENTS[currency]
    return lambda minor: f"{Decimal(minor).scaleb(-exponent):,.{exponent}f} {currency}"


def trait(value: TraitValue) -> str:
    """Return the value of a trait as it was sent."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{shortened(value)}"'
    if isinstance(value, tuple):
        if len(value) == 1 and isinstance(value[0], int):
            return instant(value[0])
        more = f" and {len(value) - _ITEMS_MAX} more" if len(value) > _ITEMS_MAX else ""
        return (", ".join(f'"{shortened(str(each))}"' for each in value[:_ITEMS_MAX]) + more) or "empty"
    return f"{value:,}" if isinstance(value, int) else f"{value!r}"
