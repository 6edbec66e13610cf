"""Changes noted while a round goes on, dated together and made moves at its end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.customers.facts import NEVER_MS, Bools, Int64s, UInt8s
from streams.segments.evaluate import Outcome
from streams.steps.moves import Moves


@dataclass(frozen=True, slots=True)
class Changed:
    """n evaluations that changed a value each: what was before, and what it came of."""

    who: Int64s
    """Places in the columns of a piece of work; a customer may come often, in the order of its changes."""
    at: Int64s
    """The tick of each."""
    outcome: Outcome
    changed: Bools
    """[n, dimensions]: which values."""
    value: npt.NDArray[np.int16]
    """[n, dimensions], before; so are `scores`."""
    scores: UInt8s
    cause: UInt8s
    cause_row: Int64s
    """The fact that stands for the cause; -1: it came before this piece of work."""
    start_ms: Int64s
    """From when on the change may be true."""
    reported_ms: Int64s
    """When it is, if nothing between then and the tick made it true."""


def joined(parts: Sequence[Changed]) -> Changed:
    """Put several batches end to end."""
    if len(parts) == 1:
        return parts[0]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in Changed.__dataclass_fields__
        if name != "outcome"
    }
    return Changed(outcome=Outcome.concatenate([part.outcome for part in parts]), **columns)


def follow(current_ms: Int64s, noted: Changed, sizes: Sequence[int], effective_ms: Int64s) -> Int64s:
    """Return int64[n, dimensions]: since when each value was what it was before, NEVER_MS if it was none.

    `current_ms` is that of every customer, and is moved on; `sizes` are those of the batches,
    in which nobody comes twice. No change is true before the one before it: `effective_ms`,
    int64[n, dimensions], is raised where it is.
    """
    known = noted.value >= 0
    since_ms = np.full(known.shape, NEVER_MS)
    start = 0
    for size in sizes:
        rows, start = slice(start, start + size), start + size
        before = current_ms[noted.who[rows]]
        raised(effective_ms[rows], noted.value[rows], before)
        np.copyto(since_ms[rows], before, where=known[rows])
        np.copyto(before, effective_ms[rows], where=noted.changed[rows])
        current_ms[noted.who[rows]] = before
    return since_ms


def raised(effective_ms: Int64s, value: npt.NDArray[np.int16], since_ms: Int64s) -> None:
    """Raise int64[n, dimensions] in place to since when the values before were held.

    Who left a segment holds no value, and the instant of leaving: coming back is never before it.
    """
    np.maximum(effective_ms, since_ms, out=effective_ms, where=(value >= 0) | (since_ms != 0))


def moves_of(
    noted: Changed,
    slots: Int64s,
    event_ids: Sequence[bytes],
    account_ids: Sequence[str | None],
    effective_ms: Int64s,
    since_ms: Int64s,
) -> Moves:
    """Return one move per changed value: the customers' entries once for each dimension that changed."""
    row, dimension = noted.changed.nonzero()
    picked, outcome = row.tolist(), noted.outcome
    return Moves(
        slot=slots[row],
        dimension=dimension,
        before=noted.value[row, dimension],
        after=outcome.value[row, dimension],
        tick=noted.at[row],
        cause=noted.cause[row],
        event_id=[event_ids[i] for i in picked],
        account_id=[account_ids[i] for i in picked],
        effective_at_ms=effective_ms[row, dimension],
        previous_since_ms=since_ms[row, dimension],
        expires_at_ms=outcome.due_ms[row],
        scores_before=noted.scores[row],
        scores_after=outcome.scores[row],
        last_purchase_ms=outcome.last_purchase_ms[row],
        orders=outcome.orders[row],
        net_minor=outcome.net_minor[row],
    )
