"""What rounds come to: medians and spreads, ratios within a round, and the fixed cost of a step. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over the rounds."""

    median: float
    least: float
    most: float

    @staticmethod
    def of(values: Iterable[float]) -> Spread:
        """Return median, least and most; a ValueError if there are none."""
        found = sorted(values)
        if not found:
            raise ValueError("a spread of no rounds")
        return Spread(statistics.median(found), found[0], found[-1])

    def shown(self, form: str = ",.1f") -> str:
        """Return `median (least to most)`; the median alone where the rounds do not differ as shown."""
        median, least, most = (format(each, form) for each in (self.median, self.least, self.most))
        return median if least == most else f"{median} ({least} to {most})"


@dataclass(frozen=True, slots=True)
class Results:
    """The runs of a JSON file: each a mapping with `round`, `case` and `figures`."""

    runs: Sequence[Mapping[str, Any]]

    def cases(self) -> list[dict[str, Any]]:
        """Return every case once, in the order of the first round."""
        seen: list[dict[str, Any]] = []
        for run in self.runs:
            if run["case"] not in seen:
                seen.append(run["case"])
        return seen

    def of(self, **wanted: Any) -> list[Mapping[str, Any]]:
        """Return the runs whose case has these values, by round."""
        found = [run for run in self.runs if all(run["case"].get(k) == v for k, v in wanted.items())]
        return sorted(found, key=lambda run: int(run["round"]))

    def spread(self, figure: str | Callable[[Mapping[str, float]], float], **wanted: Any) -> Spread | None:
        """Return a figure, or what is computed from a run's figures, over the rounds; None without runs."""
        take = (lambda figures: figures[figure]) if isinstance(figure, str) else figure
        runs = self.of(**wanted)
        return Spread.of(take(run["figures"]) for run in runs) if runs else None

    def ratio(self, figure: str, over: Mapping[str, Any], under: Mapping[str, Any]) -> Spread | None:
        """Return over/under, each divided within one round, where both ran."""
        below = {run["round"]: run["figures"][figure] for run in self.of(**under)}
        ratios = [
            run["figures"][figure] / below[run["round"]] for run in self.of(**over) if run["round"] in below
        ]
        return Spread.of(ratios) if ratios else None


def step_cost(runs: Iterable[Mapping[str, float]]) -> tuple[float, float]:
    """Return (ms of a step without records, µs of a record) from runs of one log in chunks of several sizes.

    CPU of a step = intercept + slope * its records: a line through the runs, by least squares. Each
    run has `steps`, `events` and `cpu_us_first_to_last`. A ValueError with fewer than two sizes.
    """
    records = np.array([run["events"] / run["steps"] for run in runs])
    if len(set(records.tolist())) < 2:
        raise ValueError("a line needs chunks of at least two sizes")
    cpu_us = np.array([run["cpu_us_first_to_last"] for run in runs]) * records
    # Each size counts alike: the residuals are relative to what a step of that size costs.
    slope, intercept = np.polyfit(records, cpu_us, 1, w=1 / cpu_us)
    return float(intercept) / 1e3, float(slope)
