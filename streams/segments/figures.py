"""The figure a clause was judged by, and the facts it is made of: asked of the very nodes that judged it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from streams.customers.entities import Subscription, stops_ms
from streams.customers.series import Comparison
from streams.segments import clauses, tree
from streams.segments.clauses import FACTS_MAX, Fact, instant
from streams.segments.evaluate import Evaluator
from streams.segments.histories import Varied
from streams.segments.measures import MISSING
from streams.segments.rules import parts_of
from streams.segments.standing import Settled, fits
from streams.segments.support import Held as HeldTickets
from streams.segments.support import TicketCount, TicketMean
from streams.segments.view import EVER_MS, ORDERS, REFUNDS, Span, View, Window


class Shown(NamedTuple):
    """What a clause was judged by."""

    figure: str | None = None
    facts: tuple[Fact, ...] = ()
    more: int = 0


class Figures:
    """Asks the nodes of one definition about the one customer in a view.

    `trait_set_ms` says since when traits are what they are, where that is known.
    """

    def __init__(self, evaluator: Evaluator, view: View, trait_set_ms: Mapping[str, int]) -> None:
        self._evaluator, self._compiler = evaluator, evaluator.compiler
        self._view, self._trait_set_ms = view, trait_set_ms
        self._money = clauses.money(evaluator.definition.reporting_currency)
        self._edges: list[int] = []
        self._series = {each.key: each for each in evaluator.series}
        self._shown: dict[type, Callable[[Any], Shown]] = {
            tree.Counted: lambda part: self._of_window(part, clauses.count),
            tree.Totalled: lambda part: self._of_window(part, self._unit(part.series)),
            tree.Netted: self._net,
            tree.Averaged: self._mean,
            tree.Outermost: self._outermost,
            tree.Varied: self._varied,
            tree.Elapsed: lambda part: self._from_moment(part, part.since),
            tree.Remaining: lambda part: self._from_moment(part, part.until),
            tree.Score: self._score,
            tree.TraitNumber: lambda part: self._trait(part.name, "number", self._missing(part)),
            tree.TraitTime: lambda part: self._trait(part.name, "instant", self._missing(part)),
            tree.TraitSet: lambda part: self._trait(part.name),
            tree.TraitText: lambda part: self._trait(part.name),
            tree.TraitTruth: lambda part: self._trait(part.name),
            tree.TraitHolds: lambda part: self._trait(part.name),
            tree.Bucket: lambda part: Shown(clauses.count(self._value(part))),
            tree.SubscriptionSum: self._subscription_sum,
            tree.Subscribed: self._subscribed,
            tree.OpenTickets: self._open_tickets,
            tree.TicketCount: self._tickets,
            tree.TicketMean: self._tickets,
            tree.Valued: self._valued,
            tree.Always: lambda part: Shown(),
            **dict.fromkeys((tree.Paid, tree.FirstPaid, tree.Happened, tree.SubscriptionTime), self._moment),
        }

    @property
    def parts(self) -> frozenset[type]:
        """The parts of the language that have a figure."""
        return frozenset(self._shown)

    def of(self, rule: tree.Rule) -> Shown:
        """Return what a rule without `and`, `or` and `not` was judged by: one question is in it."""
        self._edges = [part.threshold for part in parts_of(rule) if isinstance(part, tree.Compared)]
        for part in parts_of(rule):
            # Measures are found within what compares them; a list compares one of them several times.
            if type(part) in self._shown:
                return self._shown[type(part)](part)
        return Shown()

    def entries(self, window: Window, *, values: bool = True) -> tuple[tuple[Fact, ...], int]:
        """Return the newest entries in a window, and how many more are in it."""
        view = self._view
        runs, first = view.span(window.series), int(view.first_in(window)[0])
        start, end = int(runs.start[0]), int(runs.end[0])
        begin = max(first, end - FACTS_MAX)
        facts = [self._entry(runs, window, at, values=values) for at in range(end - 1, begin - 1, -1)]
        if window.length_ms == EVER_MS:
            folded = view.folded(window.series)
            older, total = int(folded.entries[0]), int(folded.total[0])
            if older or total:
                kept = f"older ones, kept in sum only: {older:,}"
                facts.append(Fact(f"{kept}, {self._unit(window.series)(total)}" if values else kept))
        elif not facts and first > start:
            last = self._entry(runs, window, first - 1, values=values)
            facts.append(Fact(last.text, last.at_ms, counts=False))
        return tuple(facts), begin - first

    def subscriptions(self) -> tuple[tuple[Fact, ...], int]:
        """Return the customer's subscriptions as they are at the instant, and how many more there are."""
        held = self._settled()
        facts = [
            Fact(self._said_of(each), each.changed_ms, stops_ms(each) if each.active else None, each.active)
            for each in held[:FACTS_MAX]
        ]
        return tuple(facts), max(0, len(held) - FACTS_MAX)

    # -- measures over entries -------------------------------------------------------------

    def _value(self, part: tree.Measure) -> int:
        return int(self._view.value(self._compiler.measure(part))[0])

    def _missing(self, part: tree.Measure) -> bool:
        return self._value(part) == MISSING

    def _unit(self, series: str) -> Callable[[int], str]:
        """Return what writes the values of a series."""
        if series in (ORDERS, REFUNDS) or self._series[series].event == "order":
            return self._money
        return clauses.number if self._series[series].value is not None else clauses.count

    def _of_window(self, part: tree.Counted | tree.Totalled, unit: Callable[[int], str]) -> Shown:
        return Shown(unit(self._value(part)), *self.entries(Window(part.series, part.length_ms)))

    def _entry(self, runs: Span, window: Window, at: int, *, values: bool) -> Fact:
        at_ms = int(runs.times[at])
        value = int(runs.sums[at]) - (int(runs.sums[at - 1]) if at > runs.start[0] else 0)
        until_ms = None if window.length_ms == EVER_MS else at_ms + window.length_ms
        return Fact(self._noun(window.series, value if values else None), at_ms, until_ms)

    def _noun(self, series: str, value: int | None) -> str:
        """Say what one entry of a series is."""
        worth = "" if value is None else f" of {self._unit(series)(value)}"
        if series == ORDERS:
            return f"order{worth}"
        if series == REFUNDS:
            return f"refund{worth}"
        kept = self._series[series]
        if kept.event == "order":
            return f"order, lines that fit{worth and f' worth {self._unit(series)(value or 0)}'}"
        name = f'"{kept.name}"'
        if kept.event == "active_day":
            return "active on that day" if kept.name is None else f"{name} on that day"
        return f"{name} with {kept.value}{worth}" if kept.value is not None and worth else name

    def _net(self, part: tree.Netted) -> Shown:
        orders, more = self.entries(Window(ORDERS, part.length_ms))
        refunds, further = self.entries(Window(REFUNDS, part.length_ms))
        counted = [fact for fact in (*orders, *refunds) if fact.counts]
        newest = sorted(counted, key=lambda fact: -(fact.at_ms or 0))
        hidden = max(0, len(newest) - FACTS_MAX)
        return Shown(self._money(self._value(part)), tuple(newest[:FACTS_MAX]), more + further + hidden)

    def _mean(self, part: tree.Averaged) -> Shown:
        unit = self._unit(part.series)
        entries = self.entries(Window(part.series, part.length_ms))
        if self._missing(part):
            return Shown("none", *entries)
        total = self._value(tree.Totalled(part.series, part.length_ms, False))
        held = self._value(tree.Counted(part.series, part.length_ms))
        mean = unit(self._value(part))
        return Shown(f"{mean}: {unit(total)} in {held:,}", *entries)

    def _outermost(self, part: tree.Outermost) -> Shown:
        facts, more = self.entries(Window(part.series, part.length_ms))
        if self._missing(part):
            return Shown("none", facts, more)
        return Shown(self._unit(part.series)(self._value(part)), facts, more)

    def _varied(self, part: tree.Varied) -> Shown:
        node = self._compiler.measure(part)
        assert isinstance(node, Varied)
        _, places = node.last_of_each(self._view)
        times = self._view.span(part.series).times
        kept = self._series[part.series]
        facts = [
            Fact(f"one {kept.value}, last", int(times[place]), int(times[place]) + part.length_ms)
            for place in places[::-1][:FACTS_MAX].tolist()
        ]
        more = max(0, len(places) - FACTS_MAX)
        if not facts:
            facts = list(self.entries(Window(part.series, part.length_ms), values=False)[0])
        return Shown(clauses.count(self._value(part)), tuple(facts), more)

    # -- instants --------------------------------------------------------------------------

    def _moment(self, part: tree.Moment) -> Shown:
        value = self._value(part)
        if value == MISSING:
            return Shown("none" if isinstance(part, tree.SubscriptionTime) else "never")
        return Shown(instant(value))

    def _from_moment(self, part: tree.Elapsed | tree.Remaining, moment: tree.Moment) -> Shown:
        if isinstance(moment, tree.TraitTime):
            raw = self._trait(moment.name, "instant", self._missing(moment))
            if self._missing(part):
                gone = "has come" if isinstance(part, tree.Remaining) else "is to come"
                return raw if self._missing(moment) else Shown(f"{raw.figure}, which {gone}", raw.facts)
            facts = Fact(moment.name, self._value(moment)), *raw.facts
            return Shown(self._span(self._value(part)), facts)
        value = self._value(moment)
        if value == MISSING or self._missing(part):
            return self._moment(moment)
        return Shown(self._span(self._value(part)), (Fact(self._called(moment), value),))

    def _span(self, length_ms: int) -> str:
        return clauses.span_beside(length_ms, self._edges)

    def _called(self, moment: tree.Moment) -> str:
        match moment:
            case tree.Paid(which):
                return f"{which} order"
            case tree.FirstPaid():
                return "first payment"
            case tree.Happened(series, which):
                return f"{which} {self._noun(series, None)}"
            case tree.SubscriptionTime(which):
                return "next renewal" if which == "renews_at" else "next end of a trial"
        return "instant"

    # -- traits, segments ------------------------------------------------------------------

    def _trait(self, name: str, kind: str = "", mistyped: bool = False) -> Shown:
        value = self._view.value(self._compiler.traits(name))[0]
        said = clauses.trait(value)
        if mistyped and value is not None:
            said += f", which is no {kind}"
        set_ms = self._trait_set_ms.get(name)
        return Shown(said, () if set_ms is None else (Fact(f"{name} set", set_ms),))

    def _score(self, part: tree.Score) -> Shown:
        rfm = self._compiler.rfm
        if not self._view.value(rfm.paid)[0]:
            return Shown("none, never bought")
        score = {"r": rfm.recency, "f": rfm.frequency, "m": rfm.monetary}[part.letter]
        return Shown(str(int(self._view.value(score)[0])))

    def _valued(self, part: tree.Valued) -> Shown:
        choice, values = self._compiler.choice(part.dimension)
        return Shown(values[int(self._view.value(choice)[0])])

    # -- subscriptions and tickets ---------------------------------------------------------

    def _settled(self) -> tuple[Subscription, ...]:
        found: Settled = self._view.value(self._compiler.subscriptions)
        return found.subscriptions[0] if len(found.places) else ()

    def _said_of(self, each: Subscription) -> str:
        parts = [part for part in (each.product, each.plan, each.tier) if part]
        if each.seats is not None:
            parts.append(f"{each.seats:,} seats")
        if each.active:
            parts.append(f"{self._money(each.mrr_minor)} a month")
        if each.payment_failed:
            parts.append("payment failed")
        if each.cancellation_scheduled:
            parts.append("cancellation scheduled")
        stops = stops_ms(each)
        stop = "" if stops is None or each.active else f", until {instant(stops)}"
        of = f" ({', '.join(parts)})" if parts else ""
        return f"subscription {each.id}{of} is {each.state}{stop}, last changed"

    def _subscription_sum(self, part: tree.SubscriptionSum) -> Shown:
        unit = self._money if part.of == "mrr" else clauses.count
        return Shown(unit(self._value(part)), *self.subscriptions())

    def _subscribed(self, part: tree.Subscribed) -> Shown:
        active = [each for each in self._settled() if each.active]
        if not active:
            figure = "none is active"
        elif isinstance(part.where, Comparison) and part.where.field in ("product", "plan", "tier"):
            told = sorted({getattr(each, part.where.field) or "none" for each in active})
            figure = ", ".join(told[:FACTS_MAX])
        else:
            fitting = sum(part.where is None or fits(part.where, each) for each in active)
            figure = f"{fitting} of {len(active)} active"
        return Shown(figure, *self.subscriptions())

    def _open_tickets(self, part: tree.OpenTickets) -> Shown:
        opened = [each for each in self._held_tickets() if each.is_open]
        opened.sort(key=lambda each: -(each.opened_ms or 0))
        facts = [Fact(f"ticket {each.id}, opened", each.opened_ms) for each in opened[:FACTS_MAX]]
        return Shown(clauses.count(self._value(part)), tuple(facts), max(0, len(opened) - FACTS_MAX))

    def _held_tickets(self) -> tuple[Any, ...]:
        held: HeldTickets = self._view.value(self._compiler.tickets)
        return held.tickets[0] if len(held.places) else ()

    def _tickets(self, part: tree.TicketCount | tree.TicketMean) -> Shown:
        node = self._compiler.measure(part)
        assert isinstance(node, TicketCount | TicketMean)
        unit = self._span if part.of in ("first_reply_time", "close_time") else clauses.number
        inside = next((entries for _, entries in node.inside(self._view)), [])
        called = {entry: each.id for each in self._held_tickets() for entry in node.entries(each)}
        facts = []
        for entry in inside[::-1][:FACTS_MAX]:
            at_ms, value = entry
            worth = f" {unit(value)}" if isinstance(part, tree.TicketMean) else ""
            text = f"ticket {called[entry]} {_TICKETS[part.of]}{worth}"
            facts.append(Fact(text, at_ms, at_ms + part.length_ms))
        value = self._value(part)
        figure = clauses.count(value) if isinstance(part, tree.TicketCount) else unit(value)
        if value == MISSING:
            figure = "none"
        return Shown(figure, tuple(facts), max(0, len(inside) - FACTS_MAX))


_TICKETS = {
    "opened": "opened",
    "reopened": "opened again",
    "first_reply_time": "opened, answered after",
    "close_time": "closed after",
    "rating": "rated",
}
