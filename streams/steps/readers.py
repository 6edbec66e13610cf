"""How many values one cause can change at once: the dimensions that read a kind of fact, or know a span.

A value changes by an evaluation only if something its rule reads did since the one before: a fact, or
an instant at which one reached the end of a span. So who counts causes by their readers knows how many
changes there are at most, however many dimensions there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np

from streams.customers.facts import Int64s, Kind, Strings, UInt8s
from streams.customers.table import CustomerTable
from streams.segments import tree
from streams.segments.definition import DAY_MS, Definition
from streams.segments.evaluate import Evaluator
from streams.segments.rules import (
    ORDER_KINDS,
    instants,
    order_spans_ms,
    parts_of,
    reads_traits,
    series_spans_ms,
    spans_ms,
)
from streams.segments.view import ORDERS, REFUNDS

Weights = Mapping[int, int]
"""Span in ms to how many dimensions know it."""

_DEFINITIONS_CACHED_MAX = 4

_CORE = ("rfm", "lifecycle")
_ENTITIES = (
    *(tree.Subscribed, tree.SubscriptionSum, tree.SubscriptionTime, tree.FirstPaid),
    *(tree.OpenTickets, tree.TicketCount, tree.TicketMean),
)
_MONEY = (tree.Netted, tree.Paid, tree.FirstPaid)


@dataclass(slots=True)
class _Reads:
    """What one dimension reads, through others that it asks for too."""

    core: bool = False
    """RFM or the lifecycle, or something of them: orders, refunds, subscriptions."""
    money: bool = False
    activities: bool = False
    any_day: bool = False
    """On which days anything happened: any event at all."""
    traits: bool = False
    entities: bool = False
    instants: int = 0
    bucket: bool = False
    orders: dict[str, set[int]] = field(default_factory=lambda: {kind: set() for kind in ORDER_KINDS})
    series: dict[str, set[int]] = field(default_factory=dict)
    spans: set[int] = field(default_factory=set)


class Readers:
    """Of one definition: how many dimensions, shown or not, each cause may change."""

    def __init__(self, definition: Definition) -> None:
        self._definition = definition
        self._events = {series.key: series.event for series in definition.series}
        self._named = {series.key for series in definition.series if series.name is not None}
        self._rules = {segment.key: segment.rule for segment in definition.segments}
        self._cases = {each.key: [case.rule for case in each.cases] for each in definition.dimensions}
        self._reads = [*self._of_core(), *(self._of(rules) for rules in self._of_dimensions())]
        kinds = {kind: self._readers(kind) for kind in Kind}
        self._by_kind = np.array([kinds.get(Kind(k), 0) if k else 0 for k in range(max(Kind) + 1)], np.int64)
        self.traits = sum(reads.traits for reads in self._reads)
        self.entities = sum(reads.entities or reads.core for reads in self._reads)
        self.fixed = sum(reads.instants > 0 for reads in self._reads)
        """Those with instants that no fact's time leads to, and of all their rules how many:"""
        self.fixed_instants = sum(reads.instants for reads in self._reads)
        self.delayed = sum(each.settles for each in definition.computed)
        self.core = sum(reads.core for reads in self._reads)
        self.order_spans = {
            kind: _counted(reads.orders[kind] for reads in self._reads) for kind in ORDER_KINDS
        }
        keys = {key for reads in self._reads for key in reads.series}
        self.series_spans = {
            key: _counted(reads.series.get(key, set()) for reads in self._reads) for key in sorted(keys)
        }
        self.spans: Weights = _counted(reads.spans for reads in self._reads)
        """All of them, and those of rules about subscriptions and tickets: of any fact of whatever kind."""
        self.day_ms = DAY_MS if "active_day" in self._events.values() else 0
        """How long before a fact the entry may lie that it makes in a series: one of days a day, else 0."""

    def of_kinds(self, kinds: UInt8s) -> Int64s:
        """Return int64[n]: how many values a fact of each kind may change when it is first seen."""
        return self._by_kind[kinds]

    @cached_property
    def nothing(self) -> int:
        """How many values somebody may have of whom nothing is known: at a first evaluation all are new."""
        evaluator = Evaluator(self._definition)
        table = CustomerTable(
            fact_key=bytes(16),
            dimensions=evaluator.dimensions,
            values=evaluator.values,
            series=evaluator.series,
        )
        slots = table.slots.find_or_add(Strings.from_list([b"nobody"]))
        held = evaluator.evaluate(table, slots, np.array([_ANY_DAY_MS])).value[0] >= 0
        # Whoever has an instant of its own, or goes by the id, may be in without a fact at another time.
        sure = [reads.instants > 0 or reads.bucket for reads in self._reads]
        held |= sure
        return int(held.sum()) + self.delayed

    def _of_core(self) -> list[_Reads]:
        definition, lifecycle = self._definition, self._definition.lifecycle
        orders = {
            "orders": {definition.window_ms},
            "refunds": {definition.window_ms},
            "last": {*definition.r_edges_ms, lifecycle.at_risk_ms, lifecycle.churned_ms},
            "first": {lifecycle.recent_ms, lifecycle.loyal_tenure_ms},
        }
        spans = set().union(*orders.values(), {lifecycle.recent_ms})
        return [_Reads(core=True, orders=orders, spans=spans) for _ in _CORE]

    def _of_dimensions(self) -> Iterator[list[tree.Rule]]:
        """Yield the rules of each dimension behind the core's, in their order."""
        computed = self._definition.computed
        yield from self._cases.values()
        yield from ([each.rule] for each in computed)
        yield from ([each.rule] for each in computed if each.settles)

    def _of(self, rules: list[tree.Rule]) -> _Reads:
        reads = _Reads()
        for rule in self._with_asked(rules, set()):
            reads.instants += instants(rule)
            reads.traits |= reads_traits(rule)
            reads.spans |= spans_ms(rule)
            for kind, found in order_spans_ms(rule).items():
                reads.orders[kind] |= found
            for key, found in series_spans_ms(rule):
                reads.series.setdefault(key, set()).update(found)
            for part in parts_of(rule):
                reads.core |= isinstance(part, tree.Score) or (
                    isinstance(part, tree.Valued) and part.dimension in _CORE
                )
                reads.bucket |= isinstance(part, tree.Bucket)
                reads.entities |= isinstance(part, _ENTITIES)
                series = getattr(part, "series", "")
                event = self._events.get(series)
                reads.money |= isinstance(part, _MONEY) or series in (ORDERS, REFUNDS) or event == "order"
                reads.activities |= event not in (None, "order")
                reads.any_day |= event == "active_day" and series not in self._named
        if reads.core:
            core = self._of_core()[0]
            reads.spans |= core.spans
            for kind, found in core.orders.items():
                reads.orders[kind] |= found
        return reads

    def _with_asked(self, rules: Iterable[tree.Rule], seen: set[str]) -> Iterator[tree.Rule]:
        """Yield rules and those of the segments and dimensions they ask for."""
        for rule in rules:
            yield rule
            for part in parts_of(rule):
                key = part.segment if isinstance(part, tree.Member) else getattr(part, "dimension", None)
                if key is None or key in seen:
                    continue
                seen.add(key)
                asked = [self._rules[key]] if isinstance(part, tree.Member) else self._cases.get(key, [])
                yield from self._with_asked(asked, seen)

    def _readers(self, kind: Kind) -> int:
        def reads(each: _Reads) -> bool:
            if kind in (Kind.PURCHASED, Kind.REFUNDED):
                return each.money or each.core or each.any_day
            if kind in (Kind.PLAN_CHANGED, Kind.TICKET_CHANGED):
                return each.entities or each.core or each.any_day
            if kind == Kind.ACTIVITY:
                return each.activities
            return each.traits or each.any_day

        return sum(map(reads, self._reads))


@dataclass(frozen=True, slots=True)
class _Content:
    """A definition, known by its content alone."""

    hash: str
    definition: Definition = field(compare=False)


@lru_cache(_DEFINITIONS_CACHED_MAX)
def _readers_of(content: _Content) -> Readers:
    return Readers(content.definition)


def readers_of(definition: Definition) -> Readers:
    """Return the readers of a definition; all partitions of a process go by one, or two."""
    return _readers_of(_Content(definition.hash, definition))


_ANY_DAY_MS = 1_700_000_000_000


def _counted(sets: Iterable[set[int]]) -> Weights:
    """Return for each number in how many of the sets it is."""
    return dict(sorted(Counter(each for found in sets for each in found).items()))
