"""The tables of what many segments cost, from the JSON of their rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.figures import Results
from benchmarks.report import Table, markdown

Figures = Mapping[str, Any]
PARTS = {"build": "from nothing", "steady": "then, chunks of 5,000", "small": "then, a step a Tick"}
_STAGES = ("decode", "plan", "apply", "evaluate", "changes", "rows")


def sections(found: Mapping[str, Any]) -> dict[str, str]:
    """Return marker name to the Markdown that belongs between its markers."""
    results = Results(found["runs"])
    converted = all("conversion" in run["figures"] for run in found["runs"])
    return {
        "segments_events": markdown(_events(results)),
        "segments_stages": markdown(_stages(results)),
        "segments_bytes": markdown(_bytes(results)),
        **({"segments_convert": markdown(_convert(results))} if converted else {}),
    }


def _rows(
    results: Results, head: Sequence[str], columns: Sequence[tuple[Callable[[Figures], float], str]]
) -> Table:
    trees = {case["tree"] for case in results.cases()}
    table: Table = [(*(("tree",) if len(trees) > 1 else ()), "segments", *head)]
    for case in results.cases():
        shown = []
        for take, form in columns:
            spread = results.spread(take, **case)
            shown.append("-" if spread is None else spread.shown(form))
        named = (case["tree"],) if len(trees) > 1 else ()
        table.append((*named, str(case["segments"]), *shown))
    return table


def _part(part: str, figure: str) -> Callable[[Figures], float]:
    return lambda figures: float(figures["parts"][part].get(figure, 0.0))


def _events(results: Results) -> Table:
    head = [f"CPU µs/event {name}" for name in PARTS.values()]
    columns = [(_part(part, "cpu_us"), ",.1f") for part in PARTS]
    head += ["ms a small step", "changes an event", "segments a customer is in"]
    columns += [
        (_part("small", "cpu_ms_a_step"), ",.2f"),
        (_part("steady", "changes"), ",.2f"),
        (lambda figures: float(figures["memberships"]), ",.2f"),
    ]
    return _rows(results, head, columns)


def _stages(results: Results) -> Table:
    return _rows(results, _STAGES, [(_part("steady", f"{stage}_us"), ",.2f") for stage in _STAGES])


def _convert(results: Results) -> Table:
    head = (
        "CPU s for all", "CPU µs a customer", "slices", "CPU ms a slice, median", "p99", "longest",
        "rows written a customer", "changes a customer",
    )  # fmt: skip

    def of(figure: str) -> Callable[[Figures], float]:
        return lambda figures: float(figures["conversion"][figure])

    return _rows(
        results,
        head,
        [
            (of("cpu_s"), ",.1f"),
            (_part("convert", "cpu_us"), ",.1f"),
            (of("slices"), ",.0f"),
            (of("p50_ms"), ",.1f"),
            (of("p99_ms"), ",.1f"),
            (of("max_ms"), ",.1f"),
            (_part("convert", "rows"), ",.2f"),
            (_part("convert", "changes"), ",.2f"),
        ],
    )


def _bytes(results: Results) -> Table:
    head = (
        "bytes of arrays a customer", "of these columns", "of the changelog a customer", "of a row written",
        "of rows an event", "of a membership", "peak MiB",
    )  # fmt: skip
    columns: list[tuple[Callable[[Figures], float], str]] = [
        (lambda figures: float(sum(figures["state_bytes"].values())), ",.0f"),
        (lambda figures: float(figures["state_bytes"]["columns"]), ",.0f"),
        (lambda figures: float(figures["changelog_bytes"]), ",.0f"),
        (_part("steady", "bytes_a_row"), ",.0f"),
        (_part("steady", "row_bytes_an_event"), ",.0f"),
        (_part("steady", "bytes_a_membership"), ",.0f"),
        (lambda figures: float(figures["peak_mib"]), ",.0f"),
    ]
    return _rows(results, head, columns)
