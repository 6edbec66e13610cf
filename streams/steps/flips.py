"""How many values of each customer a piece of work may change at most, said before it is applied.

A customer's values change once for every cause that their rules read, at most: a new fact, or an
instant at which a fact reaches the end of a span. Each is counted by its readers (readers.py), so what
is said does not grow with the dimensions that read something else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streams.customers.facts import PENDING_MS, Facts, Int64s
from streams.customers.runs import Runs
from streams.customers.series_runs import SeriesRun
from streams.customers.table import CustomerTable
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.steps.readers import Weights, readers_of
from streams.steps.work import Work

TIMES_PER_CHANGE = 4
"""How many instants one change of a subscription or ticket can bring: its own, and three that it names."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a piece of work concerns: n customers, the facts at `rows`, and `ticks` in (clock, until]."""

    work: Work
    rows: Int64s
    slots: Int64s
    """int64[n], distinct."""
    place: Int64s
    """Where in `slots` the customer of each fact is."""
    ticks: int
    """At least one."""
    clock_ms: int
    """The clock before: every deadline up to then has been met."""
    until_ms: int
    """The last tick."""


class Flips:
    """Bounds on how many values change, for one table and the definition in force."""

    def __init__(self, table: CustomerTable, definition: Definition, evaluator: Evaluator) -> None:
        self._table, self._version = table, definition.version
        self._readers = readers_of(definition)
        self._returned = definition.lifecycle.recent_ms, definition.lifecycle.churned_ms
        self.everything = len(evaluator.dimensions)
        """All values there are."""

    def of_facts(self, facts: Facts, rows: Int64s) -> Int64s:
        """Return int64[n]: how many values each fact may change when it is first seen."""
        flips = self._readers.of_kinds(facts.kind[rows])
        if facts.traits:
            flips = flips + self._readers.traits * np.isin(rows, np.fromiter(facts.traits, np.int64))
        return flips

    def wait(self, facts: Facts, rows: Int64s, slots: Int64s) -> None:
        """Remember of customers what facts that no tick has seen may change of them."""
        np.add.at(self._table.pending_flips, slots, self.of_facts(facts, rows).astype(np.uint32))

    def at_most(self, part: Part, bytes_left: int = 0, flip_bytes: Int64s | None = None) -> Int64s:
        """Return int64[n]: how many values of each customer may change.

        With `flip_bytes` what is returned may be less, if it comes to more than `bytes_left` already.
        """
        table, readers, slots = self._table, self._readers, part.slots
        count = np.zeros(len(slots), np.int64)
        due_ms, by = table.due_ms[slots], table.evaluated_by[slots]
        pending = due_ms == PENDING_MS
        if np.count_nonzero(pending):
            count[pending] = table.pending_flips[slots[pending]]
        # Nobody but a stranger has no deadline and no version: all that is so without a fact is new.
        count[by == 0] += readers.nothing
        count[(by > 0) & (by != self._version)] = self.everything
        evaluations = (due_ms <= part.until_ms).astype(np.int64)
        if len(part.rows):
            tick = part.work.tick_of_row[part.rows] - part.work.tick
            seen = (tick < part.ticks).nonzero()[0]
            rows, place = part.rows[seen], part.place[seen]
            weights = self.of_facts(part.work.facts, rows)
            count += np.bincount(place, weights, minlength=len(slots)).astype(np.int64)
            evaluations += np.bincount(place, minlength=len(slots))
        if readers.fixed:
            count += np.minimum(part.ticks, (evaluations + 1) * readers.fixed_instants) * readers.fixed
        # What settles with a delay changes once for every time its rule turned: here, or before.
        count += readers.delayed
        if flip_bytes is None or int((count * flip_bytes).sum()) <= bytes_left:
            count += self._by_time(part)
        return np.minimum(count, part.ticks * self.everything)

    def _by_time(self, part: Part) -> Int64s:
        """Return int64[n]: values that facts may change after the clock by reaching the end of a span."""
        table, readers, slots = self._table, self._readers, part.slots
        clock_ms, until_ms = part.clock_ms, part.until_ms
        recent, silence = self._returned
        # Two orders that each end a silence lie as far apart as it lasts.
        returns = 1 + (until_ms - clock_ms) // silence
        count = np.minimum(returns, _hits(table.orders, slots, {recent: 1}, clock_ms, until_ms))
        count *= readers.core
        for key, spans in readers.series_spans.items():
            # Entries of days count from their midnights, which is no later than what happened on them.
            count += _hits(table.series(key), slots, spans, clock_ms, until_ms)
        count += _hits(table.orders, slots, readers.order_spans["orders"], clock_ms, until_ms)
        if table.refunds.rows:
            count += _hits(table.refunds, slots, readers.order_spans["refunds"], clock_ms, until_ms)
        for paid_ms, kind in ((table.last_paid_ms(slots), "last"), (table.first_paid_ms(slots), "first")):
            for span, weight in readers.order_spans[kind].items():
                count += weight * ((paid_ms > clock_ms - span) & (paid_ms <= until_ms - span))
        return count + self._by_facts(part)

    def _by_facts(self, part: Part) -> Int64s:
        """Return int64[n]: what new facts, and what they upset, add to the values changed by time."""
        table, readers, work, slots = self._table, self._readers, part.work, part.slots
        clock_ms, until_ms, rows, place = part.clock_ms, part.until_ms, part.rows, part.place
        count = np.zeros(len(slots), np.int64)
        occurred_ms = work.facts.occurred_at_ms[rows]
        for span, weight in readers.spans.items() if len(rows) else ():
            # A day counts from its midnight, up to a day before what happened on it.
            hit = (occurred_ms > clock_ms - span) & (occurred_ms <= until_ms - span + readers.day_ms)
            if np.count_nonzero(hit):
                count += weight * np.bincount(place[hit], minlength=len(slots))
        # An order becomes the last, the first or one after a silence because others lose their worth: by
        # a refund that names them, or by a lesser content under their id, which is then an earlier one. And
        # to who has subscriptions any order may be one after an end.
        offsets = work.facts.order_id.offsets
        upsets = place
        if len(rows):
            upsets = place[(offsets[rows + 1] > offsets[rows]) | (occurred_ms <= clock_ms)]
        if table.books or work.facts.changes:
            booked = self._book_instants(part)
            count += booked
            upsets = np.append(upsets, booked.nonzero()[0])
        if len(upsets):
            upsets = np.unique(upsets)
            spans = {self._returned[0]: readers.core}
            for kind in ("last", "first"):
                for span, weight in readers.order_spans[kind].items():
                    spans[span] = spans.get(span, 0) + weight
            count[upsets] += _hits(table.orders, slots[upsets], spans, clock_ms, until_ms)
        return count

    def _book_instants(self, part: Part) -> Int64s:
        """Return int64[n]: at most what subscriptions and tickets change by time, those of `rows` too.

        Each of their instants counts as one itself and with every span there is.
        """
        table, slots, times = self._table, part.slots, np.zeros(len(part.slots), np.int64)
        booked = table.booked(slots)
        held = slots[booked]
        for at, subscriptions, standing, tickets in zip(
            booked.tolist(),
            table.subscriptions(held),
            table.standings(held),
            table.tickets(held),
            strict=True,
        ):
            times[at] = TIMES_PER_CHANGE * len(subscriptions)
            times[at] += len(standing.payments_ms) + len(standing.ends_ms)
            times[at] += sum(TIMES_PER_CHANGE + len(ticket.reopened_ms) for ticket in tickets)
        if part.work.facts.changes:
            bringing = np.isin(part.rows, np.fromiter(part.work.facts.changes, np.int64))
            times += TIMES_PER_CHANGE * np.bincount(part.place[bringing], minlength=len(slots))
        spans = 1 + len(self._readers.spans) + self._readers.fixed_instants
        return np.minimum(part.ticks, times * spans) * self._readers.entities


def _hits(runs: Runs | SeriesRun, slots: Int64s, spans: Weights, clock_ms: int, until_ms: int) -> Int64s:
    """Return int64[n]: entries of each customer that reach the end of a span in (clock, until], weighed."""
    lengths = np.array(list(spans), np.int64)[:, None]
    # Both ends of every span in one search.
    after = np.concatenate((clock_ms - lengths, until_ms - lengths))
    found = runs.first_after(slots, np.broadcast_to(after, (len(after), len(slots))))
    weights = np.array(list(spans.values()), np.int64)
    hits: Int64s = weights @ (found[len(spans) :] - found[: len(spans)])
    return hits
