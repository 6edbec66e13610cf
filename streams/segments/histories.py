"""Measures over the entries of a series one by one: means, extremes, variety, and instants."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from streams.customers.facts import Int64s
from streams.segments.measures import BOUND, MISSING, Count, OfInstant, OverWindow, Sum
from streams.segments.tree import Extreme
from streams.segments.view import FAR_MS, View, Window


class Mean:
    """The mean of a series over a window, rounded to whole units down, or up; MISSING without entries."""

    optional = True

    def __init__(self, total: Sum, count: Count, *, up: bool) -> None:
        self.total, self.count, self._up = total, count, up

    def windows(self) -> Iterable[Window]:
        """Return the window."""
        return self.count.windows()

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] in the unit of the values."""
        count = view.value(self.count)
        total = view.value(self.total)
        some = np.maximum(count, 1)
        mean = -(-total // some) if self._up else total // some
        return np.where(count > 0, mean, MISSING)

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Any entry that leaves can move a mean either way."""
        window = self.count.window
        return view.span(window.series).time_at(view.first_in(window), window.length_ms)


class _Entries:
    """The entries in a window of the customers that have any, end to end.

    `who` are the customers (places in the view), `starts` where each one's entries begin among
    `values` and `place` (arena indices).
    """

    __slots__ = ("place", "starts", "values", "who")

    def __init__(self, view: View, window: Window) -> None:
        span, first = view.span(window.series), view.first_in(window)
        counts = span.end - first
        self.who = np.flatnonzero(counts > 0)
        counts = counts[self.who]
        ends = counts.cumsum()
        self.starts: Int64s = ends - counts
        self.place: Int64s = np.arange(int(counts.sum())) + (first[self.who] - self.starts).repeat(counts)
        # An entry's value is what it adds to the sum of its run.
        begins = self.place == span.start[self.who].repeat(counts)
        before = np.where(begins, 0, span.sums.take(self.place - 1, mode="clip"))
        self.values: Int64s = span.sums.take(self.place, mode="clip") - before

    @property
    def counts(self) -> Int64s:
        """int64[len(who)]: entries of each."""
        return np.diff(self.starts, append=len(self.place))


class Listed:
    """The entries of a window, listed once for all nodes that look at each of them."""

    def __init__(self, window: Window) -> None:
        self.window = window

    def evaluate(self, view: View) -> _Entries:
        """Return the entries."""
        return _Entries(view, self.window)


class Outermost(OverWindow):
    """The largest or the smallest value in a window; MISSING without entries."""

    optional = True

    def __init__(self, window: Window, listed: Listed, *, largest: bool) -> None:
        super().__init__(window)
        self._listed, self._largest = listed, largest

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] in the unit of the values."""
        entries = view.value(self._listed)
        found = np.full(len(view.slots), MISSING)
        if len(entries.who):
            outermost = np.maximum if self._largest else np.minimum
            found[entries.who] = outermost.reduceat(entries.values, entries.starts)
        return found

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Time alone lowers the largest and raises the smallest value, until there is none.

        The largest is at the floor or above for as long as any such entry is left; the smallest is below the
        ceiling for as long as any such entry is, and is missing when all are gone.
        """
        entries = view.value(self._listed)
        due = view.never()
        if not len(entries.who):
            return due
        counts, who = entries.counts, entries.who
        if self._largest:
            holding = entries.values >= floor[who].repeat(counts)
        else:
            holding = entries.values < ceiling[who].repeat(counts)
        last = np.maximum.reduceat(np.where(holding, entries.place, -1), entries.starts)
        due[who] = view.span(self.window.series).times.take(last, mode="clip") + self.window.length_ms
        if self._largest:
            due[floor <= -BOUND] = FAR_MS
        return due


class Varied(OverWindow):
    """How many different values a series has in a window."""

    def __init__(self, window: Window, listed: Listed) -> None:
        super().__init__(window)
        self._listed = listed

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] >= 0."""
        owners, _ = self.last_of_each(view)
        return np.bincount(owners, minlength=len(view.slots)).astype(np.int64)

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Time alone only lowers it: below k when the k-th newest of the values' last entries leaves."""
        owners, place = self.last_of_each(view)
        due = view.never()
        counts = np.bincount(owners, minlength=len(view.slots))
        ends = counts.cumsum()
        hit = np.flatnonzero((floor > 0) & (counts >= floor))
        times = view.span(self.window.series).times
        due[hit] = times.take(place[ends[hit] - floor[hit]], mode="clip") + self.window.length_ms
        return due

    def last_of_each(self, view: View) -> tuple[Int64s, Int64s]:
        """Return, by customer and then time, the last entry of each value: (customer, arena index)."""
        entries = view.value(self._listed)
        owners = entries.who.repeat(entries.counts)
        order = np.lexsort((entries.place, entries.values, owners))
        owner, value, place = owners[order], entries.values[order], entries.place[order]
        last = np.ones(len(order), np.bool_)
        last[:-1] = (owner[1:] != owner[:-1]) | (value[1:] != value[:-1])
        owner, place = owner[last], place[last]
        newest = np.lexsort((place, owner))
        return owner[newest], place[newest]


class HappenedAt:
    """When the first or the last entry of a series was, of all time; MISSING when there was none."""

    optional = True

    def __init__(self, series: str, which: Extreme) -> None:
        self._series, self._which = series, which

    def windows(self) -> Iterable[Window]:
        """Return none: a run's ends need no search, and what is folded away keeps both instants."""
        return ()

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] in UTC ms."""
        span, folded = view.span(self._series), view.folded(self._series)
        if self._which == "first":
            # Where a run is empty, what is read is a neighbour's and not looked at.
            held = span.times.take(span.start, mode="clip") if span.longest else FAR_MS
            first = np.minimum(np.where(span.filled, held, FAR_MS), folded.first_ms)
            return np.where(first < FAR_MS, first, MISSING)
        held = span.times.take(span.end - 1, mode="clip") if span.longest else -FAR_MS
        last = np.maximum(np.where(span.filled, held, -FAR_MS), folded.last_ms)
        return np.where(last > -FAR_MS, last, MISSING)

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Time alone does not move an instant."""
        return view.never()


class AgeOfDeclared(OfInstant):
    """Elapsed ms since an instant somebody declared; MISSING until it comes, and without one."""

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] in ms."""
        at = view.value(self.of)
        return np.where((at != MISSING) & (at <= view.now_ms), view.now_ms - at, MISSING)

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """It appears when the instant comes, and grows."""
        at = view.value(self.of)
        due = np.where(at > view.now_ms, at, at + ceiling)
        return np.where(at != MISSING, due, FAR_MS)


class Remaining(OfInstant):
    """Ms until an instant; MISSING once it has come, and without one."""

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] in ms, above 0."""
        at = view.value(self.of)
        return np.where(at > view.now_ms, at - view.now_ms, MISSING)

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """It shrinks 1 ms below the floor, or is gone when the instant comes, whichever is first.

        The instant itself may move by time alone: to the next of several renewals, or away with what ends.
        """
        at = view.value(self.of)
        below = np.where(floor > 0, at - floor + 1, at)
        due = np.where(at > view.now_ms, np.minimum(at, below), FAR_MS)
        return np.minimum(due, self.of.leaves(view, floor, ceiling))
