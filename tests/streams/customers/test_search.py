"""The search over many sorted stretches at once, against counting."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.customers.search import first_above

stretches = st.lists(st.lists(st.integers(-5, 30), max_size=40), min_size=1, max_size=6)


def _arena(stretches: list[list[int]], gap: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # The gaps hold values that would be found if a search left its stretch.
    column: list[int] = [7] * gap
    starts, ends = [], []
    for stretch in stretches:
        starts.append(len(column))
        column += sorted(stretch)
        ends.append(len(column))
        column += [3] * gap
    return np.array(column or [0], np.int64), np.array(starts), np.array(ends)


@given(stretches, st.integers(0, 2), st.lists(st.integers(-7, 32), min_size=2, max_size=2), st.booleans())
def test_it_finds_the_first_entry_above(
    stretches: list[list[int]], gap: int, asked: list[int], whale: bool
) -> None:
    """Every answer is the stretch's start plus how many entries do not exceed the question."""
    if whale:
        stretches = [*stretches, [i // 100 for i in range(3000)]]
    column, starts, ends = _arena(stretches, gap)
    after = np.array(asked)[:, None] + np.zeros(len(starts), np.int64)
    found = first_above(column, starts, ends, after, int((ends - starts).max()))
    for row, question in enumerate(asked):
        expected = [s + int((column[s:e] <= question).sum()) for s, e in zip(starts, ends, strict=True)]
        assert found[row].tolist() == expected
        alone = first_above(column, starts, ends, after[row], int((ends - starts).max()))
        assert alone.tolist() == expected


def test_many_stretches_take_the_halving_path_and_agree() -> None:
    """With thousands of customers long stretches are halved first; the answers stay the same."""
    random = np.random.default_rng(5)
    stretches = [random.integers(0, 50, random.integers(0, 60)).tolist() for _ in range(3000)]
    column, starts, ends = _arena(stretches, 1)
    after = random.integers(-1, 51, (2, len(starts)))
    found = first_above(column, starts, ends, after, int((ends - starts).max()))
    for row in (0, 1):
        pairs = zip(starts, ends, after[row], strict=True)
        assert found[row].tolist() == [s + int((column[s:e] <= q).sum()) for s, e, q in pairs]
