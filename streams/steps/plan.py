"""How much of a chunk fits into the transaction that is being filled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streams.customers.facts import Int64s
from streams.steps.ticks import Ticks


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of a chunk: facts [row, row_end), ticks [tick, tick_end).

    `cut_sweep` says that the tick after these facts concerns more customers than fit: only
    so many of them, in the order of their ids, are evaluated, and the tick is not over.
    """

    row_end: int
    tick_end: int
    cut_sweep: bool = False


def next_piece(
    ticks: Ticks, due_ms: Int64s, *, row: int, rows: int, tick: int, room: int, fresh: bool
) -> Piece | None:
    """Choose the largest piece whose customers are at most `room`; None when it must wait.

    Behind pending work only what finishes the chunk is added: a transaction takes many turns of
    the event loop, and filling what room is left meanwhile would cut the work into crumbs,
    each with the fixed cost of a piece.

    The bound is exact from above: up to tick j, only customers with a fact before it, or
    with a deadline at or before it, are written; deadlines that arise on the way belong to
    those same customers. `row`, `tick`: how far the chunk is done; `rows`: facts in all;
    `due_ms`: int64[customers], every deadline of the partition; `fresh`: nothing is pending,
    so waiting for more room would be waiting for ever.
    """
    left = ticks.time_ms[tick:]
    customers = left
    if len(left):
        dues = np.sort(due_ms[due_ms <= left[-1]])
        customers = ticks.row[tick:] - row + np.searchsorted(dues, left, "right")
    fitting = int(np.searchsorted(customers, room, "right"))
    if fitting == len(left):
        # Facts after the last tick only make their customers pending.
        spent = int(customers[-1]) if len(left) else 0
        done_row = int(ticks.row[-1]) if len(left) else row
        row_end = min(rows, done_row + room - spent)
        return Piece(row_end, tick + fitting) if fresh or row_end == rows else None
    if not fresh:
        return None
    if fitting:
        return Piece(int(ticks.row[tick + fitting - 1]), tick + fitting)
    before = int(ticks.row[tick])
    if before > row:
        return Piece(min(before, row + room), tick)
    return Piece(row, tick, cut_sweep=True)
