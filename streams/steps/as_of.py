"""The customer table as it was at some instant, while facts of later instants are in it already."""

from __future__ import annotations

import numpy as np

from streams.customers.entities import Standing, Subscription, Ticket
from streams.customers.facts import NEVER_MS, Int64s, TraitValue
from streams.customers.runs import Runs
from streams.customers.search import first_above
from streams.customers.series import Folded
from streams.customers.series_runs import SeriesRun
from streams.customers.table import CustomerTable

_BEFORE_ALL = np.iinfo(np.int64).min


class _RunsAsOf:
    """The runs of n rows, each cut behind its last entry up to an instant."""

    def __init__(self, runs: Runs, slots: Int64s, as_of_ms: Int64s) -> None:
        self.times, self.sums = runs.times, runs.sums
        self.first, self.last = runs.bounds(slots)
        # Few have an entry that is not in sight yet. An empty run reads a neighbour: it has none to cut.
        ahead = self.times.take(self.last - 1, mode="clip") > as_of_ms
        ahead &= self.last > self.first
        if np.count_nonzero(ahead):
            cut = ahead.nonzero()[0]
            first, last = self.first[cut], self.last[cut]
            self.last[cut] = first_above(self.times, first, last, as_of_ms[cut], int((last - first).max()))

    def start(self, slots: Int64s) -> Int64s:
        """Return each row's first position."""
        return self.first

    def end(self, slots: Int64s) -> Int64s:
        """Return the position after each row's last visible entry."""
        return self.last


class _SeriesAsOf:
    """The runs of one declared series of n rows, each cut behind its last entry up to an instant."""

    def __init__(self, run: SeriesRun, slots: Int64s, as_of_ms: Int64s) -> None:
        self.times, self.sums = run.times, run.sums
        self._first, self._last = run.up_to(slots, as_of_ms)

    def start(self, slots: Int64s) -> Int64s:
        """Return each row's first position."""
        return self._first

    def end(self, slots: Int64s) -> Int64s:
        """Return the position after each row's last visible entry."""
        return self._last


class TableAsOf:
    """What an evaluation reads of the table, one row per (slot, instant); a slot may come often.

    Facts later than a row's instant are not seen. It answers for exactly the slots it was made for.
    Traits, subscriptions and tickets are those in the table: where they are read, nothing that
    changes them is applied ahead of its tick (phases.py). Facts folded away are older than any
    instant a step looks back to.
    """

    def __init__(self, table: CustomerTable, slots: Int64s, as_of_ms: Int64s) -> None:
        self._table, self._slots, self._as_of_ms = table, slots, as_of_ms
        self.orders = _RunsAsOf(table.orders, slots, as_of_ms)
        self.refunds = _RunsAsOf(table.refunds, slots, as_of_ms)

    def first_paid_ms(self, slots: Int64s) -> Int64s:
        """Return int64[n]: the first order with net > 0 in sight, NEVER_MS when there is none."""
        orders = self.orders
        first = orders.times.take(orders.first, mode="clip")
        first = np.where(orders.last > orders.first, first, NEVER_MS)
        return np.minimum(first, self._table.folded_first_ms[slots])

    def last_paid_ms(self, slots: Int64s) -> Int64s:
        """Return int64[n]: the last order with net > 0 in sight, NEVER_MS when there is none."""
        orders = self.orders
        last = orders.times.take(orders.last - 1, mode="clip")
        last = np.where(orders.last > orders.first, last, _BEFORE_ALL)
        last = np.maximum(last, self._table.folded_last_ms[slots])
        return np.where(last == _BEFORE_ALL, NEVER_MS, last)

    def series(self, key: str) -> _SeriesAsOf:
        """Return the runs of a declared series."""
        return _SeriesAsOf(self._table.series(key), self._slots, self._as_of_ms)

    def trait(self, name: str, slots: Int64s) -> list[TraitValue]:
        """Return one trait of each customer, None where it is not set."""
        return self._table.trait(name, slots)

    def booked(self, slots: Int64s) -> Int64s:
        """Return the places in `slots` of who may have subscriptions or tickets."""
        return self._table.booked(slots)

    def folded(self, series: str, slots: Int64s) -> Folded:
        """Return what lies before the fold line: older than any instant a step looks back to."""
        return self._table.folded(series, slots)

    def subscriptions(self, slots: Int64s) -> list[tuple[Subscription, ...]]:
        """Return the subscriptions of each customer, by id."""
        return self._table.subscriptions(slots)

    def standings(self, slots: Int64s) -> list[Standing]:
        """Return what follows from all subscriptions of each customer together."""
        return self._table.standings(slots)

    def tickets(self, slots: Int64s) -> list[tuple[Ticket, ...]]:
        """Return the tickets of each customer, by id."""
        return self._table.tickets(slots)

    def ids(self, slots: Int64s) -> list[bytes]:
        """Return the ids of customers."""
        return self._table.ids(slots)
