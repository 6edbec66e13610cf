"""Avro's binary primitives, one value at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Int16s = npt.NDArray[np.int16]

NULL = b"\x00"
"""The branch of null in a `["null", X]` union."""
PRESENT = b"\x02"
"""The branch of X in a `["null", X]` union; its encoding follows."""
END_OF_ARRAY = b"\x00"

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


_PART_BITS = 14
_PARTS = 1 << _PART_BITS
# Zigzag values below 2**14 take two bytes at most: counts, scores, lengths of texts.
_LAST = [bytes((low,)) for low in range(128)] + [
    bytes((low | 128, high)) for high in range(1, 128) for low in range(128)
]
# The same fourteen bits with more to follow: a time in ms takes two of these and one of those.
_MORE = [bytes((low | 128, high | 128)) for high in range(128) for low in range(128)]


def long(value: int) -> bytes:
    """Encode an int or a long; an OverflowError beyond 64 bits."""
    zigzag = value << 1 if value >= 0 else ~(value << 1)
    if zigzag < _PARTS:
        return _LAST[zigzag]
    if not _INT64_MIN <= value <= _INT64_MAX:
        raise OverflowError(f"{value} does not fit in 64 bits")
    encoded = b""
    while zigzag >= _PARTS:
        encoded += _MORE[zigzag & _PARTS - 1]
        zigzag >>= _PART_BITS
    return encoded + _LAST[zigzag]


def text(value: bytes) -> bytes:
    """Encode a string given as UTF-8."""
    return _LAST[len(value) << 1] + value if len(value) < _PARTS >> 1 else long(len(value)) + value


def optional_text(value: str | None) -> bytes:
    """Encode a `["null", "string"]` union."""
    return NULL if value is None else PRESENT + text(value.encode())


def array(items: Sequence[bytes]) -> bytes:
    """Encode an array of encoded items, in one block."""
    return long(len(items)) + b"".join(items) + END_OF_ARRAY if items else END_OF_ARRAY
