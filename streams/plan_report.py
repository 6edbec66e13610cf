"""A plan as people read it, and as programs do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from streams.definitions import when
from streams.planning import Move, Plan, Value, samples
from streams.segments.rules import CustomDimension, Segment

SAMPLES_MAX = 20
OVERLAPS_MAX = 3


def as_text(plan: Plan) -> str:
    """Return the plan as lines for a terminal."""
    return "\n".join(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    clocks = {part.clock_ms for part in plan.partitions.values() if part.customers}
    at = f" as of {when(max(clocks))}" if clocks else ""
    yield f"planned on definition {plan.base}{at}: {plan.customers:,} customers"
    for what, names in declarations(plan).items():
        if names:
            yield f"{what}: {', '.join(names)}"
    if plan.refusals:
        yield from plan.refusals
        return
    yield "the facts that are kept are all it needs"
    if plan.waiting:
        yield f"{plan.waiting:,} customers have events no Tick has judged yet, and follow with the next one"
    moved = plan.moved()
    if not moved:
        yield "nobody's value changes"
    for dimension in plan.touched():
        yield from _of_dimension(plan, dimension, moved.get(dimension, []))
    yield from (f"note: {note}" for note in plan.notes())
    for warning in plan.warnings():
        yield f"warning: {warning}"


def _of_dimension(plan: Plan, dimension: str, moves: list[Move]) -> Iterator[str]:
    """Yield who moves in a dimension, how many would have each value, and how often that changes."""
    before, after, shared = plan.total("before"), plan.total("after"), plan.shared()
    share = len(moves) / max(1, plan.customers)
    yield f"{dimension}: {len(moves):,} customers change ({share:.1%})"
    yield (
        f"  changes a day: {plan.changes_a_day.get(dimension, 0):,.1f} lately,"
        f" {plan.moves_a_day(dimension):,.1f} by the facts of the last 30 days and these rules"
    )
    values = {value for move in moves for value in (move.before, move.after) if value}
    values |= {value for name, value in after if name == dimension and (name, value) not in before}
    if len([name for name, _ in after if name == dimension]) == 1:
        values |= {value for name, value in after if name == dimension}
    for value in sorted(values):
        yield from _of_value((dimension, value), moves, before[dimension, value], after[dimension, value])
        most = [(n, other) for (mine, other), n in shared.items() if mine == (dimension, value)]
        for count, (name, theirs) in sorted(most, reverse=True)[:OVERLAPS_MAX]:
            yield f"    {count:,} of them are {name}={theirs}"


def declarations(plan: Plan) -> dict[str, list[str]]:
    """Return the segments and dimensions that are added, edited, removed, shadows and drafts, sorted."""
    before = _declared(plan.in_force.segments, plan.in_force.dimensions) if plan.in_force else {}
    after = _declared(plan.definition.segments, plan.definition.dimensions)
    states = {segment.key: segment.state for segment in plan.definition.segments}
    return {
        "added": sorted(after.keys() - before.keys()),
        "edited": sorted(key for key in after.keys() & before.keys() if after[key] != before[key]),
        "removed": sorted(before.keys() - after.keys()),
        "shadow, computed and nobody is told": sorted(k for k, state in states.items() if state == "shadow"),
        "draft, checked only": sorted(key for key, state in states.items() if state == "draft"),
    }


def _declared(
    segments: tuple[Segment, ...], dimensions: tuple[CustomDimension, ...]
) -> dict[str, dict[str, Any]]:
    return {each.key: each.content() for each in segments} | {each.key: each.content() for each in dimensions}


def _of_value(value: Value, moves: list[Move], before: int, after: int) -> Iterator[str]:
    entering, leaving = _who(moves, value[1])
    sizes = f"{before:,} now, {after:,} then"
    yield f"  {value[1]}: {sizes}; {len(entering):,} enter, {len(leaving):,} leave"
    for verb, customers in (("enter", entering), ("leave", leaving)):
        if customers:
            shown = samples(customers, SAMPLES_MAX)
            rest = f" and {len(customers) - len(shown):,} more" if len(customers) > len(shown) else ""
            yield f"    {verb}: {', '.join(shown)}{rest}"


def _who(moves: list[Move], value: str) -> tuple[list[str], list[str]]:
    """Return who would enter a value and who would leave it, sorted."""
    return (
        [move.customer_id for move in moves if move.after == value],
        [move.customer_id for move in moves if move.before == value],
    )


def as_json(plan: Plan) -> dict[str, Any]:
    """Return the plan for a program; samples of customers, not all of them."""
    before, after = plan.total("before"), plan.total("after")
    moved = plan.moved()
    dimensions: dict[str, Any] = {}
    for dimension, value in sorted(before.keys() | after.keys()):
        moves = moved.get(dimension, [])
        entry = dimensions.setdefault(
            dimension,
            {
                "customers_moving": len(moves),
                "changes_a_day_lately": plan.changes_a_day.get(dimension, 0.0),
                "changes_a_day_expected": plan.moves_a_day(dimension),
                "values": {},
            },
        )
        entering, leaving = _who(moves, value)
        entry["values"][value] = {
            "members_now": before[dimension, value],
            "members_then": after[dimension, value],
            "entering": len(entering),
            "leaving": len(leaving),
            "entering_samples": samples(entering, SAMPLES_MAX),
            "leaving_samples": samples(leaving, SAMPLES_MAX),
        }
    added, edited, removed, shadow, draft = declarations(plan).values()
    return {
        "base": plan.base,
        "hash": plan.definition.hash,
        "customers": plan.customers,
        "waiting": plan.waiting,
        "declared": {
            "added": added,
            "edited": edited,
            "removed": removed,
            "shadow": shadow,
            "draft": draft,
        },
        "refusals": plan.refusals,
        "to_confirm": plan.to_confirm(),
        "warnings": plan.warnings(),
        "notes": plan.notes(),
        "dimensions": dimensions,
        "overlaps": [
            {"one": list(one), "other": list(other), "customers": count}
            for (one, other), count in sorted(plan.shared().items())
        ],
        "clocks": {str(number): part.clock_ms for number, part in sorted(plan.partitions.items())},
    }
