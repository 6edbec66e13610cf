"""Find, for many customers at once, where a value falls in each one's own sorted stretch of a column."""

from __future__ import annotations

import numpy as np

from streams.customers.facts import Int64s

_CELLS = 2048
_WIDTH_MIN = 8
"""A stretch up to max(_WIDTH_MIN, _CELLS / answers) is compared whole instead of halved: a few calls,
however long it is, where a bisect takes six a halving. Most rounds have some tens of customers."""

_STEPS = np.arange(_CELLS)


def first_above(column: Int64s, start: Int64s, end: Int64s, after: Int64s, longest: int) -> Int64s:
    """Return the first index in [start, end) whose entry exceeds `after`, or `end` when none does.

    `start` and `end` are int64[n], each stretch ascending; `after` is int64[n] or int64[k, n]
    for k questions about the same stretches, and the answer has its shape. `longest` is at
    least the longest stretch; a generous one costs time, never correctness.
    """
    if longest == 0:
        # No stretch has an entry, so the end is every answer.
        return np.broadcast_to(end, after.shape)
    width = max(_WIDTH_MIN, _CELLS // after.size)
    first, stop = start, end
    if longest > width:
        # Only long stretches are halved: one whale must not make everybody pay its rounds.
        long = np.flatnonzero(end - start > width)
        first = np.broadcast_to(start, after.shape).copy()
        stop = np.broadcast_to(end, after.shape).copy()
        narrowed = _narrow(column, start[long], end[long], after[..., long], width)
        first[..., long], stop[..., long] = narrowed
    index = first[..., None] + _STEPS[: min(longest, width)]
    passed = column.take(index, mode="clip") <= after[..., None]
    passed &= index < stop[..., None]
    found: Int64s = first + passed.sum(axis=-1)
    return found


def _narrow(column: Int64s, start: Int64s, end: Int64s, after: Int64s, width: int) -> tuple[Int64s, Int64s]:
    """Halve each stretch until it is at most `width` long and still has the answer within or at its end."""
    # How much is left never depends on what was compared, so it is kept once for all k questions.
    left = end - start
    longest = int(left.max(initial=0))
    first = np.broadcast_to(start, after.shape).copy()
    while longest > width:
        half = left >> 1
        first += half * (column.take(first + half - 1, mode="clip") <= after)
        left = left - half
        longest -= longest >> 1
    return first, first + left
