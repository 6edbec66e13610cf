"""What subscribers were told of customers, from the rows of an earlier epoch, laid over facts kept anew.

Of a head row only what is not a fact is looked at: values with their instants and numbers, scores, the
deadline, and what made the customer pending.
"""

from __future__ import annotations

import numpy as np

from streams.customers.erasures import Markers
from streams.customers.facts import NEVER_MS, PENDING_MS, Int64s, Strings
from streams.customers.row_format import (
    CUSTOMER_ROW,
    ERASURE_ROW,
    HEAD,
    HEAD_PAGE,
    STAMP_BYTES,
)
from streams.customers.rows import put_told
from streams.customers.table import CustomerTable


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

    def lay_over(self, table: CustomerTable, version: int, fact_key: bytes) -> Int64s:
        """Let every customer nobody was told of since be what was told.

        Those are who a quiet replay made: pending, without anything that made them so. A customer the
        replay did not meet is added, without facts. Whoever nothing was told of counts as evaluated by
        `version`, an earlier one, as nothing at all. The table takes in dimensions and values it lacks.
        Whoever was erased since is left alone, and whoever was before stays so; `fact_key` is that of
        both. Returns those who were never evaluated, and are pending.
        """
        markers = Markers(fact_key)
        for key, value in self._markers.items():
            markers.restore(key, value)
        never = np.empty(0, np.int64)
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
            if len(table.erasures):
                takes &= table.erasures.of(ids) <= markers.of(ids)
            takes[known] = quiet[slots[known]]
            chosen = np.flatnonzero(takes)
            if len(chosen):
                picked = chosen.tolist()
                put_told(table, [ids[at] for at in picked], [rows[at] for at in picked])
            slots = table.slots.find(names.take(chosen))
            never = slots[head["evaluated_by"][chosen] == 0]
            quiet[slots[slots < count]] = False
        table.erasures.merge(markers)
        table.recall_erasures()
        unheard = np.flatnonzero(quiet)
        table.due_ms[unheard] = NEVER_MS
        table.evaluated_by[unheard] = version
        return never
