"""The page of figures is what the JSON yields, and nothing else."""

from __future__ import annotations

import json

from benchmarks.report import PAGE, PLOT, README, RESULTS, filled, markdown, sections


def test_the_figures_of_the_pages_are_those_of_the_committed_rounds() -> None:
    """No figure was typed: tables, provenance and the README's line follow from the JSON."""
    parts = sections(json.loads(RESULTS.read_text()))
    for page in (PAGE, README):
        assert filled(page.read_text(), parts) == page.read_text(), (
            f"run `python -m benchmarks report` ({page.name})"
        )


def test_every_section_has_its_place_on_a_page() -> None:
    """A figure nobody shows is no figure."""
    parts = sections(json.loads(RESULTS.read_text()))
    shown = PAGE.read_text() + README.read_text()
    assert [name for name in parts if f"<!-- bench {name} -->" not in shown] == []
    assert PLOT.name in shown and PLOT.exists()


def test_only_what_is_between_the_markers_is_replaced() -> None:
    """Prose stays, also an empty section is filled, and twice is the same as once."""
    page = (
        "before\n<!-- bench a -->\nold\nlines\n<!-- /bench -->\n"
        "between\n<!-- bench b -->\n<!-- /bench -->\nafter\n"
    )
    parts = {"a": "A", "b": "B"}
    new = (
        "before\n<!-- bench a -->\nA\n<!-- /bench -->\nbetween\n<!-- bench b -->\nB\n<!-- /bench -->\nafter\n"
    )
    assert filled(page, parts) == new
    assert filled(new, parts) == new


def test_a_table_is_markdown_with_figures_to_the_right() -> None:
    """The first column names, the others count."""
    assert markdown([("log", "n"), ("retail", "1")]) == "| log | n |\n| --- | --: |\n| retail | 1 |"


def test_figures_of_the_sdk_are_a_row_for_each_case() -> None:
    """What benchmarks.sdk writes down fits into the page, and its absence is said."""
    found = {**json.loads(RESULTS.read_text()), "sdk": None}
    assert sections(found)["sdk"] == "Not part of this run."
    found["sdk"] = {"cases": {"up, memory": {"rounds": [{"p99_us": 20.0}, {"p99_us": 40.0}]}}}
    assert sections(found)["sdk"].splitlines()[2] == "| up, memory | 30.0 (20.0 to 40.0) |"
