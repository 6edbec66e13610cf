"""Time-sorted runs of facts, one per customer, with prefix sums: windows are two bisects apart."""

from __future__ import annotations

import numpy as np

from streams.customers.arena import Arena, group_sizes, group_starts, spans
from streams.customers.facts import Int64s, UInt64s
from streams.customers.search import first_above

_LISTED_MAX = 64
"""Entries of a run that are searched as a list; beyond, an array is faster."""


class Entries(Arena):
    """Blocks of (time, value, id) sorted by time; equal times keep arrival order.

    The columns are times, sums and ids: a sum is that of the block's values up to and including
    the entry.
    """

    def __init__(self) -> None:
        super().__init__(np.int64, np.int64, np.uint64)

    def insert(self, blocks: Int64s, times: Int64s, values: Int64s, ids: UInt64s) -> None:
        """Add entries: any order, any number per block; the tail after a late one is rewritten."""
        count = len(blocks)
        if not count:
            return
        order = np.lexsort((times, blocks))
        blocks, times, values, ids = blocks[order], times[order], values[order], ids[order]
        firsts = group_starts(blocks)
        owners = blocks[firsts]
        added = group_sizes(firsts, count)
        starts, lengths = self.reserve(owners, added)
        ends = starts + lengths
        # Where a block is empty the entry before it is another's, and is not looked at.
        late = self.columns[0].take(ends - 1, mode="clip") > times[firsts]
        late &= lengths > 0
        self.lengths[owners] = lengths + added
        if np.count_nonzero(late):
            self._merge(starts, ends, late, firsts, added, (times, values, ids))
        else:
            self._write(starts, ends, firsts, added, (times, values, ids))

    def _merge(
        self,
        starts: Int64s,
        ends: Int64s,
        late: np.ndarray[tuple[int], np.dtype[np.bool_]],
        firsts: Int64s,
        added: Int64s,
        new: tuple[Int64s, Int64s, UInt64s],
    ) -> None:
        """Rewrite each late block from the first position a new entry comes before."""
        times, sums, ids = self.columns
        cuts = ends.copy()
        begin, end = starts[late], ends[late]
        cuts[late] = first_above(times, begin, end, new[0][firsts[late]], int((end - begin).max()))
        tails = ends - cuts
        old = spans(cuts, tails)
        before = np.where(old > starts.repeat(tails), sums.take(old - 1, mode="clip"), 0)
        group = np.arange(len(starts))
        groups = np.concatenate((group.repeat(tails), group.repeat(added)))
        merged = np.concatenate((times[old], new[0]))
        values = np.concatenate((sums[old] - before, new[1]))
        # Stable, and the old entries come first: equal times keep arrival order.
        order = np.lexsort((merged, groups))
        entries = merged[order], values[order], np.concatenate((ids[old], new[2]))[order]
        counts = tails + added
        self._write(starts, cuts, counts.cumsum() - counts, counts, entries)

    def _write(
        self, starts: Int64s, at: Int64s, firsts: Int64s, counts: Int64s, new: tuple[Int64s, Int64s, UInt64s]
    ) -> None:
        """Write consecutive groups of entries at positions `at`, sums carrying on from before.

        Group g is the `counts[g]` entries of `new` from `firsts[g]` on.
        """
        times, sums, ids = self.columns
        before = sums.take(at - 1, mode="clip")
        before *= at > starts
        if len(firsts) == len(new[0]):
            # One entry each, as mostly when a round is small.
            target, sums_new = at, before + new[1]
        else:
            sums_new = new[1].cumsum()
            sums_new += (before - sums_new[firsts] + new[1][firsts]).repeat(counts)
            target = spans(at, counts)
        times[target], sums[target], ids[target] = new[0], sums_new, new[2]


class Runs:
    """Per slot one run of (time, value, id) sorted by time; equal times keep arrival order.

    `times`, `sums` and `ids` are indexed by absolute positions: the run of slot s lies in
    [start(s), end(s)). sums[i] is the sum of the run's values up to and including i; values are
    read back as differences. The arrays are replaced when the arena grows: read them again after
    every insert.

    Several series may share one arena, so that entries of all of them go in with one call: the
    run of slot s in series k of `of` is block s * of + k.
    """

    def __init__(self, entries: Entries | None = None, series: int = 0, of: int = 1) -> None:
        self._entries = Entries() if entries is None else entries
        self._series, self._of = series, of

    @property
    def times(self) -> Int64s:
        """int64[allocated]: UTC ms, ascending within a run."""
        return self._entries.columns[0]

    @property
    def sums(self) -> Int64s:
        """int64[allocated]: inclusive prefix sums within a run."""
        return self._entries.columns[1]

    @property
    def ids(self) -> UInt64s:
        """uint64[allocated]: fact ids, distinct within a run."""
        return self._entries.columns[2]

    @property
    def starts(self) -> Int64s:
        """int64[capacity]: the absolute position of each run's first entry."""
        return self._entries.starts[self._series :: self._of]

    @property
    def lengths(self) -> Int64s:
        """int64[capacity]: the entries of each run."""
        return self._entries.lengths[self._series :: self._of]

    @property
    def rows(self) -> int:
        """Entries in all runs."""
        return int(self.lengths.sum())

    @property
    def allocated(self) -> int:
        """Entries the arena has place for."""
        return self._entries.allocated

    def hold_slots(self, capacity: int) -> None:
        """Make place for slots 0 to capacity - 1, in every series of the arena."""
        self._entries.hold_slots(capacity * self._of)

    def bounds(self, slots: Int64s) -> tuple[Int64s, Int64s]:
        """Return what `start` and `end` do, with one look at each slot."""
        blocks = slots * self._of
        blocks += self._series
        start = self._entries.starts.take(blocks)
        end = self._entries.lengths.take(blocks)
        end += start
        return start, end

    def start(self, slots: Int64s) -> Int64s:
        """Return the absolute position of each run's first entry."""
        return self.starts[slots]

    def end(self, slots: Int64s) -> Int64s:
        """Return the absolute position after each run's last entry."""
        return self.starts[slots] + self.lengths[slots]

    def first_after(self, slots: Int64s, after_ms: Int64s) -> Int64s:
        """Return the absolute position of each run's first entry with time > after_ms, else its end.

        `after_ms` is int64[n], one per slot, or int64[k, n] for k questions about each, and the answer
        has its shape; or a scalar.
        """
        start, end = self.bounds(slots)
        if not len(start):
            return start
        after = np.asarray(after_ms, np.int64)
        if after.shape[-1:] != start.shape:
            after = np.broadcast_to(after, start.shape)
        return first_above(self.times, start, end, after, int((end - start).max()))

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
        self._entries.insert(slots * self._of + self._series, times, values, ids)

    def owners(self, slots: int) -> tuple[Int64s, UInt64s]:
        """Return (slot, id) of every entry of slots 0 to slots - 1, as two columns."""
        lengths = self.lengths[:slots]
        return np.repeat(np.arange(slots), lengths), self.ids[spans(self.starts[:slots], lengths)]

    def position(self, slot: int, fact_id: int) -> int:
        """Return the absolute position of one entry, -1 when the run has no such id."""
        start, end = self._span(slot)
        ids = self.ids[start:end]
        if end - start > _LISTED_MAX:
            found = np.flatnonzero(ids == np.uint64(fact_id))
            return start + int(found[0]) if len(found) else -1
        listed = ids.tolist()
        return start + listed.index(fact_id) if fact_id in listed else -1

    def entry(self, slot: int, position: int) -> tuple[int, int]:
        """Return (time, value) at an absolute position of the slot's run."""
        times, sums, _ = self._entries.columns
        value = sums[position : position + 1]
        if position > self._span(slot)[0]:
            # As arrays, which wrap around as the sums did where values are hashes.
            value = value - sums[position - 1 : position]
        return int(times[position]), int(value[0])

    def remove(self, slot: int, fact_id: int) -> bool:
        """Take one entry out and rewrite the sums after it; False when there is no such id."""
        at = self.position(slot, fact_id)
        if at < 0:
            return False
        value = self.entry(slot, at)[1]
        end = self._span(slot)[1]
        for column in self._entries.columns:
            column[at : end - 1] = column[at + 1 : end]
        self.sums[at : end - 1] -= value
        self.lengths[slot] -= 1
        return True

    def put(self, slot: int, time_ms: int, value: int, fact_id: int) -> None:
        """Add one entry, or replace the one with this id."""
        at = self.position(slot, fact_id)
        if at >= 0:
            held_ms, held = self.entry(slot, at)
            if held_ms == time_ms:
                # Only what it is worth has changed: everything stays in its place.
                self.sums[at : self._span(slot)[1]] += value - held
                return
            self.remove(slot, fact_id)
        self._add(slot, time_ms, value, fact_id)

    def _add(self, slot: int, time_ms: int, value: int, fact_id: int) -> None:
        """Add one entry with an id the run does not hold."""
        self._entries.reserve(np.array([slot * self._of + self._series]), _ONE)
        start, end = self._span(slot)
        at = start + int(self.times[start:end].searchsorted(time_ms, "right"))
        for column in self._entries.columns:
            column[at + 1 : end + 1] = column[at:end]
        before = int(self.sums[at - 1]) if at > start else 0
        self.times[at], self.sums[at], self.ids[at] = time_ms, before, fact_id
        self.sums[at : end + 1] += value
        self.lengths[slot] += 1

    def cut(self, slot: int, before_ms: int) -> tuple[Int64s, Int64s]:
        """Take out all entries with time < before_ms; return their (times, values), ascending."""
        start, end = self._span(slot)
        low = start + int(self.times[start:end].searchsorted(before_ms, "left"))
        times, values = self.times[start:low].copy(), np.diff(self.sums[start:low], prepend=0)
        if low > start:
            base = self.sums[low - 1].copy()
            for column in self._entries.columns:
                column[start : start + end - low] = column[low:end].copy()
            self.sums[start : start + end - low] -= base
            self.lengths[slot] = end - low
        return times, values

    def _span(self, slot: int) -> tuple[int, int]:
        """Return the absolute positions of a run's first entry and after its last."""
        block = slot * self._of + self._series
        start = int(self._entries.starts[block])
        return start, start + int(self._entries.lengths[block])


_ONE = np.ones(1, np.int64)
