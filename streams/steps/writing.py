"""From moves to bytes: changes numbered and encoded as they are made, memberships once a transaction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clock import Clock
from schemas.binary import Int16s
from schemas.changes import CAUSES, Changes, Dimension, Stamp, encode_changes
from schemas.memberships import Memberships, encode_memberships
from streams.customers.facts import Int64s
from streams.customers.table import CustomerTable
from streams.kafka.seam import Row
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.steps.moves import LABELS, Cause, Moves
from streams.steps.room import ACCOUNT_BYTES_MAX, MembershipBytes

_DAY_MS = 86_400_000
_CAUSES = np.array([CAUSES.index(label) for label in LABELS], np.uint8)
"""Cause to what a change says of it, by number."""


class ChangeWriter:
    """The changes and memberships of the pending transaction of one partition.

    Bounded by the engine, which plans a piece of work for the room that is left.
    """

    def __init__(
        self, app: str, partition: int, definition: Definition, evaluator: Evaluator, wall: Clock
    ) -> None:
        self._app, self._partition, self._definition, self._wall = app, partition, definition, wall
        self._dimensions = [
            Dimension(name, kind, values)
            for name, kind, values in zip(
                evaluator.dimensions, evaluator.kinds, evaluator.values, strict=True
            )
        ]
        self._shown = np.array([not shadow for shadow in evaluator.shadows])
        self._all_shown = bool(self._shown.all())
        self._membership = MembershipBytes.of(evaluator)
        # The customers that changed, in the order they first did; by slot, whether they are in there.
        self._changed: list[Int64s] = []
        self._is_changed = np.zeros(0, np.bool_)
        # Who was erased, by id, and the slots they had.
        self._erased: list[bytes] = []
        self._vacated: list[int] = []
        self.clear()

    def clear(self) -> None:
        """Forget what is pending."""
        self._changes: list[tuple[bytes, bytes]] = []
        for slots in self._changed:
            self._is_changed[slots] = False
        self._changed.clear()
        self._erased, self._vacated = [], []
        # The deadline as of each pending change, which are numbered without a gap from the first on.
        self._expires_at_ms: list[Int64s] = []
        self._first_seq = 0
        self.pending_bytes = 0
        """No less than the changes and memberships take, keys included."""
        self.reconciled = 0
        """Changes a rebuild made."""

    def add(
        self,
        table: CustomerTable,
        moves: Moves,
        *,
        epoch: int,
        last_seq: int,
        run_id: str | None = None,
        rebuild_id: str | None = None,
    ) -> int:
        """Number and encode one piece's moves, in their order; return the last seq given.

        Those of shadow segments are left out: nobody is told of them. With a `run_id` they are members
        sent again: reconcile, and neither state nor memberships know of it. With a `rebuild_id` those
        which only the definition made are that rebuild's, and reconcile.
        """
        if not self._all_shown:
            moves = moves.take(self._shown[moves.dimension].nonzero()[0])
            if not len(moves):
                return last_seq
        count = len(moves)
        seq = np.arange(last_seq + 1, last_seq + 1 + count)
        if run_id is None:
            # Of several changes of one value the last assignment stays, and that is the latest.
            table.held.number(moves.slot, moves.dimension, seq)
        ids = table.slots.ids_of(moves.slot)
        if rebuild_id is None:
            encoded = self._encode(moves, ids, seq, epoch, run_id)
        else:
            encoded = self._encode_apart(moves, ids, seq, epoch, rebuild_id)
        self._changes.extend(zip(ids, encoded, strict=True))
        self.pending_bytes += sum(map(len, encoded)) + sum(map(len, ids))
        if run_id is not None:
            return last_seq + count
        # Each may be into one segment more.
        self.pending_bytes += len(moves) * self._membership.each
        self._note_customers(table, moves, ids)
        if not self._expires_at_ms:
            self._first_seq = last_seq + 1
        self._expires_at_ms.append(moves.expires_at_ms)
        return last_seq + count

    def _encode(
        self, moves: Moves, ids: Sequence[bytes], seq: Int64s, epoch: int, run_id: str | None
    ) -> list[bytes]:
        """Return the changes that are moves with these numbers; those with a run id are reconcile."""
        return encode_changes(
            Stamp(
                app=self._app,
                epoch=epoch,
                partition=self._partition,
                definition_version=self._definition.version,
                emitted_at_ms=self._wall.now_ms(),
                origin="live" if run_id is None else "reconcile",
                run_id=run_id,
                currency=self._definition.reporting_currency,
                window_days=self._definition.window_ms // _DAY_MS,
            ),
            self._dimensions,
            Changes(
                seq=seq,
                customer_id=ids,
                account_id=moves.account_id,
                dimension=moves.dimension,
                before=moves.before,
                after=moves.after,
                cause=_CAUSES[moves.cause],
                cause_event_id=moves.event_id,
                effective_at_ms=moves.effective_at_ms,
                previous_since_ms=moves.previous_since_ms,
                expires_at_ms=moves.expires_at_ms,
                scores_before=moves.scores_before,
                scores_after=moves.scores_after,
                last_purchase_ms=moves.last_purchase_ms,
                orders=moves.orders,
                net_minor=moves.net_minor,
            ),
        )

    def _encode_apart(
        self, moves: Moves, ids: Sequence[bytes], seq: Int64s, epoch: int, rebuild_id: str
    ) -> list[bytes]:
        """Return the changes in order, those that only the definition made under the id of the rebuild."""
        encoded = [b""] * len(moves)
        by_rule = moves.cause == Cause.RULE_CHANGED
        for mine, run_id in ((by_rule, rebuild_id), (~by_rule, None)):
            at = mine.nonzero()[0]
            its_ids = [ids[place] for place in at.tolist()]
            changes = self._encode(moves.take(at), its_ids, seq[at], epoch, run_id)
            for place, change in zip(at.tolist(), changes, strict=True):
                encoded[place] = change
        self.reconciled += int(np.count_nonzero(by_rule))
        return encoded

    def _note_customers(self, table: CustomerTable, moves: Moves, ids: Sequence[bytes]) -> None:
        """Remember whose membership is owed, and count its bytes once."""
        if len(self._is_changed) < len(table.slots):
            grown = np.zeros(table.slots.capacity, np.bool_)
            grown[: len(self._is_changed)] = self._is_changed
            self._is_changed = grown
        slots, first = np.unique(moves.slot, return_index=True)
        rows = np.sort(first[~self._is_changed[slots]])
        if not len(rows):
            return
        fresh = moves.slot[rows]
        self._is_changed[fresh] = True
        self._changed.append(fresh)
        at = rows.tolist()
        self.pending_bytes += (
            len(at) * self._membership.fixed
            + self._membership.each * int(table.held.counts(fresh).sum())
            + 2 * sum(len(ids[row]) for row in at)
            + ACCOUNT_BYTES_MAX * sum(1 for row in at if moves.account_id[row])
        )

    def forget(self, slot: int, identity: bytes) -> None:
        """Owe a customer that is erased a tombstone instead of a membership."""
        self._erased.append(identity)
        self._vacated.append(slot)
        self.pending_bytes += len(identity)

    def _told(self, value: Int16s) -> Int16s:
        """Return int16[n, dimensions] without the values nobody is told of."""
        return value if self._all_shown else np.where(self._shown, value, np.int16(-1))

    def take(self, table: CustomerTable, *, epoch: int) -> tuple[list[tuple[bytes, bytes]], list[Row]]:
        """Return the pending changes and one membership per customer that changed or was erased; clear both.

        `expires_at` in a membership is as of the customer's latest change, so that it does
        not depend on where transactions happen to end.
        """
        changes = self._changes
        # First, for who comes back has a membership after that.
        tombstones: list[Row] = [(identity, None) for identity in self._erased]
        slots: Int64s = np.concatenate(self._changed) if self._changed else np.zeros(0, np.int64)
        if self._vacated:
            slots = slots[~np.isin(slots, self._vacated)]
        if not len(slots):
            self.clear()
            return changes, tombstones
        held = table.held.take(slots)
        # A customer's latest change is the latest of those that set its values.
        latest_seq = held.seq.max(axis=1)
        ids = table.slots.ids_of(slots)
        encoded = encode_memberships(
            self._dimensions,
            Memberships(
                customer_id=ids,
                account_id=[table.account_id(slot) for slot in slots.tolist()],
                seq=latest_seq,
                value=self._told(held.value),
                since_ms=held.since_ms,
                value_seq=held.seq,
                expires_at_ms=np.concatenate(self._expires_at_ms)[latest_seq - self._first_seq],
            ),
            epoch=epoch,
            partition=self._partition,
            definition_version=self._definition.version,
        )
        self.clear()
        return changes, tombstones + list(zip(ids, encoded, strict=True))
