"""How often values would have changed lately had a definition held, judged day by day from the facts kept."""

from __future__ import annotations

import numpy as np

from streams.customers.facts import Int64s
from streams.past import Past
from streams.segments.definition import DAY_MS
from streams.segments.settling import Values, follow
from streams.steps.engine import PartitionEngine

BACKTEST_DAYS = 30
BACKTEST_CUSTOMERS_MAX = 5_000
"""Of a partition, looked at day by day; more are judged by these."""


def changes_a_day(engine: PartitionEngine) -> tuple[dict[str, float], int]:
    """Return, by dimension, how often a day values would have changed over the last days, and of how many.

    Each customer is evaluated at the end of each day with the facts of that day, subscriptions and tickets
    too; of traits only the latest value is known, which counts as if it had always been that. Memberships
    follow their rules with their delays from the first day on, at which nobody waits.
    """
    table, evaluator = engine.table, engine.evaluator
    slots: Int64s = np.argsort(table.ordering())
    slots = slots[table.slots.lengths_of(slots) > 0][:BACKTEST_CUSTOMERS_MAX]
    if not len(slots):
        return dict.fromkeys(evaluator.dimensions, 0.0), 0
    changes = np.zeros(len(evaluator.dimensions))
    held: Values | None = None
    for day in range(BACKTEST_DAYS, -1, -1):
        now_ms = engine.clock_ms - day * DAY_MS
        at_ms = np.full(len(slots), now_ms)
        past = Past(table, slots, at_ms, traits_as_now=True)
        value = evaluator.evaluate(past, slots, at_ms).value
        if held is None:
            # Who is out has never been in, as far as this goes: no cooldown is waited for.
            held = value, np.where(value >= 0, now_ms, 0)
            continue
        before, since_ms = held
        since_ms = np.where(value != before, now_ms, since_ms)
        if evaluator.delays:
            value, instants, _ = follow(evaluator.delays, held, (value, since_ms), at_ms)
            for place, began_ms in instants.items():
                since_ms[:, place] = began_ms
        changes += (value != before).sum(axis=0)
        held = value, since_ms
    rates = changes * (table.customers / len(slots) / BACKTEST_DAYS)
    return dict(zip(evaluator.dimensions, rates.tolist(), strict=True)), len(slots)
