"""Whose row must be written, how many bytes that takes at most, and the rows themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from streams.customers.columns import FACT
from streams.customers.facts import PENDING_MS, Int64s
from streams.customers.row_format import KEY_BYTES, RowFormat
from streams.customers.series import Series
from streams.customers.state import CustomerState


class DirtyRows(CustomerState):
    """The customer table as the changelog sees it: rows that differ from those last written are dirty."""

    def __init__(
        self,
        dimensions: tuple[str, ...],
        values: tuple[tuple[str, ...], ...],
        series: Sequence[Series],
        complete_since_ms: Mapping[str, int],
    ) -> None:
        super().__init__(dimensions, values, series, complete_since_ms)
        self._format = RowFormat(dimensions, values)
        self._dirty_slots: list[Int64s] = []
        self._dirty_count = 0
        self._dirty_bytes_max = 0
        self.row_count = 0

    def relayout(self, dimensions: tuple[str, ...], values: tuple[tuple[str, ...], ...]) -> None:
        """See CustomerState; rows are written in the new layout. Only while nothing waits to be taken."""
        assert not self._dirty_count, "rows marked dirty were bounded in the old layout"
        super().relayout(dimensions, values)
        self._format = RowFormat(dimensions, values)

    @property
    def dirty_count(self) -> int:
        """Customers whose row must be written."""
        return self._dirty_count

    @property
    def entry_bytes_max(self) -> int:
        """No less than a row takes for one segment that its customer is or was in."""
        return self._format.entry_bytes_max

    @property
    def dirty_bytes_max(self) -> int:
        """No less than the bytes take_rows would return, keys included; cheap."""
        keys = self.pages.untaken_pages * (KEY_BYTES + self.slots.longest)
        pages = self.pages.untaken_bytes + keys
        added = self.held.entries_added * self._format.entry_bytes_max
        return self._dirty_bytes_max + pages + self.pending_event_id.written_bytes + added

    def mark_dirty(self, slots: Int64s) -> None:
        """Have the rows of these customers written with the next take."""
        clean = slots[~self._dirty[slots]]
        if len(clean):
            self._mark(np.unique(clean))

    def take_rows(self) -> list[tuple[bytes, bytes | None]]:
        """Return (key, value) of every dirty customer, sealed page and dropped page, and clear dirty.

        A value of None is a tombstone. `row_count` says how many customers and pages there were.
        """
        slots = np.concatenate(self._dirty_slots) if self._dirty_slots else np.zeros(0, np.int64)
        # Who was erased meanwhile is in there still, and is not dirty.
        slots = slots[self._dirty[slots]]
        rows = self._format.rows(self, slots)
        self._dirty[slots] = False
        self._dirty_slots.clear()
        self._dirty_count = self._dirty_bytes_max = self.pending_event_id.written_bytes = 0
        self.held.entries_added = 0
        self.row_count = len(rows)
        return rows

    def _touch(self, owners: Int64s) -> None:
        """Make distinct slots due at any clock, and dirty."""
        self.due_ms[owners] = PENDING_MS
        self._mark(owners)

    def _mark(self, slots: Int64s) -> None:
        """Mark distinct slots dirty; what their rows hold already enters the bound."""
        clean = slots[~self._dirty[slots]]
        if not len(clean):
            return
        self._dirty[clean] = True
        self._dirty_slots.append(clean)
        self._dirty_count += len(clean)
        self._dirty_bytes_max += int(self._head_bytes_max(clean).sum())

    def row_bytes_max(self, slots: Int64s) -> Int64s:
        """Return int64[n]: no less than writing each customer, as it is, would add to the pending rows."""
        return np.where(self._dirty[slots], 0, self._head_bytes_max(slots))

    def _head_bytes_max(self, slots: Int64s) -> Int64s:
        held = self.slots.lengths_of(slots) + FACT.itemsize * self.pages.lengths[slots]
        held += self._format.head_bytes_max
        held += self.held.counts(slots) * self._format.entry_bytes_max
        if self.series_facts is not None and self.series_facts.folds:
            held += [self.series_facts.folds.bytes_of(slot) for slot in slots.tolist()]
        if self.profiles:
            held += self.profile_bytes_max[slots]
        if self.books:
            books = map(self.books.get, slots.tolist())
            held += np.array([0 if book is None else len(book) for book in books], np.int64)
        if self.pending_event_id:
            held += self.pending_event_id.longest
        return held
