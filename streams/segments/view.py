"""One evaluation's sight of the customer table: what several nodes ask for is worked out once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Protocol, cast

import numpy as np

from streams.customers.entities import Standing, Subscription, Ticket
from streams.customers.facts import Bools, Int64s, TraitValue
from streams.customers.search import first_above
from streams.customers.series import Folded

FAR_MS = 1 << 60
"""Inside an evaluation an instant this late, or later, never comes. It is far below NEVER_MS so
that two of them can be added in int64; a real instant is always earlier."""

EVER_MS = FAR_MS
"""The length of a window that holds everything: what leaves it does so FAR_MS or later, which is never."""

ORDERS, REFUNDS = "orders", "refunds"
"""The two runs of facts every table has; all others are named by the key of their series.

orders: orders with a net above 0; the value of an entry is that net.
refunds: refunds that name no order; the value of an entry is the amount given back, above 0.
"""


Paid = Literal["first", "last"]
"""Which order with a net above 0, of all time."""


class Histories(Protocol):
    """Every customer's time-sorted run of one series, end to end in one arena."""

    @property
    def times(self) -> Int64s: ...
    @property
    def sums(self) -> Int64s: ...
    def start(self, slots: Int64s) -> Int64s: ...
    def end(self, slots: Int64s) -> Int64s: ...


class Table(Protocol):
    """What an evaluation reads of the customer table, and all it reads.

    `slots` are those the evaluation was asked for, in that order; of who is `booked`, some of them.
    """

    @property
    def orders(self) -> Histories: ...
    @property
    def refunds(self) -> Histories: ...
    def first_paid_ms(self, slots: Int64s) -> Int64s: ...
    def last_paid_ms(self, slots: Int64s) -> Int64s: ...
    def ids(self, slots: Int64s) -> list[bytes]: ...
    def folded(self, series: str, slots: Int64s) -> Folded:
        """Return what was folded away of ORDERS, REFUNDS or a series of the definition."""
        ...

    def booked(self, slots: Int64s) -> Int64s:
        """Return int64[k], ascending: the places in `slots` of who may have subscriptions or tickets."""
        ...

    def subscriptions(self, slots: Int64s) -> list[tuple[Subscription, ...]]: ...
    def standings(self, slots: Int64s) -> list[Standing]: ...
    def tickets(self, slots: Int64s) -> list[tuple[Ticket, ...]]: ...


class FactsTable(Table, Protocol):
    """What definitions with series or traits read beside."""

    def series(self, key: str) -> Histories: ...
    def trait(self, name: str, slots: Int64s) -> list[TraitValue]: ...


class Window(NamedTuple):
    """A trailing duration over one series: an entry at t counts at now in [t, t + length_ms)."""

    series: str
    """ORDERS, REFUNDS or the key of a series."""
    length_ms: int


class Plan:
    """The windows a set of nodes will ask for, by series, so that one search finds them all."""

    def __init__(self, windows: Iterable[Window]) -> None:
        asked = sorted(set(windows))
        self.lengths: dict[str, tuple[int, ...]] = {
            series: tuple(window.length_ms for window in asked if window.series == series)
            for series in sorted({window.series for window in asked})
        }
        self.columns: dict[str, Int64s] = {
            series: np.array(lengths, np.int64)[:, None] for series, lengths in self.lengths.items()
        }


class Span:
    """The runs of one series of the customers in a view; all arrays int64[n], arena indices."""

    __slots__ = ("end", "filled", "longest", "start", "sums", "times", "whole")

    def __init__(self, runs: Histories, slots: Int64s) -> None:
        self.times, self.sums = runs.times, runs.sums
        self.start, self.end = runs.start(slots), runs.end(slots)
        lengths = self.end - self.start
        self.longest = int(lengths.max())
        self.filled: Bools = lengths > 0
        # The sum of a whole run. An empty run reads a neighbour, which the mask sets to 0.
        self.whole: Int64s = lengths
        if self.longest:
            self.whole = self.sums.take(self.end - 1, mode="clip")
            self.whole *= self.filled

    def time_at(self, index: Int64s, length_ms: int) -> Int64s:
        """Return when the entry at `index` leaves a window of that length; FAR_MS at the run's end."""
        if not self.longest:
            return np.full(index.shape, FAR_MS)
        return np.where(index < self.end, self.times.take(index, mode="clip") + length_ms, FAR_MS)


class Node(Protocol):
    """What a view can remember the value of. Identity is the key: build a node once and share it."""

    def evaluate(self, view: View) -> Any: ...


class Timed(Node, Protocol):
    """A node with a deadline."""

    def due(self, view: View) -> Int64s: ...


class View:
    """n customers, each at its own `now_ms`; nothing in it outlives the one evaluation.

    Sums are assumed below 2**61 minor units in absolute value, which the limit on one
    amount (definition.AMOUNT_LIMIT_MINOR) and the length of a history keep true.
    """

    def __init__(self, table: Table, slots: Int64s, now_ms: Int64s, plan: Plan) -> None:
        self.table, self.slots, self.now_ms = table, slots, now_ms
        self._plan = plan
        # Each of these holds at most one entry per node or window of the definition.
        self._values: dict[Node, Any] = {}
        self._dues: dict[Timed, Int64s] = {}
        self._spans: dict[str, Span] = {}
        self._folded: dict[str, Folded] = {}
        self._firsts: dict[Window, Int64s] = {}
        self._paid: dict[Paid, Int64s] = {}
        self._befores: dict[Window, Int64s] = {}

    def value(self, node: Node) -> Any:
        """Return node.evaluate(self), computed once."""
        found = self._values.get(node)
        if found is None:
            found = self._values[node] = node.evaluate(self)
        return found

    def due(self, node: Timed) -> Int64s:
        """Return node.due(self), computed once."""
        found = self._dues.get(node)
        if found is None:
            found = self._dues[node] = node.due(self)
        return found

    def paid_ms(self, of: Paid) -> Int64s:
        """Return when the first or last paid order was, beyond FAR_MS when there is none."""
        found = self._paid.get(of)
        if found is None:
            read = self.table.first_paid_ms if of == "first" else self.table.last_paid_ms
            # Twice FAR_MS stays beyond it whatever bound of an age, even a negative one, is added.
            found = self._paid[of] = np.minimum(read(self.slots), 2 * FAR_MS)
        return found

    @property
    def facts(self) -> FactsTable:
        """The table, for nodes only a definition that keeps more than orders and refunds has."""
        return cast(FactsTable, self.table)

    def span(self, series: str) -> Span:
        """Return the runs of a series."""
        found = self._spans.get(series)
        if found is None:
            found = self._spans[series] = Span(self._runs(series), self.slots)
        return found

    def _runs(self, series: str) -> Histories:
        if series == ORDERS:
            return self.table.orders
        return self.table.refunds if series == REFUNDS else self.facts.series(series)

    def folded(self, series: str) -> Folded:
        """Return what was folded away of a series."""
        found = self._folded.get(series)
        if found is None:
            found = self._folded[series] = self.table.folded(series, self.slots)
        return found

    def never(self) -> Int64s:
        """Return int64[n], all FAR_MS."""
        return np.full(len(self.slots), FAR_MS)

    def first_in(self, window: Window) -> Int64s:
        """Return the arena index of each customer's first entry in the window, the run's end if none."""
        found = self._firsts.get(window)
        if found is None:
            self._search(window.series)
            found = self._firsts[window]
        return found

    def before(self, window: Window) -> Int64s:
        """Return the sum of each run's entries that have left the window."""
        found = self._befores.get(window)
        if found is None:
            span, first = self.span(window.series), self.first_in(window)
            found = span.whole
            if span.longest:
                found = span.sums.take(first - 1, mode="clip")
                found *= first > span.start
            self._befores[window] = found
        return found

    def first_above(self, span: Span, window: Window, sums: Int64s) -> Int64s:
        """Return the first entry in the window whose prefix sum exceeds `sums`, the run's end if none."""
        return first_above(span.sums, self.first_in(window), span.end, sums, span.longest)

    def _search(self, series: str) -> None:
        # All windows of the series at once: each further one is a row, not another search.
        span = self.span(series)
        after = self.now_ms - self._plan.columns[series]
        firsts = first_above(span.times, span.start, span.end, after, span.longest)
        for length_ms, first in zip(self._plan.lengths[series], firsts, strict=True):
            self._firsts[Window(series, length_ms)] = first
