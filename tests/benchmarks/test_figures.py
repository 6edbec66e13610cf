"""What rounds come to."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.figures import Results, Spread, step_cost


def run(number: int, contender: str, cpu_us: float) -> dict[str, Any]:
    """One run with one figure."""
    return {"round": number, "case": {"contender": contender}, "figures": {"cpu_us": cpu_us}}


def test_a_spread_is_median_least_and_most() -> None:
    """An outlier moves an end, not the middle."""
    assert Spread.of([3.0, 100.0, 1.0]) == Spread(3.0, 1.0, 100.0)
    assert Spread.of([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)


def test_a_spread_of_nothing_is_an_error() -> None:
    """No figure is made up where there was no round."""
    with pytest.raises(ValueError, match="no rounds"):
        Spread.of([])


def test_a_spread_is_shown_with_its_ends_unless_they_are_the_same() -> None:
    """Rounds that do not differ at the precision shown need no brackets."""
    assert Spread(1234.56, 1000.0, 2000.0).shown() == "1,234.6 (1,000.0 to 2,000.0)"
    assert Spread(5.01, 5.0, 5.02).shown() == "5.0"


def test_ratios_are_taken_within_a_round() -> None:
    """A noisy round, which slows both, does not show in the ratio; a round with one of them has none."""
    results = Results(
        [
            run(1, "shoal", 10.0), run(1, "faust", 300.0),
            run(2, "shoal", 20.0), run(2, "faust", 600.0),
            run(3, "faust", 9.0),
        ]
    )  # fmt: skip
    assert results.ratio("cpu_us", {"contender": "faust"}, {"contender": "shoal"}) == Spread(30.0, 30.0, 30.0)


def test_cases_come_once_and_in_the_order_they_ran() -> None:
    """The tables have a row for each."""
    results = Results([run(2, "shoal", 1.0), run(1, "faust", 1.0), run(1, "shoal", 1.0)])
    assert results.cases() == [{"contender": "shoal"}, {"contender": "faust"}]


def test_the_cost_of_a_step_is_the_line_through_the_runs() -> None:
    """2 ms a step and 5 µs a record are found again from three chunk sizes."""

    def cut(size: int, events: int = 6_000) -> dict[str, float]:
        steps = events / size
        cpu_us = steps * 2_000 + events * 5
        return {"steps": steps, "events": events, "cpu_us_first_to_last": cpu_us / events}

    assert step_cost([cut(10), cut(100), cut(1_000)]) == pytest.approx((2.0, 5.0))


def test_one_size_of_chunk_makes_no_line() -> None:
    """Two unknowns need two sizes."""
    with pytest.raises(ValueError, match="two sizes"):
        step_cost([{"steps": 10, "events": 100, "cpu_us_first_to_last": 3.0}])
