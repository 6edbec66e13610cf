"""Custom segments and dimensions as a definition carries them, and the windows and spans of their rules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

from streams.customers.series import Series
from streams.segments import tree
from streams.segments.literals import WINDOW_MAX_MS
from streams.segments.settling import SHADOW_SUFFIX
from streams.segments.view import EVER_MS, ORDERS, REFUNDS

State = Literal["live", "shadow", "draft"]


@dataclass(frozen=True, slots=True)
class Segment:
    """One custom segment: who its rule holds for is in, everybody else has no value in it."""

    key: str
    when: str
    """The rule as it is written, in one line."""
    rule: tree.Rule
    """What the rule means, and holds nobody outside its validity."""
    series: tuple[Series, ...] = ()
    """What it needs kept."""
    name: str = ""
    description: str = ""
    owner: str = ""
    labels: tuple[str, ...] = ()
    dwell_enter_ms: int = 0
    dwell_exit_ms: int = 0
    cooldown_ms: int = 0
    valid_from_ms: int | None = None
    valid_until_ms: int | None = None
    state: State = "live"

    @property
    def settles(self) -> bool:
        """Whether membership follows the rule with a delay."""
        return bool(self.dwell_enter_ms or self.dwell_exit_ms or self.cooldown_ms)

    @property
    def dimension(self) -> str:
        """The name of its dimension, which says whether people are told of it."""
        return self.key + SHADOW_SUFFIX if self.state == "shadow" else self.key

    def content(self) -> dict[str, Any]:
        """Return what decides who is a member: part of the definition's hash."""
        return {
            "when": self.when,
            "dwell_enter_ms": self.dwell_enter_ms,
            "dwell_exit_ms": self.dwell_exit_ms,
            "cooldown_ms": self.cooldown_ms,
            "valid_from_ms": self.valid_from_ms,
            "valid_until_ms": self.valid_until_ms,
            "state": self.state,
        }


@dataclass(frozen=True, slots=True)
class Case:
    """One value of a custom exclusive dimension, and the rule under which it is taken."""

    value: str
    when: str
    rule: tree.Rule


@dataclass(frozen=True, slots=True)
class CustomDimension:
    """A dimension in which every customer has exactly one value: of the first rule that holds."""

    key: str
    cases: tuple[Case, ...]
    otherwise: str
    series: tuple[Series, ...] = ()
    name: str = ""
    description: str = ""
    owner: str = ""

    @property
    def values(self) -> tuple[str, ...]:
        """All values, in the order of their codes."""
        return (*(case.value for case in self.cases), self.otherwise)

    def content(self) -> dict[str, Any]:
        """Return what decides who has which value: part of the definition's hash."""
        return {"values": [[case.value, case.when] for case in self.cases], "otherwise": self.otherwise}


def parts_of(rule: Any) -> Iterator[Any]:
    """Yield a rule and everything it is made of."""
    yield rule
    for name in (each.name for each in fields(rule)):
        part = getattr(rule, name)
        for each in part if isinstance(part, tuple) else (part,):
            if is_dataclass(each):
                yield from parts_of(each)


def windows_ms(rule: tree.Rule) -> set[int]:
    """Return the lengths of all windows a rule reads, `ever` left out."""
    lengths = {getattr(part, "length_ms", EVER_MS) for part in parts_of(rule)}
    return lengths - {EVER_MS}


def spans_ms(rule: tree.Rule) -> set[int]:
    """Return how long after a fact time alone may change a rule's truth."""
    spans = windows_ms(rule)
    for part in parts_of(rule):
        if isinstance(part, tree.Compared) and isinstance(part.measure, tree.Elapsed):
            # A threshold is one or two cuts: `> k` is `>= k + 1`.
            spans |= {part.threshold, part.threshold + 1}
    return {span for span in spans if span > 0}


def order_spans_ms(rule: tree.Rule) -> dict[str, set[int]]:
    """Return those spans that belong to orders and refunds, by ORDER_KINDS."""
    spans: dict[str, set[int]] = {kind: set() for kind in ORDER_KINDS}
    for part in parts_of(rule):
        if isinstance(part, tree.Compared) and isinstance(part.measure, tree.Elapsed):
            since = part.measure.since
            if isinstance(since, tree.Paid | tree.FirstPaid):
                which = since.which if isinstance(since, tree.Paid) else "first"
                spans[which] |= {span for span in (part.threshold, part.threshold + 1) if span > 0}
        length_ms = getattr(part, "length_ms", EVER_MS)
        if length_ms == EVER_MS:
            continue
        if isinstance(part, tree.Netted) or getattr(part, "series", None) == ORDERS:
            spans["orders"].add(length_ms)
        if isinstance(part, tree.Netted) or getattr(part, "series", None) == REFUNDS:
            spans["refunds"].add(length_ms)
    return spans


def series_spans_ms(rule: tree.Rule) -> Iterator[tuple[str, set[int]]]:
    """Yield the series of a definition's own with the spans after which their entries may change a rule."""
    for part in parts_of(rule):
        if isinstance(part, tree.Compared) and isinstance(part.measure, tree.Elapsed):
            since = part.measure.since
            spans = {span for span in (part.threshold, part.threshold + 1) if span > 0}
            if isinstance(since, tree.Happened) and spans:
                yield since.series, spans
        length_ms = getattr(part, "length_ms", EVER_MS)
        if length_ms != EVER_MS and getattr(part, "series", ORDERS) not in _FOLDED:
            yield part.series, {length_ms}


def instants(rule: tree.Rule) -> int:
    """Return how many deadlines a rule has at most that no fact's time leads to, until the next fact."""
    count = 0
    for part in parts_of(rule):
        if isinstance(part, tree.During):
            count += 2
        elif isinstance(part, tree.TraitTime | tree.SubscriptionTime):
            # The instant, and a threshold before it of two cuts.
            count += 3
        elif isinstance(part, tree.Subscribed | tree.SubscriptionSum):
            count += 2
    return count


def reads_traits(rule: tree.Rule) -> bool:
    """Tell whether a trait can change a rule's truth."""
    return any(type(part) in _OF_TRAITS for part in parts_of(rule))


def members_of(rule: tree.Rule) -> set[str]:
    """Return the keys of the segments a rule asks for."""
    return {part.segment for part in parts_of(rule) if isinstance(part, tree.Member)}


def keys_of(rule: tree.Rule) -> set[str]:
    """Return the keys of the series a rule reads."""
    return {part.series for part in parts_of(rule) if hasattr(part, "series")}


def looks_back(rule: tree.Rule) -> bool:
    """Tell whether a rule reads all there ever was of a series of the definition's own."""
    return any(
        isinstance(part, tree.Happened)
        or (getattr(part, "length_ms", 0) == EVER_MS and getattr(part, "series", ORDERS) not in _FOLDED)
        for part in parts_of(rule)
    )


def needs_ms(rule: tree.Rule) -> Iterator[tuple[str, int]]:
    """Yield what a rule needs kept, and how far back; WINDOW_MAX_MS for all there ever was of a series."""
    for part in parts_of(rule):
        length_ms = getattr(part, "length_ms", EVER_MS)
        if isinstance(part, tree.Happened):
            yield part.series, WINDOW_MAX_MS
        elif isinstance(part, tree.TicketCount | tree.TicketMean):
            yield BOOKS, length_ms
        elif isinstance(part, tree.Netted) and length_ms != EVER_MS:
            yield from ((series, length_ms) for series in _FOLDED)
        elif (series := getattr(part, "series", None)) is not None and (
            length_ms != EVER_MS or series not in _FOLDED
        ):
            yield series, min(length_ms, WINDOW_MAX_MS)


BOOKS = "books"
"""What stands for subscriptions and tickets among what is kept."""

ORDER_KINDS = ("orders", "refunds", "last", "first")
"""Any order, any refund that names none, only the last order with a net above 0, only the first."""

_FOLDED = (ORDERS, REFUNDS)
"""Of these, what is forgotten is remembered in sum."""

_OF_TRAITS = {
    *(tree.TraitTime, tree.TraitNumber, tree.TraitSet, tree.TraitText, tree.TraitTruth, tree.TraitHolds)
}
