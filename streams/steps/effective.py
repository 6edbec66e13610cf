"""The instant a change became true, exact even where the clock moves in coarse ticks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streams.customers.facts import Int64s
from streams.segments.evaluate import Outcome

Evaluate = Callable[[Int64s, Int64s], Outcome]
"""(rows, instants) to what those rows are at those instants, with the facts in sight as they are."""


def effective_at(
    evaluate: Evaluate, *, start_ms: Int64s, reported_ms: Int64s, now_ms: Int64s, dimensions: int
) -> Int64s:
    """Return int64[n, dimensions]: since when each value has been what it is at `now_ms`.

    With the facts as they are, the value is a function of time alone, and it can differ
    only at a deadline. So walk from `start_ms` (the event, or the first deadline that
    came) from deadline to deadline up to `now_ms`; the last instant at which the value
    became another one is the answer, and `reported_ms` is where it never did after the
    start. A start at or after now (a late or tolerated future event) takes no walk.
    The number of rounds is the largest number of deadlines one row has in between.
    """
    effective = np.repeat(reported_ms[:, None], dimensions, axis=1)
    walking = np.flatnonzero(start_ms < now_ms)
    at_ms = start_ms[walking]
    current = None
    while len(walking):
        outcome = evaluate(walking, at_ms)
        if current is not None:
            flipped = outcome.value != current
            effective[walking] = np.where(flipped, at_ms[:, None], effective[walking])
        further = outcome.due_ms <= now_ms[walking]
        current, walking, at_ms = outcome.value[further], walking[further], outcome.due_ms[further]
    return effective
