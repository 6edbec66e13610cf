"""The grid is total or it does not exist."""

from __future__ import annotations

from itertools import product

import pytest

from errors import DefinitionError
from streams.segments.definition import Definition
from streams.segments.grid import Grid, prove

COLUMNS = ((1, (2, 3)), (2, (4, 5)), (3, (6, 7)), (4, (8,)), (5, (9, 10)))
EVERYTHING = (("everyone", tuple(product(range(1, 6), range(1, 6)))),)


def test_default_grid_is_the_published_table(definition: Definition) -> None:
    """All 125 triples have the name the design's table gives them."""
    rows = {
        5: "new potential_loyalist potential_loyalist champions champions",
        4: "promising potential_loyalist potential_loyalist loyal loyal",
        3: "about_to_sleep about_to_sleep need_attention loyal loyal",
        2: "hibernating hibernating at_risk at_risk cant_lose",
        1: "lost lost at_risk at_risk cant_lose",
    }
    column = {2: 1, 3: 1, 4: 2, 5: 2, 6: 3, 7: 3, 8: 4, 9: 5, 10: 5}
    codes, names = definition.grid.codes(), ("prospect", *definition.grid.names)
    for r, f, m in product(range(1, 6), repeat=3):
        assert names[codes[r, f, m]] == rows[r].split()[column[f + m] - 1]


def test_default_grid_has_eleven_names(definition: Definition) -> None:
    """The names are those of the design, each once."""
    assert len(set(definition.grid.names)) == len(definition.grid.names) == 11


def test_a_score_of_none_has_no_code(definition: Definition) -> None:
    """Where any score is 0 the code is that of a prospect."""
    codes = definition.grid.codes()
    assert not codes[0].any() and not codes[:, 0].any() and not codes[:, :, 0].any()


def test_every_gap_is_named() -> None:
    """Each cell nobody claims is reported, not only the first."""
    claims = (("some", tuple(c for c in EVERYTHING[0][1] if c not in {(2, 3), (5, 5)})),)
    assert prove(claims, COLUMNS) == [
        "cell R2 FM3: expected exactly one name, got it left out",
        "cell R5 FM5: expected exactly one name, got it left out",
    ]


def test_every_overlap_names_its_claimants() -> None:
    """A cell claimed twice says by whom, also when one name claims it twice."""
    claims = (*EVERYTHING, ("other", ((1, 1),)), ("twice", ((2, 2), (2, 2))))
    assert prove(claims, COLUMNS) == [
        "cell R1 FM1: expected exactly one name, got it claimed by everyone and other",
        "cell R2 FM2: expected exactly one name, got it claimed by everyone and twice and twice",
    ]


def test_cells_out_of_range_are_named() -> None:
    """A claim beyond 1..5 would never match and is refused."""
    assert prove((*EVERYTHING, ("far", ((6, 1), (1, 0)))), COLUMNS) == [
        "cell R6 FM1: expected R and FM within 1..5, got it out of range",
        "cell R1 FM0: expected R and FM within 1..5, got it out of range",
    ]


@pytest.mark.parametrize(
    ("columns", "flaws"),
    [
        (COLUMNS[:4], ["F+M=9", "F+M=10", "cell R1 FM5", "cell R5 FM5"]),
        ((*COLUMNS[:4], (5, (9,))), ["F+M=10"]),
        ((*COLUMNS[:4], (5, (8, 9, 10))), ["F+M=8"]),
    ],
    ids=["a column without sums", "a sum left out", "a sum claimed twice"],
)
def test_sums_are_proven_too(columns, flaws: list[str]) -> None:
    """Every F + M leads to exactly one column, and every column can be reached."""
    found = prove(EVERYTHING, columns)
    for flaw in flaws:
        assert any(line.startswith(f"{flaw}:") for line in found), flaw


def test_a_broken_grid_cannot_be_built() -> None:
    """Whoever holds a Grid holds a proof: the constructor refuses anything else."""
    with pytest.raises(DefinitionError, match="cell R1 FM1: expected exactly one name, got it left out"):
        Grid((("some", EVERYTHING[0][1][1:]),), COLUMNS)
