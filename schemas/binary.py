"""Avro's binary primitives, one at a time and by the column: what the two hot encoders are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Int16s = npt.NDArray[np.int16]

NULL = b"\x00"
"""The branch of null in a `["null", X]` union."""
PRESENT = b"\x02"
"""The branch of X in a `["null", X]` union; its encoding follows."""
END_OF_ARRAY = b"\x00"

_VECTOR_ROWS_MIN = 28
"""From this many values on, encoding a column with NumPy is cheaper than a loop (measured)."""

_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


def _varint(zigzag: int) -> bytes:
    out = bytearray()
    while zigzag > 127:
        out.append(zigzag & 127 | 128)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


# Two bytes hold every zigzag value below 2**14: counts, scores, lengths of texts.
_SMALL = tuple(_varint(zigzag) for zigzag in range(1 << 14))


def long(value: int) -> bytes:
    """Encode an int or a long; an OverflowError beyond 64 bits."""
    zigzag = value << 1 if value >= 0 else ~(value << 1)
    if zigzag < len(_SMALL):
        return _SMALL[zigzag]
    if not _INT64_MIN <= value <= _INT64_MAX:
        raise OverflowError(f"{value} does not fit in 64 bits")
    return _varint(zigzag)


def longs(values: Int64s) -> list[bytes]:
    """Encode a column: what `long` gives for each value."""
    if len(values) < _VECTOR_ROWS_MIN:
        return [long(value) for value in values.tolist()]
    zigzag = ((values << 1) ^ (values >> 63)).view(np.uint64)
    width = max(1, -(-int(zigzag.max()).bit_length() // 7))
    sevens = zigzag[:, None] >> np.arange(0, 7 * width, 7, dtype=np.uint64)
    packed = (sevens & np.uint64(127)).astype(np.uint8)
    packed[:, :-1] |= (sevens[:, 1:] != 0).astype(np.uint8) << 7
    whole = packed.tobytes()
    lengths = np.maximum((sevens != 0).sum(axis=1), 1)
    if (lengths == width).all():
        return [whole[start : start + width] for start in range(0, len(whole), width)]
    return [
        whole[start : start + length]
        for start, length in zip(range(0, len(whole), width), lengths.tolist(), strict=True)
    ]


def optional_longs(values: Int64s, missing: int) -> list[bytes]:
    """Encode a column of a `["null", "long"]` union, where `missing` stands for null."""
    encoded = [PRESENT + value for value in longs(values)]
    for row in np.flatnonzero(values == missing).tolist():
        encoded[row] = NULL
    return encoded


def text(value: bytes) -> bytes:
    """Encode a string given as UTF-8."""
    return _SMALL[len(value) << 1] + value if len(value) < len(_SMALL) >> 1 else long(len(value)) + value


def optional_text(value: str | None) -> bytes:
    """Encode a `["null", "string"]` union."""
    return NULL if value is None else PRESENT + text(value.encode())


def remembered(encode: Callable[[str], bytes], values: Iterable[str]) -> dict[str, bytes]:
    """Encode each distinct value once; columns of labels hold a handful of them."""
    return {value: encode(value) for value in set(values)}


def array(items: Sequence[bytes]) -> bytes:
    """Encode an array of encoded items, in one block."""
    return long(len(items)) + b"".join(items) + END_OF_ARRAY if items else END_OF_ARRAY
