"""Which facts of a chunk may be applied together, ahead of the ticks they are seen at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streams.customers.facts import Bools, Facts, Int64s
from streams.customers.table import CustomerTable

SPAN_MS = 7 * 86_400_000
"""A phase spans less than this, the margin by which facts outlive the longest window, so that
applying its last fact folds nothing away that evaluating its first tick needs."""


@dataclass(frozen=True, slots=True)
class Phases:
    """The facts of one piece of work, sorted by customer and then log order.

    `row`, `row_slot`, `row_fold_ms` are parallel, one entry per fact. A group is one
    customer's facts before one tick: group g is row[group_start[g]:group_start[g + 1]],
    seen from tick group_tick[g] on (k: after the last tick). A phase is a run of groups of one
    customer: phase p is groups phase_start[p]..phase_start[p + 1].

    Within a phase every fact after the first group is new, happened between its tick and the
    one before, and changes nothing but itself: so the state at each tick of the phase is
    what the table holds up to that instant, and the whole phase is applied in one go.
    `watched` customers have facts from the future, for which that is not so: each of their
    groups is a phase of its own, and they are evaluated with all that is in the table.
    """

    row: Int64s
    row_slot: Int64s
    row_fold_ms: Int64s
    group_start: Int64s
    group_tick: Int64s
    group_slot: Int64s
    phase_start: Int64s
    slot: Int64s
    """Every customer of the piece of work, once, ascending."""
    watched: Bools
    """One per `slot`."""


def phases_of(
    table: CustomerTable,
    facts: Facts,
    rows: Int64s,
    slots: Int64s,
    tick_of_row: Int64s,
    fold_line_ms: Int64s,
    due_slots: Int64s,
    tick_ms: Int64s,
    clock_ms: int,
    *,
    reads_traits: bool,
    reads_entities: bool,
) -> Phases:
    """Sort the facts of one piece of work into groups and phases.

    `rows` are indices into `facts` in log order; `slots`, `tick_of_row` and `fold_line_ms`
    run parallel. `due_slots` are customers who take part for their deadlines. `tick_ms` is
    int64[k], `clock_ms` the clock before the first tick. `reads_traits` and `reads_entities` say what
    evaluations read: what none reads may be applied ahead of its tick.
    """
    order = np.argsort(slots, kind="stable")
    row, slot, tick = rows[order], slots[order], tick_of_row[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (slot[1:] != slot[:-1]) | (tick[1:] != tick[:-1])
    group_at = np.flatnonzero(first)
    group_tick, group_slot = tick[group_at], slot[group_at]
    everybody = np.unique(np.concatenate((group_slot, due_slots)))
    watched = are_watched(table, everybody, tick_ms)
    phase_start = np.empty(0, np.int64)
    if len(row):
        before_ms = np.append(clock_ms, tick_ms)
        after_ms = np.append(tick_ms, np.iinfo(np.int64).max)
        occurred = facts.occurred_at_ms[row]
        early = occurred > after_ms[tick]
        plain = _is_plain(facts, row, reads_traits, reads_entities) & (occurred > before_ms[tick]) & ~early
        if early.any():
            watched[np.searchsorted(everybody, slot[early])] = True
        joins = np.zeros(len(group_at), np.bool_)
        bucket = before_ms[group_tick] // SPAN_MS
        joins[1:] = (group_slot[1:] == group_slot[:-1]) & (bucket[1:] == bucket[:-1])
        joins &= np.logical_and.reduceat(plain, group_at)
        if watched.any():
            joins &= ~watched[np.searchsorted(everybody, group_slot)]
        phase_start = np.flatnonzero(~joins)
    return Phases(
        row=row,
        row_slot=slot,
        row_fold_ms=fold_line_ms[order],
        group_start=np.append(group_at, len(row)),
        group_tick=group_tick,
        group_slot=group_slot,
        phase_start=np.append(phase_start, len(group_at)),
        slot=everybody,
        watched=watched,
    )


def _is_plain(facts: Facts, row: Int64s, reads_traits: bool, reads_entities: bool) -> Bools:
    """Return bool[n]: the fact adds itself to the state and changes nothing that was there.

    Not so are linked refunds (they change an order), facts with an account (changes carry the
    account held at the time), and, if they are read, traits and changes of subscriptions and
    tickets, of which only the latest state is kept. What series keep is cut by time as orders are.
    An id that is known needs no care: of two contents the lesser stands, which is the earlier, and
    a fact that comes in order is later than all before it.
    """
    offsets = facts.order_id.offsets
    plain: Bools = offsets[row + 1] == offsets[row]
    if facts.account_id:
        plain &= ~np.isin(row, np.fromiter(facts.account_id, np.int64))
    if reads_traits and facts.traits:
        plain &= ~np.isin(row, np.fromiter(facts.traits, np.int64))
    if reads_entities and facts.changes:
        plain &= ~np.isin(row, np.fromiter(facts.changes, np.int64))
    return plain


def are_watched(table: CustomerTable, slots: Int64s, tick_ms: Int64s) -> Bools:
    """Return bool[n]: the customer already has a fact later than the tick that sees it first."""
    held = np.zeros(len(slots), np.bool_)
    if len(tick_ms):
        for runs in (table.orders, table.refunds):
            start, end = runs.bounds(slots)
            # The entry before an empty run is another's.
            held |= (runs.times.take(end - 1, mode="clip") > tick_ms[0]) & (end > start)
        if table.series_facts is not None:
            held |= table.series_facts.later_than(slots, int(tick_ms[0]))
    return held
