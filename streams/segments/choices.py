"""Choices: which one of several values a customer has, with the next instant time alone could change it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Protocol

import numpy as np
import numpy.typing as npt

from streams.customers.facts import Int64s
from streams.segments.conditions import Condition
from streams.segments.measures import Bands
from streams.segments.view import FAR_MS, View, Window


class Choice(Protocol):
    """A code per customer, an index into a dimension's values."""

    def windows(self) -> Iterable[Window]:
        """Return the windows it reads."""
        ...

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] codes."""
        ...

    def due(self, view: View) -> Int64s:
        """Return int64[n]: the next instant > now at which the code could differ, else FAR_MS or later."""
        ...


class Lookup:
    """A code for every combination of scores."""

    def __init__(self, scores: Sequence[Bands], codes: npt.NDArray[np.int16]) -> None:
        """`codes` has one axis per score, index 0 of each unused because scores begin at 1."""
        self.scores = tuple(scores)
        self._codes = codes.astype(np.int64)

    def windows(self) -> Iterable[Window]:
        """Return the windows of all scores."""
        return (window for score in self.scores for window in score.windows())

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] codes."""
        codes: Int64s = self._codes[tuple(view.value(score) for score in self.scores)]
        return codes

    def due(self, view: View) -> Int64s:
        """Return the first deadline of any score: a score that changes is an output of its own."""
        return reduce(np.minimum, [view.due(score) for score in self.scores])


class FirstMatch:
    """The code of the first condition that holds."""

    def __init__(self, cases: Sequence[tuple[Condition, int]], otherwise: int | Choice) -> None:
        self.cases = tuple(cases)
        self.otherwise = otherwise

    def windows(self) -> Iterable[Window]:
        """Return the windows of all conditions and of what they guard."""
        parts = [condition for condition, _ in self.cases]
        further = () if isinstance(self.otherwise, int) else self.otherwise.windows()
        return (*(window for part in parts for window in part.windows()), *further)

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] codes."""
        codes = np.empty(len(view.slots), np.int64)
        codes[:] = self.otherwise if isinstance(self.otherwise, int) else view.value(self.otherwise)
        # From the last to the first, which stays: writing in place is half of what np.where costs.
        for condition, code in reversed(self.cases):
            np.putmask(codes, view.value(condition), code)
        return codes

    def due(self, view: View) -> Int64s:
        """Return the first deadline up to and including the case that holds; what follows it is unseen."""
        due = np.empty(len(view.slots), np.int64)
        due[:] = FAR_MS if isinstance(self.otherwise, int) else view.due(self.otherwise)
        for condition, _ in reversed(self.cases):
            np.putmask(due, view.value(condition), FAR_MS)
            if not condition.timeless:
                np.minimum(due, view.due(condition), out=due)
        return due
