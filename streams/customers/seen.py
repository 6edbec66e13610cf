"""A set of 64-bit keys with one vectorised operation: which of these were never added before?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streams.customers.facts import Bools, UInt64s

KEYS_MIN = 4096
"""Places in the table at first."""

_FREE = np.uint64(0)


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
        keys = np.maximum(keys, np.uint64(1))
        if 2 * (self._used + len(keys)) > len(self._table):
            self.rebuild(len(keys))
        ordered = keys.copy()
        ordered.sort()
        if (ordered[1:] == ordered[:-1]).any():
            fresh = np.zeros(len(keys), np.bool_)
            firsts = np.unique(keys, return_index=True)[1]
            fresh[firsts] = self._add_distinct(keys[firsts])
            return fresh
        return self._add_distinct(keys)

    def holds(self, keys: UInt64s) -> Bools:
        """Return bool[n], True where a key may have been added before; False is certain. Adds nothing."""
        keys = np.maximum(keys, np.uint64(1))
        mask = len(self._table) - 1
        at = (keys & np.uint64(mask)).view(np.int64)
        held = self._table[at]
        going = ((held != _FREE) & (held != keys)).nonzero()[0]
        while len(going):
            at[going] = (at[going] + 1) & mask
            held[going] = self._table[at[going]]
            going = going[(held[going] != _FREE) & (held[going] != keys[going])]
        known: Bools = held != _FREE
        return known

    def _add_distinct(self, keys: UInt64s) -> Bools:
        mask = len(self._table) - 1
        at = (keys & np.uint64(mask)).view(np.int64)
        held = self._table[at]
        going = ((held != _FREE) & (held != keys)).nonzero()[0]
        while len(going):
            at[going] = (at[going] + 1) & mask
            found = self._table[at[going]]
            held[going] = found
            going = going[(found != _FREE) & (found != keys[going])]
        fresh: Bools = held == _FREE
        at, wanted = at[fresh], keys[fresh]
        self._used += len(wanted)
        while len(wanted):
            # Where several want one place, the last written has it; the others search on.
            free = self._table[at] == _FREE
            self._table[at[free]] = wanted[free]
            lost = self._table[at] != wanted
            at, wanted = (at[lost] + 1) & mask, wanted[lost]
        return fresh

    def rebuild(self, extra: int = 0) -> None:
        """Start over with the live keys and place for `extra` more."""
        # A key that comes twice takes one place; `_used` then counts too much, which is harmless.
        keys = np.maximum(self._live_keys(), np.uint64(1))
        self._table = np.zeros(max(KEYS_MIN, 1 << (4 * (len(keys) + extra)).bit_length()), np.uint64)
        self._used = 0
        self._add_distinct(keys)
