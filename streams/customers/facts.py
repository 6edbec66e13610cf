"""What one chunk of events says, as columns: the only input of the customer table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from streams.customers.changes import Change

Int64s = npt.NDArray[np.int64]
UInt8s = npt.NDArray[np.uint8]
UInt64s = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]

NEVER_MS = np.iinfo(np.int64).max
"""A deadline that never comes; also the time of something that never happened, seen from below."""

PENDING_MS = np.iinfo(np.int64).min
"""The deadline of a customer whose facts changed since the last evaluation: due at any clock."""

TraitValue = None | str | int | float | bool | tuple[str, ...] | tuple[int]
"""A trait: text, number, truth, a sorted tuple of texts (a set), or a one-tuple of UTC ms (an instant)."""


class Kind(IntEnum):
    """The record types that carry facts about a customer."""

    SIGNED_UP = 1
    PROFILE_UPDATED = 2
    PURCHASED = 3
    REFUNDED = 4
    PLAN_CHANGED = 5
    TICKET_CHANGED = 6
    ACTIVITY = 7


class RefundKind(IntEnum):
    """What a refund is; NONE for every other kind of event."""

    NONE = 0
    REFUND = 1
    RETURN = 2
    CANCELLATION = 3


@dataclass(frozen=True, slots=True)
class Strings:
    """n byte strings end to end in one buffer, so that a whole column is hashed in a few calls.

    `data` is uint8[total bytes]; `offsets` is int64[n + 1], first 0, ascending.
    """

    data: UInt8s
    offsets: Int64s

    @classmethod
    def from_list(cls, values: Iterable[bytes]) -> Strings:
        """Pack byte strings, in order."""
        parts = list(values)
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return cls(np.frombuffer(b"".join(parts), np.uint8), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        return self.data[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        whole = self.data.tobytes()
        return (whole[start:end] for start, end in pairwise(self.offsets.tolist()))

    @property
    def lengths(self) -> Int64s:
        """int64[n]: bytes in each string."""
        return self.offsets[1:] - self.offsets[:-1]

    def take(self, rows: Int64s) -> Strings:
        """Return the strings at `rows`, in that order, as a new packed column."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        offsets = np.zeros(len(rows) + 1, np.int64)
        lengths.cumsum(out=offsets[1:])
        # Byte j of the result lies at the start of its string plus its place in it.
        source = (starts - offsets[:-1]).repeat(lengths)
        source += np.arange(len(source))
        return Strings(self.data[source], offsets)


@dataclass(frozen=True, slots=True)
class SeriesEntries:
    """What n facts add to the series a definition declares; every array has one entry for each.

    `row` is the fact, ascending; `series` the place of the series among the declared ones, ascending
    within a fact. `value` is what the series keeps: 1, a number in millionths, a hash, or the value
    of an order's matching lines, of `whole` in all its lines (0 for everything but orders).
    """

    row: Int64s
    series: Int64s
    value: Int64s
    whole: Int64s

    def __len__(self) -> int:
        return len(self.row)

    def take(self, places: Int64s) -> SeriesEntries:
        """Return the entries at `places`, in that order."""
        return SeriesEntries(self.row[places], self.series[places], self.value[places], self.whole[places])

    def rows(self) -> Int64s:
        """Return the facts that have entries, ascending."""
        first = np.ones(len(self.row), np.bool_)
        np.not_equal(self.row[1:], self.row[:-1], out=first[1:])
        return self.row[first]

    def of_rows(self, rows: Int64s) -> SeriesEntries:
        """Return the entries of the facts at `rows`, by the place of each fact in it."""
        first, end = self.row.searchsorted(rows), self.row.searchsorted(rows, "right")
        count = end - first
        place = np.arange(len(rows)).repeat(count)
        # Entry j of the result is its fact's first and as many further as came before it of the same fact.
        taken = self.take(np.arange(len(place)) + (first - count.cumsum() + count).repeat(count))
        return SeriesEntries(place, taken.series, taken.value, taken.whole)

    @classmethod
    def none(cls) -> SeriesEntries:
        """Return no entries."""
        nothing = np.empty(0, np.int64)
        return cls(nothing, nothing, nothing, nothing)


_NO_ENTRIES = SeriesEntries.none()


@dataclass(frozen=True, slots=True)
class Erasures:
    """n Erased events of one chunk in log order: who is to be forgotten, and up to when; n entries each."""

    position: Int64s
    """Index of the record within its chunk, strictly increasing."""
    customer: Strings
    event_id: Strings
    occurred_at_ms: Int64s

    def __len__(self) -> int:
        return len(self.position)

    def take(self, rows: Int64s) -> Erasures:
        """Return the entries at `rows`."""
        return Erasures(
            self.position[rows],
            self.customer.take(rows),
            self.event_id.take(rows),
            self.occurred_at_ms[rows],
        )

    @classmethod
    def none(cls) -> Erasures:
        """Return no entries."""
        nothing, strings = np.empty(0, np.int64), Strings.from_list(())
        return cls(nothing, strings, strings, nothing)


@dataclass(frozen=True, slots=True)
class Facts:
    """n valid events of one chunk in log order; every array has n entries.

    Amounts are already in minor units of the reporting currency. Sparse columns
    (`traits`, `account_id`) map a row to its value.
    """

    position: Int64s
    """Index of the record within its chunk, strictly increasing."""
    kind: UInt8s
    customer: Strings
    event_id: Strings
    occurred_at_ms: Int64s
    natural_id: Strings
    """What identifies the event within its customer: order_id, refund_id, else event_id."""
    order_id: Strings
    """The order a refund is linked to; empty bytes for everything else."""
    refund_kind: UInt8s
    amount_minor: Int64s
    """Paid (Purchased) or given back (Refunded), at least 0; 0 for other kinds."""
    traits: Mapping[int, Mapping[str, TraitValue]]
    """Row to the traits it sets (None deletes); rows that set none are absent."""
    account_id: Mapping[int, str]
    changes: Mapping[int, Change] = field(default_factory=dict)
    """Row to what it says of a subscription or ticket: every PLAN_CHANGED and TICKET_CHANGED, no other."""
    entries: SeriesEntries = _NO_ENTRIES
    """What the rows add to declared series."""

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def none(cls) -> Facts:
        """Return the facts of a chunk that has none."""
        times, strings = np.empty(0, np.int64), Strings.from_list(())
        codes = np.empty(0, np.uint8)
        return cls(times, codes, strings, strings, times, strings, strings, codes, times, {}, {})
