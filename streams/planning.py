"""What applying a definition would change: the conversion itself, run on what is committed and thrown away.

So the answer is what applying then does, to the customer, as long as the clock and the log stand still.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from schemas.changes import decode_change
from streams.backtesting import BACKTEST_CUSTOMERS_MAX, changes_a_day
from streams.customers.facts import Int64s
from streams.segments.definition import Definition
from streams.segments.settling import SHADOW_SUFFIX
from streams.segments.versions import Versions
from streams.steps.engine import PartitionEngine

CUSTOMERS_AT_ONCE = 10_000
"""Customers whose values in all dimensions are looked at together, which takes memory."""

Value = tuple[str, str]
"""(dimension, value)."""


class Move(NamedTuple):
    """One customer's change in one dimension; None is no value."""

    customer_id: str
    dimension: str
    before: str | None
    after: str | None

    @property
    def place(self) -> tuple[str, str]:
        """What moves are sorted by: a customer moves once in a dimension."""
        return self.dimension, self.customer_id


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
    silent_moves: list[Move] = field(default_factory=list)
    """Those of shadow segments, which nobody is told of."""
    before: Counter[Value] = field(default_factory=Counter)
    """Members of each value now; a shadow segment is named as the table names it."""
    after: Counter[Value] = field(default_factory=Counter)
    shared: Counter[tuple[Value, Value]] = field(default_factory=Counter)
    """Members two values of different dimensions would have in common, where one dimension changes."""
    moves_a_day: dict[str, float] = field(default_factory=dict)
    """By dimension: changes a day over the last 30, had the definition held then."""
    looked_at: int = 0
    """How many customers that was told by."""


def plan_on_top(engine: PartitionEngine, applied: Versions, planned: Versions) -> PartitionPlan:
    """Plan what `planned` adds to `applied`, by which the partition was restored.

    A sweep that goes on is finished, and what is applied and not taken on yet is taken on first: that may
    stop keeping facts that the plan would count on. What both tell is not told.
    """
    while engine.half_swept or engine.changing:
        if not engine.convert():
            engine.take()
    engine.take()
    applied.join(planned)
    return plan_partition(engine)


def plan_partition(engine: PartitionEngine) -> PartitionPlan:
    """Convert a restored partition to the newest of its versions; the engine is worth nothing afterwards."""
    table = engine.table
    plan = PartitionPlan(engine.clock_ms, table.customers, 0, before=_sizes(engine))
    hidden = _shadowed(engine)
    # Members that are being sent again meanwhile do not move.
    while engine.changing:
        if not engine.convert():
            plan.moves += _taken(engine)
    plan.moves += _taken(engine)
    plan.waiting, plan.refusal = engine.unconverted, engine.refusal
    plan.after = _sizes(engine)
    if plan.refusal is None:
        plan.silent_moves = list(_silent(engine, hidden, _shadowed(engine)))
        changed = {move.dimension for move in (*plan.moves, *plan.silent_moves)}
        plan.shared = _shared(engine, changed | (_names(plan.after) - _names(plan.before)))
        plan.moves_a_day, plan.looked_at = changes_a_day(engine)
    return plan


def _taken(engine: PartitionEngine) -> list[Move]:
    """Take what is pending; return the changes anybody would be told of."""
    changes = map(decode_change, (value for _, value in engine.take().changes))
    return [Move(c["customer_id"], c["dimension"], c["from"], c["to"]) for c in changes]


def _names(sizes: Mapping[Value, int]) -> set[str]:
    return {dimension for dimension, _ in sizes}


def _shown(engine: PartitionEngine) -> list[int]:
    """Return the places of the dimensions people know: not of the truth behind a delay."""
    found: list[int] = np.flatnonzero(engine.evaluator.counted).tolist()
    return found


def _sizes(engine: PartitionEngine) -> Counter[Value]:
    table, sizes = engine.table, Counter[Value]()
    members = table.held.members(table.count, table.values)
    for at in _shown(engine):
        dimension, values = table.dimensions[at], table.values[at]
        sizes.update({(dimension, value): n for value, n in zip(values, members[at], strict=True)})
    return sizes


def _shadowed(engine: PartitionEngine) -> dict[str, Int64s]:
    """Return the members of every shadow segment, as slots."""
    table = engine.table
    places = [at for at, name in enumerate(table.dimensions) if name.endswith(SHADOW_SUFFIX)]
    found: dict[str, list[Int64s]] = {table.dimensions[at]: [] for at in places}
    for start in range(0, table.count if places else 0, CUSTOMERS_AT_ONCE):
        held = table.value[start : min(start + CUSTOMERS_AT_ONCE, table.count)]
        for at in places:
            found[table.dimensions[at]].append(start + np.flatnonzero(held[:, at] >= 0))
    return {name: np.concatenate([np.empty(0, np.int64), *parts]) for name, parts in found.items()}


def _silent(
    engine: PartitionEngine, before: Mapping[str, Int64s], after: Mapping[str, Int64s]
) -> Iterator[Move]:
    """Yield who would enter and leave shadow segments: of them there are no changes to read it from."""
    none, slots = np.empty(0, np.int64), engine.table.slots
    for name in sorted(before.keys() | after.keys()):
        key, was, becomes = name.removesuffix(SHADOW_SUFFIX), before.get(name, none), after.get(name, none)
        entering, leaving = np.setdiff1d(becomes, was), np.setdiff1d(was, becomes)
        yield from (Move(each.decode(), name, None, key) for each in slots.ids_of(entering))
        yield from (Move(each.decode(), name, key, None) for each in slots.ids_of(leaving))


def _shared(engine: PartitionEngine, changed: set[str]) -> Counter[tuple[Value, Value]]:
    """Count who has both of two values, one of them in a dimension that changes.

    Who has which value is a matrix of ones; its product with itself counts the pairs.
    """
    table, shared = engine.table, Counter[tuple[Value, Value]]()
    shown = _shown(engine)
    named = [(at, code) for at in shown for code in range(len(table.values[at]))]
    mine = [place for place, (at, _) in enumerate(named) if table.dimensions[at] in changed]
    if not mine:
        return shared
    columns, codes = (np.array(each) for each in zip(*named, strict=True))
    counts = np.zeros((len(mine), len(named)))
    for start in range(0, table.count, CUSTOMERS_AT_ONCE):
        held = table.value[start : min(start + CUSTOMERS_AT_ONCE, table.count)]
        # Whole numbers below 2**24 are exact in float32.
        has = (held[:, columns] == codes).astype(np.float32)
        counts += has[:, mine].T @ has
    for row, place in enumerate(mine):
        at, code = named[place]
        for other in np.flatnonzero(counts[row]).tolist():
            other_at, other_code = named[other]
            if other_at != at:
                pair = (table.dimensions[at], table.values[at][code])
                with_ = (table.dimensions[other_at], table.values[other_at][other_code])
                shared[pair, with_] += int(counts[row, other])
    return shared


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
    in_force: Definition | None = None
    """What `base` says; None when there is none, or it cannot be read."""

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
        moves = (move for part in self.partitions.values() for move in part.moves)
        return sorted(moves, key=lambda move: move.place)

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
        """Return the moves by dimension, those of shadow segments too; every dimension with one is there."""
        found: dict[str, list[Move]] = {}
        silent = (move for part in self.partitions.values() for move in part.silent_moves)
        for move in (*self.moves, *sorted(silent, key=lambda move: move.place)):
            found.setdefault(move.dimension, []).append(move)
        return found

    def touched(self) -> list[str]:
        """Return the dimensions worth telling of: with moves, new, or declared otherwise; in their order."""
        after = self.total("after")
        names = list(dict.fromkeys(name for name, _ in after))
        declared = self.definition.declared
        before = self.in_force.declared if self.in_force is not None else declared
        edited = {name for name in names if declared.get(name) != before.get(name)}
        moved = self.moved()
        gone = [name for name in moved if name not in names]
        return [name for name in names if name in edited or name in moved] + gone

    def to_confirm(self) -> list[str]:
        """Return why somebody should confirm it, a sentence each; what nobody is told of needs none."""
        return [
            f"{dimension}: {len(moves):,} of {self.customers:,} customers move"
            f" ({len(moves) / self.customers:.1%}), more than {CONFIRM_SHARE:.0%}"
            for dimension, moves in self.moved().items()
            if len(moves) > CONFIRM_SHARE * self.customers and not dimension.endswith(SHADOW_SUFFIX)
        ]

    def warnings(self) -> list[str]:
        """Return what somebody may not have meant, a sentence each; sizes only where something changes."""
        before, after, found = self.total("before"), self.total("after"), list(self.to_confirm())
        if not self.customers:
            return found
        moved = {
            (move.dimension, value)
            for moves in self.moved().values()
            for move in moves
            for value in (move.before, move.after)
        }
        edited = {value for value in after if value[0] in self.touched() and self._is_segment(value[0])}
        for dimension, value in sorted(
            each for each in after if each in moved | edited or each not in before
        ):
            members = after[dimension, value]
            share = members / self.customers
            if members < WARN_MEMBERS_MIN or share < WARN_SHARE_MIN:
                found.append(f"{dimension}={value}: only {members:,} members ({share:.2%})")
            elif share > WARN_SHARE_MAX:
                found.append(f"{dimension}={value}: {members:,} members ({share:.1%}), more than half")
        return found

    def _is_segment(self, dimension: str) -> bool:
        return any(segment.dimension == dimension for segment in self.definition.computed)

    def notes(self) -> list[str]:
        """Return what the figures leave out, a sentence each."""
        found = ["changes a day: looked at once a day, with traits as they are now"]
        looked_at = sum(part.looked_at for part in self.partitions.values())
        if looked_at < self.customers:
            found.append(
                f"changes a day: told by {looked_at:,} of {self.customers:,} customers,"
                f" at most {BACKTEST_CUSTOMERS_MAX:,} of each partition"
            )
        if any(segment.settles for segment in self.definition.computed):
            found.append("changes a day: delays are followed from 30 days ago on, as if nobody waited then")
        return found


def samples(customers: Sequence[str], most: int) -> list[str]:
    """Return at most so many of some sorted customers, evenly spread over them."""
    step = max(1, -(-len(customers) // most))
    return list(customers[::step])
