"""How much of a chunk fits into the transaction that is being filled: up to the next erasure at most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streams.customers.facts import Int64s
from streams.steps.work import Work


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of a chunk: facts [row, row_end), ticks [tick, tick_end).

    `cut_sweep` says that the tick after these facts concerns more customers than fit: only
    so many of them, in the order of their ids, are evaluated, and the tick is not over.
    """

    row_end: int
    tick_end: int
    cut_sweep: bool = False


def next_piece(work: Work, due_slots: Int64s, due_ms: Int64s, *, room: int, fresh: bool) -> Piece | None:
    """Choose the largest piece whose customers are at most `room`; None when it must wait.

    Behind pending work only what finishes the chunk is added: a transaction takes many turns of
    the event loop, and filling what room is left meanwhile would cut the work into crumbs,
    each with the fixed cost of a piece.

    The bound is exact from above: up to tick j, only customers with a fact before it, or
    with a deadline at or before it, are written; deadlines that arise on the way belong to
    those same customers. `due_slots`: whose deadline comes by the last tick of the work, and
    `due_ms` when, one each; `fresh`: nothing is pending, so waiting for more room would be
    waiting for ever.
    """
    row, rows, tick, ticks = work.row, work.row_limit, work.tick, work.ticks
    everything = Piece(rows, work.tick_limit)
    if rows - row + len(due_slots) <= room:
        return everything
    left = work.tick_limit - tick
    customers, seen = _customers_by_tick(work, due_slots, due_ms)
    if customers[-1] <= room:
        return everything
    if not fresh:
        return None
    fitting = int(np.searchsorted(customers[:left], room, "right"))
    if fitting == left:
        # Facts after the last tick only make their customers pending.
        done_row, spent = row, 0
        if left:
            done_row, spent = int(ticks.row[tick + left - 1]), int(customers[left - 1])
        fitting_rows = _rows_of_few(work.slots[done_row:rows], seen, room - spent)
        return Piece(done_row + fitting_rows, work.tick_limit)
    if fitting:
        return Piece(int(ticks.row[tick + fitting - 1]), tick + fitting)
    before = int(ticks.row[tick])
    if before > row:
        return Piece(row + _rows_of_few(work.slots[row:before], seen[:0], room), tick)
    return Piece(row, tick, cut_sweep=True)


def _customers_by_tick(work: Work, due_slots: Int64s, due_ms: Int64s) -> tuple[Int64s, Int64s]:
    """Return how many customers each tick left concerns, those before it included, and who they are.

    The former has one entry more, for the facts after the last tick; the latter is without them.
    """
    left, rows = work.tick_limit - work.tick, slice(work.row, work.row_limit)
    slots = work.slots[rows]
    known = slots >= 0
    ticks = (work.tick_of_row[rows] - work.tick)[known]
    due_ticks = np.searchsorted(work.ticks.time_ms[work.tick : work.tick_limit], due_ms)
    # Customer and tick as one number: sorted, the first of each customer is the first that concerns it.
    pairs = np.concatenate((slots[known], due_slots)) * (left + 1) + np.concatenate((ticks, due_ticks))
    pairs.sort()
    first = np.ones(len(pairs), np.bool_)
    first[1:] = pairs[1:] // (left + 1) != pairs[:-1] // (left + 1)
    who, when = np.divmod(pairs[first], left + 1)
    return np.bincount(when, minlength=left + 1).cumsum(), who[when < left]


def _rows_of_few(slots: Int64s, seen: Int64s, room: int) -> int:
    """Return how many of the first facts belong to `seen` and at most `room` others."""
    new = np.zeros(len(slots), np.bool_)
    new[np.unique(slots, return_index=True)[1]] = True
    new &= (slots >= 0) & ~np.isin(slots, seen)
    return int(np.searchsorted(new.cumsum(), room, "right"))
