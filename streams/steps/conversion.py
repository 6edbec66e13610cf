"""Which definition is in force on a partition, and how its customers come to be judged by a newer one.

A new version is taken on between two pieces of work: the table learns its dimensions and values
beside those customers still hold, and every customer is stale until it is next evaluated. Slices
of stale customers are evaluated at the partition's clock in an order that any restart finds again;
whom an event or a deadline reaches first is converted then. When nobody is stale any more, the
table forgets what only the old version knew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from streams.customers.facts import PENDING_MS, Bools, Int64s
from streams.customers.partition_row import Converting, PartitionRow
from streams.customers.table import CustomerTable
from streams.segments.definition import DAY_MS, Definition
from streams.segments.evaluate import Evaluator
from streams.segments.versions import Versions
from streams.segments.widened import Widened

SLICE_CUSTOMERS_MAX = 2_000
"""Customers evaluated at once: some milliseconds, in which no event is applied."""

_END = 1 << 64
"""The cursor when every customer had its turn."""


class Conversion:
    """The definition in force on one partition, and who is not judged by it yet."""

    evaluator: Evaluator
    """Of the definition in force."""
    refusal: str | None
    """Why a newer version is not taken on, and what to do; None while there is no reason."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self.reset()

    def reset(self, epoch: int = 1) -> None:
        """Begin anew, with nobody to convert; only versions of this epoch are taken on."""
        self._epoch = epoch
        self.evaluator, self.refusal = self._versions.evaluator(self._versions.newest_of(epoch)), None
        self._refused = 0
        self._order: Int64s | None = None
        self._places = np.zeros(0, np.uint64)
        self._next = 0
        self._kinds: dict[str, str] = {}

    # -- restore ---------------------------------------------------------------------------

    def stored(self, row: PartitionRow, where: str) -> Evaluator:
        """Take over what the row says is in force. Raises DefinitionBehind or DefinitionMismatch."""
        self.evaluator = self._versions.of_state(row.definition_version, row.definition_hash, where)
        return self.evaluator

    def restored(self, row: PartitionRow, table: CustomerTable) -> None:
        """Find out who is stale, now that the rows are in the table."""
        evaluated_by = table.evaluated_by[: table.count]
        done = evaluated_by > 0
        if row.converting is not None:
            self._begin_order(table, row.converting.cursor)
            done &= ~_pending(table)
            if row.converting.cursor < _END:
                done &= table.ordering() < np.uint64(row.converting.cursor)
            self._kinds = dict(row.converting.kinds)
            self._widen(table, self.evaluator)
        evaluated_by[done] = row.definition_version

    def row(self) -> Converting | None:
        """Return what the partition row says of an unfinished conversion."""
        if self._order is None:
            return None
        whole = self._next == len(self._order)
        kinds = self.evaluator.gone if isinstance(self.evaluator, Widened) else {}
        return Converting(_END if whole else int(self._places[self._next]), kinds)

    # -- conversion ------------------------------------------------------------------------

    def has_work(self, table: CustomerTable) -> bool:
        """Whether a newer version is to be taken on, a slice to be converted, or an end to be made."""
        newest = self._versions.newest_of(self._epoch)
        if newest > self.evaluator.definition.version and newest != self._refused:
            return True
        if self._order is None:
            return False
        return self._next < len(self._order) or not self._stale(table).any()

    def take_on(self, table: CustomerTable, clock_ms: int, complete_since_ms: Mapping[str, int]) -> bool:
        """Put the newest version in force unless it is, or needs facts that are not kept: see `refusal`."""
        number = self._versions.newest_of(self._epoch)
        if number <= self.evaluator.definition.version or number == self._refused:
            return False
        newest, before = self._versions.evaluator(number), self.evaluator
        complete_ms = self.complete_ms(table, complete_since_ms)
        self.refusal = not_yet(before, newest) or missing_facts(newest.definition, complete_ms, clock_ms)
        if self.refusal is not None:
            self._refused = number
            return False
        self._convert(table, before, newest)
        return True

    def take_over(self, table: CustomerTable, row: PartitionRow, where: str) -> None:
        """Convert from what `row`, of an earlier epoch, says was in force. Raises as `stored`."""
        before = self._versions.of_state(row.definition_version, row.definition_hash, where)
        self._convert(table, before, self.evaluator)

    def _convert(self, table: CustomerTable, before: Evaluator, newest: Evaluator) -> None:
        self._kinds = dict(zip(before.dimensions, before.kinds, strict=True))
        self._begin_order(table, 0)
        self._widen(table, newest)

    def end(self, table: CustomerTable) -> bool:
        """Forget what only earlier versions knew, once nobody is stale; whether that was so."""
        if self._order is None or self._next < len(self._order) or self._stale(table).any():
            return False
        self._order = None
        if isinstance(self.evaluator, Widened):
            self.evaluator = self.evaluator.inner
            table.relayout(self.evaluator.dimensions, self.evaluator.values)
        return True

    def slice(self, table: CustomerTable, fitting: Callable[[Int64s], int]) -> Int64s:
        """Return the next customers to convert and move the cursor past them.

        `fitting` says how many of the first of some customers fit into a transaction, at least one.
        Pending customers are left to the tick that will see their facts.
        """
        if self._order is None:
            return np.empty(0, np.int64)
        ahead = self._order[self._next : self._next + 4 * SLICE_CUSTOMERS_MAX]
        stale = (self._stale(table) & ~_pending(table))[ahead]
        at = np.flatnonzero(stale)[:SLICE_CUSTOMERS_MAX]
        count = fitting(ahead[at]) if len(at) else 0
        full = count < len(at) or len(at) == SLICE_CUSTOMERS_MAX
        self._next += int(at[count - 1]) + 1 if full else len(ahead)
        return ahead[at[:count]]

    def complete_ms(self, table: CustomerTable, complete_since_ms: Mapping[str, int]) -> int:
        """Return from when on every fact is kept; 0: from the first."""
        folded_ms = int(table.folded_before_ms[: table.count].max(initial=0))
        return max(complete_since_ms["orders"], complete_since_ms["refunds"], folded_ms)

    def stale_count(self, table: CustomerTable) -> int:
        """Return how many customers are not judged by the definition in force yet."""
        return 0 if self._order is None else int(np.count_nonzero(self._stale(table)))

    def _begin_order(self, table: CustomerTable, cursor: int) -> None:
        places = table.ordering()
        self._order = np.argsort(places, kind="stable")
        self._places = places[self._order]
        whole = cursor >= _END
        self._next = len(places) if whole else int(np.searchsorted(self._places, np.uint64(cursor)))

    def _widen(self, table: CustomerTable, inner: Evaluator) -> None:
        """Let the evaluator and the table know everything `inner` does and everything customers hold."""
        held = dict(zip(table.dimensions, table.values, strict=True))
        widened = Widened(inner, held, self._kinds)
        same = (widened.dimensions, widened.values) == (inner.dimensions, inner.values)
        self.evaluator = inner if same else widened
        if (table.dimensions, table.values) != (widened.dimensions, widened.values):
            table.relayout(widened.dimensions, widened.values)

    def _stale(self, table: CustomerTable) -> Bools:
        """Return bool[count]: evaluated, and not by the definition in force."""
        by = table.evaluated_by[: table.count]
        stale: Bools = (by > 0) & (by != self.evaluator.definition.version)
        return stale


def not_yet(before: Evaluator, after: Evaluator) -> str | None:
    """Return why customers cannot be converted from one definition to another, None if they can."""
    if before.delays or after.delays:
        return "segments with dwell_enter, dwell_exit or cooldown cannot be converted; run `shoal rebuild`"
    if [each.key for each in before.series] != [each.key for each in after.series]:
        return "what is kept of events beside orders would change; run `shoal rebuild`"
    return None


def missing_facts(definition: Definition, complete_since_ms: int, clock_ms: int) -> str | None:
    """Return why a definition cannot be computed from the facts that are kept, None if it can."""
    needed_ms = clock_ms - definition.kept_ms + 1
    if needed_ms >= complete_since_ms:
        return None
    lacking = -((needed_ms - complete_since_ms) // DAY_MS)
    return (
        f"definition {definition.version} looks back {definition.kept_ms / DAY_MS:g} days,"
        f" of which the first {lacking} are not kept whole; run `shoal rebuild`,"
        " or apply one with shorter windows"
    )


def _pending(table: CustomerTable) -> Bools:
    """Return bool[count]: has facts no tick has seen."""
    pending: Bools = table.due_ms[: table.count] == PENDING_MS
    return pending
