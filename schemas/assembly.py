"""Avro records assembled field by field: each call writes one field of all rows.

The scalar rule is `schemas.binary`'s, and for a few rows it is what runs. For many, every field is
a matrix of bytes, a row each, with a mask of those that count; all fields side by side, read row
by row through the mask, are the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schemas import binary
from schemas.binary import Int64s

Bools = npt.NDArray[np.bool_]
UInt8s = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.integer]

_MANY_ROWS_MIN = 40
"""From this many rows on, NumPy's price per call is less than a loop's per row (measured)."""


class Assembly(Protocol):
    """n records under construction. `present`, bool[n], leaves a field out of the rows where it is False."""

    def constant(self, encoded: bytes, present: Bools | None = None) -> None:
        """Write the same bytes to each row."""

    def longs(self, values: Int64s, present: Bools | None = None) -> None:
        """Write a long to each row."""

    def optional_longs(self, values: Int64s, missing: int, present: Bools | None = None) -> None:
        """Write a `["null", "long"]` union, where `missing` stands for null."""

    def choices(self, encoded: Sequence[bytes], codes: Codes, present: Bools | None = None) -> None:
        """Write one of a few byte strings to each row: encoded[code]."""

    def cells(self, cells: UInt8s, present: Bools | None = None) -> None:
        """Write one row of uint8[n, width] to each row."""

    def texts(self, values: Sequence[bytes]) -> None:
        """Write a string, given as UTF-8."""

    def optional_texts(self, values: Sequence[bytes]) -> None:
        """Write a `["null", "string"]` union, given as UTF-8, where an empty one stands for null."""

    def numbered_texts(self, start: bytes, numbers: Int64s) -> None:
        """Write the string that is `start` followed by a decimal number."""

    def encoded(self, values: Sequence[bytes]) -> None:
        """Write bytes as they are."""

    def records(self) -> list[bytes]:
        """Return the finished rows."""


def assembly(rows: int) -> Assembly:
    """Begin `rows` records."""
    return _Few(rows) if rows < _MANY_ROWS_MIN else _Many(rows)


class _Few:
    """A list of byte strings per field."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._fields: list[Sequence[bytes]] = []

    def _add(self, values: list[bytes], present: Bools | None) -> None:
        if present is not None:
            values = [value if there else b"" for value, there in zip(values, present.tolist(), strict=True)]
        self._fields.append(values)

    def constant(self, encoded: bytes, present: Bools | None = None) -> None:
        self._add([encoded] * self._rows, present)

    def longs(self, values: Int64s, present: Bools | None = None) -> None:
        self._add([binary.long(value) for value in values.tolist()], present)

    def optional_longs(self, values: Int64s, missing: int, present: Bools | None = None) -> None:
        long, null, there = binary.long, binary.NULL, binary.PRESENT
        self._add([null if value == missing else there + long(value) for value in values.tolist()], present)

    def choices(self, encoded: Sequence[bytes], codes: Codes, present: Bools | None = None) -> None:
        self._add([encoded[code] for code in codes.tolist()], present)

    def cells(self, cells: UInt8s, present: Bools | None = None) -> None:
        self._add(list(map(bytes, cells.tolist())), present)

    def texts(self, values: Sequence[bytes]) -> None:
        self._add([binary.text(value) for value in values], None)

    def optional_texts(self, values: Sequence[bytes]) -> None:
        text, there = binary.text, binary.PRESENT
        self._add([there + text(value) if value else binary.NULL for value in values], None)

    def numbered_texts(self, start: bytes, numbers: Int64s) -> None:
        self.texts([b"%b%d" % (start, number) for number in numbers.tolist()])

    def encoded(self, values: Sequence[bytes]) -> None:
        self._fields.append(values)

    def records(self) -> list[bytes]:
        return list(map(b"".join, zip(*self._fields, strict=True)))


class _Many:
    """Matrices of bytes per field: uint8[n, width], and bool[n, width] for those that are written."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._cells: list[UInt8s] = []
        self._written: list[Bools] = []

    def _add(self, cells: UInt8s, written: Bools, present: Bools | None = None) -> None:
        self._cells.append(cells)
        self._written.append(written if present is None else written & present[:, None])

    def constant(self, encoded: bytes, present: Bools | None = None) -> None:
        cells = np.frombuffer(encoded, np.uint8)
        shape = self._rows, len(cells)
        self._add(np.broadcast_to(cells, shape), np.broadcast_to(np.True_, shape), present)

    def longs(self, values: Int64s, present: Bools | None = None) -> None:
        # Seven bits a byte, lowest first; the top bit of a byte says that another follows.
        zigzag = ((values << 1) ^ (values >> 63)).view(np.uint64)
        width = max(1, -(-int(zigzag.max()).bit_length() // 7))
        sevens = zigzag[:, None] >> np.arange(0, 7 * width, 7, dtype=np.uint64)
        follows = sevens[:, 1:] != 0
        cells = sevens.astype(np.uint8) & np.uint8(127)
        cells[:, :-1] |= follows.view(np.uint8) << 7
        written = np.ones(cells.shape, np.bool_)
        written[:, 1:] = follows
        self._add(cells, written, present)

    def optional_longs(self, values: Int64s, missing: int, present: Bools | None = None) -> None:
        there = values != missing
        if there.all():
            self.constant(binary.PRESENT, present)
            self.longs(values, present)
            return
        self.choices((binary.NULL, binary.PRESENT), there.view(np.uint8), present)
        # What stands for null is an extreme, and would make the column as wide as longs get.
        self.longs(np.where(there, values, 0), there if present is None else there & present)

    def choices(self, encoded: Sequence[bytes], codes: Codes, present: Bools | None = None) -> None:
        cells, written = _padded(encoded)
        self._add(cells[codes], written[codes], present)

    def cells(self, cells: UInt8s, present: Bools | None = None) -> None:
        self._add(cells, np.broadcast_to(np.True_, cells.shape), present)

    def texts(self, values: Sequence[bytes]) -> None:
        self.longs(_lengths(values))
        self._add(*_padded(values))

    def optional_texts(self, values: Sequence[bytes]) -> None:
        if not any(values):
            self.constant(binary.NULL)
            return
        lengths = _lengths(values)
        there = lengths > 0
        self.choices((binary.NULL, binary.PRESENT), there.view(np.uint8))
        self.longs(lengths, there)
        self._add(*_padded(values))

    def numbered_texts(self, start: bytes, numbers: Int64s) -> None:
        if int(numbers.min()) < 0:
            self.texts([b"%b%d" % (start, number) for number in numbers.tolist()])
            return
        digits = len(str(int(numbers.max())))
        powers = 10 ** np.arange(digits - 1, -1, -1, dtype=np.int64)
        quotients = numbers[:, None] // powers
        written = quotients != 0
        # Zero is written as one digit, not as none.
        written[:, -1] = True
        self.longs(written.sum(axis=1) + len(start))
        self.constant(start)
        self._add((quotients % 10 + ord("0")).astype(np.uint8), written)

    def encoded(self, values: Sequence[bytes]) -> None:
        self._add(*_padded(values))

    def records(self) -> list[bytes]:
        written = np.concatenate(self._written, axis=1)
        whole = np.concatenate(self._cells, axis=1)[written].tobytes()
        ends = np.cumsum(np.count_nonzero(written, axis=1)).tolist()
        return [whole[start:end] for start, end in pairwise([0, *ends])]


def _padded(values: Sequence[bytes]) -> tuple[UInt8s, Bools]:
    """Return byte strings as one matrix, a row each, and which of its cells are theirs."""
    lengths = _lengths(values)
    written = np.arange(int(lengths.max(initial=0))) < lengths[:, None]
    cells = np.zeros(written.shape, np.uint8)
    cells[written] = np.frombuffer(b"".join(values), np.uint8)
    return cells, written


def _lengths(values: Sequence[bytes]) -> Int64s:
    return np.fromiter(map(len, values), np.int64, len(values))
