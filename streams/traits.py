"""The traits an event sets, from Arrow's map of unions to what the customer table keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from schemas import binary
from streams.columns import strings_of
from streams.customers.facts import Int64s, TraitValue

NAMES_MAX = 64
"""Traits one event may set."""
NAME_BYTES_MAX = 256
ENCODED_BYTES_MAX = 16 * 1024
"""Bytes the traits of one event may take, as Avro encodes them."""

_NULL, _TEXT, _LONG, _DOUBLE, _BOOLEAN, _INSTANT, _SET = range(7)


@dataclass(frozen=True, slots=True)
class Traits:
    """The traits of n events, end to end."""

    names: list[str]
    values: list[TraitValue]
    offsets: list[int]
    """n + 1 entries: event i sets names[offsets[i]:offsets[i + 1]]."""

    def of(self, row: int) -> dict[str, TraitValue]:
        """Return what one event sets; of a name given twice the last counts."""
        span = slice(self.offsets[row], self.offsets[row + 1])
        return dict(zip(self.names[span], self.values[span], strict=True))


def traits_of(column: pa.MapArray, refuse: Callable[[int, str, str], None]) -> Traits:
    """Return the traits of each event of a decoded column.

    An instant becomes a one-tuple of UTC ms, an array of texts a sorted tuple without repeats.
    Calls refuse(row, expected, got) for each event with more than NAMES_MAX names, a name of 0 or
    more than NAME_BYTES_MAX bytes, or a double that is not finite. The bound on encoded bytes is
    `encoded_bytes`, which is only worth asking of a record that is itself longer.
    """
    offsets = np.frombuffer(column.buffers()[1], np.int32, len(column) + 1).astype(np.int64)
    for row in np.flatnonzero(np.diff(offsets) > NAMES_MAX).tolist():
        refuse(row, f"at most {NAMES_MAX} names", f"{offsets[row + 1] - offsets[row]}")
    total = int(offsets[-1])
    if total == 0:
        return Traits([], [], offsets.tolist())
    names = column.keys
    texts = names.to_pylist()
    lengths = strings_of(names).lengths
    # 0 - 1 wraps around to the largest number.
    for entry in np.flatnonzero((lengths - 1).view(np.uint64) >= NAME_BYTES_MAX).tolist():
        refuse(
            _row(offsets, entry),
            f"names of 1 to {NAME_BYTES_MAX} bytes",
            f"{texts[entry][:40]!r} ({lengths[entry]} bytes)",
        )
    items = column.items
    branches = np.frombuffer(items.buffers()[1], np.int8, total)
    values: list[TraitValue] = [None] * total
    for branch in np.flatnonzero(np.bincount(branches, minlength=_SET + 1)).tolist():
        if branch == _NULL:
            continue
        entries = np.flatnonzero(branches == branch)
        for entry, value in zip(entries.tolist(), _values(items.field(branch), branch, entries), strict=True):
            values[entry] = value
        if branch == _DOUBLE:
            doubles = np.frombuffer(items.field(branch).buffers()[1], np.float64, total)[entries]
            for entry in entries[~np.isfinite(doubles)].tolist():
                refuse(_row(offsets, entry), "finite numbers", f"{texts[entry][:40]!r} = {values[entry]}")
    return Traits(texts, values, offsets.tolist())


def encoded_bytes(traits: dict[str, TraitValue]) -> int:
    """Return how many bytes Avro takes for these traits; never more than the record they came in."""
    count = len(traits)
    size = len(binary.long(count)) + 1 if count else 1
    return size + sum(_text_bytes(name) + 1 + _value_bytes(value) for name, value in traits.items())


def _row(offsets: Int64s, entry: int) -> int:
    """Return the event that sets the entry."""
    return int(np.searchsorted(offsets, entry, side="right")) - 1


def _values(child: pa.Array, branch: int, entries: Int64s) -> list[TraitValue]:
    """Return the values at `entries` of one branch of the union; the others of it are padding."""
    if branch == _LONG:
        longs: list[TraitValue] = np.frombuffer(child.buffers()[1], np.int64, len(child))[entries].tolist()
        return longs
    if branch == _DOUBLE:
        doubles: list[TraitValue] = np.frombuffer(child.buffers()[1], np.float64, len(child))[
            entries
        ].tolist()
        return doubles
    if branch == _INSTANT:
        at = child.field(0)
        times = np.frombuffer(at.buffers()[1], np.int64, len(at))[entries].tolist()
        return [(time,) for time in times]
    if branch == _BOOLEAN:
        truths = child.to_pylist()
        return [truths[entry] for entry in entries.tolist()]
    # Slices of one list, since Arrow's own take costs more than all of this for a few traits.
    starts = np.frombuffer(child.buffers()[1], np.int32, len(child) + 1)
    spans = zip(starts[entries].tolist(), starts[entries + 1].tolist(), strict=True)
    if branch == _TEXT:
        whole = strings_of(child).data.tobytes()
        return [whole[start:end].decode() for start, end in spans]
    texts = child.values.to_pylist()
    return [tuple(sorted(set(texts[start:end]))) for start, end in spans]


def _text_bytes(text: str) -> int:
    size = len(text.encode())
    return len(binary.long(size)) + size


def _value_bytes(value: TraitValue) -> int:
    if value is None:
        return 0
    if isinstance(value, bool):
        return 1
    if isinstance(value, str):
        return _text_bytes(value)
    if isinstance(value, int):
        return len(binary.long(value))
    if isinstance(value, float):
        return 8
    sizes = [_text_bytes(each) if isinstance(each, str) else len(binary.long(each)) for each in value]
    # An array has its count before and a zero after its items, an instant neither.
    is_set = not value or isinstance(value[0], str)
    return sum(sizes) + (len(binary.long(len(sizes))) + bool(sizes) if is_set else 0)
