"""Conditions: truths about a customer at an instant, with the next instant time alone could flip them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import reduce
from typing import Literal, Protocol

import numpy as np

from streams.customers.facts import Bools, Int64s
from streams.segments.measures import MISSING, Band, Measure
from streams.segments.view import FAR_MS, ORDERS, Timed, View, Window

Operator = Literal[">=", ">", "<", "<=", "==", "!="]


class Choice(Timed, Protocol):
    """A code per customer, as in choices.py."""

    def windows(self) -> Iterable[Window]: ...


class Condition(Protocol):
    """A truth per customer. Two-valued: a comparison with something missing is false."""

    timeless: bool
    """Whether time alone never changes it, so that its deadline need not be asked for."""

    def windows(self) -> Iterable[Window]:
        """Return the windows it reads."""
        ...

    def evaluate(self, view: View) -> Bools:
        """Return bool[n]."""
        ...

    def due(self, view: View) -> Int64s:
        """Return int64[n]: the next instant > now at which it could differ, FAR_MS or later if never."""
        ...


class Compare:
    """A measure against a constant: a truth per band that the constant cuts."""

    timeless = False

    def __init__(self, measure: Measure, operator: Operator, threshold: int) -> None:
        self.measure, self.operator, self.threshold = measure, operator, threshold
        # Measures are whole numbers, so `> k` is `>= k + 1`: every operator is one or two cuts.
        first = threshold + 1 if operator in (">", "<=") else threshold
        cuts = (first,) if operator[0] in "<>" else (first, first + 1)
        truths: dict[str, tuple[bool, ...]] = {
            "<": (True, False),
            ">": (False, True),
            "=": (False, True, False),
            "!": (True, False, True),
        }
        truth = truths[operator[0]]
        if measure.optional and truth[0]:
            # What is missing lies below everything: a band of its own, in which nothing is true.
            cuts, truth = (MISSING + 1, *cuts), (False, *truth)
        self.cuts, self.truths = cuts, truth
        self._truths = np.array(truth)
        self._band = Band(measure, cuts)

    def windows(self) -> Iterable[Window]:
        """Return the measure's windows."""
        return self.measure.windows()

    def evaluate(self, view: View) -> Bools:
        """Return bool[n]."""
        truth: Bools = self._truths.take(view.value(self._band))
        return truth

    def due(self, view: View) -> Int64s:
        """Return when the measure leaves the band it is in."""
        return self._band.due(view)


class HasPaid:
    """Whether there ever was an order with a net above 0."""

    timeless = True

    def windows(self) -> Iterable[Window]:
        """Return none."""
        return ()

    def evaluate(self, view: View) -> Bools:
        """Return bool[n]."""
        paid: Bools = view.paid_ms("last") < FAR_MS
        return paid

    def due(self, view: View) -> Int64s:
        """Return FAR_MS: only an order changes it."""
        return view.never()


class Returned:
    """Whether a paid order in the trailing window came after a silence of at least `silence_ms`.

    Only the first order in the window can: the others follow it within the window, which must be
    at least a day shorter than the silence, so that an order dated minutes ahead changes nothing.
    """

    timeless = False

    def __init__(self, length_ms: int, silence_ms: int) -> None:
        if length_ms >= silence_ms:
            raise ValueError(f"length_ms={length_ms}: expected less than silence_ms={silence_ms}")
        self.window = Window(ORDERS, length_ms)
        self.silence_ms = silence_ms

    def windows(self) -> Iterable[Window]:
        """Return its window."""
        return (self.window,)

    def evaluate(self, view: View) -> Bools:
        """Return bool[n]."""
        span, first = view.span(ORDERS), view.first_in(self.window)
        if not span.longest:
            return first < 0
        # An order without predecessor in the run is the first ever, 0 ms after itself, unless older
        # ones were folded away. Those lie further back than the longest window, which holds window
        # and silence together, so comparing with the first ever says the same as with the last folded.
        predecessor = np.where(
            first > span.start, span.times.take(first - 1, mode="clip"), view.paid_ms("first")
        )
        silence = span.times.take(first, mode="clip") - predecessor
        returned: Bools = (silence >= self.silence_ms) & (first < span.end)
        return returned

    def due(self, view: View) -> Int64s:
        """Return when the order that ended the silence leaves the window; nothing else ends or begins it."""
        leaves = view.span(ORDERS).time_at(view.first_in(self.window), self.window.length_ms)
        return np.where(view.value(self), leaves, FAR_MS)


class OneOf:
    """Whether a choice is one of some codes."""

    timeless = False

    def __init__(self, choice: Choice, codes: Collection[int], values: int) -> None:
        """`values` is how many codes there are."""
        self._choice = choice
        self._truths = np.array([code in codes for code in range(values)])

    def windows(self) -> Iterable[Window]:
        """Return the choice's windows."""
        return self._choice.windows()

    def evaluate(self, view: View) -> Bools:
        """Return bool[n]."""
        truth: Bools = self._truths.take(view.value(self._choice))
        return truth

    def due(self, view: View) -> Int64s:
        """Return the choice's own deadline."""
        return view.due(self._choice)


class During:
    """Whether the instant lies in [from_ms, until_ms)."""

    timeless = False

    def __init__(self, from_ms: int | None, until_ms: int | None) -> None:
        self._from_ms = -FAR_MS if from_ms is None else from_ms
        self._until_ms = FAR_MS if until_ms is None else until_ms

    def windows(self) -> Iterable[Window]:
        """Return none."""
        return ()

    def evaluate(self, view: View) -> Bools:
        """Return bool[n]."""
        during: Bools = (view.now_ms >= self._from_ms) & (view.now_ms < self._until_ms)
        return during

    def due(self, view: View) -> Int64s:
        """Return its beginning until it has come, then its end."""
        due = np.where(view.now_ms < self._until_ms, self._until_ms, FAR_MS)
        return np.where(view.now_ms < self._from_ms, self._from_ms, due)


class Constant:
    """A truth nothing changes."""

    timeless = True

    def __init__(self, truth: bool) -> None:
        self._truth = truth

    def windows(self) -> Iterable[Window]:
        """Return none."""
        return ()

    def evaluate(self, view: View) -> Bools:
        """Return bool[n]."""
        return np.full(len(view.slots), self._truth)

    def due(self, view: View) -> Int64s:
        """Return FAR_MS."""
        return view.never()


class Not:
    """The opposite of a condition."""

    def __init__(self, condition: Condition) -> None:
        self.condition = condition
        self.timeless = condition.timeless

    def windows(self) -> Iterable[Window]:
        """Return the condition's windows."""
        return self.condition.windows()

    def evaluate(self, view: View) -> Bools:
        """Return bool[n]."""
        opposite: Bools = ~view.value(self.condition)
        return opposite

    def due(self, view: View) -> Int64s:
        """Return the condition's own deadline."""
        return view.due(self.condition)


class _Joined:
    """All or any of some conditions: `decisive` is the truth of one child that settles the whole."""

    def __init__(self, decisive: bool, conditions: tuple[Condition, ...]) -> None:
        if not conditions:
            raise ValueError("conditions=(): expected at least one")
        self.conditions = conditions
        self.timeless = all(condition.timeless for condition in conditions)
        self._decisive = decisive

    def windows(self) -> Iterable[Window]:
        """Return the windows of all conditions."""
        return (window for condition in self.conditions for window in condition.windows())

    def evaluate(self, view: View) -> Bools:
        """Return bool[n]."""
        join = np.logical_or if self._decisive else np.logical_and
        return reduce(join, [view.value(condition) for condition in self.conditions])

    def due(self, view: View) -> Int64s:
        """Return the earliest deadline that matters.

        While children settle the whole, it holds until the last of them could flip; when
        none does, the first child to flip can settle it.
        """
        dues = [view.never() if child.timeless else view.due(child) for child in self.conditions]
        open_until = reduce(np.minimum, dues)
        settled = view.value(self)
        if not self._decisive:
            settled = ~settled
        if not settled.any():
            return open_until
        held = [
            np.where(view.value(child) == self._decisive, due, view.now_ms)
            for child, due in zip(self.conditions, dues, strict=True)
        ]
        return np.where(settled, reduce(np.maximum, held), open_until)


class And(_Joined):
    """Whether all conditions hold."""

    def __init__(self, *conditions: Condition) -> None:
        super().__init__(False, conditions)


class Or(_Joined):
    """Whether any condition holds."""

    def __init__(self, *conditions: Condition) -> None:
        super().__init__(True, conditions)
