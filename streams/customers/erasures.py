"""Who was erased, and when: markers that keep old events out without saying whom they are about."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

import numpy as np

from errors import StateCorrupt
from streams.customers.facts import Int64s
from streams.customers.row_format import ERASURE_ROW, KEY_BYTES, decode_key, encode_key
from streams.customers.state import NOT_YET_MS

_DIGEST_BYTES = 32
_VALUE_BYTES = 8

MARKER_BYTES = KEY_BYTES + _DIGEST_BYTES + _VALUE_BYTES
"""A marker as it is written, key included."""


class Markers:
    """HMAC-SHA256(the partition's key, id) to when the customer was erased, UTC ms; one row each.

    Who has an id and the key, which is in the partition row, can ask whether it was erased; nobody
    can find an id in here that they do not have. Markers are kept for ever: in memory some 200 bytes
    each, on the topic MARKER_BYTES.
    """

    def __init__(self, key: bytes) -> None:
        self._keyed = hmac.new(key, digestmod="sha256")
        self._erased_ms: dict[bytes, int] = {}
        self._unwritten: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._erased_ms)

    @property
    def unwritten(self) -> int:
        """Markers the next take returns."""
        return len(self._unwritten)

    def of(self, ids: Iterable[bytes]) -> Int64s:
        """Return int64[n]: up to when what happened to each customer is erased, NOT_YET_MS for never."""
        known = self._erased_ms
        return np.array([known.get(self._digest(each), NOT_YET_MS) for each in ids], np.int64)

    def note(self, identity: bytes, erased_ms: int) -> None:
        """Note that what happened to a customer up to then is erased; a marker never goes back."""
        digest = self._digest(identity)
        if erased_ms > self._erased_ms.get(digest, NOT_YET_MS):
            self._erased_ms[digest] = erased_ms
            self._unwritten.add(digest)

    def take(self) -> list[tuple[bytes, bytes]]:
        """Return (key, value) of every marker noted since the last take."""
        rows = [
            (encode_key(ERASURE_ROW, digest), self._erased_ms[digest].to_bytes(_VALUE_BYTES, "little"))
            for digest in sorted(self._unwritten)
        ]
        self._unwritten.clear()
        return rows

    def merge(self, others: Markers) -> None:
        """Let every customer be erased up to when one of both says; the others are under the same key."""
        for digest, erased_ms in others._erased_ms.items():
            if erased_ms > self._erased_ms.get(digest, NOT_YET_MS):
                self._erased_ms[digest] = erased_ms
                self._unwritten.add(digest)

    def restore(self, key: bytes, value: bytes | None) -> None:
        """Put back what `take` returned. Raises StateCorrupt for anything else."""
        digest = decode_key(key).identity
        if len(digest) != _DIGEST_BYTES or (value is not None and len(value) != _VALUE_BYTES):
            raise StateCorrupt("a marker of an erasure is not one instant under a hash of 32 bytes")
        if value is None:
            self._erased_ms.pop(digest, None)
        else:
            self._erased_ms[digest] = int.from_bytes(value, "little")

    def _digest(self, identity: bytes) -> bytes:
        # A copy of what the key made of it costs half of beginning with the key.
        keyed = self._keyed.copy()
        keyed.update(identity)
        return keyed.digest()
