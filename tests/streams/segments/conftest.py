"""Tables of hand-made histories for the segment tests, on the real runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from streams.customers.facts import NEVER_MS, Int64s
from streams.customers.runs import Runs
from streams.customers.series import Folded
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.segments.loading import default_definition

Entries = Sequence[tuple[int, int]]


@dataclass
class HandMadeTable:
    """The part of the customer table an evaluation reads; customer i has slot i."""

    orders: Runs
    refunds: Runs
    first: Int64s
    last: Int64s

    def first_paid_ms(self, slots: Int64s) -> Int64s:
        return self.first[slots]

    def last_paid_ms(self, slots: Int64s) -> Int64s:
        return self.last[slots]

    def ids(self, slots: Int64s) -> list[bytes]:
        return [b"c%d" % slot for slot in slots.tolist()]

    def booked(self, slots: Int64s) -> Int64s:
        return np.empty(0, np.int64)

    def folded(self, series: str, slots: Int64s) -> Folded:
        none = np.zeros(len(slots), np.int64)
        return Folded(none, none, none + NEVER_MS, none - NEVER_MS)


def _runs(histories: Sequence[Entries]) -> Runs:
    runs = Runs()
    runs.hold_slots(len(histories))
    rows = [(slot, t, value) for slot, entries in enumerate(histories) for t, value in entries]
    columns = np.array(rows, np.int64).reshape(-1, 3).T
    runs.insert(columns[0], columns[1], columns[2], np.arange(len(rows)).astype(np.uint64))
    return runs


def make_table(customers: Sequence[tuple[Entries, Entries]]) -> HandMadeTable:
    """Build a table of (orders, refunds) per customer, each a list of (time, minor units above 0)."""
    orders = [orders for orders, _ in customers]
    first = [min((t for t, _ in entries), default=NEVER_MS) for entries in orders]
    last = [max((t for t, _ in entries), default=NEVER_MS) for entries in orders]
    runs = (_runs(orders), _runs([refunds for _, refunds in customers]))
    return HandMadeTable(*runs, np.array(first), np.array(last))


@pytest.fixture(scope="session")
def definition() -> Definition:
    return default_definition()


@pytest.fixture(scope="session")
def evaluator(definition: Definition) -> Evaluator:
    return Evaluator(definition)


@pytest.fixture(scope="session")
def table_of():
    """Give the tests `make_table`."""
    return make_table
