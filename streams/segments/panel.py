"""All conditions of a definition evaluated together: a few calls on matrices instead of a few for each.

Many segments compare few measures with many thresholds, and join such comparisons alike. A node by
itself costs a dozen NumPy calls however few customers there are. Here conditions of one kind are rows
of a matrix: all comparisons of one measure at once, then all joined conditions, from the inside out.
Row by row it is what the nodes in conditions.py say, values and deadlines alike; a test holds that.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.customers.facts import Bools, Int64s
from streams.segments.conditions import And, Compare, Condition, Not, Or
from streams.segments.histories import Outermost, Varied
from streams.segments.measures import BOUND, Measure
from streams.segments.support import TicketCount
from streams.segments.view import FAR_MS, View

_ONE_BY_ONE = (Outermost, Varied, TicketCount)
"""Measures that are asked for one pair of bounds at a time."""


class _Comparisons:
    """All comparisons of one measure: k rows."""

    def __init__(self, measure: Measure, nodes: Sequence[tuple[int, Compare]]) -> None:
        self._measure = measure
        self.rows = np.array([row for row, _ in nodes], np.int64)
        cuts = sorted({cut for _, node in nodes for cut in node.cuts})
        self._cuts = np.array(cuts, np.int64)[:, None]
        # By the number of cuts reached, one row a comparison: the band of its own, and what is true in it.
        bands = [[sum(own <= cut for own in node.cuts) for cut in (-BOUND, *cuts)] for _, node in nodes]
        bounds = [(-BOUND, *node.cuts, BOUND) for _, node in nodes]
        self._truths = _picked([node.truths for _, node in nodes], bands)
        self._floors = _picked(bounds, bands)
        self._ceilings = _picked([each[1:] for each in bounds], bands)

    def evaluate(self, view: View) -> tuple[Bools, Int64s]:
        """Return truth and deadline, [k, n] each; the latter may lack the first axis where all are equal."""
        value: Int64s = view.value(self._measure)
        reached = np.add.reduce(value >= self._cuts, axis=0, dtype=np.int64)
        floors, ceilings = self._floors.take(reached, axis=1), self._ceilings.take(reached, axis=1)
        truths: Bools = self._truths.take(reached, axis=1)
        if isinstance(self._measure, _ONE_BY_ONE):
            leave = [self._measure.leaves(view, *each) for each in zip(floors, ceilings, strict=True)]
            return truths, np.stack(leave)
        return truths, self._measure.leaves(view, floors, ceilings)


def _picked(rows: Sequence[Sequence[Any]], bands: Sequence[Sequence[int]]) -> npt.NDArray[Any]:
    """Return of every row what it holds for each of its bands."""
    return np.array([[row[band] for band in its] for row, its in zip(rows, bands, strict=True)])


class _Joins:
    """Conditions that join equally many others each: a of them, of k children."""

    def __init__(
        self, rows: Sequence[int], children: Sequence[Sequence[int]], decisive: Sequence[bool]
    ) -> None:
        self.rows = np.array(rows, np.int64)
        self._children = np.array(children, np.int64).T.copy()
        self._decisive = np.array(decisive)[:, None]

    def evaluate(self, view: View, truths: Bools, dues: Int64s) -> tuple[Bools, Int64s]:
        """Return truth and deadline, [a, n] each, as conditions.And and Or do for one."""
        settles = truths[self._children] == self._decisive
        due = dues[self._children]
        settled = settles.any(axis=0)
        held = np.where(settles, due, view.now_ms).max(axis=0)
        return settled == self._decisive, np.where(settled, held, due.min(axis=0))


class Panel:
    """The conditions of a definition's segments."""

    def __init__(self, conditions: Sequence[Condition]) -> None:
        # Every condition has a row; a negation shares that of its opposite but for the truth.
        self._rows: dict[Any, int] = {}
        self._depth: dict[Any, int] = {}
        for condition in conditions:
            self._enter(condition)
        by_measure: dict[Any, list[tuple[int, Compare]]] = {}
        self._single: list[tuple[int, Condition]] = []
        self._negated: dict[int, list[tuple[int, int]]] = {}
        joined = []
        for node, row in self._rows.items():
            if isinstance(node, Compare):
                by_measure.setdefault(node.measure, []).append((row, node))
            elif isinstance(node, And | Or):
                joined.append((self._depth[node], len(node.conditions), node))
            elif isinstance(node, Not):
                pair = row, self._rows[node.condition]
                self._negated.setdefault(self._depth[node], []).append(pair)
            else:
                self._single.append((row, node))
        self._comparisons = [_Comparisons(measure, nodes) for measure, nodes in by_measure.items()]
        joined.sort(key=lambda each: each[:2])
        self._joins = [
            (depth, self._joins_of([node for *_, node in group]))
            for (depth, _), group in groupby(joined, key=lambda each: each[:2])
        ]
        self._levels = range(1, max(self._depth.values(), default=0) + 1)
        self._outer = np.array([self._rows[condition] for condition in conditions], np.int64)
        timed = [condition for condition in conditions if not condition.timeless]
        self._timed = np.array(sorted({self._rows[condition] for condition in timed}), np.int64)

    @property
    def comparisons(self) -> int:
        """How many measures are compared: each is worked out once, whatever it is compared with."""
        return len(self._comparisons)

    def _enter(self, node: Any) -> int:
        """Give a condition and all it is made of rows; return how deep it is."""
        if node not in self._rows:
            parts = node.conditions if isinstance(node, And | Or) else ()
            parts = (node.condition,) if isinstance(node, Not) else parts
            self._depth[node] = max((1 + self._enter(part) for part in parts), default=0)
            self._rows[node] = len(self._rows)
        return self._depth[node]

    def _joins_of(self, nodes: Sequence[Any]) -> _Joins:
        return _Joins(
            [self._rows[node] for node in nodes],
            [[self._rows[part] for part in node.conditions] for node in nodes],
            [isinstance(node, Or) for node in nodes],
        )

    def evaluate(self, view: View) -> tuple[npt.NDArray[np.bool_], Int64s]:
        """Return which conditions hold, bool[conditions, n], and the first deadline of any, int64[n]."""
        n = len(view.slots)
        truths, dues = np.empty((len(self._rows), n), np.bool_), np.empty((len(self._rows), n), np.int64)
        for each in self._comparisons:
            truths[each.rows], dues[each.rows] = each.evaluate(view)
        for row, node in self._single:
            truths[row] = view.value(node)
            dues[row] = FAR_MS if node.timeless else view.due(node)
        for level in self._levels:
            for row, opposite in self._negated.get(level, ()):
                np.logical_not(truths[opposite], out=truths[row])
                dues[row] = dues[opposite]
            for depth, joins in self._joins:
                if depth == level:
                    truths[joins.rows], dues[joins.rows] = joins.evaluate(view, truths, dues)
        due: Int64s = dues[self._timed].min(axis=0, initial=FAR_MS)
        return truths[self._outer], due
