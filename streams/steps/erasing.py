"""The right to be forgotten: what a partition's engine does about an Erased.

Everything before an Erased is applied before it, so it meets the customer as the log left it. Whatever
is held of the customer goes: what happened up to the Erased's instant, and also what was known when it
came and had happened later, by another machine's clock. The marker says up to when that was.
"""

from __future__ import annotations

import numpy as np

from streams.customers.erasures import MARKER_BYTES
from streams.customers.facts import NEVER_MS
from streams.customers.row_format import KEY_BYTES
from streams.steps.counting import count_moves
from streams.steps.moves import Cause, Moves
from streams.steps.news import LATE_AFTER_MS
from streams.steps.transacting import Transacting
from streams.steps.work import ERASED, Work

PAGES_MIN = 256
"""So many pages become tombstones in one transaction, however large the row is they belong to."""


class Erasing(Transacting):
    """What a partition's engine does about erasures."""

    def _erase(self, work: Work) -> bool:
        """Do what the next Erased asks; False when pending work must be taken before there is room."""
        table, one = self.table, np.array([work.erased])
        identity, occurred_ms = work.erasures.customer[work.erased], int(work.erasures.occurred_at_ms[one[0]])
        slot = int(table.slots.find(work.erasures.customer.take(one))[0])
        # Nobody is owed a row any more whose number may be another's by the time it would be written.
        self._untold = self._untold[self._untold != slot]
        result = "erased"
        if occurred_ms > int(table.erasures.of([identity])[0]):
            known = slot >= 0 and not table.are_new(np.array([slot]))[0]
            if not self._makes_room(slot if known else None, work):
                return False
            erased_ms, result = occurred_ms, "applied"
            if known:
                erased_ms = max(erased_ms, table.latest_ms(slot))
                self._leave(work, slot, occurred_ms)
                self._writer.forget(slot, identity)
                table.forget(slot)
            table.erasures.note(identity, erased_ms)
            if slot >= 0:
                self._start_anew(work, slot, erased_ms, seated=not known)
                self._resending.reorder()
        self._erasing = False
        self.counts[result] += 1
        self._tally.events["Erased", result] += 1
        work.erased += 1
        return True

    def _makes_room(self, slot: int | None, work: Work) -> bool:
        """Whether the transaction has room to erase a customer, None: for a marker alone.

        Of who has more pages than a transaction holds, the oldest go first, in transactions of their own.
        """
        fresh = not self.has_pending()
        left = self.bounds.bytes_max - self._pending_bytes()
        if slot is None:
            return fresh or left >= MARKER_BYTES
        slots = np.array([slot])
        # No less than the changes of leaving every value, and a row that may have to be written first.
        once = int(self._room.leaving_bytes(slots, work)[0])
        needed = self.table.erasure_bytes(slot) + once
        if needed <= left and (fresh or self.table.dirty_count < self.bounds.rows_max):
            return True
        if not fresh:
            return False
        tombstone = KEY_BYTES + int(self.table.slots.lengths_of(slots)[0])
        self._erasing = self.table.drop_pages(slot, max(PAGES_MIN, (left - once) // tombstone)) > 0
        return not self._erasing

    def _leave(self, work: Work, slot: int, occurred_ms: int) -> None:
        """Say that a customer left every value it has; shadow ones are left without a word."""
        if self.quiet:
            return
        moves = self._exits(slot, work.erasures.event_id[work.erased], self._effective_ms(work, occurred_ms))
        if not len(moves):
            return
        self.seq = self._writer.add(self.table, moves, epoch=self.epoch, last_seq=self.seq)
        counted = moves.take(np.flatnonzero(self._evaluator.counted[moves.dimension]))
        count_moves(self._tally, counted, self._evaluator.dimensions, live=self.mode == "wall")

    def _effective_ms(self, work: Work, occurred_ms: int) -> int:
        """Return when an erasure counts: as it happened, unless it came late or is from the future."""
        now_ms = self.clock_ms
        if self.mode == "wall":
            # In append time the tick that sees it is known; a replayer's comes when it comes.
            now_ms = max(now_ms, int(work.ticks.time_ms[work.tick]))
            occurred_ms = min(occurred_ms, now_ms)
        return now_ms if occurred_ms < self.clock_ms - LATE_AFTER_MS else occurred_ms

    def _exits(self, slot: int, event_id: bytes, effective_ms: int) -> Moves:
        """Return a move out of each value a customer has."""
        table = self.table
        dimension = np.flatnonzero(table.value[slot] >= 0)
        count, none = len(dimension), np.zeros(len(dimension), np.int64)
        since_ms = table.since_ms[slot, dimension]
        return Moves(
            slot=np.full(count, slot),
            dimension=dimension,
            before=table.value[slot, dimension],
            after=np.full(count, -1, np.int16),
            tick=none,
            cause=np.full(count, Cause.ERASURE, np.uint8),
            event_id=[event_id] * count,
            account_id=[table.account_id(slot)] * count,
            effective_at_ms=np.maximum(since_ms, effective_ms),
            previous_since_ms=since_ms,
            expires_at_ms=np.full(count, NEVER_MS),
            scores_before=np.repeat(table.scores[slot][None], count, axis=0),
            scores_after=np.zeros((count, 3), np.uint8),
            last_purchase_ms=np.full(count, NEVER_MS),
            # Below 0: the change carries no figures.
            orders=none - 1,
            net_minor=none,
        )

    def _start_anew(self, work: Work, slot: int, erased_ms: int, *, seated: bool) -> None:
        """Drop what is left of the chunk from before the erasure; whatever is later is a new customer's.

        `seated` says that the customer has its slot still: nothing was ever applied to it.
        """
        table, facts = self.table, work.facts
        rows = work.row + np.flatnonzero(work.slots[work.row :] == slot)
        in_time = facts.occurred_at_ms[rows] >= work.fold_line_ms[rows]
        gone = facts.occurred_at_ms[rows] <= erased_ms
        work.slots[rows] = np.where(in_time & gone, ERASED, -1)
        rows = rows[in_time & ~gone]
        if len(rows):
            held = slot if seated else int(table.slots.find_or_add(facts.customer.take(rows[:1]))[0])
            work.slots[rows], table.erased_ms[held] = held, erased_ms
        elif seated:
            table.vacate(slot)
