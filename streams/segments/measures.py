"""Measures: whole numbers about a customer at an instant, each knowing when time alone moves it.

The one way to a deadline starts here: `leaves` answers, per customer, the earliest instant
after now at which the measure could stop lying in [floor, ceiling). It may be early, never
late. Everything built on a measure asks that one question with its own bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from streams.customers.facts import Int64s
from streams.segments.view import EVER_MS, FAR_MS, ORDERS, REFUNDS, Paid, View, Window

BOUND = 1 << 61
"""A bound no measure reaches: [-BOUND, BOUND) is never left."""

MISSING = -BOUND
"""The value of an age of something that never happened: below every bound."""


class Measure(Protocol):
    """A whole number per customer."""

    optional: bool
    """Whether the value can be MISSING; any comparison with that is false."""

    def windows(self) -> Iterable[Window]:
        """Return the windows it reads, so that they are searched for together."""
        ...

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n]."""
        ...

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Return int64[n]: the earliest instant > now at which the value could be < floor or
        >= ceiling, given that it is in between now; FAR_MS or later when time alone never does it."""
        ...


class OverWindow:
    """What is measured over one window of one series."""

    optional = False

    def __init__(self, window: Window) -> None:
        self.window = window

    def windows(self) -> Iterable[Window]:
        """Return its window."""
        return (self.window,)


class Count(OverWindow):
    """How many entries of a series lie in a window."""

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] >= 0."""
        count: Int64s = view.span(self.window.series).end - view.first_in(self.window)
        if self.window.length_ms == EVER_MS:
            return count + view.folded(self.window.series).entries
        return count

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Time alone only lowers a count: it falls below k when the k-th newest entry leaves."""
        span = view.span(self.window.series)
        # With a floor of 0 or less the index is the run's end or beyond, where nothing leaves.
        return span.time_at(span.end - floor, self.window.length_ms)


class Sum(OverWindow):
    """The sum of a series' values over a window; with `rising`, no value is negative."""

    def __init__(self, window: Window, *, rising: bool = True) -> None:
        super().__init__(window)
        self._rising = rising

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] >= 0, in the unit of the values."""
        total: Int64s = view.span(self.window.series).whole - view.before(self.window)
        if self.window.length_ms == EVER_MS:
            return total + view.folded(self.window.series).total
        return total

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Time alone only lowers a sum of positive values: the prefix sums say which entry does it."""
        span = view.span(self.window.series)
        if self.window.length_ms == EVER_MS:
            # It would come out of the search as well, EVER_MS after an entry.
            return view.never()
        if not self._rising:
            # Values of either sign move the sum either way: any entry that leaves may matter.
            return span.time_at(view.first_in(self.window), self.window.length_ms)
        # Once the entry j has left, what remains is whole - sums[j]; find the first j that takes
        # the sum below the floor.
        last = view.first_above(span, self.window, span.whole - floor)
        return span.time_at(last, self.window.length_ms)


class Net:
    """Spend minus refunds over one window; may be negative, and time alone moves it both ways."""

    optional = False

    def __init__(self, length_ms: int) -> None:
        self.spend = Sum(Window(ORDERS, length_ms))
        self.refunds = Sum(Window(REFUNDS, length_ms))

    def windows(self) -> Iterable[Window]:
        """Return the windows of both sums."""
        return (self.spend.window, self.refunds.window)

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] in minor units."""
        spend: Int64s = view.value(self.spend)
        if not view.span(REFUNDS).longest and self.refunds.window.length_ms != EVER_MS:
            return spend
        refunds: Int64s = view.value(self.refunds)
        return spend - refunds

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """The earlier of two instants, each right if the other side stood still.

        The net falls below the floor no sooner than the spend alone falls below floor + today's
        refunds (a refund leaving only helps), and reaches the ceiling no sooner than the refunds
        that leave alone lift it there (an order leaving only hinders).
        """
        span = view.span(REFUNDS)
        if self.refunds.window.length_ms == EVER_MS:
            return view.never()
        if not span.longest:
            return self.spend.leaves(view, floor, ceiling)
        falls = self.spend.leaves(view, floor + view.value(self.refunds), ceiling)
        lift = view.before(self.refunds.window) + (ceiling - view.value(self))
        last = view.first_above(span, self.refunds.window, lift - 1)
        return np.minimum(falls, span.time_at(last, self.refunds.window.length_ms))


class PaidAt:
    """When the first or the last paid order of all time was, in UTC ms."""

    optional = True

    def __init__(self, of: Paid) -> None:
        self.of = of

    def windows(self) -> Iterable[Window]:
        """Return none: the first and the last order are kept for ever."""
        return ()

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] in UTC ms, MISSING for a customer who never paid."""
        at = view.paid_ms(self.of)
        return np.where(at < FAR_MS, at, MISSING)

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Time alone does not move an instant."""
        return view.never()


class OfInstant:
    """What is measured from an instant, itself a measure, to now; MISSING where that is."""

    optional = True

    def __init__(self, of: Measure) -> None:
        self.of = of

    def windows(self) -> Iterable[Window]:
        """Return the windows of the instant."""
        return self.of.windows()


class Age(OfInstant):
    """Elapsed ms since an instant; 0 for one in the future."""

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] in ms, MISSING without an instant."""
        at = view.value(self.of)
        return np.where(at != MISSING, np.maximum(view.now_ms - at, 0), MISSING)

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Time alone only raises an age."""
        at = view.value(self.of)
        return np.where(at != MISSING, at + ceiling, FAR_MS)


class Bands:
    """A score 1..len(edges)+1: which of the half-open bands cut by ascending edges a measure lies in."""

    optional = False

    def __init__(self, measure: Measure, edges: Sequence[int], *, descending: bool = False) -> None:
        """With `descending` the lowest band scores highest, as for the age of the last order."""
        if list(edges) != sorted(set(edges)):
            raise ValueError(f"edges={edges!r}: expected strictly ascending numbers")
        self.measure, self.edges = measure, tuple(edges)
        scores = range(1, len(edges) + 2)
        self._scores = np.array(scores[::-1] if descending else scores, np.int64)
        self._band = Band(measure, edges)

    def windows(self) -> Iterable[Window]:
        """Return the measure's windows."""
        return self.measure.windows()

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] scores; ties score alike, MISSING counts as the lowest value."""
        scores: Int64s = self._scores.take(view.value(self._band))
        return scores

    def due(self, view: View) -> Int64s:
        """Return the next instant > now at which the score could differ."""
        return self._band.due(view)

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """A score that does not change leaves no bounds; every change of a score is a deadline anyway."""
        return view.due(self)


class Band:
    """Which of the half-open bands cut by ascending edges a measure lies in.

    It is worked out once for what is read off the band and for the band's deadline.
    """

    def __init__(self, measure: Measure, edges: Sequence[int]) -> None:
        self.measure = measure
        self._edges = np.array(edges, np.int64)[:, None]
        self._floors = np.array([-BOUND, *edges], np.int64)
        self._ceilings = np.array([*edges, BOUND], np.int64)

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] in 0..len(edges); MISSING lies in band 0."""
        # Counting the edges reached costs a fraction of bisecting them: there are few.
        band: Int64s = np.add.reduce(view.value(self.measure) >= self._edges, axis=0, dtype=np.int64)
        return band

    def due(self, view: View) -> Int64s:
        """Return when the measure leaves the band it is in."""
        band = view.value(self)
        return self.measure.leaves(view, self._floors.take(band), self._ceilings.take(band))
