"""Why a customer has a value: the compiled nodes of a definition, asked one by one about one customer.

Nothing here is on the way of an event. A node is described by its type: whoever adds a node adds an
entry to one of the tables below, and a test holds that none is missing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np

from streams.customers.facts import NEVER_MS
from streams.segments.choices import FirstMatch, Lookup
from streams.segments.conditions import And, Compare, HasPaid, Not, Or, Returned
from streams.segments.currencies import EXPONENTS
from streams.segments.definition import DAY_MS, Definition
from streams.segments.evaluate import Evaluator
from streams.segments.measures import MISSING, Age, Bands, Count, Net, PaidAt, Sum
from streams.segments.stages import Stages
from streams.segments.view import FAR_MS, Table, View
from streams.segments.widened import Widened

Unit = Literal["count", "money", "span"]


@dataclass(frozen=True, slots=True)
class Clause:
    """One part of a rule, what became of it, and the parts it is made of."""

    text: str
    """With the figures it was judged by."""
    holds: bool
    until_ms: int | None = None
    """The next instant at which time alone could change it; None: never."""
    parts: tuple[Clause, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """One dimension of one customer."""

    dimension: str
    value: str | None
    clauses: tuple[Clause, ...]
    """What was asked, in order, up to and including what decided."""


@dataclass(frozen=True, slots=True)
class Coming:
    """What a dimension becomes by time alone."""

    dimension: str
    at_ms: int
    before: str | None
    after: str | None


STEPS_MAX = 64
"""Deadlines followed when looking for what comes next; most change a score only."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a measure is called, and what it counts in."""

    name: str
    unit: Unit


def _window(length_ms: int) -> str:
    return f"{length_ms / DAY_MS:g}d"


MEASURES: Mapping[type, Callable[[Any], Quantity]] = {
    Count: lambda node: Quantity(f"{node.window.series}({_window(node.window.length_ms)})", "count"),
    Sum: lambda node: Quantity(
        f"{'spend' if node.window.series == 'orders' else node.window.series}"
        f"({_window(node.window.length_ms)})",
        "money",
    ),
    Net: lambda node: Quantity(f"net({_window(node.spend.window.length_ms)})", "money"),
    PaidAt: lambda node: Quantity(f"the {node.of} order", "span"),
    Age: lambda node: Quantity(
        f"time since {MEASURES[type(node.of)](node.of).name if type(node.of) in MEASURES else 'then'}", "span"
    ),
}
"""Measure to what it is called, as a rule would write it where it can."""


class Explainer:
    """Asks the nodes of one definition."""

    def __init__(self, evaluator: Evaluator) -> None:
        # What only an earlier version knew is explained by nothing.
        self._evaluator = evaluator = evaluator.inner if isinstance(evaluator, Widened) else evaluator
        self._definition = evaluator.definition
        self._clauses: Mapping[type, Callable[[Any, View], Clause]] = {
            Compare: self._compare,
            HasPaid: lambda node, view: _clause("has bought", node, view),
            Returned: lambda node, view: _clause(
                f"an order within {_window(node.window.length_ms)} after"
                f" {_window(node.silence_ms)} without one",
                node,
                view,
            ),
            Not: self._opposite,
            And: lambda node, view: self._joined("all of", node, view),
            Or: lambda node, view: self._joined("any of", node, view),
        }

    def explain(self, table: Table, slot: int, now_ms: int) -> tuple[Explanation, ...]:
        """Return every dimension of one customer at an instant, with the facts the table shows."""
        view = self._evaluator.view(table, np.array([slot]), np.array([now_ms]))
        # The truths of rules, behind all others, have no node of their own.
        named = zip(self._evaluator.dimensions, self._evaluator.values, self._evaluator.nodes(), strict=False)
        return tuple(self._dimension(name, values, node, view) for name, values, node in named)

    def coming(self, table: Table, slot: int, now_ms: int) -> tuple[Coming, ...]:
        """Return the next change of each dimension if nothing else happens, soonest first.

        A dimension whose next change lies beyond STEPS_MAX deadlines is left out.
        """
        slots = np.array([slot])
        outcome = self._evaluator.evaluate(table, slots, np.array([now_ms]))
        first, found = outcome.value[0], dict[int, Coming]()
        for _ in range(STEPS_MAX):
            at_ms = int(outcome.due_ms[0])
            if at_ms == NEVER_MS:
                break
            outcome = self._evaluator.evaluate(table, slots, np.array([at_ms]))
            for d in np.flatnonzero(outcome.value[0] != first).tolist():
                if d not in found:
                    before, after = (self._value(d, int(row[d])) for row in (first, outcome.value[0]))
                    found[d] = Coming(self._evaluator.dimensions[d], at_ms, before, after)
        return tuple(found.values())

    def clause(self, node: Any, view: View) -> Clause:
        """Return what became of a condition; the view holds one customer."""
        describe = self._clauses.get(type(node))
        return _clause(type(node).__name__, node, view) if describe is None else describe(node, view)

    def _value(self, dimension: int, code: int) -> str | None:
        return self._evaluator.values[dimension][code] if code >= 0 else None

    def _dimension(self, name: str, values: tuple[str, ...], node: Any, view: View) -> Explanation:
        code = int(view.value(node)[0])
        if not isinstance(node, Lookup | FirstMatch | Stages):
            # Of a condition, 1 is in and 0 is out.
            code -= 1
        return Explanation(name, values[code] if code >= 0 else None, tuple(self._asked(values, node, view)))

    def _asked(self, values: tuple[str, ...], node: Any, view: View) -> Iterator[Clause]:
        """Yield what was asked of a choice, up to what decided."""
        if isinstance(node, Lookup):
            yield from (
                self._score(letter, bands, view) for letter, bands in zip("RFM", node.scores, strict=True)
            )
            yield Clause(self._cell(node, view), True)
            return
        if isinstance(node, Stages):
            if not len(view.value(node.subscriptions).places):
                yield from self._asked(values, node.plain, view)
                return
            stage = values[int(view.value(node)[0])]
            yield Clause(f"{stage}: by its subscriptions", True, _until(node, view))
            return
        if not isinstance(node, FirstMatch):
            yield self.clause(node, view)
            return
        for condition, code in node.cases:
            clause = self.clause(condition, view)
            yield Clause(f"{values[code]}: {clause.text}", clause.holds, clause.until_ms, clause.parts)
            if clause.holds:
                return
        if isinstance(node.otherwise, int):
            if node.otherwise >= 0:
                yield Clause(f"{values[node.otherwise]}: whoever is left", True)
        else:
            yield from self._asked(values, node.otherwise, view)

    def _score(self, letter: str, bands: Bands, view: View) -> Clause:
        """Say where a measure lies between the edges of a score."""
        quantity, value = self._measured(bands.measure, view)
        shown = self._shown(value, quantity.unit)
        place = bisect_right(bands.edges, value)
        low, high = (
            self._shown(bands.edges[edge], quantity.unit) if 0 <= edge < len(bands.edges) else None
            for edge in (place - 1, place)
        )
        between = f"at least {low}" if high is None else f"under {high}"
        if low is not None and high is not None:
            between = f"at least {low} and {between}"
        score = int(view.value(bands)[0])
        return Clause(f"{letter} {score}: {quantity.name} is {shown}, {between}", True, _until(bands, view))

    def _cell(self, node: Lookup, view: View) -> str:
        r, f, m = (int(view.value(score)[0]) for score in node.scores)
        column = next(c for c, sums in self._definition.grid.columns if f + m in sums)
        return f"F + M = {f + m} is column FM{column} of the grid, cell R{r} FM{column}"

    def _compare(self, node: Compare, view: View) -> Clause:
        quantity, value = self._measured(node.measure, view)
        threshold = self._shown(node.threshold, quantity.unit)
        shown = "never" if value == MISSING else self._shown(value, quantity.unit)
        return _clause(f"{quantity.name} {node.operator} {threshold} (it is {shown})", node, view)

    def _opposite(self, node: Not, view: View) -> Clause:
        inner = self.clause(node.condition, view)
        return _clause(f"not: {inner.text}", node, view, inner.parts)

    def _joined(self, word: str, node: And | Or, view: View) -> Clause:
        return _clause(word, node, view, tuple(self.clause(part, view) for part in node.conditions))

    def _measured(self, measure: Any, view: View) -> tuple[Quantity, int]:
        """Return what a measure is called and its value; a score is a measure too."""
        value = int(view.value(measure)[0])
        if isinstance(measure, Bands):
            inner = MEASURES[type(measure.measure)](measure.measure)
            return Quantity(f"the score of {inner.name}", "count"), value
        describe = MEASURES.get(type(measure))
        return (Quantity(type(measure).__name__, "count") if describe is None else describe(measure)), value

    def _shown(self, value: int, unit: Unit) -> str:
        return shown(value, unit, self._definition)


def shown(value: int, unit: Unit, definition: Definition) -> str:
    """Return a measured number as people write it."""
    if unit == "money":
        exponent = EXPONENTS[definition.reporting_currency]
        return f"{Decimal(value).scaleb(-exponent):,.{exponent}f} {definition.reporting_currency}"
    if unit == "span":
        days, rest = divmod(value, DAY_MS)
        hours = rest / 3_600_000
        return f"{days}d" if not rest else f"{days}d {hours:.1f}h"
    return f"{value:,}"


def _clause(text: str, node: Any, view: View, parts: tuple[Clause, ...] = ()) -> Clause:
    return Clause(text, bool(view.value(node)[0]), _until(node, view), parts)


def _until(node: Any, view: View) -> int | None:
    if getattr(node, "timeless", False):
        return None
    due = int(view.due(node)[0])
    return due if due < FAR_MS else None
