"""Facts on record, in arrival order: an open page per customer, sealed when full and never touched again."""

from __future__ import annotations

import numpy as np

from streams.customers.arena import Arena, enlarged, spans
from streams.customers.columns import FACT, PACKED, Records
from streams.customers.facts import Int64s

FACTS_PER_PAGE = 32
"""Facts in a sealed page: what bounds the bytes a further fact of a customer costs."""


class Pages(Arena):
    """The open pages in memory, and the rows of sealed or dropped pages not yet taken.

    A sealed page lives in the changelog only; what is kept of it is its latest time, so that it
    can be dropped when all of it is past the fold line. Pages count from 1; those before
    `dropped[slot]` + 1 are gone.
    """

    def __init__(self) -> None:
        # As plain bytes: NumPy copies a record with fields field by field, ten times slower.
        super().__init__(PACKED)
        self.sealed = np.zeros(0, np.int32)
        self.dropped = np.zeros(0, np.int32)
        self._latest: dict[int, list[int]] = {}
        self._untaken: dict[tuple[int, int], bytes | None] = {}
        self._untaken_bytes = 0

    @property
    def records(self) -> Records:
        """FACT[allocated]."""
        return self.columns[0].view(FACT)

    @property
    def untaken_bytes(self) -> int:
        """Bytes of the page values not yet taken."""
        return self._untaken_bytes

    @property
    def untaken_pages(self) -> int:
        """Page rows not yet taken."""
        return len(self._untaken)

    def hold_slots(self, capacity: int) -> None:
        """Make place for slots 0 to capacity - 1."""
        super().hold_slots(capacity)
        self.sealed = enlarged(self.sealed, capacity)
        self.dropped = enlarged(self.dropped, capacity)

    def append(self, owners: Int64s, counts: Int64s, records: Records) -> list[tuple[int, int]]:
        """Append groups of facts, one per distinct owner, in order.

        Return (group, place in that group of the fact that filled a page) for every page sealed.
        """
        starts, lengths = self.reserve(owners, counts)
        self.columns[0][spans(starts + lengths, counts)] = records.view(PACKED)
        filled = lengths + counts
        self.lengths[owners] = filled
        seals = []
        for group in (filled >= FACTS_PER_PAGE).nonzero()[0].tolist():
            pages = self._seal(int(owners[group]))
            first = FACTS_PER_PAGE - 1 - int(lengths[group])
            seals += [(group, first + FACTS_PER_PAGE * page) for page in range(pages)]
        return seals

    def _seal(self, slot: int) -> int:
        """Turn every full page of the open one into a row; return how many."""
        start, length = int(self.starts[slot]), int(self.lengths[slot])
        whole = length // FACTS_PER_PAGE
        facts = self.records[start : start + length].copy()
        for page in range(whole):
            content = facts[page * FACTS_PER_PAGE : (page + 1) * FACTS_PER_PAGE]
            self.sealed[slot] += 1
            self._untaken[slot, int(self.sealed[slot])] = content.tobytes()
            self._untaken_bytes += content.nbytes
            self._latest.setdefault(slot, []).append(int(content["time"].max()))
        rest = length - whole * FACTS_PER_PAGE
        self.records[start : start + rest] = facts[length - rest :]
        self.lengths[slot] = rest
        return whole

    def droppable(self, slot: int, before_ms: int) -> int:
        """Return how many of the oldest pages hold only facts with time < before_ms."""
        count = 0
        for latest in self._latest.get(slot, ()):
            if latest >= before_ms:
                break
            count += 1
        return count

    def drop(self, slot: int, count: int) -> None:
        """Drop the oldest pages: a tombstone each, or nothing if their rows were never taken."""
        for _ in range(count):
            self.dropped[slot] += 1
            page = slot, int(self.dropped[slot])
            if page in self._untaken:
                self._untaken_bytes -= len(self._untaken.pop(page) or b"")
            else:
                self._untaken[page] = None
        del self._latest[slot][:count]

    def forget(self, slot: int) -> list[int]:
        """Let go of all facts of a customer; return the sealed pages whose rows are not tombstones yet."""
        dropped, standing = int(self.dropped[slot]), []
        for page in range(1, int(self.sealed[slot]) + 1):
            if (slot, page) not in self._untaken:
                standing += [page] * (page > dropped)
                continue
            content = self._untaken.pop((slot, page))
            if content is None:
                standing.append(page)
            else:
                self._untaken_bytes -= len(content)
        self._latest.pop(slot, None)
        self.sealed[slot] = self.dropped[slot] = 0
        self.empty(np.array([slot]))
        return standing

    def take(self) -> dict[tuple[int, int], bytes | None]:
        """Return (slot, page) to bytes, None for a tombstone, and forget them."""
        taken, self._untaken, self._untaken_bytes = self._untaken, {}, 0
        return taken

    def open_pages(self, slots: Int64s) -> tuple[bytes, Int64s]:
        """Return the bytes of the slots' open pages end to end, and int64[n], the bytes of each."""
        lengths = self.lengths[slots]
        facts = self.columns[0].take(spans(self.starts[slots], lengths))
        return facts.tobytes(), lengths * FACT.itemsize

    def put_back(self, slot: int, sealed: int, dropped: int, latest: list[int]) -> None:
        """Restore what is known of a customer's sealed pages."""
        self.sealed[slot], self.dropped[slot] = sealed, dropped
        if latest:
            self._latest[slot] = latest
