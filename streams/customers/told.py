"""What subscribers were told of customers, from the rows of an earlier epoch, laid over facts kept anew.

Of a head row only what is not a fact is looked at: values with their instants and numbers, scores, the
deadline, and what made the customer pending.
"""

from __future__ import annotations

import numpy as np

from streams.customers.arena import Column
from streams.customers.erasures import Markers
from streams.customers.facts import NEVER_MS, PENDING_MS, Int64s, Strings
from streams.customers.row_format import (
    CUSTOMER_ROW,
    ERASURE_ROW,
    HEAD,
    HEAD_PAGE,
    STAMP_BYTES,
    decode_literals,
)
from streams.customers.state import ANY_FLIPS
from streams.customers.table import CustomerTable
from streams.customers.value_restore import restore_values

_COLUMNS = ("scores", "pending_cause", "due_ms", "pending_at_ms")
"""What is taken over as it stands in a head row, beside values and the pending event's id."""


class Told:
    """Takes rows in log order, newest last; holds of each customer what was told, without facts."""

    def __init__(self) -> None:
        self._heads: dict[bytes, bytes] = {}
        self._markers: dict[bytes, bytes | None] = {}

    def __len__(self) -> int:
        return len(self._heads)

    def add(self, key: bytes, value: bytes | None) -> None:
        """Take one row; pages of facts say nothing."""
        if key[0] == ERASURE_ROW:
            self._markers[key] = value
        if key[0] != CUSTOMER_ROW or key[-4:] != HEAD_PAGE:
            return
        if value is None:
            self._heads.pop(key[3:-4], None)
            return
        head = np.frombuffer(value, HEAD, 1)[0]
        stamps_end = HEAD.itemsize + STAMP_BYTES * int(head["dimensions"])
        end = stamps_end + int(head["literal_bytes"]) + int(head["event_id_bytes"])
        self._heads[key[3:-4]] = value[:end]

    def erasures(self, fact_key: bytes) -> Markers:
        """Return who was erased, by markers made under this key."""
        markers = Markers(fact_key)
        for key, value in self._markers.items():
            markers.restore(key, value)
        return markers

    def lay_over(
        self, table: CustomerTable, version: int, fact_key: bytes, *, at_once: bool
    ) -> tuple[Int64s, Int64s]:
        """Let every customer nobody was told of since be what was told.

        Those are who a quiet replay made: pending, without anything that made them so. A customer the
        replay did not meet is added, without facts. Everybody counts as evaluated by `version`, which the
        earlier state was wholly of; whoever nothing was told of, as nothing at all. The table takes in
        dimensions and values it lacks. Whoever was erased since is left alone, and whoever was before
        stays so; `fact_key` is that of both. With `at_once`, the replay ends where the rows do, so nobody
        was erased since. Returns those who were never evaluated, and are pending; and those who look
        as if erased since, so that the next transaction must write their rows.
        """
        markers = self.erasures(fact_key)
        never, disputed = np.empty(0, np.int64), np.empty(0, np.int64)
        count = table.count
        quiet = (table.due_ms[:count] == PENDING_MS) & (table.pending_cause[:count] == 0)
        ids, rows = list(self._heads), list(self._heads.values())
        self._heads = {}
        if ids:
            head = np.frombuffer(b"".join([row[: HEAD.itemsize] for row in rows]), HEAD)
            names = Strings.from_list(ids)
            slots = table.slots.find(names)
            known = slots >= 0
            takes = ~known & (head["evaluated_by"] > 0)
            later = np.zeros(len(ids), np.bool_)
            if len(table.erasures):
                later = takes & (table.erasures.of(ids) > markers.of(ids))
            if not at_once:
                takes &= ~later
            takes[known] = quiet[slots[known]]
            chosen = np.flatnonzero(takes)
            slots = table.slots.find_or_add(names.take(chosen))
            for name in _COLUMNS:
                getattr(table, name)[slots] = head[name][chosen]
            # A conversion leaves the rows of whom it does not move, so a row may name an earlier version.
            by = head["evaluated_by"][chosen]
            table.evaluated_by[slots] = np.where(by > 0, np.maximum(by, version), 0)
            table.pending_flips[slots] = ANY_FLIPS
            _put_values(table, slots, [rows[at] for at in chosen.tolist()], head[chosen])
            # A marker also counts what was kept when the Erased came, and the replay may have kept more:
            # then it drops what the earlier state took from behind the Erased, and of whom values were told.
            never, disputed = slots[by == 0], slots[later[chosen]]
            quiet[slots[slots < count]] = False
        table.erasures.merge(markers)
        table.recall_erasures()
        unheard = np.flatnonzero(quiet)
        table.due_ms[unheard] = NEVER_MS
        table.evaluated_by[unheard] = version
        return never, disputed


def _put_values(table: CustomerTable, slots: Int64s, rows: list[bytes], head: Column) -> None:
    """Store values, since when and by which change, and the events that made customers pending."""
    stamps_end = HEAD.itemsize + STAMP_BYTES * head["dimensions"].astype(np.int64)
    literals_end = stamps_end + head["literal_bytes"]
    literals, stamps = [], []
    bounds = zip(rows, stamps_end.tolist(), literals_end.tolist(), strict=True)
    for at, (row, start, end) in enumerate(bounds):
        literals.append(row[start:end])
        stamps.append(row[HEAD.itemsize : start])
        if len(row) > end:
            table.pending_event_id[int(slots[at])] = row[end:]
    _take_in(table, [pair for each in set(literals) for pair in decode_literals(each)])
    restore_values(table, slots, literals, b"".join(stamps))


def _take_in(table: CustomerTable, pairs: list[tuple[str, str | None]]) -> None:
    """Add the dimensions and literals that were told of and are not known."""
    held = {name: list(literals) for name, literals in zip(table.dimensions, table.values, strict=True)}
    for dimension, value in pairs:
        if value is not None and value not in held.setdefault(dimension, []):
            held[dimension].append(value)
    layout = tuple(held), tuple(map(tuple, held.values()))
    if layout != (table.dimensions, table.values):
        table.relayout(*layout)
