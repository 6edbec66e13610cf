"""The properties of activities: bounded, and read from Arrow's map of unions only where a rule asks."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas import binary
from streams.columns import strings_of
from streams.customers.facts import Bools, Int64s
from streams.customers.series import MILLIONTHS, Comparison, Joined, Where

NAMES_MAX = 64
"""Properties one event may have."""
NAME_BYTES_MAX = 256
"""Bytes of the name of a property, and of that of an activity."""
ENCODED_BYTES_MAX = 8 * 1024
"""Bytes the properties of one event may take, as Avro encodes them."""

_TEXT, _LONG, _DOUBLE, _BOOLEAN = range(4)

Property = str | int | bool
"""What rules see of a property: text, a number in millionths, or a truth."""

Refuse = Callable[[int, str, str], None]
"""(row, expected, got)"""


class Properties:
    """The properties of n activities, end to end; of a name given twice the last counts."""

    def __init__(self, column: pa.MapArray) -> None:
        self._offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1 + column.offset)[
            column.offset :
        ].astype(np.int64)
        self._keys, self._items = column.keys, column.items
        self._names: list[str] = []
        self._codes: npt.NDArray[np.int32] | None = None
        self._branches = np.frombuffer(self._items.buffers()[1], np.int8, len(self._items))

    def check(self, refuse: Refuse) -> None:
        """Refuse events with too many properties, names out of bounds and numbers that are not finite."""
        offsets = self._offsets
        for row in np.flatnonzero(np.diff(offsets) > NAMES_MAX).tolist():
            refuse(row, f"at most {NAMES_MAX} names", f"{offsets[row + 1] - offsets[row]}")
        if not offsets[-1]:
            return
        # 0 - 1 wraps around to the largest number.
        lengths = strings_of(self._keys).lengths
        for entry in np.flatnonzero((lengths - 1).view(np.uint64) >= NAME_BYTES_MAX).tolist():
            name = self._keys[entry].as_py()[:40]
            refuse(
                self._row(entry),
                f"names of 1 to {NAME_BYTES_MAX} bytes",
                f"{name!r} ({lengths[entry]} bytes)",
            )
        if (self._branches == _DOUBLE).any():
            doubles = self._items.field(_DOUBLE)
            values = np.frombuffer(doubles.buffers()[1], np.float64, len(doubles))
            for entry in np.flatnonzero((self._branches == _DOUBLE) & ~np.isfinite(values)).tolist():
                name = self._keys[entry].as_py()[:40]
                refuse(self._row(entry), "finite numbers", f"{name!r} = {values[entry]}")

    def encoded_bytes(self, row: int) -> int:
        """Return how many bytes Avro takes for the properties of one event."""
        first, end = int(self._offsets[row]), int(self._offsets[row + 1])
        size = len(binary.long(end - first)) + 1 if end > first else 1
        for entry in range(first, end):
            branch = int(self._branches[entry])
            value = self._items.field(branch)[entry].as_py()
            taken = {_DOUBLE: 8, _BOOLEAN: 1}.get(branch)
            if taken is None:
                taken = len(binary.long(value)) if branch == _LONG else _text_bytes(value)
            size += _text_bytes(self._keys[entry].as_py()) + 1 + taken
        return size

    def entries_of(self, name: str) -> Int64s:
        """Return int64[n]: where each event holds the property, -1 where it has none of that name."""
        found = np.full(len(self._offsets) - 1, -1)
        entries = np.flatnonzero(self._named(name))
        # Of several assignments to one place the last one stays.
        found[np.searchsorted(self._offsets, entries, side="right") - 1] = entries
        return found

    def value(self, entry: int) -> Property:
        """Return what one entry holds, a number in millionths, half of one rounded to even."""
        branch = int(self._branches[entry])
        value = self._items.field(branch)[entry].as_py()
        if branch == _LONG:
            return int(value) * MILLIONTHS
        if branch == _DOUBLE:
            return round(Fraction(value) * MILLIONTHS)
        assert isinstance(value, str | bool), "a text or a truth is left"
        return value

    def _named(self, name: str) -> Bools:
        if self._codes is None:
            encoded = self._keys.dictionary_encode()
            self._names = encoded.dictionary.to_pylist()
            self._codes = np.frombuffer(encoded.indices.buffers()[1], np.int32, len(encoded))
        code = self._names.index(name) if name in self._names else -1
        return np.equal(self._codes, code)

    def _row(self, entry: int) -> int:
        """Return the event that holds the entry."""
        return int(np.searchsorted(self._offsets, entry, side="right")) - 1


def holds(where: Where, value_of: Callable[[str], Property | None]) -> bool:
    """Tell whether a condition is true: a comparison with what is missing, or of another type, is not."""
    if isinstance(where, Comparison):
        return _compares(where, value_of(where.field))
    if isinstance(where, Joined):
        return (all if where.all else any)(holds(part, value_of) for part in where.parts)
    return not holds(where.part, value_of)


def _compares(where: Comparison, value: Property | None) -> bool:
    if value is None:
        return False
    operands = where.operand if isinstance(where.operand, tuple) else (where.operand,)
    # The types themselves, because a truth is an int too.
    alike = [operand for operand in operands if type(operand) is type(value)]
    if not alike:
        return False
    return compare(where.operator, value, tuple(alike) if where.operator == "in" else alike[0])


def compare(operator: str, value: Property, operand: object) -> bool:
    """Compare two values of one type, or look one up in several."""
    if operator == "in":
        assert isinstance(operand, tuple)
        return value in operand
    if operator in ("==", "!="):
        return (value == operand) == (operator == "==")
    if isinstance(value, str):
        assert isinstance(operand, str)
        order = (value > operand) - (value < operand)
    else:
        assert isinstance(operand, int)
        order = (value > operand) - (value < operand)
    return {"<": order < 0, "<=": order <= 0, ">": order > 0, ">=": order >= 0}[operator]


def _text_bytes(text: str) -> int:
    size = len(text.encode())
    return len(binary.long(size)) + size
