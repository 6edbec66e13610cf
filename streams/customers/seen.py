"""A set of 64-bit keys with one vectorised operation: which of these were never added before?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streams.customers.facts import Bools, Int64s, UInt64s

KEYS_MIN = 4096
"""Places in the table at first."""

_FREE, _ONE = np.uint64(0), np.uint64(1)


class SeenSet:
    """Open addressing, at most half full; a miss is certain, a hit has to be confirmed elsewhere.

    When the table is full it is rebuilt from `live_keys()`, so it holds the keys still of use
    plus those added since the last rebuild: never more than twice the live ones when rebuilt.
    """

    def __init__(self, live_keys: Callable[[], UInt64s]) -> None:
        self._live_keys = live_keys
        self._table = np.zeros(KEYS_MIN, np.uint64)
        self._used = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return self._table.nbytes

    def add(self, keys: UInt64s) -> Bools:
        """Add keys (0 counts as 1); return bool[n], True at the first appearance of each new one."""
        keys = np.maximum(keys, _ONE)
        if 2 * (self._used + len(keys)) > len(self._table):
            self.rebuild(len(keys))
        ordered = keys.copy()
        ordered.sort()
        if np.count_nonzero(ordered[1:] == ordered[:-1]):
            fresh = np.zeros(len(keys), np.bool_)
            firsts = np.unique(keys, return_index=True)[1]
            fresh[firsts] = self._add_distinct(keys[firsts])
            return fresh
        return self._add_distinct(keys)

    def _add_distinct(self, keys: UInt64s) -> Bools:
        table = self._table
        at, held = self._search(keys)
        fresh: Bools = held == _FREE
        at, wanted = at[fresh], keys[fresh]
        self._used += len(wanted)
        while len(wanted):
            # Where several want one place, the last written has it; the others search on.
            table[at] = wanted
            lost = (table[at] != wanted).nonzero()[0]
            if not len(lost):
                break
            at, wanted = self._next_free(at[lost]), wanted[lost]
        return fresh

    def _search(self, keys: UInt64s) -> tuple[Int64s, UInt64s]:
        """Return per key the place where its search ended, and what is there: the key, or nothing."""
        table, mask = self._table, len(self._table) - 1
        at = (keys & np.uint64(mask)).view(np.int64)
        held = table[at]
        going = ((held != _FREE) & (held != keys)).nonzero()[0]
        # The search goes on with the columns of those still searching, so that a step is few calls.
        stepped, wanted = at[going], keys[going]
        while len(going):
            stepped = (stepped + 1) & mask
            found = table[stepped]
            at[going], held[going] = stepped, found
            more = ((found != _FREE) & (found != wanted)).nonzero()[0]
            going, stepped, wanted = going[more], stepped[more], wanted[more]
        return at, held

    def _next_free(self, at: Int64s) -> Int64s:
        """Return the first free place after each of `at`."""
        table, mask = self._table, len(self._table) - 1
        at = (at + 1) & mask
        while len(taken := (table[at] != _FREE).nonzero()[0]):
            at[taken] = (at[taken] + 1) & mask
        return at

    def rebuild(self, extra: int = 0) -> None:
        """Start over with the live keys and place for `extra` more."""
        # A key that comes twice takes one place; `_used` then counts too much, which is harmless.
        keys = np.maximum(self._live_keys(), _ONE)
        self._table = np.zeros(max(KEYS_MIN, 1 << (4 * (len(keys) + extra)).bit_length()), np.uint64)
        self._used = 0
        self._add_distinct(keys)
