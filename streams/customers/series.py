"""Series: the streams of facts a definition reads beside orders and refunds, each under a canonical key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal, NamedTuple

from streams.customers.facts import Int64s

MILLIONTHS = 1_000_000
"""Numbers of properties and traits are int64 millionths; a double is rounded half to even at intake."""

Operand = str | int | bool | tuple[str | int, ...]
Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A property against a constant; numbers are in millionths.

    Two-valued: false when the property is missing, null, or of another type than the operand,
    whatever the operator. Text is compared by its code points.
    """

    field: str
    operator: Operator
    operand: Operand


@dataclass(frozen=True, slots=True)
class Joined:
    """All of the parts, or any of them; never empty."""

    all: bool
    parts: tuple[Where, ...]


@dataclass(frozen=True, slots=True)
class Negated:
    """The opposite of a part: so `not x == 1` is true where x is missing, and `x != 1` is not."""

    part: Where


Where = Comparison | Joined | Negated


@dataclass(frozen=True, slots=True)
class Series:
    """One stream of facts a definition reads, kept per customer as a time-sorted run.

    `order`: one entry per order with a net above 0 of which any line matches `where`; its value is
    floor(net * value of matching lines / value of all lines). With `distinct`, one entry per distinct
    value of the item field `value` among the matching lines.
    `activity`: one entry per Activity called `name` that matches `where`; its value is 1, or with
    `value` the property in millionths (no entry without it). With `distinct`, a hash of it.
    `active_day`: one entry per UTC date, at its midnight, on which an Activity called `name` happened;
    without `name` an Activity of any name, a SignedUp or a Purchased.
    """

    event: Literal["order", "activity", "active_day"]
    name: str | None = None
    where: Where | None = None
    value: str | None = None
    distinct: bool = False

    @property
    def key(self) -> str:
        """The canonical text: equal for equal meaning. It is part of the definition's hash."""
        parts: list[str] = [self.event]
        if self.name is not None:
            parts.append(json.dumps(self.name))
        if self.where is not None:
            parts.append(f"where {where_key(normalise(self.where))}")
        if self.value is not None:
            parts.append(f"{'distinct' if self.distinct else 'value'} {json.dumps(self.value)}")
        return " ".join(parts)


def normalise(where: Where, *, negated: bool = False) -> Where:
    """Return the one form of equivalent spellings: `not` only before comparisons, flat, sorted, unique."""
    if isinstance(where, Negated):
        return normalise(where.part, negated=not negated)
    if isinstance(where, Comparison):
        comparison = _comparison(where)
        return Negated(comparison) if negated else comparison
    all_of = where.all != negated
    parts: dict[str, Where] = {}
    for part in where.parts:
        normal = normalise(part, negated=negated)
        inner = normal.parts if isinstance(normal, Joined) and normal.all == all_of else (normal,)
        parts.update((where_key(each), each) for each in inner)
    ordered = tuple(parts[key] for key in sorted(parts))
    return ordered[0] if len(ordered) == 1 else Joined(all_of, ordered)


def where_key(where: Where) -> str:
    """Return a text that says exactly this condition; equal for equal meaning once it is normalised."""
    if isinstance(where, Negated):
        return f"not {where_key(where.part)}"
    if isinstance(where, Joined):
        return f"({(' and ' if where.all else ' or ').join(map(where_key, where.parts))})"
    return f"{json.dumps(where.field)} {where.operator} {json.dumps(where.operand)}"


def _comparison(where: Comparison) -> Comparison:
    if where.operator != "in" or not isinstance(where.operand, tuple):
        return where
    operands = tuple(sorted(set(where.operand), key=lambda operand: (isinstance(operand, str), str(operand))))
    if len(operands) == 1:
        return Comparison(where.field, "==", operands[0])
    return Comparison(where.field, "in", operands)


class Folded(NamedTuple):
    """What a series held before the fold line, per customer: int64[n] each."""

    entries: Int64s
    total: Int64s
    first_ms: Int64s
    """2**60 or later when there was nothing."""
    last_ms: Int64s
    """-2**60 or earlier when there was nothing."""
