"""What the customer table keeps beside orders, refunds and profiles: series, subscriptions, tickets."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from streams.customers.change_book import ChangeBook, Merged
from streams.customers.columns import FactColumns, Records, seen_keys
from streams.customers.facts import Facts, Int64s, Kind, UInt8s
from streams.customers.forgetting import Forgetting
from streams.customers.seen import SeenSet
from streams.customers.series_facts import DAY_MS


class Result(IntEnum):
    """What became of one fact."""

    APPLIED = 1
    DUPLICATE = 2
    """Known already; also another content under a known id that lost (counted in `conflicts`)."""
    TOO_OLD = 3
    REFUSED = 4
    """What it says of a profile, subscription or ticket goes beyond what is kept; it changed nothing."""
    IDLE = 5
    """An activity that no series keeps, or that says nothing new: it changed nothing."""


_RESULTS = {
    Merged.NEW: Result.APPLIED,
    Merged.REPLACED: Result.APPLIED,
    Merged.KNOWN: Result.DUPLICATE,
    Merged.LOST: Result.DUPLICATE,
    Merged.REFUSED: Result.REFUSED,
}


class FurtherFacts(Forgetting):
    """The part of the customer table that takes other facts than orders, refunds and profiles."""

    _seen: SeenSet
    conflicts: int

    def _put_series(
        self, facts: Facts, columns: FactColumns, rows: Int64s, slots: Int64s, outcome: UInt8s
    ) -> list[tuple[Records, Int64s]]:
        """Let the declared series follow; return what goes on record, and the places in `rows` it is of.

        `outcome` says which orders were put; those of activities a series keeps are set to DUPLICATE, and
        the caller sets what is of a place returned to APPLIED.
        """
        series = self.series_facts
        assert series is not None and self.ledger.settled is not None
        entries = facts.entries.of_rows(rows)
        times, ids = columns.time[rows], columns.id[rows]
        parts: list[tuple[Records, Int64s]] = []
        at = entries.take(series.of_orders(entries)).rows()
        settled = set(self.ledger.settled)
        if len(at) or settled:
            plain = outcome[at] == Result.APPLIED
            if settled and plain.any():
                pairs = zip(slots[at].tolist(), ids[at].tolist(), strict=True)
                plain &= np.array([pair not in settled for pair in pairs], np.bool_)
            mine = entries.take(series.of_orders(entries)).of_rows(at)
            records, place = series.orders.put(
                mine, slots[at], times[at], ids[at], columns.value[rows[at]], plain, settled
            )
            parts.append((records, at[place]))
        at = entries.take(series.of_activities(entries)).rows()
        if len(at):
            fresh = self._seen.add(seen_keys(slots[at], ids[at]))
            mine = entries.take(series.of_activities(entries)).of_rows(at)
            records, place, _, conflicts = series.put_activities(mine, slots[at], times[at], ids[at], fresh)
            self.conflicts += conflicts
            parts.append((records, at[place]))
            outcome[at] = Result.DUPLICATE
        days = entries.take(series.of_days(entries))
        # What happened since the last fold may belong to a day that began before it.
        midnight = times[days.row] // DAY_MS * DAY_MS
        days = days.take((midnight >= self.folded_before_ms[slots[days.row]]).nonzero()[0])
        if len(days):
            records, place = series.put_days(days, slots, times)
            parts.append((records, place))
        return parts

    def _merge_changes(
        self, facts: Facts, rows: Int64s, slots: Int64s, fold_line_ms: Int64s, outcome: UInt8s
    ) -> None:
        """Merge changes of subscriptions and tickets in order, setting their outcomes."""
        if not facts.changes:
            return
        kind = facts.kind[rows]
        places = ((kind == Kind.PLAN_CHANGED) | (kind == Kind.TICKET_CHANGED)).nonzero()[0]
        for place, row, slot in zip(
            places.tolist(), rows[places].tolist(), slots[places].tolist(), strict=True
        ):
            book = self.books.get(slot)
            before = 0 if book is None else len(book)
            if book is None:
                book = self.books[slot] = ChangeBook()
            merged = book.merge(facts.changes[row], int(fold_line_ms[place]))
            outcome[place] = _RESULTS[merged]
            self.conflicts += merged in (Merged.REPLACED, Merged.LOST)
            if self._dirty[slot]:
                # The row is in the bound already, with the book as it was.
                self._dirty_bytes_max += max(0, len(book) - before)
