"""How late changes were before, during and after everybody was converted to an edited definition. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.report import Table

PHASES = ("before", "during", "after")


@dataclass(frozen=True, slots=True)
class Seen:
    """One change of the cause `event` that a read_committed consumer got; ms UTC."""

    sent_ms: float
    """When the event behind it was handed to the SDK."""
    read_ms: float


def by_phase(seen: Iterable[Seen], applied_ms: float, converted_ms: float) -> dict[str, dict[str, float]]:
    """Return phase to its figures: how many changes, and p50, p99 and the most of their ms of latency.

    An event belongs to the phase it was sent in; `applied_ms` and `converted_ms` are the beginning and the
    end of `during`. A phase without a change has its count alone.
    """
    lags_ms: dict[str, list[float]] = {phase: [] for phase in PHASES}
    for each in seen:
        phase = PHASES[(each.sent_ms >= applied_ms) + (each.sent_ms > converted_ms)]
        lags_ms[phase].append(each.read_ms - each.sent_ms)
    return {phase: _figures(lags) for phase, lags in lags_ms.items()}


def _figures(lags_ms: Sequence[float]) -> dict[str, float]:
    if not lags_ms:
        return {"changes": 0}
    p50, p99, most = np.percentile(lags_ms, (50, 99, 100)).tolist()
    return {"changes": len(lags_ms), "p50_ms": p50, "p99_ms": p99, "max_ms": most}


def table(runs: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row for each phase of each run."""
    rows: Table = [("segments", "s to convert all", "events sent", "changes", "p50 ms", "p99 ms", "max ms")]
    for run in runs:
        for phase in PHASES:
            found = run["phases"][phase]
            shown = [
                f"{found[name]:,.0f}" if name in found else "-" for name in ("p50_ms", "p99_ms", "max_ms")
            ]
            seconds = f"{run['converting_s']:.1f}"
            rows.append((str(run["segments"]), seconds, phase, f"{found['changes']:,}", *shown))
    return rows
