"""Customers erased: everything the table holds of them let go, and their rows turned to tombstones."""

from __future__ import annotations

from itertools import chain

import numpy as np

from streams.customers.columns import SERIES
from streams.customers.dirty import DirtyRows
from streams.customers.erasures import MARKER_BYTES, Markers
from streams.customers.facts import NEVER_MS, Bools, Int64s
from streams.customers.row_format import CUSTOMER_ROW, KEY_BYTES, encode_key
from streams.customers.state import NOT_YET_MS


class Forgetting(DirtyRows):
    """The part of the customer table that forgets.

    What stays for a while cannot be read as anybody's: keyed hashes of fact ids in the set of seen
    ones until it is next rebuilt, and what blocks left behind in arenas when they moved.
    """

    erasures: Markers

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]  # Passed on as they are.
        self._tombstones: list[bytes] = []

    @property
    def dirty_bytes_max(self) -> int:
        """No less than the bytes take_rows would return, keys included; cheap."""
        return super().dirty_bytes_max + MARKER_BYTES * self.erasures.unwritten

    def take_rows(self) -> list[tuple[bytes, bytes | None]]:
        """Return (key, value) of everything that must be written: what is erased first, for who comes back.

        The numbers of erased customers are given out again from here on.
        """
        rows: list[tuple[bytes, bytes | None]] = [(key, None) for key in self._tombstones]
        rows += self.erasures.take()
        rows += super().take_rows()
        self._tombstones.clear()
        self.slots.release()
        self.row_count = len(rows)
        return rows

    def forget(self, slot: int) -> None:
        """Let go of a customer: every fact, value and word, and the id. Nobody has the slot until a take."""
        identity = self.slots.id_of(slot)
        if not self._dirty[slot]:
            self._dirty_count += 1
        pages = self.pages.forget(slot)
        keys = [encode_key(CUSTOMER_ROW, identity, page) for page in (0, *pages)]
        self._tombstones += keys
        self._dirty_bytes_max += sum(map(len, keys))
        self.entries.empty(slot * SERIES + np.arange(SERIES))
        self.ledger.entries.pop(slot, None)
        if self.series_facts is not None:
            self.series_facts.forget(slot)
        self.profiles.pop(slot, None)
        self.books.pop(slot, None)
        self.pending_event_id.pop(slot, None)
        self.vacate(slot)

    def vacate(self, slot: int) -> None:
        """Let go of the id of a customer of whom nothing else is held."""
        self._empty(slot)
        self.slots.remove(slot)

    def drop_pages(self, slot: int, count: int) -> int:
        """Turn the oldest sealed pages of who is about to be erased into tombstones; return how many.

        Should this be all that is committed, what is restored lacks their facts, and is erased next.
        """
        count = min(count, int(self.pages.sealed[slot] - self.pages.dropped[slot]))
        self.pages.drop(slot, count)
        self.mark_dirty(np.array([slot]))
        return count

    def erasure_bytes(self, slot: int) -> int:
        """Return no less than erasing a customer adds to the pending rows, keys included."""
        pages = int(self.pages.sealed[slot] - self.pages.dropped[slot])
        return MARKER_BYTES + (1 + pages) * (KEY_BYTES + int(self.slots.lengths_of(np.array([slot]))[0]))

    def are_new(self, slots: Int64s) -> Bools:
        """Return bool[n]: nothing was ever applied to this slot, so it has no row.

        Who has facts waits to be evaluated, or was; who is settled for ever names who settled it, and so
        does whom a rebuild met and nobody was told of.
        """
        new: Bools = (self.due_ms[slots] == NEVER_MS) & (self.evaluated_by[slots] == 0)
        return new

    def latest_ms(self, slot: int) -> int:
        """Return when the latest thing happened that is kept of a customer, NOT_YET_MS if nothing is."""
        slots = np.array([slot])
        instants = self.ledger.instants(slot)
        for runs in (self.orders, self.refunds, self.others):
            start, end = runs.bounds(slots)
            instants += runs.times[end[end > start] - 1].tolist()
        if self.series_facts is not None:
            latest = self.series_facts.latest_ms(slot)
            instants += [] if latest is None else [latest]
        said = (held.get(slot) for held in (self.profiles, self.books))
        return max(chain(instants, (each.latest_ms() for each in said if each)), default=NOT_YET_MS)

    def recall_erasures(self) -> None:
        """Find the markers of all customers, after both were restored."""
        if len(self.erasures):
            everybody = np.arange(self.count)
            self.erased_ms[everybody] = self.erasures.of(self.slots.ids_of(everybody))
