"""Many short lists in a few shared columns: one block of rows per slot, moved when it outgrows its room."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from streams.customers.facts import Int64s

Column = npt.NDArray[Any]

ROWS_MIN = 64
"""Rows the columns hold at first."""


def spans(starts: Int64s, lengths: Int64s) -> Int64s:
    """Return the indices start, start + 1, ... of every span, one span after the other."""
    ends = lengths.cumsum()
    if len(ends) and ends[-1] == len(ends) and not np.count_nonzero(lengths != 1):
        return starts
    shift: Int64s = (starts - ends + lengths).repeat(lengths)
    shift += np.arange(len(shift))
    return shift


def group_starts(ordered: Int64s) -> Int64s:
    """Return where each run of equal values begins in a non-empty sorted column."""
    heads = np.empty(len(ordered), np.bool_)
    heads[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=heads[1:])
    return heads.nonzero()[0]


def group_sizes(firsts: Int64s, total: int) -> Int64s:
    """Return the sizes of consecutive groups beginning at `firsts`, the last ending at `total`."""
    sizes = np.empty(len(firsts), np.int64)
    np.subtract(firsts[1:], firsts[:-1], out=sizes[:-1])
    sizes[-1] = total - firsts[-1]
    return sizes


def enlarged(column: Column, rows: int, fill: Any = 0) -> Column:
    """Return a copy of `column` with `rows` rows, the new ones set to `fill`."""
    larger = np.empty((rows, *column.shape[1:]), column.dtype)
    larger[: len(column)] = column
    larger[len(column) :] = fill
    return larger


_ROOMS = np.array([max(2, 1 << (need - 1).bit_length()) for need in range(1, 257)], np.int64)
"""The rooms of the first needs, from 1 on: nearly all."""


def _rooms(need: Int64s) -> Int64s:
    """Return the least power of two that holds each `need`, and at least 2: most customers come back."""
    if need.max() <= len(_ROOMS):
        return _ROOMS[need - 1]
    return np.left_shift(1, np.maximum(np.frexp((need - 1).astype(np.float64))[1], 1)).astype(np.int64)


class Arena:
    """Blocks of rows in shared columns; block s holds rows [starts[s], starts[s] + lengths[s]).

    A block has room for a power of two of rows and moves to a room twice as large when it is
    full, so appending is amortised O(1). Whenever the columns are full they are rebuilt without
    the rooms left behind, at twice the rows then reserved. A room is at most twice its block at
    the time it was made, so at most four times the largest number of rows ever held are
    allocated (and `ROWS_MIN`).
    """

    def __init__(self, *dtypes: npt.DTypeLike) -> None:
        self.columns: tuple[Column, ...] = tuple(np.zeros(ROWS_MIN, dtype) for dtype in dtypes)
        self.starts = np.zeros(0, np.int64)
        self.lengths = np.zeros(0, np.int64)
        self._room = np.zeros(0, np.int64)
        self._top = 0
        self._reserved = 0

    @property
    def allocated(self) -> int:
        """Rows the columns hold, used or not."""
        return len(self.columns[0])

    @property
    def rows(self) -> int:
        """Rows in all blocks."""
        return int(self.lengths.sum())

    @property
    def nbytes(self) -> int:
        """Bytes of every array."""
        return sum(c.nbytes for c in (*self.columns, self.starts, self.lengths, self._room))

    def hold_slots(self, capacity: int) -> None:
        """Make place for slots 0 to capacity - 1; new blocks are empty."""
        self.starts = enlarged(self.starts, capacity)
        self.lengths = enlarged(self.lengths, capacity)
        self._room = enlarged(self._room, capacity)

    def reserve(self, slots: Int64s, extra: Int64s) -> tuple[Int64s, Int64s]:
        """Make room for `extra` more rows in the block of each of the distinct `slots`.

        Return where each block then begins, and its length without the new rows.
        """
        lengths = self.lengths[slots]
        need = lengths + extra
        full = (need > self._room[slots]).nonzero()[0]
        if len(full):
            self._move(slots[full], lengths[full], need[full])
        return self.starts[slots], lengths

    def empty(self, slots: Int64s) -> None:
        """Overwrite the blocks of distinct `slots` and give up their rooms to the next rebuild."""
        places = spans(self.starts[slots], self._room[slots])
        for column in self.columns:
            column[places] = np.zeros((), column.dtype)
        self._reserved -= int(self._room[slots].sum())
        self.starts[slots] = self.lengths[slots] = self._room[slots] = 0

    def _move(self, slots: Int64s, lengths: Int64s, need: Int64s) -> None:
        """Move blocks to rooms for `need` rows or more."""
        room = _rooms(need)
        total = int(room.sum())
        self._reserved += total - int(self._room[slots].sum())
        if self._top + total > self.allocated:
            self._rebuild(2 * self._reserved)
        assert self._top + total <= self.allocated, "a rebuild makes enough room"
        firsts = self._top + room.cumsum() - room
        if np.count_nonzero(lengths):
            source, target = spans(self.starts[slots], lengths), spans(firsts, lengths)
            for column in self.columns:
                column[target] = column[source]
        self.starts[slots] = firsts
        self._room[slots] = room
        self._top += total

    def _rebuild(self, rows: int) -> None:
        """Move every block, in slot order, into new columns without the rooms left behind."""
        held = np.flatnonzero(self._room)
        firsts = np.cumsum(self._room[held]) - self._room[held]
        lengths = self.lengths[held]
        source, target = spans(self.starts[held], lengths), spans(firsts, lengths)
        columns = []
        for column in self.columns:
            fresh = np.zeros(max(rows, ROWS_MIN), column.dtype)
            fresh[target] = column[source]
            columns.append(fresh)
        self.columns = tuple(columns)
        self.starts[held] = firsts
        self._top = int(self._room[held].sum())
