"""Customers described by what they did, and a table that holds them for the nodes: plain, slow, obvious."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from streams.customers.entities import NOTHING, Standing, Subscription, Ticket
from streams.customers.facts import NEVER_MS, Int64s, TraitValue
from streams.customers.runs import Runs
from streams.customers.series import Comparison, Folded, Joined, Series, Where

DAY = 86_400_000


@dataclass(frozen=True)
class Order:
    at_ms: int
    net: int
    lines: tuple[tuple[Mapping[str, Any], int], ...] = ()
    """Fields and value of each line."""


@dataclass(frozen=True)
class Did:
    at_ms: int
    name: str
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Customer:
    orders: Sequence[Order] = ()
    refunds: Sequence[tuple[int, int]] = ()
    did: Sequence[Did] = ()
    traits: Mapping[str, TraitValue] = field(default_factory=dict)
    subscriptions: tuple[Subscription, ...] = ()
    standing: Standing = NOTHING
    tickets: tuple[Ticket, ...] = ()
    name: bytes = b"ann"


def matches(where: Where | None, fields: Mapping[str, Any]) -> bool:
    """Read a where clause the slow way; numbers of the clause are millionths."""
    if where is None:
        return True
    if isinstance(where, Joined):
        found = [matches(part, fields) for part in where.parts]
        return all(found) if where.all else any(found)
    if not isinstance(where, Comparison):
        return not matches(where.part, fields)
    value = fields.get(where.field)
    operand: Any = where.operand
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = round(value * 1_000_000)
    operands = operand if isinstance(operand, tuple) else (operand,)
    if value is None or type(value) is not type(operands[0]):
        return False
    return {
        "==": lambda: value == operand,
        "!=": lambda: value != operand,
        "<": lambda: value < operand,
        "<=": lambda: value <= operand,
        ">": lambda: value > operand,
        ">=": lambda: value >= operand,
        "in": lambda: value in operands,
    }[where.operator]()


def entries(series: Series, customer: Customer) -> list[tuple[int, int]]:
    """Return (time, value) of a series of one customer."""
    if series.event == "active_day":
        times = [did.at_ms for did in customer.did if series.name in (None, did.name)]
        if series.name is None:
            times += [order.at_ms for order in customer.orders]
        return [(day * DAY, 1) for day in sorted({at // DAY for at in times})]
    found = []
    if series.event == "order":
        for order in customer.orders:
            lines = [(fields, value) for fields, value in order.lines if matches(series.where, fields)]
            if series.distinct:
                values = {fields[str(series.value)] for fields, _ in lines if str(series.value) in fields}
                found += [(order.at_ms, number_of(value)) for value in sorted(values)]
            elif lines:
                whole = sum(value for _, value in order.lines)
                share = order.net * sum(value for _, value in lines) // whole if whole else 0
                found.append((order.at_ms, share))
        return found
    for did in customer.did:
        if did.name != series.name or not matches(series.where, did.properties):
            continue
        value = 1 if series.value is None else did.properties.get(series.value)
        if series.distinct and value is not None:
            found.append((did.at_ms, number_of(value)))
        elif series.value is None:
            found.append((did.at_ms, 1))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((did.at_ms, round(value * 1_000_000)))
    return found


def number_of(value: object) -> int:
    """Stand for a value, as its hash does in the real table."""
    return int.from_bytes(str(value).encode()[:5].rjust(5, b"\0"), "big") - (1 << 39)


class DescribedTable:
    """The part of a customer table an evaluation reads; customer i has slot i."""

    def __init__(self, customers: Sequence[Customer], series: Sequence[Series] = ()) -> None:
        self.customers = customers
        self.orders = _runs([[(order.at_ms, order.net) for order in each.orders] for each in customers])
        self.refunds = _runs([each.refunds for each in customers])
        self._series = {one.key: _runs([entries(one, each) for each in customers]) for one in series}
        times = [[order.at_ms for order in each.orders] for each in customers]
        self._first = np.array([min(each, default=NEVER_MS) for each in times])
        self._last = np.array([max(each, default=NEVER_MS) for each in times])

    def series(self, key: str) -> Runs:
        return self._series[key]

    def first_paid_ms(self, slots: Int64s) -> Int64s:
        return self._first[slots]

    def last_paid_ms(self, slots: Int64s) -> Int64s:
        return self._last[slots]

    def ids(self, slots: Int64s) -> list[bytes]:
        return [self.customers[slot].name for slot in slots.tolist()]

    def folded(self, series: str, slots: Int64s) -> Folded:
        none = np.zeros(len(slots), np.int64)
        return Folded(none, none, none + NEVER_MS, none - NEVER_MS)

    def booked(self, slots: Int64s) -> Int64s:
        held = [bool(each.subscriptions or each.tickets) for each in self.customers]
        return np.flatnonzero(np.array(held)[slots])

    def subscriptions(self, slots: Int64s) -> list[tuple[Subscription, ...]]:
        return [self.customers[slot].subscriptions for slot in slots.tolist()]

    def standings(self, slots: Int64s) -> list[Standing]:
        return [self.customers[slot].standing for slot in slots.tolist()]

    def tickets(self, slots: Int64s) -> list[tuple[Ticket, ...]]:
        return [self.customers[slot].tickets for slot in slots.tolist()]

    def trait(self, name: str, slots: Int64s) -> list[TraitValue]:
        return [self.customers[slot].traits.get(name) for slot in slots.tolist()]


def _runs(histories: Sequence[Sequence[tuple[int, int]]]) -> Runs:
    runs = Runs()
    runs.hold_slots(len(histories))
    rows = [(slot, at, value) for slot, each in enumerate(histories) for at, value in each]
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    runs.insert(columns[0], columns[1], columns[2], np.arange(len(rows)).astype(np.uint64))
    return runs
