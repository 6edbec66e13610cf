"""Random edits of segments.yaml, and definitions with dimensions of their own, for tests of versions."""

from __future__ import annotations

import random
import re

import numpy as np

from streams.segments.choices import FirstMatch
from streams.segments.conditions import Compare
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.segments.loading import DEFAULT_PATH, load
from streams.segments.versions import Version, Versions
from streams.segments.view import Plan

TEXT = DEFAULT_PATH.read_text()
NAMES = ("champions", "loyal", "potential_loyalist", "lost", "hibernating", "promising")


def edited(rng: random.Random, text: str = TEXT, spend: range = range(50, 3000)) -> str:
    """The file with some thresholds, spans and names changed; it looks back 365 days as before.

    Thresholds of money are drawn from `spend`.
    """
    days = sorted(rng.sample(range(5, 300), 4))
    orders = sorted(rng.sample(range(1, 9), 4))
    amounts = sorted(rng.sample(spend, 4))
    if rng.random() < 0.7:
        text = _edges(text, "recency_under", [f"{d}d" for d in days])
    if rng.random() < 0.7:
        text = _edges(text, "orders_at_least", orders[::-1])
    if rng.random() < 0.7:
        text = _edges(text, "spend_at_least", amounts[::-1])
    churned = rng.randrange(70, 250)
    text = re.sub(r"churned_after: \d+d", f"churned_after: {churned}d", text)
    text = re.sub(r"at_risk_after: \d+d", f"at_risk_after: {rng.randrange(10, churned)}d", text)
    text = re.sub(r"recent_for: \d+d", f"recent_for: {rng.randrange(5, 60)}d", text)
    for name in NAMES:
        # Names come, go, and come back.
        text = re.sub(rf"\b{name}\w*: \[", f"{name}{rng.choice(('', '', '_too', '_anew'))}: [", text)
    return text


def _edges(text: str, section: str, edges: list[object]) -> str:
    lines = "".join(f"    {score}: {edge}\n" for score, edge in zip((5, 4, 3, 2), edges, strict=True))
    return re.sub(rf"(  {section}:\n)(    \d: \S+\n)+", rf"\g<1>{lines}", text)


def version(number: int, text: str = TEXT) -> Version:
    """An applied version of this text."""
    return Version(number, text, load(text, "test").hash, 1_700_000_000_000 + number, "a test")


class Extended(Evaluator):
    """The core and, by name, segments of those with at least so many orders, or tiers of one dimension.

    A whole number makes a segment (null or its own name), several an exclusive dimension whose
    values are t0, t1, ... from the most orders on.
    """

    def __init__(self, definition: Definition, extra: dict[str, int | tuple[int, ...]]) -> None:
        super().__init__(definition)
        for name, floors in extra.items():
            exclusive = isinstance(floors, tuple)
            cuts = floors if isinstance(floors, tuple) else (floors,)
            cases = [(Compare(self._rfm.orders, ">=", floor), code) for code, floor in enumerate(cuts)]
            self._choices = (*self._choices, FirstMatch(cases, otherwise=len(cuts) if exclusive else -1))
            self.dimensions = (*self.dimensions, name)
            self.kinds = (*self.kinds, "exclusive" if exclusive else "custom")
            literals = (*(f"t{floor}" for floor in cuts), "rest") if exclusive else (name,)
            self.values = (*self.values, literals)
            self.shadows, self.counted = (*self.shadows, False), np.append(self.counted, True)
        self._plan = Plan(window for choice in self._choices for window in choice.windows())


class Changing(Versions):
    """Versions that tests add compiled."""

    def extend(self, evaluator: Evaluator) -> None:
        """Add a compiled version."""
        self._compiled[evaluator.definition.version] = evaluator
