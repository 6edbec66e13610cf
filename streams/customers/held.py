"""What customers are and were in every dimension, in as many bytes as they hold values, not as there are.

A dimension with several values, such as `rfm`, is held by nearly everybody and kept in columns. One with a
single value, a custom segment, is in or out, and most customers never were in most of them: these are kept
as one entry for each customer and segment that it is or was in, side by side per customer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.customers.arena import Arena, Column, enlarged, spans
from streams.customers.facts import Int64s
from streams.customers.search import first_above

Int16s = npt.NDArray[np.int16]

NAMES = ("value", "since_ms", "seq")
_INITIAL = (-1, 0, 0)

_SLOTS_AT_ONCE = 5_000
"""Customers whose values are spread over all dimensions at once, which takes memory."""


@dataclass(slots=True)
class Values:
    """n customers: each column is [n, dimensions]."""

    value: Int16s
    """Index into the dimension's literals, -1 is null."""
    since_ms: Int64s
    """Since when, for null too once it was not; 0: it never was anything else."""
    seq: Int64s
    """Of the change that made it so; 0 without one."""

    def rows(self, rows: Int64s) -> Values:
        """Return the customers at `rows`."""
        return Values(self.value[rows], self.since_ms[rows], self.seq[rows])


@dataclass(frozen=True, slots=True)
class Entries:
    """What is not initial of n customers, by customer and then dimension: one entry each."""

    row: Int64s
    """Which of the customers asked for."""
    dimension: Int64s
    value: Int16s
    since_ms: Int64s
    seq: Int64s


class HeldValues:
    """Values of all customers in dimensions with these literals. A slot holds initial values at first."""

    def __init__(self, values: Sequence[Sequence[str]]) -> None:
        self._count = len(values)
        self._wide: Int64s = np.array([d for d, held in enumerate(values) if len(held) != 1], np.int64)
        self._single: Int64s = np.array([d for d, held in enumerate(values) if len(held) == 1], np.int64)
        shape = 0, len(self._wide)
        # By the names of Values.
        self._columns: tuple[Column, ...] = (
            np.zeros(shape, np.int16),
            np.zeros(shape, np.int64),
            np.zeros(shape, np.int64),
        )
        # Of each single dimension a customer is or was in: which, whether it is, since_ms, seq.
        self._entries = Arena(np.int16, np.int16, np.int64, np.int64)
        self.entries_added = 0
        """Entries made since this was last set to 0."""

    @property
    def dense(self) -> int:
        """Dimensions kept in columns."""
        return len(self._wide)

    @property
    def nbytes(self) -> int:
        """Bytes of every array."""
        return sum(column.nbytes for column in self._columns) + self._entries.nbytes

    def hold(self, capacity: int) -> None:
        """Make place for slots 0 to capacity - 1."""
        self._columns = tuple(
            enlarged(column, capacity, fill) for column, fill in zip(self._columns, _INITIAL, strict=True)
        )
        self._entries.hold_slots(capacity)

    def counts(self, slots: Int64s) -> Int64s:
        """Return int64[n]: the single dimensions each customer is or was in."""
        return self._entries.lengths[slots]

    def take(self, slots: Int64s) -> Values:
        """Return everything of these customers."""
        return Values(*(self.column(place, slots) for place in range(len(NAMES))))

    def column(self, place: int, slots: Int64s) -> Any:
        """Return one of NAMES, by its place: [n, dimensions]."""
        wide = self._columns[place]
        found = np.full((len(slots), self._count), _INITIAL[place], wide.dtype)
        found[:, self._wide] = wide[slots]
        if len(self._single):
            row, at = self._places(slots)
            dimensions, *columns = self._entries.columns
            found[row, dimensions[at]] = columns[place][at]
        return found

    def _places(self, slots: Int64s) -> tuple[Int64s, Int64s]:
        """Return the entries of these customers end to end: whose they are, and where."""
        lengths = self._entries.lengths[slots]
        return np.arange(len(slots)).repeat(lengths), spans(self._entries.starts[slots], lengths)

    def put(self, slots: Int64s, held: Values) -> None:
        """Let distinct customers hold these values; what is initial takes no place."""
        given: tuple[Column, ...] = (held.value, held.since_ms, held.seq)
        for column, each in zip(self._columns, given, strict=True):
            column[slots] = each[:, self._wide]
        if not len(self._single) or not len(slots):
            return
        value, since_ms, seq = (each[:, self._single] for each in given)
        row, which = ((value >= 0) | (since_ms != 0) | (seq != 0)).nonzero()
        counts = np.bincount(row, minlength=len(slots))
        before = self._entries.lengths[slots]
        self._entries.reserve(slots, np.maximum(counts - before, 0))
        self.entries_added += int(np.maximum(counts - before, 0).sum())
        self._entries.lengths[slots] = counts
        at = spans(self._entries.starts[slots], counts)
        kept = self._single[which], value[row, which], since_ms[row, which], seq[row, which]
        for entries, each in zip(self._entries.columns, kept, strict=True):
            entries[at] = each

    def clear(self, slot: int) -> None:
        """Let a slot hold initial values."""
        for column, initial in zip(self._columns, _INITIAL, strict=True):
            column[slot] = initial
        self._entries.lengths[slot] = 0

    def number(self, slots: Int64s, dimensions: Int64s, seqs: Int64s) -> None:
        """Note the changes that made these values; of several for one of them the last stays.

        Every value is held already: in a single dimension there is an entry.
        """
        column_of = np.full(self._count, -1)
        column_of[self._wide] = np.arange(len(self._wide))
        column = column_of[dimensions]
        wide = column >= 0
        self._columns[2][slots[wide], column[wide]] = seqs[wide]
        slots, dimensions, seqs = slots[~wide], dimensions[~wide], seqs[~wide]
        if len(slots):
            starts, lengths = self._entries.starts[slots], self._entries.lengths[slots]
            # Entries lie in the order of their dimensions.
            known = self._entries.columns[0]
            at = first_above(known, starts, starts + lengths, dimensions - 1, int(lengths.max()))
            assert (known.take(at, mode="clip") == dimensions).all(), "a numbered value is held"
            self._entries.columns[3][at] = seqs

    def take_over(
        self,
        other: HeldValues,
        count: int,
        was: Sequence[tuple[int, Sequence[str]] | None],
        literals: Sequence[Sequence[str]],
    ) -> None:
        """Hold what the first `count` slots hold in another layout; this one is empty.

        `was` says of each dimension which it was there, and its literals, None where it is new; `literals`
        are those it has here. What `was` names not is held by nobody any more.
        """
        # Null comes last, where -1 finds it.
        codes = [
            np.array([*(texts.index(text) if text in texts else -1 for text in each[1]), -1], np.int16)
            if each is not None
            else np.full(1, -1, np.int16)
            for each, texts in zip(was, literals, strict=True)
        ]
        there = [d for d, each in enumerate(was) if each is not None]
        whence = [each[0] for each in was if each is not None]
        changed = [d for d in there if (codes[d][:-1] != np.arange(len(codes[d]) - 1)).any()]
        for start in range(0, count, _SLOTS_AT_ONCE):
            slots = np.arange(start, min(count, start + _SLOTS_AT_ONCE))
            old, new = other.take(slots), self.take(slots)
            new.since_ms[:, there], new.seq[:, there] = old.since_ms[:, whence], old.seq[:, whence]
            new.value[:, there] = old.value[:, whence]
            for d in changed:
                new.value[:, d] = codes[d][new.value[:, d]]
            self.put(slots, new)
        self.entries_added = 0

    def entries(self, slots: Int64s) -> Entries:
        """Return all that is not initial of these customers."""
        value, since_ms, seq = (column[slots] for column in self._columns)
        row, which = ((value >= 0) | (since_ms != 0) | (seq != 0)).nonzero()
        owner, at = self._places(slots)
        single = [column[at] for column in self._entries.columns]
        rows = np.concatenate((row, owner))
        dimension = np.concatenate((self._wide[which], single[0].astype(np.int64)))
        order = np.lexsort((dimension, rows))
        return Entries(
            rows[order],
            dimension[order],
            np.concatenate((value[row, which], single[1]))[order],
            np.concatenate((since_ms[row, which], single[2]))[order],
            np.concatenate((seq[row, which], single[3]))[order],
        )

    def members(self, count: int, literals: Sequence[Sequence[str]]) -> list[list[int]]:
        """Return by dimension how many of the first `count` slots hold each of its literals."""
        found = [[0] * len(held) for held in literals]
        for d, column in zip(self._wide.tolist(), self._columns[0].T, strict=True):
            # One more than the code, so that customers without a value, at -1, are counted apart.
            found[d] = np.bincount(column[:count] + 1, minlength=len(literals[d]) + 1)[1:].tolist()
        if len(self._single):
            _, at = self._places(np.arange(count))
            dimensions, value = (column[at] for column in self._entries.columns[:2])
            inside = np.bincount(dimensions[value >= 0], minlength=self._count)
            for d in self._single.tolist():
                found[d] = [int(inside[d])]
        return found


class HeldColumn:
    """One column of held values by slot and dimension, as if it were an array [capacity, dimensions]."""

    def __init__(self, held: HeldValues, place: int, capacity: int) -> None:
        """`place` is that in NAMES."""
        self._held, self._place, self._capacity = held, place, capacity

    def __len__(self) -> int:
        return self._capacity

    def _slots(self, rows: Any) -> Int64s:
        """Return the slots of a key, as an array of no dimension for a single one."""
        if isinstance(rows, slice):
            return np.arange(*rows.indices(self._capacity))
        return np.asarray(rows, np.int64)

    def __getitem__(self, key: Any) -> Any:
        """Return what NumPy would for a slot, several, or a slice of them, and maybe dimensions."""
        rows, dimension = key if isinstance(key, tuple) else (key, slice(None))
        slots = self._slots(rows)
        found = self._held.column(self._place, np.atleast_1d(slots))
        if np.ndim(dimension):
            return found[np.arange(len(found)), dimension]
        return found[:, dimension] if slots.ndim else found[0, dimension]

    def __setitem__(self, key: Any, given: Any) -> None:
        """Set what NumPy would, for distinct slots."""
        rows, dimension = key if isinstance(key, tuple) else (key, slice(None))
        slots = np.atleast_1d(self._slots(rows))
        values = self._held.take(slots)
        getattr(values, NAMES[self._place])[:, dimension] = given
        self._held.put(slots, values)
