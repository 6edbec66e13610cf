"""Every member sent again as a change, for a subscriber that lost them: in slices, each customer once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from streams.customers.facts import NEVER_MS, PENDING_MS, Int64s
from streams.customers.partition_row import Resent
from streams.customers.table import CustomerTable
from streams.segments.evaluate import Evaluator
from streams.segments.versions import Versions
from streams.steps.conversion import SLICE_CUSTOMERS_MAX
from streams.steps.moves import Cause, Moves

_END = 1 << 64


class Resending:
    """Which request to send members again a partition has met, and how far the present one is.

    Customers come in the order of CustomerTable.ordering; whoever is new since a request began has
    had its changes anyway.
    """

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self.reset()

    def reset(self) -> None:
        """Begin with a partition nobody is in: it has nothing to send."""
        self.run_id, self.cursor = self._versions.resend_run_id, _END
        self._order: Int64s | None = None
        self._places = np.zeros(0, np.uint64)

    def stored(self, resent: Resent | None) -> None:
        """Take over what the partition row says."""
        self.run_id, self.cursor = (None, _END) if resent is None else (resent.run_id, resent.cursor)

    def row(self) -> Resent | None:
        """Return what the partition row says."""
        return None if self.run_id is None else Resent(self.run_id, self.cursor)

    def reorder(self) -> None:
        """Find out anew who comes when: a slot's customer is gone, and the slot may become another's."""
        self._order = None

    @property
    def wanted(self) -> str | None:
        """The request that is to be met."""
        return self.run_id if self.cursor < _END else self._versions.resend_run_id

    @property
    def has_work(self) -> bool:
        """Whether members are to be sent."""
        return self.cursor < _END or self._versions.resend_run_id not in (None, self.run_id)

    def slice(self, table: CustomerTable, fitting: Callable[[Int64s], int]) -> Int64s:
        """Return the next customers and move the cursor past them; `fitting` as for a conversion."""
        if self.cursor == _END:
            self.run_id, self.cursor, self._order = self._versions.resend_run_id, 0, None
        if self._order is None:
            places = table.ordering()
            self._order = np.argsort(places, kind="stable")
            self._places = places[self._order]
        first = int(np.searchsorted(self._places, np.uint64(self.cursor)))
        ahead = self._order[first : first + SLICE_CUSTOMERS_MAX]
        last = first + (fitting(ahead) if len(ahead) else 0)
        self.cursor = int(self._places[last]) if last < len(self._order) else _END
        return self._order[first:last]


def members(table: CustomerTable, evaluator: Evaluator, slots: Int64s, clock_ms: int) -> Moves | None:
    """Return one move into each value these customers hold, hidden ones aside, as of when it came to hold."""
    shown = ~np.array(evaluator.shadows)
    row, dimension = np.nonzero((table.value[slots] >= 0) & shown)
    if not len(row):
        return None
    outcome = evaluator.evaluate(table, slots, np.full(len(slots), clock_ms))
    held = slots[row]
    due_ms = table.due_ms[held]
    return Moves(
        slot=held,
        dimension=dimension,
        before=np.full(len(held), -1, np.int16),
        after=table.value[held, dimension],
        tick=np.zeros(len(held), np.int64),
        cause=np.full(len(held), Cause.RESENT, np.uint8),
        event_id=[b""] * len(held),
        account_id=[table.account_id(slot) for slot in held.tolist()],
        effective_at_ms=table.since_ms[held, dimension],
        previous_since_ms=np.full(len(held), NEVER_MS),
        expires_at_ms=np.where(due_ms == PENDING_MS, NEVER_MS, due_ms),
        scores_before=table.scores[held],
        scores_after=table.scores[held],
        last_purchase_ms=outcome.last_purchase_ms[row],
        orders=outcome.orders[row],
        net_minor=outcome.net_minor[row],
    )
