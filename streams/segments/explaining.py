"""Why a customer has a value: the compiled nodes of a definition, asked one by one about one customer.

Nothing here is on the way of an event, and nothing here judges: whether a clause holds, until when, and by
what figure is what the node says that judges everybody. Rules are told in the words they were written in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from streams.segments import tree
from streams.segments.checking import Worded, worded
from streams.segments.clauses import CLAUSES_MAX, Clause, instant, shortened
from streams.segments.core_clauses import CoreClauses
from streams.segments.currencies import EXPONENTS
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.segments.figures import Figures
from streams.segments.following import Course, Stored, waits
from streams.segments.literals import Vocabulary
from streams.segments.rules import CustomDimension, Segment
from streams.segments.stages import VALUES
from streams.segments.view import FAR_MS, Table, View
from streams.segments.widened import Widened

STEPS_MAX = 64
"""Deadlines of one dimension followed when looking for what comes next; most change nothing that is seen."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One dimension of one customer."""

    dimension: str
    value: str | None
    clauses: tuple[Clause, ...]
    """What was asked, in order, up to and including what decided."""
    shadow: bool = False
    """It is computed and counted, and nobody is told."""
    more: int = 0
    """Clauses left out because there are too many to be read."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Coming:
    """What a dimension becomes by time alone."""

    dimension: str
    at_ms: int
    before: str | None
    after: str | None


@dataclass(slots=True)
class _Asking:
    """What is remembered while one dimension of one customer is explained."""

    view: View
    figures: Figures
    clauses: int = 0
    left_out: int = 0
    segments: set[str] = field(default_factory=set)
    """Those whose rules were told already: each is told once."""


class Explainer:
    """Asks the nodes of one definition."""

    def __init__(self, evaluator: Evaluator) -> None:
        # What only an earlier version knew is explained by nothing; the codes of the others are the same.
        self.evaluator = evaluator = evaluator.inner if isinstance(evaluator, Widened) else evaluator
        self._definition = evaluator.definition
        self._vocabulary = vocabulary_of(self._definition)
        self._worded: dict[str, Worded] = {}
        self._by_key = {segment.key: segment for segment in self._definition.segments}
        self._customs = {each.key: each for each in self._definition.dimensions}
        exclusive = len(evaluator.nodes()) - len(evaluator.segments)
        self._exclusive = evaluator.dimensions[:exclusive]
        self._segments = self._definition.computed
        self._delays = {delay.membership: delay for delay in evaluator.delays}

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The names explained by: a segment is called by its key, whoever is told of it."""
        return (*self._exclusive, *(segment.key for segment in self._segments))

    def explain(
        self,
        table: Table,
        slot: int,
        now_ms: int,
        stored: Stored | None = None,
        trait_set_ms: Mapping[str, int] | None = None,
    ) -> tuple[Explanation, ...]:
        """Return every dimension of one customer at an instant, with the facts the table shows.

        `stored` is what the customer was at that instant or before it, which memberships with a delay
        follow from; without it they are what their rules say, and that is noted.
        """
        course = Course(self.evaluator, table, slot)
        view = course.view(now_ms)
        figures = Figures(self.evaluator, view, trait_set_ms or {})
        found = []
        for place, (name, node) in enumerate(zip(self.dimensions, self.evaluator.nodes(), strict=True)):
            asking = _Asking(view, figures)
            if place < len(self._exclusive):
                explained = self._choice(name, node, asking)
            else:
                segment = self._segments[place - len(self._exclusive)]
                explained = self._segment(segment, node, asking)
                if place in self._delays:
                    explained = self._delayed(explained, place, course, now_ms, stored)
            found.append(replace(explained, more=asking.left_out))
        return tuple(found)

    def coming(
        self, table: Table, slot: int, now_ms: int, stored: Stored | None = None
    ) -> tuple[Coming, ...]:
        """Return the next change of each dimension if nothing else happens, soonest first.

        A dimension whose next change lies beyond STEPS_MAX of its deadlines is left out, and so is one
        with a delay when what is `stored` is not given.
        """
        found, course = [], Course(self.evaluator, table, slot)
        for place, (name, node) in enumerate(zip(self.dimensions, self.evaluator.nodes(), strict=True)):
            delay = self._delays.get(place)
            if delay is None:
                walk = course.walk(node, now_ms)
            elif stored is None:
                continue
            else:
                steps = course.follow(delay, node, stored, now_ms)
                walk = ((max(step.at_ms, now_ms), int(step.membership.code[0])) for step in steps)
            before = None
            for _, (at_ms, code) in zip(range(STEPS_MAX + 1), walk, strict=False):
                if before is None or at_ms == now_ms:
                    before = code
                elif code != before:
                    found.append(Coming(name, at_ms, self._value(place, before), self._value(place, code)))
                    break
        return tuple(sorted(found, key=lambda coming: coming.at_ms))

    def clause(self, part: Worded, view: View, figures: Figures) -> Clause:
        """Return what became of an expression."""
        return self._clause(part, _Asking(view, figures))

    # -- dimensions ------------------------------------------------------------------------

    def _value(self, place: int, code: int) -> str | None:
        return self.evaluator.values[place][code] if code >= 0 else None

    def _choice(self, name: str, node: Any, asking: _Asking) -> Explanation:
        value = self._value(self.evaluator.dimensions.index(name), int(asking.view.value(node)[0]))
        custom = self._customs.get(name)
        if custom is None:
            core = CoreClauses(self.evaluator, asking.view, asking.figures)
            return Explanation(name, value, tuple(core.of(node)))
        return Explanation(name, value, tuple(self._cases(custom, asking)))

    def _cases(self, custom: CustomDimension, asking: _Asking) -> Iterator[Clause]:
        """Yield the rules of a dimension up to the first that holds."""
        for case in custom.cases:
            clause = self._clause(self._words(case.when), asking)
            yield replace(clause, text=f"{case.value}, {clause.text}")
            if clause.holds:
                return
        yield Clause(f"{custom.otherwise}, whoever is left", True)

    def _segment(self, segment: Segment, node: Any, asking: _Asking) -> Explanation:
        value = segment.key if asking.view.value(node)[0] else None
        asking.segments.add(segment.key)
        found = tuple(self._of_rule(segment, asking))
        return Explanation(segment.key, value, found, segment.state == "shadow")

    def _of_rule(self, segment: Segment, asking: _Asking) -> Iterator[Clause]:
        """Yield the validity of a segment, if it has one, and its rule."""
        if segment.valid_from_ms is not None or segment.valid_until_ms is not None:
            bounds = [
                f"{word} {instant(at_ms)}"
                for word, at_ms in (("from", segment.valid_from_ms), ("until", segment.valid_until_ms))
                if at_ms is not None
            ]
            during = tree.During(segment.valid_from_ms, segment.valid_until_ms)
            yield self._judged(f"valid {' '.join(bounds)}", during, asking.view)
        yield self._clause(self._words(segment.when), asking)

    def _delayed(
        self, explained: Explanation, place: int, course: Course, now_ms: int, stored: Stored | None
    ) -> Explanation:
        """Say what a membership that follows its rule with a delay is, and what it waits for."""
        segment, delay = self._segments[place - len(self._exclusive)], self._delays[place]
        if stored is None or stored.at_ms > now_ms:
            note = "its delays are left out: what was waited for then is not kept"
            return replace(explained, notes=(*explained.notes, note))
        node = self.evaluator.nodes()[place]
        now = next(course.follow(delay, node, stored, now_ms))
        value = self._value(place, int(now.membership.code[0]))
        told = (*explained.clauses, *waits(segment, delay, now, now_ms))
        return replace(explained, value=value, clauses=told)

    # -- expressions -----------------------------------------------------------------------

    def _words(self, when: str) -> Worded:
        found = self._worded.get(when)
        if found is None:
            found = self._worded[when] = worded(when, self._vocabulary)
        return found

    def _judged(self, text: str, rule: tree.Rule, view: View) -> Clause:
        node = self.evaluator.compiler.condition(rule)
        until_ms = FAR_MS if node.timeless else int(view.due(node)[0])
        return Clause(text, bool(view.value(node)[0]), None, until_ms if until_ms < FAR_MS else None)

    def _clause(self, part: Worded, asking: _Asking) -> Clause:
        """Return what became of a part of an expression, and of its own parts."""
        asking.clauses += 1
        clause = self._judged(part.text, part.rule, asking.view)
        inner = part.parts
        if len(inner) == 1 and not inner[0].parts:
            # `not` before one question: the figure says as much as a clause of its own would.
            part, inner = inner[0], ()
        if inner:
            if asking.clauses + len(inner) > CLAUSES_MAX:
                asking.left_out += len(inner)
                return replace(clause, text=shortened(clause.text))
            asking.clauses += len(inner) - 1
            parts = tuple(self._clause(each, asking) for each in inner)
            return replace(clause, text=shortened(clause.text), parts=parts)
        if isinstance(part.rule, tree.Member):
            return replace(clause, parts=tuple(self._asked(part.rule.segment, asking)))
        shown = asking.figures.of(part.rule)
        return replace(clause, figure=shown.figure, facts=shown.facts, facts_more=shown.more)

    def _asked(self, key: str, asking: _Asking) -> Iterator[Clause]:
        """Yield the rule of a segment that another one asks for, the first time it does."""
        if key in asking.segments or asking.clauses >= CLAUSES_MAX:
            asking.left_out += key not in asking.segments
            return
        asking.segments.add(key)
        yield from self._of_rule(self._by_key[key], asking)


def vocabulary_of(definition: Definition) -> Vocabulary:
    """Return what the rules of a definition may speak of; they were checked when it was loaded."""
    rfm = ("prospect", *definition.grid.names)
    return Vocabulary(
        EXPONENTS[definition.reporting_currency],
        dict(definition.traits),
        {"rfm": rfm, "lifecycle": VALUES, **{each.key: each.values for each in definition.dimensions}},
        frozenset(segment.key for segment in definition.segments),
    )
