"""Puts back what series keep from the records of the customers topic."""

from __future__ import annotations

import numpy as np

from streams.customers.arena import group_starts
from streams.customers.columns import DAY, ENTRY, FIRST, KIND_MASK, LINES, Records
from streams.customers.facts import Bools, Int64s, SeriesEntries, UInt64s
from streams.customers.ledger import Ledger
from streams.customers.series_facts import SeriesFacts


def restore(facts: SeriesFacts, ledger: Ledger, owners: Int64s, records: Records) -> None:
    """Put back what is on record, in the order it was put there for each customer.

    Orders and refunds have been restored before. What belongs to no declared series is left out.
    """
    layout = facts.layout
    code, series = records["code"] & KIND_MASK, layout.declared(records["link"])
    lines, kept = code == LINES, (code == ENTRY) & (series >= 0)
    day = (code == DAY) & (series >= 0)
    _restore_days(facts, owners[day], series[day], records[day])
    # An activity begins with its first entry, an order with what all its lines said.
    content = (lines | ((records["code"] & FIRST) != 0)).cumsum()
    whole, paid = np.zeros((2, int(content.max(initial=0)) + 1), np.int64)
    whole[content[lines]] = records["value"][lines]
    paid[content[lines]] = records["link"][lines].view(np.int64)
    found = np.flatnonzero(kept)
    if not len(found):
        return
    row = np.unique(content[found], return_inverse=True)[1]
    wholes = np.where((layout.is_share & layout.is_order)[series[found]], whole[content[found]], 0)
    entries = SeriesEntries(row, series[found], records["value"][found], wholes)
    firsts = found[group_starts(row)]
    is_order = layout.is_order[series[firsts]]
    for mine, put in (
        (np.flatnonzero(~is_order), _restore_activities),
        (np.flatnonzero(is_order), _restore_orders),
    ):
        if len(mine):
            at = firsts[mine]
            put(facts, ledger, entries.of_rows(mine), owners[at], records[at], paid[content[at]])


def _restore_days(facts: SeriesFacts, owners: Int64s, series: Int64s, records: Records) -> None:
    """Put days back; of one that is on record more than once the earliest instant stands."""
    order = np.lexsort((records["value"], records["time"], series, owners))
    owners, series, records = owners[order], series[order], records[order]
    first = np.ones(len(order), np.bool_)
    first[1:] = (owners[1:] != owners[:-1]) | (series[1:] != series[:-1])
    first[1:] |= records["time"][1:] != records["time"][:-1]
    facts.put_days_back(owners[first], series[first], records[first])


def _restore_activities(
    facts: SeriesFacts, ledger: Ledger, entries: SeriesEntries, slots: Int64s, records: Records, paid: Int64s
) -> None:
    """Put activities back: those whose id is there once by the column, of the others the least."""
    times, ids = records["time"], records["id"]
    put = facts.put_activities(entries, slots, times, ids, _once(slots, ids))[2]
    for place in np.flatnonzero(~put).tolist():
        facts.note_lost(int(slots[place]), int(ids[place]), int(times[place]))


def _restore_orders(
    facts: SeriesFacts, ledger: Ledger, entries: SeriesEntries, slots: Int64s, records: Records, paid: Int64s
) -> None:
    """Put back what lines said: of plain orders by the column, of the others what fits the order."""
    times, ids = records["time"], records["id"]
    # Whose customer has no exceptional order has none whose net is not what was paid.
    plain = np.array([slot not in ledger.entries for slot in slots.tolist()], np.bool_)
    plain &= _once(slots, ids)
    facts.orders.put(entries, slots, times, ids, paid, plain, ())


def _once(slots: Int64s, ids: UInt64s) -> Bools:
    """Return bool[n]: no other row is of the same customer and id."""
    order = np.lexsort((ids, slots))
    same = (slots[order][1:] == slots[order][:-1]) & (ids[order][1:] == ids[order][:-1])
    once = np.ones(len(order), np.bool_)
    once[order[1:][same]] = once[order[:-1][same]] = False
    return once
