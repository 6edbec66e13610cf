"""Thresholds for the three scores, proposed from what today's customers are: a fifth of them for each score.

Scores stay values, never ranks: a person reads the proposal, puts it into the file, plans and applies it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from errors import TooFewCustomers
from streams.customers.facts import Int64s
from streams.segments.currencies import EXPONENTS
from streams.segments.definition import DAY_MS, Definition
from streams.steps.engine import PartitionEngine

SCORES = 5
BUYERS_MIN = 5
"""Fewer customers than scores cannot be told apart by five of them."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the scores are made of, of every customer who bought; three int64[n]."""

    age_ms: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    """Since the last order."""
    orders: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    net_minor: Int64s = field(default_factory=lambda: np.empty(0, np.int64))


def figures_of(engine: PartitionEngine) -> Figures:
    """Return the figures of a restored partition at its clock."""
    slots = np.arange(engine.table.count)
    if not len(slots):
        return Figures()
    outcome = engine.evaluator.evaluate(engine.table, slots, np.full(len(slots), engine.clock_ms))
    bought = outcome.scores[:, 0] > 0
    age_ms = np.maximum(engine.clock_ms - outcome.last_purchase_ms[bought], 0)
    return Figures(age_ms, outcome.orders[bought], outcome.net_minor[bought])


def joined(parts: Iterable[Figures]) -> Figures:
    """Return the figures of all partitions."""
    each = list(parts) or [Figures()]
    return Figures(
        np.concatenate([part.age_ms for part in each]),
        np.concatenate([part.orders for part in each]),
        np.concatenate([part.net_minor for part in each]),
    )


def edges(values: Int64s, *, least: int, unit: int = 1) -> list[int]:
    """Return four rising multiples of `unit` from `least` on that cut values into fifths as well as they can.

    A value that many customers share cannot be cut: the next edge is then the next multiple. None is
    so low that nobody would score 1.
    """
    least = max(least, (int(values.min()) // unit + 1) * unit)
    found: list[int] = []
    for fifth in range(1, SCORES):
        cut = int(np.quantile(values, fifth / SCORES, method="inverted_cdf"))
        lowest = found[-1] + unit if found else least
        found.append(max(lowest, -(-cut // unit) * unit))
    return found


def proposal(figures: Figures, definition: Definition) -> str:
    """Return the fragment of segments.yaml to put in place of the thresholds there.

    Raises TooFewCustomers.
    """
    buyers = len(figures.orders)
    if buyers < BUYERS_MIN:
        raise TooFewCustomers(f"{buyers} customers have bought; thresholds need at least {BUYERS_MIN}")
    minor = 10 ** EXPONENTS[definition.reporting_currency]
    days = edges(figures.age_ms, least=DAY_MS, unit=DAY_MS)
    orders = edges(figures.orders, least=1)
    spend = edges(figures.net_minor, least=minor, unit=minor)
    lines = [
        f"# From {buyers:,} customers who have bought. Put these into the rfm section, then `shoal plan`.",
        "rfm:",
        *_section(
            "recency_under", [f"{edge // DAY_MS}d" for edge in days], _shares(figures.age_ms, days)[::-1]
        ),
        *_section("orders_at_least", orders[::-1], _shares(figures.orders, orders)),
        *_section(
            "spend_at_least", [edge // minor for edge in spend[::-1]], _shares(figures.net_minor, spend)
        ),
    ]
    return "\n".join(lines) + "\n"


def _shares(values: Int64s, rising: Sequence[int]) -> list[float]:
    """Return the share of customers between the edges, from the lowest values on."""
    counts = np.bincount(np.searchsorted(np.array(rising), values, "right"), minlength=SCORES)
    return [count / len(values) for count in counts.tolist()]


def _section(name: str, edges_: Sequence[object], shares: Sequence[float]) -> list[str]:
    """Write one section; `edges_` from score 5 to 2, `shares` from score 1 to 5."""
    lines = [f"  {name}:  # {shares[0]:.0%} have score 1"]
    for score, edge in zip(range(SCORES, 1, -1), edges_, strict=True):
        lines.append(f"    {score}: {edge}  # {shares[score - 1]:.0%}")
    return lines
