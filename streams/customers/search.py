"""Find, for many customers at once, where a value falls in each one's own sorted stretch of a column."""

from __future__ import annotations

import numpy as np

from streams.customers.facts import Int64s

_CELLS = 2048
_WIDTH_MIN = 4
"""A stretch up to max(_WIDTH_MIN, _CELLS / answers) is compared whole instead of halved: a few calls,
however long it is, where a bisect takes six a halving. Most rounds have some tens of customers."""

_STEPS = np.arange(_CELLS)[:, None]


def first_above(column: Int64s, start: Int64s, end: Int64s, after: Int64s, longest: int) -> Int64s:
    """Return the first index in [start, end) whose entry exceeds `after`, or `end` when none does.

    `start` and `end` are int64[n], each stretch ascending; `after` is int64[n] or int64[k, n]
    for k questions about the same stretches, and the answer has its shape. `longest` is at
    least the longest stretch; a generous one costs time, never correctness.
    """
    if longest == 0:
        # No stretch has an entry, so the end is every answer.
        return np.broadcast_to(end, after.shape)
    first, stop, asked = start, end, after
    if after.ndim > 1:
        first, stop = np.concatenate((start,) * len(after)), np.concatenate((end,) * len(after))
        asked = after.reshape(-1)
    width = max(_WIDTH_MIN, _CELLS // max(1, len(asked)))
    if longest > width:
        # Only long stretches are halved: one whale must not make everybody pay its rounds.
        long = (stop - first > width).nonzero()[0]
        if len(long):
            narrowed = _narrow(column, first[long], stop[long], asked[long], width)
            first, stop = first.copy(), stop.copy()
            first[long], stop[long] = narrowed
    # One row per place in the stretches and one column per answer, so that NumPy's loops are long.
    index = first + _STEPS[: min(longest, width)]
    passed = column.take(index, mode="clip") <= asked
    passed &= index < stop
    counts = np.add.reduce(passed.view(np.uint8), axis=0, dtype=np.uint8 if width < 256 else np.uint16)
    found: Int64s = first + counts
    return found.reshape(after.shape)


def _narrow(column: Int64s, first: Int64s, stop: Int64s, after: Int64s, width: int) -> tuple[Int64s, Int64s]:
    """Halve each stretch until it is at most `width` long and still has the answer within or at its end."""
    left = stop - first
    longest = int(left.max())
    while longest > width:
        half = left >> 1
        first = first + half * (column.take(first + (half - 1), mode="clip") <= after)
        left = left - half
        longest -= longest >> 1
    return first, first + left
