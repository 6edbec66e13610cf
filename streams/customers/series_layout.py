"""How the facts of declared series lie in one arena, and how they are told apart on record."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from streams.customers.columns import FACT, Records
from streams.customers.facts import Int64s, SeriesEntries, UInt64s
from streams.customers.series import Series
from streams.customers.series_runs import SeriesRuns


class Content(NamedTuple):
    """What one event says to all series; of several under one id the least stands."""

    time: int
    entries: tuple[tuple[int, int, int], ...]
    """(link, value, whole) of each entry, ascending: an order no edit of the definition changes."""


def link_of(key: str, since_ms: int) -> int:
    """Return what stands for a series on record, never 0.

    It depends on since when the series is complete, so that facts left on record from before it
    was dropped are not taken for its own when it is declared again.
    """
    digest = hashlib.blake2b(f"{since_ms} {key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


class Layout:
    """The declared series by number, what stands for each on record, and the runs of all of them.

    Behind the declared series lie those of what the lines of orders said (`said`: a number for each
    series of orders), of what was paid for each of these orders, and of the value of all its lines.
    """

    def __init__(self, series: Sequence[Series], since_ms: Mapping[str, int]) -> None:
        """Number the series; a ValueError when two have one key."""
        self.place = {each.key: k for k, each in enumerate(series)}
        if len(self.place) < len(series):
            raise ValueError("a series is declared twice")
        links = [link_of(each.key, since_ms.get(each.key, 0)) for each in series]
        self.link = np.array(links, np.uint64)
        self.series_of_link = {link: k for k, link in enumerate(links)}
        events = np.array([each.event for each in series], "U16")
        self.is_day, self.is_order = events == "active_day", events == "order"
        self.is_activity = events == "activity"
        self.is_share = np.array([not each.distinct for each in series], np.bool_)
        self.orders: list[int] = np.flatnonzero(self.is_order).tolist()
        behind = np.cumsum(self.is_order) - 1 + len(series)
        self.said = np.where(self.is_order, behind, -1)
        self.paid = len(series) + len(self.orders)
        self.whole = self.paid + 1
        self.runs = SeriesRuns(self.whole + 1)

    def content(self, entries: SeriesEntries, start: int, end: int, time: int) -> Content:
        """Return what the entries from `start` on say together."""
        return Content(
            time,
            tuple(
                sorted(
                    zip(
                        self.link[entries.series[start:end]].tolist(),
                        entries.value[start:end].tolist(),
                        entries.whole[start:end].tolist(),
                        strict=True,
                    )
                )
            ),
        )

    def records(self, entries: SeriesEntries, times: Int64s, ids: UInt64s, code: int) -> Records:
        """Return the entries as they go on record."""
        records = np.empty(len(entries), FACT)
        records["time"], records["value"], records["id"] = times, entries.value, ids
        records["link"], records["code"] = self.link[entries.series], code
        return records

    def declared(self, links: UInt64s) -> Int64s:
        """Return int64[n]: the declared series each link stands for, -1 for none."""
        order = np.argsort(self.link)
        at = np.minimum(np.searchsorted(self.link[order], links), len(order) - 1)
        return np.where(self.link[order][at] == links, order[at], -1)
