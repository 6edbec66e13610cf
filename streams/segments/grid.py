"""The grid that names every combination of scores, and the proof that it names each exactly once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from errors import DefinitionError

SCORES = range(1, 6)
SUMS = range(2, 11)
"""What a frequency and a monetary score can add up to."""

PROSPECT = "prospect"
"""The value of who never bought, outside the grid: code 0 of the rfm dimension."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Names claiming cells (R, FM), and FM columns claiming sums F + M. Never anything but total.

    Raises DefinitionError naming every cell that is left out or claimed twice.
    """

    claims: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]
    columns: tuple[tuple[int, tuple[int, ...]], ...]

    def __post_init__(self) -> None:
        flaws = prove(self.claims, self.columns)
        if flaws:
            raise DefinitionError(flaws)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the order they were declared."""
        return tuple(name for name, _ in self.claims)

    def codes(self) -> npt.NDArray[np.int16]:
        """Return int16[6, 6, 6]: (r, f, m) to an index into ("prospect", *names); 0 where a score is 0."""
        column_of = {total: column for column, sums in self.columns for total in sums}
        code_of = {cell: code for code, (_, cells) in enumerate(self.claims, 1) for cell in cells}
        codes = np.zeros((6, 6, 6), np.int16)
        for r, f, m in product(SCORES, SCORES, SCORES):
            codes[r, f, m] = code_of[r, column_of[f + m]]
        return codes


def prove(
    claims: Sequence[tuple[str, Sequence[tuple[int, int]]]], columns: Sequence[tuple[int, Sequence[int]]]
) -> list[str]:
    """Check all 125 score triples; return one sentence per cell left out, claimed twice or out of reach."""
    columns_of: dict[int, list[int]] = defaultdict(list)
    for column, sums in columns:
        for total in sums:
            columns_of[total].append(column)
    names_of: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name, cells in claims:
        for cell in cells:
            names_of[cell].append(name)
    flaws: dict[str, None] = {}
    reached: set[tuple[int, int]] = set()
    for r, f, m in product(SCORES, SCORES, SCORES):
        found = columns_of[f + m]
        if len(found) != 1:
            claimed = f"claimed by FM {' and '.join(map(str, found))}" if found else "left out"
            flaws[f"F+M={f + m}: expected exactly one FM column, got it {claimed}"] = None
        for column in found:
            cell = (r, column)
            reached.add(cell)
            if len(names_of[cell]) != 1:
                got = f"claimed by {' and '.join(names_of[cell])}" if names_of[cell] else "left out"
                flaws[f"cell R{r} FM{column}: expected exactly one name, got it {got}"] = None
    for r, column in names_of:
        if r not in SCORES or column not in SCORES:
            flaws[f"cell R{r} FM{column}: expected R and FM within 1..5, got it out of range"] = None
        elif (r, column) not in reached and names_of[r, column]:
            flaws[f"cell R{r} FM{column}: expected an FM that some F+M leads to, got one without"] = None
    return list(flaws)
