"""Rules to nodes: equal parts of all rules become one node, evaluated once for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from streams.segments import tree
from streams.segments.attributes import (
    Bucket,
    Distinct,
    TraitCondition,
    TraitMeasure,
    Traits,
    instant_of,
    is_of,
    number_of,
)
from streams.segments.choices import Choice, FirstMatch
from streams.segments.conditions import And, Compare, Condition, Constant, During, Not, OneOf, Or
from streams.segments.histories import AgeOfDeclared, HappenedAt, Listed, Mean, Outermost, Remaining, Varied
from streams.segments.measures import MISSING, Age, Count, Measure, Net, PaidAt, Sum
from streams.segments.scores import Rfm
from streams.segments.standing import (
    FirstPaidAt,
    Subscribed,
    Subscriptions,
    SubscriptionSum,
    SubscriptionTime,
)
from streams.segments.support import (
    OpenTickets,
    TicketCount,
    TicketMean,
    Tickets,
    closing,
    first_reply,
    opened,
    rated,
    reopened,
)
from streams.segments.view import Window

Dimension = tuple[Choice, tuple[str, ...]]
"""What chooses a value, and the values in the order of their codes."""

_COUNTED = {"opened": opened, "reopened": reopened}
_AVERAGED = {"first_reply_time": first_reply, "close_time": closing, "rating": rated}


class Compiler:
    """Builds nodes for one definition. What the core has built is shared: windows, scores, ages."""

    def __init__(
        self,
        rfm: Rfm,
        subscriptions: Subscriptions,
        dimensions: Mapping[str, Dimension],
        rules: Mapping[str, tree.Rule],
    ) -> None:
        """`dimensions` are the core's, by name; `rules` those of segments, by key, for in_segment()."""
        self.rfm, self.rules = rfm, rules
        self.subscriptions, self.tickets = subscriptions, Tickets()
        self._dimensions = dict(dimensions)
        self._cases: dict[str, tuple[Sequence[tuple[str, tree.Rule]], str]] = {}
        self._nodes: dict[Any, Any] = {
            tree.Elapsed(tree.Paid("last"), False): rfm.silence,
            tree.Counted(rfm.orders.window.series, rfm.orders.window.length_ms): rfm.orders,
            tree.Netted(rfm.net.spend.window.length_ms): rfm.net,
            tree.Totalled(rfm.net.spend.window.series, rfm.net.spend.window.length_ms, True): rfm.net.spend,
            tree.Totalled(
                rfm.net.refunds.window.series, rfm.net.refunds.window.length_ms, True
            ): rfm.net.refunds,
        }
        self._make: dict[type, Callable[[Any], Any]] = {**self._measures(), **self._conditions()}

    def declare(self, name: str, cases: Sequence[tuple[str, tree.Rule]], otherwise: str) -> None:
        """Announce a custom exclusive dimension; it is built when something reads it, or choice() asks."""
        self._cases[name] = cases, otherwise

    def choice(self, name: str) -> Dimension:
        """Return an exclusive dimension and its values."""
        found = self._dimensions.get(name)
        if found is None:
            cases, otherwise = self._cases[name]
            values = (*(value for value, _ in cases), otherwise)
            conditions = [(self.condition(rule), code) for code, (_, rule) in enumerate(cases)]
            found = self._dimensions[name] = FirstMatch(conditions, otherwise=len(cases)), values
        return found

    def condition(self, rule: tree.Rule) -> Condition:
        """Return the node of a rule."""
        return cast(Condition, self._node(rule))

    def _node(self, part: Any) -> Any:
        found = self._nodes.get(part)
        if found is None:
            found = self._nodes[part] = self._make[type(part)](part)
        return found

    def measure(self, part: tree.Measure) -> Measure:
        """Return the node of a measure; a score has one only within a comparison."""
        return cast(Measure, self._node(part))

    def _measures(self) -> dict[type, Callable[[Any], Measure]]:
        return {
            tree.Counted: lambda part: Count(Window(part.series, part.length_ms)),
            tree.Totalled: lambda part: Sum(Window(part.series, part.length_ms), rising=part.rising),
            tree.Netted: lambda part: Net(part.length_ms),
            tree.Averaged: self._averaged,
            tree.Outermost: lambda part: Outermost(*self._listed(part), largest=part.largest),
            tree.Varied: lambda part: Varied(*self._listed(part)),
            tree.Paid: lambda part: PaidAt(part.which),
            tree.Happened: lambda part: HappenedAt(part.series, part.which),
            tree.TraitTime: lambda part: TraitMeasure(self.traits(part.name), instant_of),
            tree.TraitNumber: lambda part: TraitMeasure(self.traits(part.name), number_of),
            tree.Elapsed: lambda part: (AgeOfDeclared if part.declared else Age)(self.measure(part.since)),
            tree.Remaining: lambda part: Remaining(self.measure(part.until)),
            tree.Bucket: lambda part: Bucket(part.salt),
            tree.FirstPaid: lambda part: FirstPaidAt(self._node(tree.Paid("first")), self.subscriptions),
            tree.SubscriptionTime: lambda part: SubscriptionTime(self.subscriptions, part.which),
            tree.SubscriptionSum: lambda part: SubscriptionSum(self.subscriptions, part.of, part.times),
            tree.OpenTickets: lambda part: OpenTickets(self.tickets),
            tree.TicketCount: lambda part: TicketCount(self.tickets, _COUNTED[part.of], part.length_ms),
            tree.TicketMean: lambda part: TicketMean(
                self.tickets, _AVERAGED[part.of], part.length_ms, up=part.up
            ),
        }

    def _conditions(self) -> dict[type, Callable[[Any], Condition]]:
        return {
            tree.Compared: self._compared,
            tree.Known: self._known,
            tree.TraitSet: lambda part: TraitCondition(self._distinct(part.name), is_of(part.type)),
            tree.TraitText: self._trait_text,
            tree.TraitTruth: self._trait_truth,
            tree.TraitHolds: self._trait_holds,
            tree.Valued: self._valued,
            tree.Subscribed: lambda part: Subscribed(self.subscriptions, part.where),
            tree.Member: lambda part: self.condition(self.rules[part.segment]),
            tree.During: lambda part: During(part.from_ms, part.until_ms),
            tree.Always: lambda part: Constant(part.truth),
            tree.Opposite: lambda part: Not(self.condition(part.rule)),
            tree.Every: lambda part: And(*map(self.condition, part.rules)),
            tree.Some: lambda part: Or(*map(self.condition, part.rules)),
        }

    def _compared(self, part: tree.Compared) -> Condition:
        if isinstance(part.measure, tree.Score):
            # Who never bought has no scores: nothing compared with one is true.
            rfm = self.rfm
            scores = {"r": rfm.recency, "f": rfm.frequency, "m": rfm.monetary}
            compared = Compare(scores[part.measure.letter], part.operator, part.threshold)
            return And(rfm.paid, compared)
        return Compare(self.measure(part.measure), part.operator, part.threshold)

    def _known(self, part: tree.Known) -> Condition:
        if isinstance(part.measure, tree.Score):
            return self.rfm.paid
        return Compare(self.measure(part.measure), ">=", MISSING + 1)

    def _valued(self, part: tree.Valued) -> Condition:
        choice, values = self.choice(part.dimension)
        return OneOf(choice, [values.index(value) for value in part.values], len(values))

    def _averaged(self, part: tree.Averaged) -> Measure:
        total, count = (
            self._node(each)
            for each in (
                tree.Totalled(part.series, part.length_ms, False),
                tree.Counted(part.series, part.length_ms),
            )
        )
        return Mean(total, count, up=part.up)

    def _listed(self, part: tree.Outermost | tree.Varied) -> tuple[Window, Listed]:
        window = Window(part.series, part.length_ms)
        key = ("listed", window)
        if key not in self._nodes:
            self._nodes[key] = Listed(window)
        return window, self._nodes[key]

    def traits(self, name: str) -> Traits:
        """Return the node that reads a trait."""
        key = ("trait", name)
        if key not in self._nodes:
            self._nodes[key] = Traits(name)
        return cast(Traits, self._nodes[key])

    def _distinct(self, name: str) -> Distinct:
        key = ("distinct", name)
        if key not in self._nodes:
            self._nodes[key] = Distinct(self.traits(name))
        return cast(Distinct, self._nodes[key])

    def _trait_text(self, part: tree.TraitText) -> Condition:
        texts, other = frozenset(part.texts), part.other
        return TraitCondition(
            self._distinct(part.name), lambda value: isinstance(value, str) and (value in texts) != other
        )

    def _trait_truth(self, part: tree.TraitTruth) -> Condition:
        # `is`, because 1 == True while a trait of 1 is a number.
        return TraitCondition(self._distinct(part.name), lambda value: value is part.truth)

    def _trait_holds(self, part: tree.TraitHolds) -> Condition:
        held = is_of("set")
        return TraitCondition(
            self._distinct(part.name), lambda value: held(value) and part.text in cast(tuple[str, ...], value)
        )
