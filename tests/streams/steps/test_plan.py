"""How much of a chunk fits: as much as there are customers for, and not a fact more."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.customers.facts import Erasures, Facts, Int64s, Strings
from streams.kafka.seam import Chunk
from streams.steps.plan import Piece, next_piece
from streams.steps.ticks import Ticks
from streams.steps.work import Work


def work_of(slots: list[int], tick_rows: list[int], row: int = 0, tick: int = 0) -> Work:
    """Facts of these customers with ticks, an hour apart, behind so many of them."""
    n, times = len(slots), np.arange(1, len(tick_rows) + 1) * 3_600_000
    codes, texts, none = np.zeros(n, np.uint8), Strings.from_list([b""] * n), np.zeros(n, np.int64)
    facts = Facts(np.arange(n), codes, texts, texts, none, texts, texts, codes, none, {}, {})
    rows = np.array(tick_rows, np.int64)
    tick_of_row = np.searchsorted(rows, np.arange(n), "right")
    ticks = Ticks(rows, times, rows)
    return Work(
        Chunk(0, (), 0, 0), facts, (), np.array(slots, np.int64), tick_of_row, none, ticks, (), none[:0],
        Erasures.none(), none[:0], none[:0], row=row, tick=tick,
    )  # fmt: skip


def concerned(work: Work, due: dict[int, int], piece: Piece) -> set[int]:
    """The customers a piece writes, said one by one."""
    found = {slot for slot in work.slots[work.row : piece.row_end].tolist() if slot >= 0}
    ticks = work.ticks.time_ms[work.tick : piece.tick_end].tolist()
    return found | {slot for slot, at in due.items() if ticks and at <= ticks[-1]}


def column(values: object) -> Int64s:
    """Numbers as a column."""
    return np.array(list(values), np.int64)  # type: ignore[call-overload]  # any iterable of numbers


@given(
    slots=st.lists(st.integers(-1, 9), max_size=40),
    data=st.data(),
    due=st.dictionaries(st.integers(0, 12), st.integers(-1, 6 * 3_600_000)),
    room=st.integers(1, 12),
)
def test_a_piece_is_the_largest_that_fits(
    slots: list[int], data: st.DataObject, due: dict[int, int], room: int
) -> None:
    """No piece concerns more customers than there is room for, and the next larger one would."""
    n = len(slots)
    rows = sorted(data.draw(st.lists(st.integers(0, n), max_size=6)))
    work = work_of(slots, rows)
    due = {slot: at for slot, at in due.items() if rows and at <= work.ticks.time_ms[-1]}
    piece = next_piece(work, column(due), column(due.values()), room=room, fresh=True)
    assert piece is not None
    if piece.cut_sweep:
        assert (piece.row_end, piece.tick_end) == (0, 0)
        assert len(concerned(work, due, Piece(rows[0], 1))) > room and rows[0] == 0
        return
    assert len(concerned(work, due, piece)) <= room
    # A larger one: to the next tick or the end, or by one fact where facts of no tick are counted.
    if piece == Piece(n, len(rows)):
        return
    if piece.row_end < (rows[piece.tick_end] if piece.tick_end < len(rows) else n) and (
        piece.tick_end in (0, len(rows))
    ):
        assert len(concerned(work, due, Piece(piece.row_end + 1, piece.tick_end))) > room
    else:
        assert len(concerned(work, due, Piece(rows[piece.tick_end], piece.tick_end + 1))) > room


def test_behind_pending_work_only_the_end_of_a_chunk_is_added() -> None:
    """What would leave a crumb waits; one customer's many facts are no crumb."""
    many = work_of([1, 2, 3, 4], [2])
    assert next_piece(many, column(()), column(()), room=3, fresh=False) is None
    assert next_piece(work_of([1] * 99, [50]), column(()), column(()), room=1, fresh=False) == Piece(99, 1)


def test_facts_behind_the_last_tick_of_customers_already_counted_take_no_room() -> None:
    """The first customer was there before the tick; the second would be one too many."""
    assert next_piece(work_of([1, 1, 1, 2], [1]), column(()), column(()), room=1, fresh=True) == Piece(3, 1)
