"""Arrow columns as NumPy arrays and packed byte strings, without an object per row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from streams.customers.facts import Bools, Int64s, Strings, UInt8s

_NO_BYTES: UInt8s = np.zeros(0, np.uint8)


def int64s_of(array: pa.Array) -> Int64s:
    """Return a column of int64 or timestamps without nulls, sharing its memory."""
    return np.frombuffer(array.buffers()[1], np.int64, len(array) + array.offset)[array.offset :]


def strings_of(array: pa.Array) -> Strings:
    """Return a column of UTF-8 strings, sharing its bytes; a null is an empty string."""
    _, ends, data = array.buffers()
    offsets = np.frombuffer(ends, np.int32, len(array) + 1 + array.offset)[array.offset :].astype(np.int64)
    start, end = int(offsets[0]), int(offsets[-1])
    packed = np.frombuffer(data, np.uint8)[start:end] if end > start else _NO_BYTES
    return Strings(packed, offsets - start if start else offsets)


def valid_of(array: pa.Array) -> Bools:
    """Return bool[n]: which values are not null.

    Arrow's own `is_valid` loads all of its compute functions, a tenth of a second at the first call.
    """
    bitmap = array.buffers()[0]
    if bitmap is None:
        return np.ones(len(array), np.bool_)
    end = array.offset + len(array)
    return np.unpackbits(np.frombuffer(bitmap, np.uint8), count=end, bitorder="little")[array.offset :].view(
        np.bool_
    )


def empty_strings(count: int) -> Strings:
    """Return `count` empty strings."""
    return Strings(_NO_BYTES, np.zeros(count + 1, np.int64))


def joined(columns: Sequence[Strings]) -> Strings:
    """Return the columns end to end, as one."""
    if len(columns) == 1:
        return columns[0]
    starts = np.cumsum([0, *(len(column.data) for column in columns)])
    offsets = [
        column.offsets[1:] + start for column, start in zip(columns, starts[:-1].tolist(), strict=True)
    ]
    return Strings(
        np.concatenate([column.data for column in columns]),
        np.concatenate([np.zeros(1, np.int64), *offsets]),
    )


def span_of(strings: Strings, start: int, count: int) -> Strings:
    """Return `count` strings from `start` on, sharing their bytes."""
    offsets = strings.offsets[start : start + count + 1]
    first = int(offsets[0])
    return Strings(strings.data[first : int(offsets[-1])], offsets - first)


def labels_of(array: pa.Array) -> tuple[list[str], Int64s | None]:
    """Return the distinct texts of a column without nulls and int64[n] indexes into them.

    The indexes are None when all rows hold the one text: most chunks know one currency.
    """
    packed = strings_of(array)
    if not len(packed):
        return [], None
    whole, first = packed.data.tobytes(), packed[0]
    # Texts of one length that are the first one over and over are all the first one.
    if whole == first * len(packed) and not (packed.offsets[1:] - packed.offsets[:-1] - len(first)).any():
        return [first.decode()], None
    encoded = array.dictionary_encode()
    index = np.frombuffer(encoded.indices.buffers()[1], np.int32, len(array)).astype(np.int64)
    return encoded.dictionary.to_pylist(), index
