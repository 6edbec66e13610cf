"""Facts and an instant in; memberships, scores and the next deadline out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.customers.facts import NEVER_MS, Bools, Int64s, UInt8s
from streams.customers.series import Series
from streams.segments import lifecycle, scores
from streams.segments.choices import Choice
from streams.segments.compiling import Compiler, Dimension
from streams.segments.conditions import Condition
from streams.segments.definition import Definition
from streams.segments.panel import Panel
from streams.segments.rules import reads_traits
from streams.segments.settling import RULE_SUFFIX, Delay
from streams.segments.stages import VALUES
from streams.segments.standing import Subscriptions
from streams.segments.view import FAR_MS, Plan, Table, View


@dataclass(frozen=True, slots=True)
class Outcome:
    """What n customers are, each at its own instant."""

    value: npt.NDArray[np.int16]
    """[n, dimensions]: indices into Evaluator.values; -1 for out of a segment."""
    scores: UInt8s
    """[n, 3]: r, f, m; all 0 for who never bought."""
    due_ms: Int64s
    """[n]: the next instant after now at which a value or score could differ by time alone, else NEVER_MS."""
    last_purchase_ms: Int64s
    """[n]: the last order with a net above 0, of all time; NEVER_MS when there is none."""
    orders: Int64s
    """[n]: orders in the window."""
    net_minor: Int64s
    """[n]: spend minus refunds in the window; may be negative."""

    def take(self, rows: Int64s) -> Outcome:
        """Return the entries at `rows`, in that order."""
        return Outcome(
            self.value[rows],
            self.scores[rows],
            self.due_ms[rows],
            self.last_purchase_ms[rows],
            self.orders[rows],
            self.net_minor[rows],
        )

    def part(self, start: int, end: int) -> Outcome:
        """Return the entries from `start` up to `end`, as a view."""
        return Outcome(
            self.value[start:end],
            self.scores[start:end],
            self.due_ms[start:end],
            self.last_purchase_ms[start:end],
            self.orders[start:end],
            self.net_minor[start:end],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Outcome]) -> Outcome:
        """Put several outcomes end to end."""
        return cls(
            np.concatenate([part.value for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.due_ms for part in parts]),
            np.concatenate([part.last_purchase_ms for part in parts]),
            np.concatenate([part.orders for part in parts]),
            np.concatenate([part.net_minor for part in parts]),
        )


class Evaluator:
    """A definition, compiled: its nodes are built once and share windows, values and deadlines."""

    dimensions: tuple[str, ...]
    """rfm, lifecycle, the custom exclusive ones, one per segment that is computed, and for each of those
    with a delay another one that holds the truth of its rule. The name of what nobody is told of says
    so, and no key can be such a name: what becomes shown or hidden is another dimension."""
    values: tuple[tuple[str, ...], ...]
    """The values of each dimension; a segment has one, its own key, which is had or not."""
    kinds: tuple[str, ...]
    """`exclusive` (everybody has exactly one value) or `custom` (a segment), of each dimension."""
    shadows: tuple[bool, ...]
    """Whether a dimension is computed and counted only: no change of it is written."""
    counted: Bools
    """Whether a dimension is one that people know: not the truth of a rule that a membership follows."""
    delays: tuple[Delay, ...]
    """How memberships follow their rules. An Outcome holds what the rules say, for both: what comes of it
    depends on what was held before, and settle() tells."""
    compiler: Compiler
    """Where the node of any part of a rule is found."""
    series: tuple[Series, ...]
    """What is kept for the definition beside orders and refunds."""
    reads_traits: bool
    """Whether a trait can change a value: then an event that sets one is seen from its tick on only."""
    reads_entities = True
    """Whether a subscription or ticket can change a value: the lifecycle always reads subscriptions."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.series = definition.series
        self.reads_traits = any(map(reads_traits, definition.rules))
        self._rfm = rfm = scores.build(definition)
        subscriptions = Subscriptions()
        stages = lifecycle.build(definition.lifecycle, rfm, subscriptions)
        core: dict[str, Dimension] = {"rfm": (rfm.segment, rfm.values), "lifecycle": (stages, VALUES)}
        rules = {segment.key: segment.rule for segment in definition.segments}
        self.compiler = compiler = Compiler(rfm, subscriptions, core, rules)
        for custom in definition.dimensions:
            compiler.declare(custom.key, [(case.value, case.rule) for case in custom.cases], custom.otherwise)
        names = (*core, *(custom.key for custom in definition.dimensions))
        exclusive = {name: compiler.choice(name) for name in names}
        computed = definition.computed
        settling = [each for each in computed if each.settles]
        own = (*(each.dimension for each in computed), *(each.key + RULE_SUFFIX for each in settling))
        self.dimensions = (*exclusive, *own)
        keys = (*(each.key for each in computed), *(each.key + RULE_SUFFIX for each in settling))
        self.values = (*(values for _, values in exclusive.values()), *((key,) for key in keys))
        self.kinds = ("exclusive",) * len(exclusive) + ("custom",) * len(own)
        silent = (*(each.state == "shadow" for each in computed), *(True for _ in settling))
        self.shadows = (False,) * len(exclusive) + silent
        self.counted = np.array([not name.endswith(RULE_SUFFIX) for name in self.dimensions])
        self.delays = tuple(
            Delay(
                self.dimensions.index(each.dimension),
                self.dimensions.index(each.key + RULE_SUFFIX),
                each.dwell_enter_ms,
                each.dwell_exit_ms,
                each.cooldown_ms,
            )
            for each in settling
        )
        self._choices: tuple[Choice, ...] = tuple(choice for choice, _ in exclusive.values())
        self.segments = tuple(compiler.condition(segment.rule) for segment in computed)
        self.panel = Panel(self.segments)
        self._plan = Plan(
            window for nodes in (self._choices, self.segments) for node in nodes for window in node.windows()
        )

    def view(self, table: Table, slots: Int64s, now_ms: Int64s) -> View:
        """Return a sight of these customers in which every node of the definition can be asked."""
        return View(table, slots, now_ms, self._plan)

    def nodes(self) -> tuple[Choice | Condition, ...]:
        """Return the node of every dimension, in their order: what a segment's is, is a condition.

        The truths of rules, which come last, have none of their own.
        """
        return (*self._choices, *self.segments)

    def evaluate(self, table: Table, slots: Int64s, now_ms: Int64s) -> Outcome:
        """Return what the customers at `slots` (int64[n]) are at `now_ms` (int64[n], one each).

        Raises AssertionError when a deadline is not after now: a sweep would never end.
        """
        n = len(slots)
        value, triple = np.empty((n, len(self.dimensions)), np.int16), np.empty((n, 3), np.uint8)
        if not n:
            empty = np.empty(0, np.int64)
            return Outcome(value, triple, empty, empty, empty, empty)
        view, rfm = self.view(table, slots, now_ms), self._rfm
        due = view.due(self._choices[0]).copy()
        for dimension, choice in enumerate(self._choices):
            value[:, dimension] = view.value(choice)
            np.minimum(due, view.due(choice), out=due)
        if self.segments:
            first = len(self._choices)
            truths, its_due = self.panel.evaluate(view)
            # In is code 0, out is -1: no value.
            value[:, first : first + len(truths)] = truths.T
            value[:, first : first + len(truths)] -= 1
            np.minimum(due, its_due, out=due)
        for delay in self.delays:
            value[:, delay.rule] = value[:, delay.membership]
        for place, score in enumerate((rfm.recency, rfm.frequency, rfm.monetary)):
            triple[:, place] = view.value(score)
        triple *= view.value(rfm.paid)[:, None]
        if np.count_nonzero(due > now_ms) < n:
            late = int(np.argmin(due > now_ms))
            raise AssertionError(f"slot {slots[late]}: deadline {due[late]} is not after {now_ms[late]}")
        last = view.paid_ms("last")
        return Outcome(
            value=value,
            scores=triple,
            due_ms=np.where(due < FAR_MS, due, NEVER_MS),
            last_purchase_ms=np.where(last < FAR_MS, last, NEVER_MS),
            orders=view.value(rfm.orders),
            net_minor=view.value(rfm.net),
        )
