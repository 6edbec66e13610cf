"""Runs of many series in one arena, a block only for who has facts in one: most customers have few."""

from __future__ import annotations

import numpy as np

from streams.customers.arena import enlarged, spans
from streams.customers.facts import Int64s, UInt64s
from streams.customers.hashing import mix
from streams.customers.runs import Entries, Runs

BLOCKS_MIN = 1024
"""Blocks there is place for at first; block 0 is nobody's and stays empty."""

_FREE = np.uint64(0)
_ONE = np.uint64(1)


class BlockMap:
    """From a key above 0 to its block: open addressing, a quarter to a half full, a whole column per call."""

    def __init__(self) -> None:
        self._keys = np.zeros(4 * BLOCKS_MIN, np.uint64)
        self._blocks = np.zeros(4 * BLOCKS_MIN, np.int64)
        self.key_of = np.zeros(BLOCKS_MIN, np.uint64)
        """Block to its key; [:count]."""
        self.count = 1

    @property
    def nbytes(self) -> int:
        """Bytes of every array."""
        return self._keys.nbytes + self._blocks.nbytes + self.key_of.nbytes

    def find(self, keys: UInt64s) -> Int64s:
        """Return int64[n]: the block of each key, 0 where it has none."""
        return self._blocks[self._search(keys)]

    def find_or_add(self, keys: UInt64s) -> Int64s:
        """Return int64[n]: the block of each key, giving unknown ones the next numbers."""
        at = self._search(keys)
        blocks = self._blocks[at]
        missing = np.flatnonzero(blocks == 0)
        if len(missing):
            self._add(np.unique(keys[missing]))
            blocks = self.find(keys)
        return blocks

    def _search(self, keys: UInt64s) -> Int64s:
        """Return the place of each key, or the free one where its search ended."""
        mask = len(self._keys) - 1
        at = (mix(keys) & np.uint64(mask)).view(np.int64)
        held = self._keys[at]
        going = np.flatnonzero((held != _FREE) & (held != keys))
        while len(going):
            stepped = (at[going] + 1) & mask
            at[going] = stepped
            held = self._keys[stepped]
            going = going[(held != _FREE) & (held != keys[going])]
        return at

    def _add(self, keys: UInt64s) -> None:
        first, self.count = self.count, self.count + len(keys)
        if self.count > len(self.key_of):
            self.key_of = enlarged(self.key_of, 1 << self.count.bit_length())
        self.key_of[first : self.count] = keys
        if 2 * self.count > len(self._keys):
            self._keys = np.zeros(1 << (2 * self.count).bit_length() << 1, np.uint64)
            self._blocks = np.zeros(len(self._keys), np.int64)
            first, keys = 1, self.key_of[1 : self.count]
        blocks = np.arange(first, self.count)
        while len(keys):
            # Where several want one place, the last written has it; the others search on.
            at = self._search(keys)
            self._keys[at], self._blocks[at] = keys, blocks
            lost = self._keys[at] != keys
            keys, blocks = keys[lost], blocks[lost]


class SeriesRuns:
    """Per (slot, series) one run of (time, value, id) sorted by time, for `series` series from 0 on."""

    def __init__(self, series: int) -> None:
        self.series = series
        self._map = BlockMap()
        self._entries = Entries()
        self.runs = Runs(self._entries)
        """By block instead of slot."""
        self._held = BLOCKS_MIN
        self.runs.hold_slots(self._held)

    @property
    def rows(self) -> int:
        """Entries in all runs."""
        return self.runs.rows

    @property
    def nbytes(self) -> int:
        """Bytes of every array."""
        return self._entries.nbytes + self._map.nbytes

    def blocks(self, slots: Int64s, series: int | Int64s) -> Int64s:
        """Return int64[n]: the block of each (slot, series), the empty one where there is none."""
        return self._map.find(self._keys(slots, series))

    def insert(
        self, slots: Int64s, series: int | Int64s, times: Int64s, values: Int64s, ids: UInt64s
    ) -> None:
        """Add entries: any order, any number per run; the tail after a late one is rewritten."""
        if len(slots):
            self.runs.insert(self.hold(slots, series), times, values, ids)

    def hold(self, slots: Int64s, series: int | Int64s) -> Int64s:
        """Return int64[n]: the block of each (slot, series), made where there was none."""
        blocks = self._map.find_or_add(self._keys(slots, series))
        if self._map.count > self._held:
            self._held = 1 << self._map.count.bit_length()
            self.runs.hold_slots(self._held)
        return blocks

    def of_slot(self, slot: int) -> dict[int, int]:
        """Return the series in which one customer ever had an entry, and its block in each."""
        blocks = self.blocks(np.full(self.series, slot), np.arange(self.series))
        return {series: block for series, block in enumerate(blocks.tolist()) if block}

    def forget(self, slot: int) -> None:
        """Take out every entry of one customer."""
        self._entries.empty(np.array(sorted(self.of_slot(slot).values()), np.int64))

    def owners(self, series: Int64s) -> tuple[Int64s, UInt64s]:
        """Return (slot, id) of every entry of some series, as two columns."""
        keys = (self._map.key_of[1 : self._map.count] - _ONE).view(np.int64)
        mine = np.flatnonzero(np.isin(keys % self.series, series))
        blocks = mine + 1
        lengths = self.runs.lengths[blocks]
        places = spans(self.runs.starts[blocks], lengths)
        return np.repeat(keys[mine] // self.series, lengths), self.runs.ids[places]

    def _keys(self, slots: Int64s, series: int | Int64s) -> UInt64s:
        return (slots * self.series + series + 1).view(np.uint64)


class SeriesRun:
    """The runs of one series, by slot: what an evaluation reads."""

    def __init__(self, runs: SeriesRuns, series: int) -> None:
        self._all, self._series = runs, series

    @property
    def times(self) -> Int64s:
        """int64[allocated]: UTC ms, ascending within a run."""
        return self._all.runs.times

    @property
    def sums(self) -> Int64s:
        """int64[allocated]: inclusive prefix sums within a run, modulo 2**64."""
        return self._all.runs.sums

    def start(self, slots: Int64s) -> Int64s:
        """Return the absolute position of each run's first entry."""
        return self._all.runs.start(self._all.blocks(slots, self._series))

    def end(self, slots: Int64s) -> Int64s:
        """Return the absolute position after each run's last entry."""
        return self._all.runs.end(self._all.blocks(slots, self._series))

    def first_after(self, slots: Int64s, after_ms: Int64s) -> Int64s:
        """Return what Runs.first_after does: of days, by their midnights."""
        return self._all.runs.first_after(self._all.blocks(slots, self._series), after_ms)

    def up_to(self, slots: Int64s, as_of_ms: Int64s) -> tuple[Int64s, Int64s]:
        """Return where each run begins, and where its part up to an instant ends."""
        blocks = self._all.blocks(slots, self._series)
        return self._all.runs.start(blocks), self._all.runs.first_after(blocks, as_of_ms)


class DayRun(SeriesRun):
    """The runs of a series of days: an entry is a day's midnight, and its value when on that day the first
    thing happened, in ms since midnight."""

    def up_to(self, slots: Int64s, as_of_ms: Int64s) -> tuple[Int64s, Int64s]:
        """Return where each run begins, and where its part up to an instant ends.

        Only the last midnight before the instant can belong to a day on which nothing had happened yet.
        """
        start, end = super().up_to(slots, as_of_ms)
        first_ms = self.first_ms(start, end)
        return start, end - ((end > start) & (first_ms > as_of_ms))

    def first_ms(self, start: Int64s, end: Int64s) -> Int64s:
        """Return when the first thing happened on the day before `end` in each run; 0 in an empty one."""
        there = end > start
        last = self.times.take(end - 1, mode="clip")
        before = np.where(end - 1 > start, self.sums.take(end - 2, mode="clip"), 0)
        return (last + self.sums.take(end - 1, mode="clip") - before) * there
