"""Event ids: the natural key's where there is one, so that a retry is the same event; else by time."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from collections.abc import Callable

_SHOAL = uuid.UUID("5f0c2c8e-6b0f-5d5b-9d3a-0d0f6a2f7a11")
"""The root of all app namespaces; must never change, or every retry becomes a second event."""


def app_namespace(app: str) -> uuid.UUID:
    """Return the namespace of one application's natural keys."""
    return uuid.uuid5(_SHOAL, app)


def natural_id(namespace: uuid.UUID, kind: str, customer_id: str, key: str) -> str:
    """Return the uuid5 of `key` within its customer; equal arguments give equal ids, in every process.

    The customer's length is part of the name, so that no two pairs run together into one text.
    """
    return str(uuid.uuid5(namespace, f"{kind}:{len(customer_id)}:{customer_id}{key}"))


class TimeOrderedIds:
    """Version 7 uuids that only ever grow within one process, whatever the clock does.

    Growth matters: of two profile updates in one millisecond the greater id wins, so the later call.
    """

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._last = 0
        self.renew()

    def renew(self) -> None:
        """In a forked child: somebody may have held the parent's lock, who is not here to release it."""
        self._lock = threading.RLock()

    def next(self) -> str:
        """Return the next id: 48 bits of UTC milliseconds, 12 bits of count, 62 random bits."""
        with self._lock:
            stamp = max((self._now_ns() // 1_000_000) << 12, self._last + 1)
            self._last = stamp
        bits = (stamp >> 12) << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0b10 << 62 | secrets.randbits(62)
        return str(uuid.UUID(int=bits))
