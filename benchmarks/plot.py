"""The plot of the page of figures: what an event costs, by stage, and what the peer spends."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import Results
from benchmarks.report import NAMES, STAGES, other_us

COLOURS = ("#4c78a8", "#72b7b2", "#54a24b", "#eeca3b", "#bab0ac")


def draw(found: Mapping[str, Any], path: Path) -> None:
    """Write the plot; the same JSON gives the same file."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "shoal"
    results = Results(found["runs"])
    figure, (stages, peers) = pyplot.subplots(
        1, 2, figsize=(11, 3.6), width_ratios=(3, 2), layout="constrained"
    )
    _draw_stages(stages, results)
    _draw_peers(peers, results)
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)


def _draw_stages(axes: Any, results: Results) -> None:
    cases = [each for each in results.cases() if (each["contender"], each["extent"]) == ("shoal", "whole")]
    names = [f"{NAMES[c['stream']]}\n{c['mode']}, {c['partitions']} p." for c in cases]
    lefts = [0.0] * len(cases)
    for stage, colour in zip((*STAGES, "everything else"), COLOURS, strict=True):
        take = other_us if stage == "everything else" else f"stage_{stage}_us"
        spreads = [results.spread(take, **case) for case in cases]
        widths = [each.median if each else 0.0 for each in spreads]
        axes.barh(names, widths, left=lefts, color=colour, label=stage)
        lefts = [left + width for left, width in zip(lefts, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("CPU µs an event, medians")
    axes.set_title("Shoal, whole logs, by stage", fontsize=10)
    axes.tick_params(labelsize=7)
    axes.legend(fontsize=7)


def _draw_peers(axes: Any, results: Results) -> None:
    cases = [each for each in results.cases() if each["extent"] == "prefix"]
    for at, case in enumerate(cases):
        spread = results.spread("cpu_us_first_to_last", **case)
        assert spread is not None, "a case is one because it ran"
        error = [[spread.median - spread.least], [spread.most - spread.median]]
        colour = COLOURS[0] if case["contender"] == "shoal" else COLOURS[3]
        axes.barh(at, spread.median, xerr=error, color=colour)
        axes.annotate(f" {spread.median:,.0f}", (spread.most, at), va="center", fontsize=8)
    axes.set_yticks(range(len(cases)), [f"{c['contender']}\n{NAMES[c['stream']]}" for c in cases], fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("CPU µs an event, median, least and most")
    axes.set_title("The same events, the same results", fontsize=10)
