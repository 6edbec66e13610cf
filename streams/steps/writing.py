"""From moves to bytes: changes numbered and encoded as they are made, memberships once a transaction."""

from __future__ import annotations

import numpy as np

from clock import Clock
from schemas.changes import Changes, Stamp, encode_changes
from schemas.memberships import Dimension, Memberships, encode_memberships
from streams.customers.facts import Int64s
from streams.customers.table import CustomerTable
from streams.kafka.seam import Row
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.steps.moves import LABELS, Moves
from streams.steps.room import ACCOUNT_BYTES_MAX, MEMBERSHIP_BYTES, MEMBERSHIP_DIMENSION_BYTES

_DAY_MS = 86_400_000


class ChangeWriter:
    """The changes and memberships of the pending transaction of one partition.

    Bounded by the engine, which plans a piece of work for the room that is left.
    """

    def __init__(
        self, app: str, partition: int, definition: Definition, evaluator: Evaluator, wall: Clock
    ) -> None:
        self._app, self._partition, self._definition, self._wall = app, partition, definition, wall
        self._names, self._values = evaluator.dimensions, evaluator.values
        self._dimensions = [
            Dimension(name, kind, values)
            for name, kind, values in zip(self._names, evaluator.kinds, self._values, strict=True)
        ]
        self.clear()

    def clear(self) -> None:
        """Forget what is pending."""
        self._changes: list[tuple[bytes, bytes]] = []
        # Slot to (seq of its latest change, deadline as of that change).
        self._changed: dict[int, tuple[int, int]] = {}
        self.pending_bytes = 0
        """No less than the changes and memberships take, keys included."""

    def add(
        self, table: CustomerTable, moves: Moves, *, epoch: int, last_seq: int, run_id: str | None = None
    ) -> int:
        """Number and encode one piece's moves, in their order; return the last seq given.

        With a `run_id` they are members sent again: reconcile, and neither state nor memberships
        know of it.
        """
        count = len(moves)
        seq = np.arange(last_seq + 1, last_seq + 1 + count)
        if run_id is None:
            # Of several changes of one value the last assignment stays, and that is the latest.
            table.value_seq[moves.slot, moves.dimension] = seq
        slots = moves.slot.tolist()
        ids = table.slots.ids_of(moves.slot)
        dimensions = moves.dimension.tolist()
        encoded = encode_changes(
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
            Changes(
                seq=seq,
                customer_id=ids,
                account_id=moves.account_id,
                dimension=[self._names[d] for d in dimensions],
                dimension_kind=[self._dimensions[d].kind for d in dimensions],
                before=self._literals(dimensions, moves.before),
                after=self._literals(dimensions, moves.after),
                cause=[LABELS[cause] for cause in moves.cause.tolist()],
                cause_event_id=[event_id or None for event_id in moves.event_id],
                effective_at_ms=moves.effective_at_ms,
                previous_since_ms=moves.previous_since_ms,
                expires_at_ms=moves.expires_at_ms,
                scores_before=moves.scores_before,
                scores_after=moves.scores_after,
                last_purchase_ms=moves.last_purchase_ms,
                orders=moves.orders,
                net_minor=moves.net_minor,
                reasons=[()] * count,
            ),
        )
        self._changes.extend(zip(ids, encoded, strict=True))
        self.pending_bytes += sum(map(len, encoded)) + sum(map(len, ids))
        if run_id is not None:
            return last_seq + count
        membership = MEMBERSHIP_BYTES + MEMBERSHIP_DIMENSION_BYTES * len(self._names)
        for slot, name, account in zip(slots, ids, moves.account_id, strict=True):
            if slot not in self._changed:
                self.pending_bytes += membership + 2 * len(name) + (ACCOUNT_BYTES_MAX if account else 0)
                self._changed[slot] = 0, 0
        self._changed.update(
            zip(slots, zip(seq.tolist(), moves.expires_at_ms.tolist(), strict=True), strict=True)
        )
        return last_seq + count

    def _literals(
        self, dimensions: list[int], codes: np.ndarray[tuple[int], np.dtype[np.int16]]
    ) -> list[str | None]:
        return [
            self._values[d][code] if code >= 0 else None
            for d, code in zip(dimensions, codes.tolist(), strict=True)
        ]

    def take(self, table: CustomerTable, *, epoch: int) -> tuple[list[tuple[bytes, bytes]], list[Row]]:
        """Return the pending changes and one membership per customer that changed; clear both.

        `expires_at` in a membership is as of the customer's latest change, so that it does
        not depend on where transactions happen to end.
        """
        changes, changed = self._changes, self._changed
        if not changed:
            self.clear()
            return changes, []
        slots: Int64s = np.fromiter(changed, np.int64, len(changed))
        latest = np.array(list(changed.values()), np.int64)
        ids = table.slots.ids_of(slots)
        encoded = encode_memberships(
            self._dimensions,
            Memberships(
                customer_id=ids,
                account_id=[table.account_id(slot) for slot in slots.tolist()],
                seq=latest[:, 0],
                value=table.value[slots],
                since_ms=table.since_ms[slots],
                value_seq=table.value_seq[slots],
                expires_at_ms=latest[:, 1],
            ),
            epoch=epoch,
            partition=self._partition,
            definition_version=self._definition.version,
        )
        self.clear()
        return changes, list(zip(ids, encoded, strict=True))
