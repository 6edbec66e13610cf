"""The comparison finds every kind of disagreement and says it in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo.check import compare
from demo.oracle import Standing

LOYAL = Standing(1_000, 7, 60_000, (5, 4, 4), "champions", "loyal")


def test_equal_sides_have_no_differences() -> None:
    """Nobody is named when both sides agree."""
    assert compare({"1": LOYAL, "2": LOYAL}, {"2": LOYAL, "1": LOYAL}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"recency_ms": 1_001},
        {"recency_ms": None},
        {"orders": 8},
        {"net_minor": 60_001},
        {"scores": (5, 4, 5)},
        {"rfm": "loyal"},
        {"lifecycle": "active"},
    ],
)
def test_a_difference_in_any_one_field_is_found(change: dict[str, object]) -> None:
    """Each field is compared on its own and named."""
    (difference,) = compare({"1": LOYAL}, {"1": replace(LOYAL, **change)})  # type: ignore[arg-type]  # field by name

    assert difference.wrong == tuple(change)
    assert "SQL says" in str(difference)


def test_a_customer_known_to_one_side_only_is_a_difference() -> None:
    """Missing and unexpected customers count as differing."""
    differences = compare({"1": LOYAL}, {"2": LOYAL})

    assert [str(difference) for difference in differences] == [
        "customer 1: missing",
        "customer 2: unexpected",
    ]
