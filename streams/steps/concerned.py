"""The customers a piece of work concerns: their columns, out of the table while rounds go on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streams.customers.facts import NEVER_MS, PENDING_MS, Bools, Int64s
from streams.customers.table import CustomerTable
from streams.segments.evaluate import Evaluator, Outcome
from streams.steps.edits import Edits
from streams.steps.moves import Cause
from streams.steps.news import NO_INSTANT, News


class Concerned:
    """What each of these customers is, and what made it pending; put back when all is done.

    What made a customer pending is kept as the greatest cause, the fact or the id that stands for
    it, and the latest instant of an event that came on time.
    """

    _slot: Int64s
    """The customers; other columns run parallel to it."""

    def __init__(
        self,
        table: CustomerTable,
        evaluator: Evaluator,
        event_ids: Sequence[bytes],
        edits: Edits,
        *,
        writes_all: bool,
    ) -> None:
        """With `writes_all`, who is evaluated is written again also when it is what it was."""
        self._table, self._evaluator = table, evaluator
        self._event_ids, self._edits, self._writes_all = event_ids, edits, writes_all

    def _copy_columns(self, slot: Int64s) -> None:
        """Take the columns of these customers out of the table."""
        table = self._table
        self._slot = slot
        self._due_ms = table.due_ms[slot]
        self._held, self._scores = table.held.take(slot), table.scores[slot]
        self._value, self._since_ms = self._held.value, self._held.since_ms
        self._evaluated, self._moved = np.zeros((2, len(slot)), np.bool_)
        # Facts behind the last tick only make their customers pending, once all else is done.
        self._waiting: list[tuple[Int64s, News]] = []
        # Whoever was last evaluated by another definition: whatever comes first finds it changed by that.
        by = table.evaluated_by[slot]
        self._stale = (by > 0) & (by != self._edits.version)
        self._any_stale = bool(self._stale.any())
        self._afresh = self._edits.afresh(by) if self._any_stale and self._evaluator.delays else None
        self._pending = np.flatnonzero(table.pending_cause[slot])
        self._cause = np.where(self._stale, np.uint8(Cause.RULE_CHANGED), table.pending_cause[slot])
        self._latest_ms = table.pending_at_ms[slot]
        self._latest_ms[self._latest_ms == NEVER_MS] = NO_INSTANT
        # The fact that stands for the cause; -1: what made the customer pending came earlier.
        self._cause_row = np.full(len(slot), -1)
        self._earlier_id = dict.fromkeys(np.flatnonzero(self._stale).tolist(), b"")
        for i in self._pending[~self._stale[self._pending]].tolist():
            self._earlier_id[i] = table.pending_event_id.get(int(slot[i]), b"")

    def _hear(self, who: Int64s, news: News) -> None:
        """Add news to what has made these customers pending."""
        self._latest_ms[who] = np.maximum(self._latest_ms[who], news.latest_ms)
        stronger = news.cause >= self._cause[who]
        who = who[stronger]
        self._cause[who], self._cause_row[who] = news.cause[stronger], news.row[stronger]

    def _event_id(self, who: int, row: int) -> bytes:
        """Return the id of the event that stands for a customer's cause, given the row that does."""
        return self._event_ids[row] if row >= 0 else self._earlier_id[who]

    def _store(self, who: Int64s, outcome: Outcome) -> None:
        """Let an evaluation stand for what each customer is; nothing is pending of it any more."""
        self._value[who], self._scores[who] = outcome.value, outcome.scores
        self._due_ms[who] = outcome.due_ms
        self._cause[who], self._latest_ms[who] = Cause.TIME_ELAPSED, NO_INSTANT
        self._evaluated[who] = True
        if self._afresh is not None:
            self._afresh[who] = False

    def _put_columns_back(self) -> None:
        """Store what the evaluated customers are, and what made pending whom no tick has seen."""
        table, gone = self._table, self._edits.gone
        evaluated = np.flatnonzero(self._evaluated)
        if self._any_stale and len(gone):
            # Of what is no more nothing is remembered: should it come back, it is another.
            self._since_ms[np.ix_(evaluated[self._stale[evaluated]], gone)] = 0
        slot = self._slot[evaluated]
        moved = self._moved_of(evaluated)
        writes = slot
        if not self._writes_all:
            writes = slot[moved | self._differs(evaluated, slot)]
        table.mark_dirty(writes)
        table.held.put(slot[moved], self._held.rows(evaluated[moved]))
        table.scores[slot], table.due_ms[slot] = self._scores[evaluated], self._due_ms[evaluated]
        table.evaluated_by[slot] = self._edits.version
        table.pending_flips[slot] = 0
        for pending in self._slot[self._pending].tolist():
            table.pending_event_id.pop(pending, None)
        for who, news in self._waiting:
            self._hear(who, news)
            table.due_ms[self._slot[who]] = PENDING_MS
        none = self._latest_ms == NO_INSTANT
        table.pending_cause[self._slot] = self._cause
        table.pending_at_ms[self._slot] = np.where(none, NEVER_MS, self._latest_ms)
        for i in np.flatnonzero(self._cause).tolist():
            table.pending_event_id[int(self._slot[i])] = self._event_id(i, int(self._cause_row[i]))

    def _moved_of(self, evaluated: Int64s) -> Bools:
        """Return bool[n]: a customer holds other values, or since another instant, than in the table."""
        moved = self._moved[evaluated]
        if self._any_stale:
            # What an earlier definition left of a value may be forgotten without a change.
            rows = self._stale[evaluated].nonzero()[0]
            held, its = self._table.held.take(self._slot[evaluated[rows]]), self._held.rows(evaluated[rows])
            moved[rows] |= (held.value != its.value).any(axis=1)
            moved[rows] |= (held.since_ms != its.since_ms).any(axis=1)
        return moved

    def _differs(self, evaluated: Int64s, slot: Int64s) -> Bools:
        """Return bool[n]: what the row of a customer says, its values aside, is not what it is."""
        table = self._table
        differs: Bools = (table.scores[slot] != self._scores[evaluated]).any(axis=1)
        differs |= table.due_ms[slot] != self._due_ms[evaluated]
        # Its pending cause goes with the evaluation.
        differs |= table.pending_cause[slot] > 0
        return differs
