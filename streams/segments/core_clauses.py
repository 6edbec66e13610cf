"""Why rfm and lifecycle are what they are: thresholds as clauses, with the figures they were judged by."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from streams.segments import clauses
from streams.segments.choices import FirstMatch, Lookup
from streams.segments.clauses import Clause, Fact, instant, span
from streams.segments.conditions import Returned
from streams.segments.definition import Lifecycle
from streams.segments.evaluate import Evaluator
from streams.segments.figures import Figures
from streams.segments.measures import Age, Bands, Count, Net
from streams.segments.stages import VALUES, Situation, Stages, judged
from streams.segments.view import FAR_MS, ORDERS, View


class _Measured(NamedTuple):
    name: str
    unit: Callable[[int], str]


class CoreClauses:
    """Asks the nodes of rfm and lifecycle about the one customer in a view."""

    def __init__(self, evaluator: Evaluator, view: View, figures: Figures) -> None:
        self._definition, self._rfm = evaluator.definition, evaluator.compiler.rfm
        self._view, self._figures = view, figures
        self._money = clauses.money(self._definition.reporting_currency)

    def of(self, node: object) -> Iterator[Clause]:
        """Yield what was asked of rfm or lifecycle, in order, up to and including what decided."""
        if isinstance(node, Stages):
            situation = node.situation(self._view)
            if situation is None:
                yield from self._stages(node)
            else:
                yield from self._situated(node, situation)
            return
        assert isinstance(node, FirstMatch)
        (never, _), *_ = node.cases
        bought = self._paid_ago("last")
        yield Clause("prospect, who has never bought", self._holds(never), bought)
        if self._holds(never):
            return
        assert isinstance(node.otherwise, Lookup)
        for letter, bands in zip("RFM", node.otherwise.scores, strict=True):
            yield self._score(letter, bands)
        yield self._cell(node.otherwise)

    # -- rfm -------------------------------------------------------------------------------

    def _score(self, letter: str, bands: Bands) -> Clause:
        """Say where a measure lies between the edges of a score."""
        measured, value = self._measured(bands.measure), int(self._view.value(bands.measure)[0])
        place = bisect_right(bands.edges, value)
        low, high = (
            measured.unit(bands.edges[edge]) if 0 <= edge < len(bands.edges) else None
            for edge in (place - 1, place)
        )
        between = f"at least {low}" if high is None else f"under {high}"
        if low is not None and high is not None:
            between = f"at least {low} and {between}"
        text = f"{letter} {int(self._view.value(bands)[0])}, {measured.name} {between}"
        facts, more = self._entries(bands.measure)
        return Clause(text, True, measured.unit(value), _until(bands, self._view), (), facts, more)

    def _measured(self, measure: Any) -> _Measured:
        """Return what a measure of a score is called, as a rule would write it, and its unit."""
        if isinstance(measure, Age):
            return _Measured("days_since(last())", span)
        if isinstance(measure, Count):
            return _Measured(f"orders({span(measure.window.length_ms)})", clauses.count)
        assert isinstance(measure, Net)
        return _Measured(f"net({span(measure.spend.window.length_ms)})", self._money)

    def _entries(self, measure: Any) -> tuple[tuple[Fact, ...], int]:
        """Return the facts of a score; the orders are told once, with F."""
        if isinstance(measure, Count):
            return self._figures.entries(measure.window)
        if isinstance(measure, Net):
            return self._figures.entries(measure.refunds.window)
        last_ms = int(self._view.paid_ms("last")[0])
        return (Fact("last order", last_ms),), 0

    def _cell(self, node: Lookup) -> Clause:
        r, f, m = (int(self._view.value(score)[0]) for score in node.scores)
        column = next(c for c, sums in self._definition.grid.columns if f + m in sums)
        name = self._rfm.values[int(self._view.value(self._rfm.segment)[0])]
        return Clause(f"{name}, cell R{r} FM{column} of the grid", True, f"F + M = {f + m}")

    # -- lifecycle -------------------------------------------------------------------------

    def _stages(self, stages: Stages) -> Iterator[Clause]:
        """Explain who has no subscriptions: the rules are conditions, each with its deadline."""
        view, texts = self._view, stage_texts(stages.constants)
        for condition, code in stages.plain.cases:
            figure = self._paid_ago("first" if VALUES[code] in ("new", "loyal") else "last")
            if isinstance(condition, Returned):
                figure = self._returned(condition)
            if VALUES[code] == "loyal":
                figure += f", {self._scores()}"
            clause = Clause(texts[VALUES[code]], self._holds(condition), figure, _until(condition, view))
            yield clause
            if clause.holds:
                return
        yield Clause(texts[VALUES[-1]], True)

    def _returned(self, node: Returned) -> str:
        runs, first = self._view.span(ORDERS), int(self._view.first_in(node.window)[0])
        if first >= int(runs.end[0]):
            return f"no order within {span(node.window.length_ms)}"
        at_ms, first_ever_ms = int(runs.times[first]), int(self._view.paid_ms("first")[0])
        before_ms = int(runs.times[first - 1]) if first > int(runs.start[0]) else first_ever_ms
        if before_ms == at_ms:
            return f"first order {instant(at_ms)}"
        return f"ordered {instant(at_ms)}, {span(at_ms - before_ms)} after the one before"

    def _situated(self, stages: Stages, situation: Situation) -> Iterator[Clause]:
        """Explain who has subscriptions: the rules one by one, and the deadline of them all."""
        texts, until_ms = stage_texts(stages.constants), _until(stages, self._view)
        facts, more = self._figures.subscriptions()
        for value, holds in judged(situation, stages.constants):
            figure = None if value == VALUES[-1] else self._situation(value, situation)
            shown = (facts, more) if holds else ((), 0)
            yield Clause(texts[value], holds, figure, until_ms if holds else None, (), *shown)
            if holds:
                return

    def _situation(self, value: str, situation: Situation) -> str:
        """Return the figures of one stage of somebody who has subscriptions."""
        if not situation.paid_ms:
            return "never paid"
        active = f"{len(situation.active)} active"
        last = f"last paid {span(situation.gap_ms)} ago"
        first = f"first paid {span(situation.tenure_ms)} ago"
        end_ms = situation.standing.last_end_ms
        end = "no end" if end_ms is None else f"last end {instant(end_ms)}"
        failed = sum(each.payment_failed for each in situation.active)
        leaving = sum(each.cancellation_scheduled for each in situation.active)
        scores = f"R {situation.recency} F {situation.frequency}"
        return {
            "lead": last,
            "churned": f"{active}, {last}, {end}",
            "reactivated": f"{active}, {last}, {end}",
            "at_risk": f"{active}, {last}, {failed} payments failed, {leaving} cancellations scheduled",
            "new": first,
            "loyal": f"{first}, {scores}",
        }[value]

    # -- shared ----------------------------------------------------------------------------

    def _holds(self, node: Any) -> bool:
        return bool(self._view.value(node)[0])

    def _paid_ago(self, which: str) -> str:
        """Return how long ago the first or the last order was."""
        at_ms = int(self._view.paid_ms("first" if which == "first" else "last")[0])
        if at_ms >= FAR_MS:
            return "no order"
        return f"{which} order {span(max(0, int(self._view.now_ms[0]) - at_ms))} ago"

    def _scores(self) -> str:
        r, f = (int(self._view.value(score)[0]) for score in (self._rfm.recency, self._rfm.frequency))
        return f"R {r} F {f}"


def stage_texts(constants: Lifecycle) -> dict[str, str]:
    """Return each value of lifecycle and when it is taken, as far as none before it is."""
    risk, gone, recent = map(span, (constants.at_risk_ms, constants.churned_ms, constants.recent_ms))
    loyal = span(constants.loyal_tenure_ms)
    return {
        "lead": "lead, who has never paid",
        "churned": f"churned, no active subscription and one ended with nothing paid since, or {gone} unpaid",
        "reactivated": f"reactivated, paid within {recent} after an end or {gone} without paying",
        "at_risk": f"at_risk, {risk} unpaid and no active subscription, or one that fails or is to end",
        "new": f"new, first paid less than {recent} ago",
        "loyal": f"loyal, first paid {loyal} ago or longer, R {constants.loyal_recency} and"
        f" F {constants.loyal_frequency} or better",
        "active": "active, whoever is left",
    }


def _until(node: Any, view: View) -> int | None:
    """Return the next instant at which time alone could change a node, None if never."""
    if getattr(node, "timeless", False):
        return None
    due = int(view.due(node)[0])
    return due if due < FAR_MS else None
