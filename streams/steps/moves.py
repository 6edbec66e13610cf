"""The changes a step made, as columns, before they are numbered and encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.customers.facts import Int64s, UInt8s

Int16s = npt.NDArray[np.int16]


class Cause(IntEnum):
    """Why a customer's value changed; the greater one wins when several meet in one step.

    Finer than what a change says: money comes before what merely happened to arrive with it,
    and whether a refund was late decides where its change is effective.
    """

    TIME_ELAPSED = 0
    EVENT = 1
    PURCHASE = 2
    LATE_EVENT = 3
    LATE_PURCHASE = 4
    REFUND = 5
    LATE_REFUND = 6
    RULE_CHANGED = 7
    """Not an event: the values stored are those of an earlier definition, whatever else happened."""
    ERASURE = 8
    """Comes before all others, and is never pending: whoever is erased leaves at once."""
    RESENT = 9
    """No change at all: what is held already, sent again. Why it came to hold was said then."""


LABELS = (
    "time_elapsed",
    "event",
    "event",
    "late_event",
    "late_event",
    "refund",
    "refund",
    "rule_changed",
    "erasure",
    "unknown",
)
"""What a change says of each Cause, by its number."""

LATE = (False, False, False, True, True, False, True, True, False, False)
"""Whether a Cause has no instant of its own: its change is effective at the step's clock."""


@dataclass(frozen=True, slots=True)
class Moves:
    """n changes of one value each; NEVER_MS in a time column means "none".

    `tick` is the index of the tick that made the change within the piece of work; `event_id` is
    empty bytes when no event caused it; `account_id` is the account held then; scores are
    uint8[n, 3].
    """

    slot: Int64s
    dimension: Int64s
    before: Int16s
    after: Int16s
    tick: Int64s
    cause: UInt8s
    event_id: Sequence[bytes]
    account_id: Sequence[str | None]
    effective_at_ms: Int64s
    previous_since_ms: Int64s
    expires_at_ms: Int64s
    scores_before: UInt8s
    scores_after: UInt8s
    last_purchase_ms: Int64s
    orders: Int64s
    net_minor: Int64s

    def __len__(self) -> int:
        return len(self.slot)

    def take(self, order: Int64s) -> Moves:
        """Return the changes at `order`, in that order."""
        picked = order.tolist()
        columns: dict[str, Any] = {
            name: [column[i] for i in picked] if isinstance(column, list) else column[order]
            for name, column in _columns(self)
        }
        return Moves(**columns)


def _columns(moves: Moves) -> list[tuple[str, Any]]:
    return [(name, getattr(moves, name)) for name in Moves.__dataclass_fields__]


def concatenate(parts: Sequence[Moves]) -> Moves:
    """Join the moves of several rounds, in order."""
    if len(parts) == 1:
        return parts[0]
    columns: dict[str, Any] = {
        name: list(chain.from_iterable(getattr(part, name) for part in parts))
        if isinstance(first, list)
        else np.concatenate([getattr(part, name) for part in parts])
        for name, first in _columns(parts[0])
    }
    return Moves(**columns)


def by_customer(parts: Sequence[Moves], ids_of: Callable[[Int64s], list[bytes]]) -> Moves:
    """Join moves, sorted by (tick, customer id, dimension): an order that no chunking can influence."""
    moves = concatenate(parts)
    slots, inverse = np.unique(moves.slot, return_inverse=True)
    ids = ids_of(slots)
    rank = np.empty(len(ids), np.int64)
    rank[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return moves.take(np.lexsort((moves.dimension, rank[inverse], moves.tick)))
