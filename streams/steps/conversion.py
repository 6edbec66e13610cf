"""Which definition is in force on a partition, and how its customers come to be judged by a newer one.

A new version is taken on between two pieces of work: the table learns its dimensions and values
beside those customers still hold, and every customer is stale until it is next evaluated. Slices
of stale customers are evaluated at the partition's clock in an order that any restart finds again;
whom an event or a deadline reaches first is converted then. When nobody is stale any more, the
table forgets what only the old version knew.

What a segment waits for goes on if it is declared as before. One that is new or edited begins afresh:
at its conversion a customer is what the rule says, and what was waited for is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from streams.customers.facts import PENDING_MS, Bools, Int64s
from streams.customers.partition_row import Converting, PartitionRow
from streams.customers.table import CustomerTable
from streams.segments.evaluate import Evaluator, Outcome
from streams.segments.versions import Versions
from streams.segments.widened import Widened
from streams.steps.edits import Edits
from streams.steps.missing import missing_facts
from streams.steps.news import LATE_AFTER_MS

SLICE_CUSTOMERS_MAX, SLICE_CUSTOMERS_MIN = 2_000, 250
SLICE_VALUES_MAX = 40_000
"""Customers evaluated at once, and values of theirs: some ten milliseconds, in which no event is applied."""

UNFINISHED_MAX = 16
"""Versions taken on before the first of them was through; a further one waits for that."""

_END = 1 << 64
"""The cursor when every customer had its turn."""

_LONG_AGO_MS = -(1 << 62)


class Conversion:
    """The definition in force on one partition, and who is not judged by it yet."""

    evaluator: Evaluator
    """Of the definition in force."""
    edits: Edits
    """What is new about it."""
    refusal: str | None
    """Why a newer version is not taken on, and what to do; None while there is no reason."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self.reset()

    def reset(self, epoch: int = 1) -> None:
        """Begin anew, with nobody to convert; only versions of this epoch are taken on."""
        self._epoch = epoch
        self._use(self._versions.evaluator(self._versions.newest_of(epoch)))
        self.refusal = None
        self._refused = 0
        self._order: Int64s | None = None
        self._places = np.zeros(0, np.uint64)
        self._next = 0
        self._kinds: dict[str, str] = {}
        # By whom everybody was judged when the first unfinished conversion began, and how far those before
        # the present one came: who is what it was is not written, so its row does not tell.
        self._base = self.evaluator.definition.version
        self._passed: dict[int, int] = {}
        self.begun_ms: dict[str, int] = {}

    # -- restore ---------------------------------------------------------------------------

    def stored(self, row: PartitionRow, where: str) -> Evaluator:
        """Take over what the row says is in force. Raises DefinitionBehind or DefinitionMismatch."""
        self._use(self._versions.of_state(row.definition_version, row.definition_hash, where))
        self.begun_ms = dict(row.begun_ms)
        return self.evaluator

    def restored(self, row: PartitionRow, table: CustomerTable) -> None:
        """Find out who is stale, now that the rows are in the table."""
        evaluated_by, version = table.evaluated_by[: table.count], row.definition_version
        known = evaluated_by > 0
        if row.converting is None:
            evaluated_by[known], self._base = version, version
        else:
            self._base, self._passed = row.converting.base, dict(row.converting.passed)
            self._begin_order(table, row.converting.cursor)
            evaluated_by[known] = np.maximum(evaluated_by[known], np.uint32(self._base))
            # Who waits for a tick was written when its facts came: its row tells.
            known &= ~_pending(table)
            places = table.ordering()
            for number, cursor in (*self._passed.items(), (version, row.converting.cursor)):
                done = known if cursor >= _END else known & (places < np.uint64(cursor))
                evaluated_by[done] = np.maximum(evaluated_by[done], np.uint32(number))
            self._kinds = dict(row.converting.kinds)
            self._widen(table, self.evaluator)
        self._edit(table)

    def row(self) -> Converting | None:
        """Return what the partition row says of an unfinished conversion."""
        if self._order is None:
            return None
        kinds = self.evaluator.gone if isinstance(self.evaluator, Widened) else {}
        return Converting(self._cursor, kinds, self._base, self._passed)

    @property
    def _cursor(self) -> int:
        assert self._order is not None, "a conversion goes on"
        return _END if self._next == len(self._order) else int(self._places[self._next])

    # -- conversion ------------------------------------------------------------------------

    def has_work(self, table: CustomerTable) -> bool:
        """Whether a newer version is to be taken on, a slice to be converted, or an end to be made."""
        if self._is_behind():
            return True
        if self._order is None:
            return False
        return self._next < len(self._order) or not self._stale(table).any()

    @property
    def wanted(self) -> int:
        """The version everybody is to be judged by."""
        in_force = self.evaluator.definition.version
        return self._versions.newest_of(self._epoch) if self._is_behind() else in_force

    def _is_behind(self) -> bool:
        newest = self._versions.newest_of(self._epoch)
        if newest <= self.evaluator.definition.version or newest == self._refused:
            return False
        return len(self._passed) < UNFINISHED_MAX

    def take_on(
        self, table: CustomerTable, clock_ms: int, fold_line_ms: int, complete_since_ms: Mapping[str, int]
    ) -> bool:
        """Put the newest version in force unless it is, or needs facts that are not kept: see `refusal`.

        `complete_since_ms` says since when what is kept, 0: from the first.
        """
        if not self._is_behind():
            return False
        newest, before = self._versions.evaluator(self._versions.newest_of(self._epoch)), self.evaluator
        version = newest.definition.version
        self.refusal = missing_facts(
            before.definition, newest.definition, table, clock_ms, fold_line_ms, complete_since_ms
        )
        if self.refusal is not None:
            self._refused = version
            return False
        if self._order is not None:
            self._passed[before.definition.version] = self._cursor
        self._convert(table, before, newest, clock_ms)
        return True

    def take_over(self, table: CustomerTable, row: PartitionRow, clock_ms: int, where: str) -> None:
        """Convert from what `row`, of an earlier epoch, says was in force. Raises as `stored`."""
        before, newest = (
            self._versions.of_state(row.definition_version, row.definition_hash, where),
            self.evaluator,
        )
        self._base, self.begun_ms = row.definition_version, dict(row.begun_ms)
        self._convert(table, before, newest, clock_ms)

    def _convert(self, table: CustomerTable, before: Evaluator, newest: Evaluator, clock_ms: int) -> None:
        """Let `newest` be in force, and everybody stale."""
        self._kinds = dict(zip(before.dimensions, before.kinds, strict=True))
        self._begin_order(table, 0)
        self._widen(table, newest)
        # An event on time may be from before now; what it makes of a new segment is not.
        edited = self._versions.edited(before.definition.version, newest.definition.version)
        self.begun_ms |= dict.fromkeys(edited & set(newest.dimensions), clock_ms)
        self._edit(table)

    def end(self, table: CustomerTable) -> bool:
        """Forget what only earlier versions knew, once nobody is stale; whether that was so."""
        if self._order is None or self._next < len(self._order) or self._stale(table).any():
            return False
        self._order, self._passed = None, {}
        self._base = self.evaluator.definition.version
        if isinstance(self.evaluator, Widened):
            self.evaluator = self.evaluator.inner
            table.relayout(self.evaluator.dimensions, self.evaluator.values)
        self._edit(table)
        return True

    def moved(self, table: CustomerTable, clock_ms: int) -> None:
        """Forget what began so long ago that an event from before it is late."""
        if any(begun_ms + LATE_AFTER_MS <= clock_ms for begun_ms in self.begun_ms.values()):
            later = {n: at_ms for n, at_ms in self.begun_ms.items() if at_ms + LATE_AFTER_MS > clock_ms}
            self.begun_ms = later
            self._edit(table)

    def slice(
        self, table: CustomerTable, judge: Callable[[Int64s], tuple[int, Outcome]]
    ) -> tuple[Int64s, Outcome] | None:
        """Return the next customers to convert, and what each now is, and move the cursor past them.

        `judge` says what some customers are, and how many of the first of them fit into a transaction, at
        least one. Pending customers are left to the tick that will see their facts. None if no others come.
        """
        if self._order is None:
            return None
        most = min(SLICE_CUSTOMERS_MAX, max(SLICE_CUSTOMERS_MIN, SLICE_VALUES_MAX // len(table.dimensions)))
        ahead = self._order[self._next : self._next + 4 * most]
        stale = (self._stale(table) & ~_pending(table))[ahead]
        at = np.flatnonzero(stale)[:most]
        if not len(at):
            self._next += len(ahead)
            return None
        slots = ahead[at]
        count, outcome = judge(slots)
        full = count < len(at) or len(at) == most
        self._next += int(at[count - 1]) + 1 if full else len(ahead)
        return slots[:count], outcome.part(0, count)

    def stale_count(self, table: CustomerTable) -> int:
        """Return how many customers are not judged by the definition in force yet."""
        return 0 if self._order is None else int(np.count_nonzero(self._stale(table)))

    def _begin_order(self, table: CustomerTable, cursor: int) -> None:
        places = table.ordering()
        self._order = np.argsort(places, kind="stable")
        self._places = places[self._order]
        whole = cursor >= _END
        self._next = len(places) if whole else int(np.searchsorted(self._places, np.uint64(cursor)))

    def _use(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator
        self.edits = Edits(evaluator.definition.version, len(evaluator.delays))

    def _widen(self, table: CustomerTable, inner: Evaluator) -> None:
        """Let the evaluator and the table know everything `inner` does and everything customers hold."""
        held = dict(zip(table.dimensions, table.values, strict=True))
        widened = Widened(inner, held, self._kinds)
        same = (widened.dimensions, widened.values) == (inner.dimensions, inner.values)
        self._use(inner if same else widened)
        if (table.dimensions, table.values) != (widened.dimensions, widened.values):
            table.relayout(widened.dimensions, widened.values)

    def _edit(self, table: CustomerTable) -> None:
        """Find out what is new for whom."""
        evaluator, version = self.evaluator, self.evaluator.definition.version
        memberships = [evaluator.dimensions[delay.membership] for delay in evaluator.delays]
        stale = np.unique(table.evaluated_by[: table.count][self._stale(table)]).tolist()
        floor_ms = None
        if self.begun_ms:
            floor_ms = np.array([self.begun_ms.get(name, _LONG_AGO_MS) for name in evaluator.dimensions])
        known = (
            len(evaluator.inner.dimensions) if isinstance(evaluator, Widened) else len(evaluator.dimensions)
        )
        self.edits = Edits(
            version,
            len(evaluator.delays),
            floor_ms,
            np.arange(known, len(evaluator.dimensions)),
            {
                by: np.isin(memberships, list(self._versions.edited(by, version)))
                for by in (stale if memberships else ())
            },
        )

    def _stale(self, table: CustomerTable) -> Bools:
        """Return bool[count]: evaluated, and not by the definition in force."""
        by = table.evaluated_by[: table.count]
        stale: Bools = (by > 0) & (by != self.evaluator.definition.version)
        return stale


def _pending(table: CustomerTable) -> Bools:
    """Return bool[count]: has facts no tick has seen."""
    pending: Bools = table.due_ms[: table.count] == PENDING_MS
    return pending
