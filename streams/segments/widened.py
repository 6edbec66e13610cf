"""A definition's evaluator, for a table some of whose customers still hold values of an earlier one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from streams.customers.facts import Int64s
from streams.segments.evaluate import Evaluator, Outcome
from streams.segments.settling import RULE_SUFFIX, is_hidden
from streams.segments.view import Table

Layout = Mapping[str, tuple[str, ...]]
"""Dimension to its values."""


class Widened(Evaluator):
    """Evaluates as `inner` does; knows, behind its dimensions and values, those that are no more.

    So codes of `inner` are codes here. In a dimension that is no more everybody's value is null.
    """

    def __init__(self, inner: Evaluator, held: Layout, kinds: Mapping[str, str]) -> None:
        """`held` are the dimensions and values customers may have; `kinds` of those `inner` lacks."""
        self.inner, self.definition = inner, inner.definition
        gone = [name for name in held if name not in inner.dimensions]
        self.gone = {name: kinds.get(name, "unknown") for name in gone}
        self.dimensions = (*inner.dimensions, *gone)
        self.kinds = (*inner.kinds, *self.gone.values())
        self.shadows = (*inner.shadows, *(is_hidden(name) for name in gone))
        self.counted = np.append(inner.counted, [not name.endswith(RULE_SUFFIX) for name in gone]).astype(
            bool
        )
        self.delays, self.series = inner.delays, inner.series
        self.reads_traits, self.reads_entities = inner.reads_traits, inner.reads_entities
        self.values = (
            *(
                (*values, *(text for text in held.get(name, ()) if text not in values))
                for name, values in zip(inner.dimensions, inner.values, strict=True)
            ),
            *(held[name] for name in gone),
        )

    def evaluate(self, table: Table, slots: Int64s, now_ms: Int64s) -> Outcome:
        """See Evaluator."""
        outcome = self.inner.evaluate(table, slots, now_ms)
        if not self.gone:
            return outcome
        null = np.full((len(slots), len(self.gone)), -1, np.int16)
        return replace(outcome, value=np.hstack((outcome.value, null)))
