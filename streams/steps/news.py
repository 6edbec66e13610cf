"""What facts mean for their customers: the cause that stands for them, and when it happened."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streams.customers.arena import group_starts
from streams.customers.facts import Bools, Facts, Int64s, Kind, UInt8s
from streams.steps.moves import LATE, Cause

LATE_AFTER_MS = 3_600_000
"""An event that happened longer than this before the clock that received it is a late event."""

_ROW_BITS = 48
"""A row of a chunk is below 1 << this."""

NO_INSTANT = -(1 << 63)
NO_MONEY = 1 << 62
"""Taken off the instant of an event that moves no money, so that the latest event that does prevails."""

LATE_CAUSES = np.array(LATE)
_CAUSE_OF_KIND = np.full(len(Kind) + 1, Cause.EVENT, np.uint8)
_CAUSE_OF_KIND[[Kind.PURCHASED, Kind.REFUNDED]] = Cause.PURCHASE, Cause.REFUND
_LATE_CAUSE_OF_KIND = np.full(len(Kind) + 1, Cause.LATE_EVENT, np.uint8)
_LATE_CAUSE_OF_KIND[[Kind.PURCHASED, Kind.REFUNDED]] = Cause.LATE_PURCHASE, Cause.LATE_REFUND


@dataclass(frozen=True, slots=True)
class News:
    """What some facts mean for customers, one entry each: the cause (0: nothing was applied), the fact
    that stands for it, and the latest instant among those that came on time."""

    cause: UInt8s
    row: Int64s
    latest_ms: Int64s

    @property
    def made(self) -> Bools:
        """Whether there is any news."""
        return self.cause > 0

    def take(self, rows: Int64s) -> News:
        """Return the entries at `rows`."""
        return News(self.cause[rows], self.row[rows], self.latest_ms[rows])


def news_of(facts: Facts, row: Int64s, place: Int64s, clock_ms: Int64s, groups: int) -> News:
    """Let the greatest cause, then the last in the log, stand for each of `groups` groups.

    `row` are facts that were applied, `place` (0..groups - 1) their groups, `clock_ms` the clock that
    received each.
    """
    kind, occurred_ms = facts.kind[row], facts.occurred_at_ms[row]
    late = occurred_ms < clock_ms - LATE_AFTER_MS
    cause = np.where(late, _LATE_CAUSE_OF_KIND[kind], _CAUSE_OF_KIND[kind])
    money = (kind == Kind.PURCHASED) | (kind == Kind.REFUNDED)
    instant = np.where(late, NO_INSTANT, np.where(money, occurred_ms, occurred_ms - NO_MONEY))
    news = News(np.zeros(groups, np.uint8), np.zeros(groups, np.int64), np.full(groups, NO_INSTANT))
    if not len(row):
        return news
    # Facts lie group by group, each in log order; a cause and a row as one number sort like the pair.
    starts = group_starts(place)
    strongest = np.maximum.reduceat((cause.astype(np.int64) << _ROW_BITS) | row, starts)
    held = place[starts]
    news.cause[held], news.row[held] = strongest >> _ROW_BITS, strongest & ((1 << _ROW_BITS) - 1)
    news.latest_ms[held] = np.maximum.reduceat(instant, starts)
    return news
