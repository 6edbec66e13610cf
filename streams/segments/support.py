"""Tickets of those who have any: how many are open, how many came, how fast they were answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from streams.customers.entities import Ticket
from streams.customers.facts import Int64s
from streams.customers.series import MILLIONTHS
from streams.segments.measures import MISSING
from streams.segments.view import FAR_MS, View, Window

Entry = tuple[int, int]
"""When it counts, in UTC ms, and what it is worth."""


@dataclass(frozen=True, slots=True)
class Held:
    """The tickets of k of the customers in a view."""

    places: Int64s
    """int64[k]: where in the view they are, ascending."""
    tickets: list[tuple[Ticket, ...]]


class Tickets:
    """Everybody's tickets, looked up once for all that reads them."""

    def evaluate(self, view: View) -> Held:
        """Return those who may have any."""
        places = view.table.booked(view.slots)
        return Held(places, view.table.tickets(view.slots[places]) if len(places) else [])


class OpenTickets:
    """How many tickets are open."""

    optional = False

    def __init__(self, tickets: Tickets) -> None:
        self._tickets = tickets

    def windows(self) -> Iterable[Window]:
        """Return none."""
        return ()

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] >= 0."""
        held: Held = view.value(self._tickets)
        count = np.zeros(len(view.slots), np.int64)
        count[held.places] = [sum(each.is_open for each in tickets) for tickets in held.tickets]
        return count

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Only an event opens or closes a ticket."""
        return view.never()


class _Windowed:
    """A measure over the entries of one kind in a trailing window: at t it counts in [t, t + length)."""

    def __init__(
        self, tickets: Tickets, entries: Callable[[Ticket], Iterator[Entry]], length_ms: int
    ) -> None:
        self._tickets, self.entries, self.length_ms = tickets, entries, length_ms

    def windows(self) -> Iterable[Window]:
        """Return none: tickets are no run."""
        return ()

    def inside(self, view: View) -> Iterator[tuple[int, list[Entry]]]:
        """Yield who has entries in the window, by place, and those entries in the order of their times."""
        held: Held = view.value(self._tickets)
        for place, tickets in zip(held.places.tolist(), held.tickets, strict=True):
            after_ms = int(view.now_ms[place]) - self.length_ms
            found = sorted(e for ticket in tickets for e in self.entries(ticket) if e[0] > after_ms)
            if found:
                yield place, found


class TicketCount(_Windowed):
    """How many entries lie in the window."""

    optional = False

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] >= 0."""
        count = np.zeros(len(view.slots), np.int64)
        for place, entries in self.inside(view):
            count[place] = len(entries)
        return count

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Below k when the k-th newest entry leaves."""
        due = view.never()
        for place, entries in self.inside(view):
            least = int(floor[place])
            if 0 < least <= len(entries):
                due[place] = entries[-least][0] + self.length_ms
        return due


class TicketMean(_Windowed):
    """The mean of the entries' values, rounded to whole units down or up; MISSING without entries."""

    optional = True

    def __init__(
        self, tickets: Tickets, entries: Callable[[Ticket], Iterator[Entry]], length_ms: int, *, up: bool
    ) -> None:
        super().__init__(tickets, entries, length_ms)
        self._up = up

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] in the unit of the values."""
        mean = np.full(len(view.slots), MISSING)
        for place, entries in self.inside(view):
            total = sum(value for _, value in entries)
            mean[place] = -(-total // len(entries)) if self._up else total // len(entries)
        return mean

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Any entry that leaves can move a mean either way."""
        due = np.full(len(view.slots), FAR_MS)
        for place, entries in self.inside(view):
            due[place] = entries[0][0] + self.length_ms
        return due


def opened(ticket: Ticket) -> Iterator[Entry]:
    """Yield when it was opened."""
    if ticket.opened_ms is not None:
        yield ticket.opened_ms, 1


def reopened(ticket: Ticket) -> Iterator[Entry]:
    """Yield every time it was opened again."""
    return ((at_ms, 1) for at_ms in ticket.reopened_ms)


def first_reply(ticket: Ticket) -> Iterator[Entry]:
    """Yield, at its opening, the ms until its first reply by anybody but the customer."""
    if ticket.opened_ms is not None and ticket.first_reply_ms is not None:
        yield ticket.opened_ms, ticket.first_reply_ms - ticket.opened_ms


def closing(ticket: Ticket) -> Iterator[Entry]:
    """Yield, at its close, the ms since it was opened."""
    if ticket.opened_ms is not None and ticket.closed_ms is not None:
        yield ticket.closed_ms, ticket.closed_ms - ticket.opened_ms


def rated(ticket: Ticket) -> Iterator[Entry]:
    """Yield, when it was rated, the rating in millionths."""
    if ticket.rating is not None and ticket.rated_ms is not None:
        yield ticket.rated_ms, ticket.rating * MILLIONTHS
