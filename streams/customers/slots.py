"""Customer id to slot number: open addressing on a keyed hash, a whole column per call."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from itertools import chain

import numpy as np

from streams.customers.arena import enlarged, spans
from streams.customers.facts import Int64s, Strings, UInt64s
from streams.customers.hashing import KeyedHash, Words, as_words

SLOTS_MIN = 1024
"""Slots there is place for at first."""

_FREE = -1
_WORD = 8


class Slots:
    """Every id that was added and not removed, and its slot: 0, 1, 2, ... in order of first appearance.

    Slot numbers are private to one process; nothing that leaves it may depend on them. `on_growth`
    is called with the new capacity, before a slot beyond the old one is given out. The number of a
    removed id is given out again, so that they grow no further than the most ids ever held of each size.
    """

    def __init__(self, key: bytes | None = None, on_growth: Callable[[int], None] | None = None) -> None:
        self._hash = KeyedHash(secrets.token_bytes(16) if key is None else key)
        self._on_growth = on_growth
        self._count = 0
        self._hashes = np.zeros(SLOTS_MIN, np.uint64)
        self._lengths = np.zeros(SLOTS_MIN, np.int64)
        self._counts = np.zeros(SLOTS_MIN, np.int64)
        self._firsts = np.zeros(SLOTS_MIN, np.int64)
        self._words = np.zeros(4 * SLOTS_MIN, np.uint64)
        self._words_used = 0
        self.longest = 0
        # At most half full, so a search ends after a few steps.
        self._table = np.full(2 * SLOTS_MIN, _FREE, np.int32)
        # Ids whose 64-bit hash equals that of another id; almost always empty.
        self._collided: dict[bytes, int] = {}
        # Slots nobody has: removed and not released yet, and by how many words there is room for.
        self._removed: list[int] = []
        self._free: dict[int, list[int]] = {}

    def __len__(self) -> int:
        return self._count

    @property
    def held(self) -> int:
        """Slots somebody has: `len` is the number of all that were ever given out."""
        return self._count - len(self._removed) - sum(map(len, self._free.values()))

    @property
    def capacity(self) -> int:
        """Slots there is place for without growing."""
        return len(self._hashes)

    @property
    def nbytes(self) -> int:
        """Bytes of every array."""
        columns = (self._hashes, self._lengths, self._counts, self._firsts, self._words, self._table)
        return sum(column.nbytes for column in columns)

    def find(self, ids: Strings) -> Int64s:
        """Return int64[n]: the slot of each id, -1 where it is unknown."""
        words = as_words(ids)
        slots = self._search(self._hash.hash_words(words))[0]
        return self._verified(ids, words, slots, add=False)

    def find_or_add(self, ids: Strings) -> Int64s:
        """Return int64[n]: the slot of each id, giving unknown ones the next numbers."""
        words = as_words(ids)
        hashes = self._hash.hash_words(words)
        slots = self._search(hashes)[0]
        missing = np.flatnonzero(slots == _FREE)
        if len(missing):
            _, first, which = np.unique(hashes[missing], return_index=True, return_inverse=True)
            rank = np.empty(len(first), np.int64)
            rank[np.argsort(first)] = np.arange(len(first))
            rows = np.sort(missing[first])
            numbers = self._numbers(words.counts[rows])
            slots[missing] = numbers[rank[which]]
            self._append(rows, numbers, words, hashes)
        return self._verified(ids, words, slots, add=True)

    def remove(self, slot: int) -> None:
        """Forget one id. Its number is nobody's until `release`, and then the next one's of as many words."""
        identity, count = self.id_of(slot), int(self._counts[slot])
        if self._collided.get(identity) == slot:
            del self._collided[identity]
        else:
            self._take_out(slot)
            self._find_heir(int(self._hashes[slot]))
        first = int(self._firsts[slot])
        self._words[first : first + count] = 0
        self._hashes[slot] = self._lengths[slot] = 0
        self._removed.append(slot)

    def release(self) -> None:
        """Let the numbers of removed ids be given out again."""
        for slot in self._removed:
            self._free.setdefault(int(self._counts[slot]), []).append(slot)
        self._removed.clear()

    def id_of(self, slot: int) -> bytes:
        """Return the id of one slot; an IndexError when nobody has it."""
        if not 0 <= slot < self._count:
            raise IndexError(f"slot {slot} of {self._count}")
        first = int(self._firsts[slot])
        return self._words[first : first + int(self._counts[slot])].tobytes()[: int(self._lengths[slot])]

    def ids_of(self, slots: Int64s) -> list[bytes]:
        """Return the ids of many slots."""
        counts = self._counts[slots]
        whole = self._words[spans(self._firsts[slots], counts)].tobytes()
        starts = (np.cumsum(counts) - counts) * _WORD
        ends = starts + self._lengths[slots]
        return [whole[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def hashed(self, keyed: KeyedHash) -> UInt64s:
        """Return uint64[count]: the hash of every id under another key than this object's own."""
        count, used = self._count, self._words_used
        words = (self._words[:used], self._counts[:count], self._firsts[:count], self._lengths[:count])
        return keyed.hash_words(Words(*words))

    def lengths_of(self, slots: Int64s) -> Int64s:
        """Return int64[n]: the bytes in each slot's id."""
        return self._lengths[slots]

    def _search(self, hashes: UInt64s) -> tuple[Int64s, Int64s]:
        """Return per hash the slot that has it (or -1) and the table position where the search ended."""
        mask = len(self._table) - 1
        at = (hashes & np.uint64(mask)).astype(np.int64)
        slots = self._table[at].astype(np.int64)
        going = np.flatnonzero((slots != _FREE) & (self._hashes[slots] != hashes))
        while len(going):
            stepped = (at[going] + 1) & mask
            found = self._table[stepped].astype(np.int64)
            at[going], slots[going] = stepped, found
            going = going[(found != _FREE) & (self._hashes[found] != hashes[going])]
        return slots, at

    def _numbers(self, counts: Int64s) -> Int64s:
        """Return int64[n]: slots for new ids of so many words, free ones with just that room first."""
        numbers = np.arange(self._count, self._count + len(counts))
        if self._free:
            unused = self._count
            for place, count in enumerate(counts.tolist()):
                free = self._free.get(count)
                if free:
                    numbers[place] = free.pop()
                else:
                    numbers[place] = unused
                    unused += 1
            self._free = {count: free for count, free in self._free.items() if free}
        return numbers

    def _append(self, rows: Int64s, numbers: Int64s, words: Words, hashes: UInt64s) -> None:
        """Give the ids at `rows` (distinct hashes, none in the table) the slots `numbers`, in that order."""
        new = numbers[numbers >= self._count]
        self._hold(self._count + len(new))
        counts = words.counts[rows]
        fresh = counts[numbers >= self._count]
        used = self._words_used + int(fresh.sum())
        if used > len(self._words):
            self._words = enlarged(self._words, 2 * used)
        self._firsts[new] = self._words_used + np.cumsum(fresh) - fresh
        self._words[spans(self._firsts[numbers], counts)] = words.words[spans(words.firsts[rows], counts)]
        self._hashes[numbers] = hashes[rows]
        self._lengths[numbers] = words.lengths[rows]
        self.longest = max(self.longest, int(words.lengths[rows].max()))
        self._counts[numbers] = counts
        self._words_used, self._count = used, self._count + len(new)
        self._enter(numbers)

    def _take_out(self, slot: int) -> None:
        """Take a slot out of the table, moving up those a search would otherwise no longer reach."""
        table, mask = self._table, len(self._table) - 1
        hole = int(self._hashes[slot]) & mask
        while table[hole] != slot:
            hole = (hole + 1) & mask
        at = (hole + 1) & mask
        while (held := int(table[at])) != _FREE:
            home = int(self._hashes[held]) & mask
            if (at - home) & mask >= (at - hole) & mask:
                table[hole], hole = held, at
            at = (at + 1) & mask
        table[hole] = _FREE

    def _find_heir(self, hashed: int) -> None:
        """Let one of the ids that had the same hash as one just taken out be found by it."""
        for identity, slot in self._collided.items():
            if int(self._hash.hash(Strings.from_list([identity]))[0]) == hashed:
                del self._collided[identity]
                self._hashes[slot] = hashed
                self._enter(np.array([slot]))
                return

    def _enter(self, slots: Int64s) -> None:
        """Write slots into the table; each has a hash the table does not hold yet."""
        while len(slots):
            at = self._search(self._hashes[slots])[1]
            # Where several want one place, the last written has it; the others search on.
            self._table[at] = slots
            slots = slots[self._table[at] != slots]

    def _hold(self, count: int) -> None:
        """Make place for `count` slots, doubling."""
        if count <= self.capacity:
            return
        capacity = 1 << (count - 1).bit_length()
        for name in ("_hashes", "_lengths", "_counts", "_firsts"):
            setattr(self, name, enlarged(getattr(self, name), capacity))
        self._table = np.full(2 * capacity, _FREE, np.int32)
        absent = [*self._collided.values(), *self._removed, *chain.from_iterable(self._free.values())]
        self._enter(np.setdiff1d(np.arange(self._count), np.array(absent, np.int64)))
        if self._on_growth:
            self._on_growth(capacity)

    def _verified(self, ids: Strings, words: Words, slots: Int64s, *, add: bool) -> Int64s:
        """Compare the ids themselves; those that only share a hash are looked up by their bytes."""
        rows = np.flatnonzero(slots != _FREE)
        found = slots[rows]
        counts = words.counts[rows]
        same = self._lengths[found] == words.lengths[rows]
        if same.all():
            equal = self._words[spans(self._firsts[found], counts)] == (
                words.words if len(rows) == len(slots) else words.words[spans(words.firsts[rows], counts)]
            )
            if equal.all():
                return slots
        for row, slot in zip(rows.tolist(), found.tolist(), strict=True):
            identity = ids[row]
            if self.id_of(slot) != identity:
                slots[row] = self._collided_slot(row, identity, words, add=add)
        return slots

    def _collided_slot(self, row: int, identity: bytes, words: Words, *, add: bool) -> int:
        """Return the slot of an id that shares its hash with another, -1 if unknown and not `add`."""
        slot = self._collided.get(identity, _FREE)
        if slot == _FREE and add:
            slot = self._collided[identity] = self._count
            self._hold(self._count + 1)
            first, count = int(words.firsts[row]), int(words.counts[row])
            used = self._words_used + count
            if used > len(self._words):
                self._words = enlarged(self._words, 2 * used)
            self._words[self._words_used : used] = words.words[first : first + count]
            self._lengths[slot], self._counts[slot] = words.lengths[row], count
            self._firsts[slot] = self._words_used
            self.longest = max(self.longest, len(identity))
            self._words_used, self._count = used, slot + 1
        return slot
