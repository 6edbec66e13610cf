"""What applying a definition would change: the conversion itself, run on what is committed and thrown away.

So the answer is what applying then does, to the customer, as long as the clock and the log stand still.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from schemas.changes import decode_change
from streams.customers.facts import Int64s
from streams.segments.definition import DAY_MS, Definition
from streams.steps.as_of import TableAsOf
from streams.steps.engine import PartitionEngine

BACKTEST_DAYS = 30
BACKTEST_CUSTOMERS_MAX = 5_000
"""Of a partition, looked at day by day; more are judged by these."""

Value = tuple[str, str]
"""(dimension, value)."""


class Move(NamedTuple):
    """One customer's change in one dimension; None is no value."""

    customer_id: str
    dimension: str
    before: str | None
    after: str | None


@dataclass(slots=True)
class PartitionPlan:
    """What would become of one partition."""

    clock_ms: int
    customers: int
    waiting: int
    """Customers with events no tick has seen: they are judged at the next one."""
    refusal: str | None = None
    """Why it would keep its definition; nothing else is said then."""
    moves: list[Move] = field(default_factory=list)
    before: Counter[Value] = field(default_factory=Counter)
    """Members of each value now."""
    after: Counter[Value] = field(default_factory=Counter)
    shared: Counter[tuple[Value, Value]] = field(default_factory=Counter)
    """Members two values of different dimensions would have in common, where one dimension changes."""
    moves_a_day: dict[str, float] = field(default_factory=dict)
    """By dimension: changes a day over the last 30, had the definition held then."""


def plan_partition(engine: PartitionEngine) -> PartitionPlan:
    """Convert a restored partition to the newest of its versions; the engine is worth nothing afterwards."""
    table = engine.table
    plan = PartitionPlan(engine.clock_ms, table.count, 0, before=_sizes(engine))
    while engine.converting:
        if not engine.convert():
            changes = map(decode_change, (value for _, value in engine.take().changes))
            plan.moves += [Move(c["customer_id"], c["dimension"], c["from"], c["to"]) for c in changes]
    changes = map(decode_change, (value for _, value in engine.take().changes))
    plan.moves += [Move(c["customer_id"], c["dimension"], c["from"], c["to"]) for c in changes]
    plan.waiting, plan.refusal = engine.unconverted, engine.refusal
    plan.after = _sizes(engine)
    if plan.refusal is None:
        plan.shared = _shared(engine, {move.dimension for move in plan.moves})
        plan.moves_a_day = _backtest(engine)
    return plan


def _sizes(engine: PartitionEngine) -> Counter[Value]:
    table, sizes = engine.table, Counter[Value]()
    for at, (dimension, values) in enumerate(zip(table.dimensions, table.values, strict=True)):
        held = np.bincount(table.value[: table.count, at] + 1, minlength=len(values) + 1)
        sizes.update({(dimension, value): int(n) for value, n in zip(values, held[1:], strict=True)})
    return sizes


def _shared(engine: PartitionEngine, changed: set[str]) -> Counter[tuple[Value, Value]]:
    """Count who has both of two values, one of them in a dimension that changes."""
    table, shared = engine.table, Counter[tuple[Value, Value]]()
    codes = table.value[: table.count]
    for at, dimension in enumerate(table.dimensions):
        if dimension not in changed:
            continue
        for other, name in enumerate(table.dimensions):
            if other == at:
                continue
            both = (codes[:, at] >= 0) & (codes[:, other] >= 0)
            pairs, counts = np.unique(codes[both][:, [at, other]], axis=0, return_counts=True)
            for (mine, theirs), count in zip(pairs.tolist(), counts.tolist(), strict=True):
                pair = (dimension, table.values[at][mine]), (name, table.values[other][theirs])
                shared[pair] += count
    return shared


def _backtest(engine: PartitionEngine) -> dict[str, float]:
    """Return, by dimension, how often a day values would have changed over the last days.

    Each customer is evaluated at the end of each day with the facts of that day; those it has now
    of what is not a series of facts, such as traits, count as if it had always had them.
    """
    table, evaluator = engine.table, engine.evaluator
    slots: Int64s = np.argsort(table.ordering())[:BACKTEST_CUSTOMERS_MAX]
    if not len(slots):
        return dict.fromkeys(evaluator.dimensions, 0.0)
    changes = np.zeros(len(evaluator.dimensions))
    last = None
    for day in range(BACKTEST_DAYS, -1, -1):
        at_ms = np.full(len(slots), engine.clock_ms - day * DAY_MS)
        value = evaluator.evaluate(TableAsOf(table, slots, at_ms), slots, at_ms).value
        if last is not None:
            changes += (value != last).sum(axis=0)
        last = value
    rates = changes * (table.count / len(slots) / BACKTEST_DAYS)
    return dict(zip(evaluator.dimensions, rates.tolist(), strict=True))


WARN_MEMBERS_MIN = 100
WARN_SHARE_MIN = 0.001
WARN_SHARE_MAX = 0.5
CONFIRM_SHARE = 0.05
"""A plan that moves a larger share of all customers in one dimension has to be confirmed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would become of all partitions, planned on version `base` (0: none is applied yet)."""

    base: int
    definition: Definition
    partitions: Mapping[int, PartitionPlan]
    changes_a_day: Mapping[str, float] = field(default_factory=dict)
    """By dimension: changes there were a day lately, by what was written then."""

    @property
    def customers(self) -> int:
        """All customers there are."""
        return sum(part.customers for part in self.partitions.values())

    @property
    def waiting(self) -> int:
        """See PartitionPlan."""
        return sum(part.waiting for part in self.partitions.values())

    @property
    def moves(self) -> list[Move]:
        """Every change, by dimension and customer."""
        moves = [move for part in self.partitions.values() for move in part.moves]
        return sorted(moves, key=lambda move: (move.dimension, move.customer_id))

    @property
    def refusals(self) -> list[str]:
        """Why partitions would keep their definition, each with its number."""
        parts = sorted(self.partitions.items())
        return [f"partition {number}: {part.refusal}" for number, part in parts if part.refusal]

    def total(self, name: str) -> Counter[Value]:
        """Return the sum of `before` or `after` over the partitions."""
        total = Counter[Value]()
        for part in self.partitions.values():
            total.update(getattr(part, name))
        return total

    def shared(self) -> Counter[tuple[Value, Value]]:
        """Return the sum of what PartitionPlan says."""
        total = Counter[tuple[Value, Value]]()
        for part in self.partitions.values():
            total.update(part.shared)
        return total

    def moves_a_day(self, dimension: str) -> float:
        """Return what PartitionPlan says, of all partitions."""
        return sum(part.moves_a_day.get(dimension, 0.0) for part in self.partitions.values())

    def moved(self) -> dict[str, list[Move]]:
        """Return the moves by dimension; every dimension with one is there."""
        found: dict[str, list[Move]] = {}
        for move in self.moves:
            found.setdefault(move.dimension, []).append(move)
        return found

    def to_confirm(self) -> list[str]:
        """Return why somebody should confirm it, a sentence each."""
        return [
            f"{dimension}: {len(moves):,} of {self.customers:,} customers move"
            f" ({len(moves) / self.customers:.1%}), more than {CONFIRM_SHARE:.0%}"
            for dimension, moves in self.moved().items()
            if len(moves) > CONFIRM_SHARE * self.customers
        ]

    def warnings(self) -> list[str]:
        """Return what somebody may not have meant, a sentence each; sizes only where members change."""
        after, found = self.total("after"), list(self.to_confirm())
        touched = {
            (move.dimension, value)
            for move in self.moves
            for value in (move.before, move.after)
            if value is not None
        }
        for dimension, value in sorted(touched & after.keys()):
            members = after[dimension, value]
            share = members / self.customers
            if members < WARN_MEMBERS_MIN or share < WARN_SHARE_MIN:
                found.append(f"{dimension}={value}: only {members:,} members ({share:.2%})")
            elif share > WARN_SHARE_MAX:
                found.append(f"{dimension}={value}: {members:,} members ({share:.1%}), more than half")
        return found


def samples(customers: Sequence[str], most: int) -> list[str]:
    """Return at most so many of some sorted customers, evenly spread over them."""
    step = max(1, -(-len(customers) // most))
    return list(customers[::step])
