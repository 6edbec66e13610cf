"""Facts and an instant in; memberships, scores and the next deadline out. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.customers.facts import NEVER_MS, Int64s, UInt8s
from streams.segments import lifecycle, scores
from streams.segments.choices import Choice
from streams.segments.definition import Definition
from streams.segments.view import FAR_MS, Plan, Table, View


@dataclass(frozen=True, slots=True)
class Outcome:
    """What n customers are, each at its own instant."""

    value: npt.NDArray[np.int16]
    """[n, dimensions]: indices into Evaluator.values."""
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


class Evaluator:
    """A definition, compiled: its nodes are built once and share windows, values and deadlines."""

    dimensions: tuple[str, ...] = ("rfm", "lifecycle")
    kinds: tuple[str, ...] = ("exclusive", "exclusive")
    values: tuple[tuple[str, ...], ...]

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self._rfm = scores.build(definition)
        self.values = (self._rfm.values, lifecycle.VALUES)
        self._choices: tuple[Choice, ...] = (
            self._rfm.segment,
            lifecycle.build(definition.lifecycle, self._rfm),
        )
        self._plan = Plan(window for choice in self._choices for window in choice.windows())

    def view(self, table: Table, slots: Int64s, now_ms: Int64s) -> View:
        """Return a sight of these customers in which every node of the definition can be asked."""
        return View(table, slots, now_ms, self._plan)

    def nodes(self) -> tuple[Choice, ...]:
        """Return the node of every dimension, in their order."""
        return self._choices

    def evaluate(self, table: Table, slots: Int64s, now_ms: Int64s) -> Outcome:
        """Return what the customers at `slots` (int64[n]) are at `now_ms` (int64[n], one each).

        Raises AssertionError when a deadline is not after now: a sweep would never end.
        """
        n = len(slots)
        value, triple = np.empty((n, len(self._choices)), np.int16), np.empty((n, 3), np.uint8)
        if not n:
            empty = np.empty(0, np.int64)
            return Outcome(value, triple, empty, empty, empty, empty)
        view, rfm = View(table, slots, now_ms, self._plan), self._rfm
        due = np.full(n, FAR_MS)
        for dimension, choice in enumerate(self._choices):
            value[:, dimension] = view.value(choice)
            due = np.minimum(due, view.due(choice))
        for place, score in enumerate((rfm.recency, rfm.frequency, rfm.monetary)):
            triple[:, place] = view.value(score)
        triple *= view.value(rfm.paid)[:, None]
        if not (due > now_ms).all():
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
