"""Time-sorted runs of facts, one per customer, with prefix sums: windows are two bisects apart."""

from __future__ import annotations

import numpy as np

from streams.customers.arena import Arena, group_sizes, group_starts, spans
from streams.customers.facts import Int64s, UInt64s

_SUBSET_STEP = 8
"""Bisect steps longer than this look only at the runs long enough to need them."""


class Runs(Arena):
    """Per slot one run of (time, value, id) sorted by time; equal times keep arrival order.

    `times`, `sums` and `ids` are the arena's columns, indexed by absolute positions: the run of
    slot s lies in [start(s), end(s)). sums[i] is the sum of the run's values up to and including
    i; values are read back as differences. The arrays are replaced when the arena grows: read
    them again after every insert.
    """

    def __init__(self) -> None:
        super().__init__(np.int64, np.int64, np.uint64)

    @property
    def times(self) -> Int64s:
        """int64[allocated]: UTC ms, ascending within a run."""
        return self.columns[0]

    @property
    def sums(self) -> Int64s:
        """int64[allocated]: inclusive prefix sums within a run."""
        return self.columns[1]

    @property
    def ids(self) -> UInt64s:
        """uint64[allocated]: fact ids, distinct within a run."""
        return self.columns[2]

    def start(self, slots: Int64s) -> Int64s:
        """Return the absolute position of each run's first entry."""
        return self.starts[slots]

    def end(self, slots: Int64s) -> Int64s:
        """Return the absolute position after each run's last entry."""
        return self.starts[slots] + self.lengths[slots]

    def first_after(self, slots: Int64s, after_ms: Int64s) -> Int64s:
        """Return the absolute position of each run's first entry with time > after_ms, else its end.

        `after_ms` is int64[n], one per slot, or anything that broadcasts to that.
        """
        start, length = self.starts[slots], self.lengths[slots]
        if not len(start):
            return start
        after = np.asarray(after_ms, np.int64)
        if after.shape != start.shape:
            after = np.broadcast_to(after, start.shape)
        times = self.times
        end = start + length
        # `at` is the last position known to be too early; it only ever steps forward.
        at = start - 1
        step = 1 << int(length.max()).bit_length() >> 1
        while step > _SUBSET_STEP:
            rows = np.flatnonzero(length >= step)
            probe = at[rows] + step
            fits = probe < end[rows]
            fits &= times.take(probe, mode="clip") <= after[rows]
            at[rows] += step * fits
            step >>= 1
        while step:
            probe = at + step
            fits = probe < end
            fits &= times.take(probe, mode="clip") <= after
            at += step * fits
            step >>= 1
        at += 1
        return at

    def sum_between(self, slots: Int64s, low: Int64s, end: Int64s) -> Int64s:
        """Return the sum of the values at positions [low, end) of each run, 0 where that is empty."""
        sums = self.sums
        upper = np.where(end > low, sums.take(end - 1, mode="clip"), 0)
        lower = np.where((end > low) & (low > self.starts[slots]), sums.take(low - 1, mode="clip"), 0)
        return upper - lower

    def total(self, slots: Int64s) -> Int64s:
        """Return the sum of each whole run."""
        length = self.lengths[slots]
        return np.where(length > 0, self.sums.take(self.starts[slots] + length - 1, mode="clip"), 0)

    def insert(self, slots: Int64s, times: Int64s, values: Int64s, ids: UInt64s) -> None:
        """Add entries: any order, any number per slot; the tail after a late one is rewritten."""
        count = len(slots)
        if not count:
            return
        order = np.lexsort((times, slots))
        slots, times, values, ids = slots[order], times[order], values[order], ids[order]
        firsts = group_starts(slots)
        owners = slots[firsts]
        added = group_sizes(firsts, count)
        self.reserve(owners, added)
        lengths = self.lengths[owners]
        ends = self.starts[owners] + lengths
        late = (lengths > 0) & (self.times.take(ends - 1, mode="clip") > times[firsts])
        self.lengths[owners] += added
        if late.any():
            kept = self.first_after_in(owners[late], lengths[late], times[firsts[late]])
            self._merge(owners, ends, late, kept, firsts, added, (times, values, ids))
        else:
            self._write(owners, ends, added, times, values, ids)

    def first_after_in(self, slots: Int64s, lengths: Int64s, after_ms: Int64s) -> Int64s:
        """Like first_after, over only the first `lengths` entries of each run."""
        whole = self.lengths[slots]
        self.lengths[slots] = lengths
        found = self.first_after(slots, after_ms)
        self.lengths[slots] = whole
        return found

    def _merge(
        self,
        owners: Int64s,
        ends: Int64s,
        late: np.ndarray[tuple[int], np.dtype[np.bool_]],
        kept: Int64s,
        firsts: Int64s,
        added: Int64s,
        new: tuple[Int64s, Int64s, UInt64s],
    ) -> None:
        """Rewrite each late run from `kept`, the first position a new entry comes before."""
        start = self.starts[owners]
        cuts = ends.copy()
        cuts[late] = kept
        tails = ends - cuts
        old = spans(cuts, tails)
        before = np.where(old > np.repeat(start, tails), self.sums.take(old - 1, mode="clip"), 0)
        group = np.arange(len(owners))
        groups = np.concatenate((np.repeat(group, tails), np.repeat(group, added)))
        times = np.concatenate((self.times[old], new[0]))
        values = np.concatenate((self.sums[old] - before, new[1]))
        ids = np.concatenate((self.ids[old], new[2]))
        # Stable, and the old entries come first: equal times keep arrival order.
        order = np.lexsort((times, groups))
        self._write(owners, cuts, tails + added, times[order], values[order], ids[order])

    def _write(
        self, owners: Int64s, at: Int64s, counts: Int64s, times: Int64s, values: Int64s, ids: UInt64s
    ) -> None:
        """Write consecutive groups of entries at absolute positions `at`, sums carrying on from before."""
        before = np.where(at > self.starts[owners], self.sums.take(at - 1, mode="clip"), 0)
        sums = values.cumsum()
        first = counts.cumsum() - counts
        sums += (before - sums[first] + values[first]).repeat(counts)
        target = spans(at, counts)
        self.times[target] = times
        self.sums[target] = sums
        self.ids[target] = ids

    def owners(self, slots: int) -> tuple[Int64s, UInt64s]:
        """Return (slot, id) of every entry of slots 0 to slots - 1, as two columns."""
        lengths = self.lengths[:slots]
        return np.repeat(np.arange(slots), lengths), self.ids[spans(self.starts[:slots], lengths)]

    def position(self, slot: int, fact_id: int) -> int:
        """Return the absolute position of one entry, -1 when the run has no such id."""
        start = int(self.starts[slot])
        found = np.flatnonzero(self.ids[start : start + int(self.lengths[slot])] == np.uint64(fact_id))
        return start + int(found[0]) if len(found) else -1

    def entry(self, slot: int, position: int) -> tuple[int, int]:
        """Return (time, value) at an absolute position of the slot's run."""
        before = int(self.sums[position - 1]) if position > self.starts[slot] else 0
        return int(self.times[position]), int(self.sums[position]) - before

    def remove(self, slot: int, fact_id: int) -> bool:
        """Take one entry out and rewrite the sums after it; False when there is no such id."""
        at = self.position(slot, fact_id)
        if at < 0:
            return False
        value = self.entry(slot, at)[1]
        end = int(self.starts[slot] + self.lengths[slot])
        for column in self.columns:
            column[at : end - 1] = column[at + 1 : end]
        self.sums[at : end - 1] -= value
        self.lengths[slot] -= 1
        return True

    def put(self, slot: int, time_ms: int, value: int, fact_id: int) -> None:
        """Add one entry, or replace the one with this id."""
        self.remove(slot, fact_id)
        self.insert(np.array([slot]), np.array([time_ms]), np.array([value]), np.array([fact_id], np.uint64))

    def cut(self, slot: int, before_ms: int) -> tuple[Int64s, Int64s]:
        """Take out all entries with time < before_ms; return their (times, values), ascending."""
        slots = np.array([slot])
        start, low = int(self.starts[slot]), int(self.first_after(slots, np.array([before_ms - 1]))[0])
        end = int(self.end(slots)[0])
        times, values = self.times[start:low].copy(), np.diff(self.sums[start:low], prepend=0)
        if low > start:
            base = self.sums[low - 1].copy()
            for column in self.columns:
                column[start : start + end - low] = column[low:end].copy()
            self.sums[start : start + end - low] -= base
            self.lengths[slot] = end - low
        return times, values
