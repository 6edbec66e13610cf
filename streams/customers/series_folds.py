"""What series held before the fold line: how much, how often, first and last, per customer."""

from __future__ import annotations

import numpy as np

from streams.customers.facts import NEVER_MS, Int64s
from streams.customers.series import Folded
from streams.customers.series_layout import Layout

FOLD = np.dtype(
    [("link", "<u8"), ("entries", "<i8"), ("total", "<i8"), ("first_ms", "<i8"), ("last_ms", "<i8")]
)
"""What was folded of one series of one customer, as a row holds it: 40 bytes."""

_NOT_YET_MS = -(1 << 63)


class Folds:
    """Folded facts of declared series: an entry for who has any, none else."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._of: dict[int, dict[int, tuple[int, int, int, int]]] = {}

    def __bool__(self) -> bool:
        return bool(self._of)

    def add(self, slot: int, series: int, times: Int64s, values: Int64s) -> None:
        """Add entries that are no longer in the run; `times` ascend."""
        mine = self._of.setdefault(slot, {})
        entries, total, first_ms, last_ms = mine.get(series, (0, 0, NEVER_MS, _NOT_YET_MS))
        # Of a day the value is when it began; what counts is the day.
        worth = len(times) if self._layout.is_day[series] else int(values.sum())
        total = int((np.array([total]) + np.array([worth]))[0])
        first_ms, last_ms = min(first_ms, int(times[0])), max(last_ms, int(times[-1]))
        mine[series] = entries + len(times), total, first_ms, last_ms

    def of(self, series: int, slots: Int64s) -> Folded:
        """Return what was folded of one series."""
        nothing = (0, 0, NEVER_MS, _NOT_YET_MS)
        if not self._of:
            columns = np.repeat(np.array(nothing)[:, None], len(slots), axis=1)
        else:
            empty: dict[int, tuple[int, int, int, int]] = {}
            found = [self._of.get(slot, empty).get(series, nothing) for slot in slots.tolist()]
            columns = np.array(found, np.int64).reshape(len(slots), 4).T
        return Folded(*columns)

    def encoded(self, slot: int) -> bytes:
        """Return what was folded of all series of one customer, for its row."""
        mine = self._of.get(slot)
        if not mine:
            return b""
        links = self._layout.link
        return np.array([(links[k], *fold) for k, fold in sorted(mine.items())], FOLD).tobytes()

    def forget(self, slot: int) -> None:
        """Let go of what was folded of one customer."""
        self._of.pop(slot, None)

    def decode(self, slot: int, encoded: bytes) -> None:
        """Put back what `encoded` wrote, without the series that are no longer declared."""
        records = np.frombuffer(encoded, FOLD)
        for series, record in zip(
            self._layout.declared(records["link"]).tolist(), records.tolist(), strict=True
        ):
            if series >= 0:
                self._of.setdefault(slot, {})[series] = record[1:]

    def bytes_of(self, slot: int) -> int:
        """Return the length of `encoded`."""
        return FOLD.itemsize * len(self._of.get(slot, ()))
