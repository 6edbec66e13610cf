"""The bytes of the customers topic: row keys, and the head row of a customer.

A head row is HEAD, then two int64 (since_ms, value_seq) for each dimension in which the customer is or was
anything, those dimensions and values as literals, the event that made it pending, the profile and the
changes of subscriptions and tickets as JSON, what was folded of declared series, and the facts of the open
page. Rows were once written with every dimension, held or not; both are read alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from errors import StateCorrupt
from streams.customers.arena import Column
from streams.customers.facts import Int64s
from streams.customers.held import Entries
from streams.customers.state import CustomerState

FORMAT_VERSION = 3

PARTITION_ROW, CUSTOMER_ROW, ERASURE_ROW = 0, 1, 2
"""Kinds of row."""

KEY_BYTES = 7
"""Bytes of a row key beside the id."""

HEAD_PAGE = bytes(4)
"""The last bytes of the key of a head row."""

ID_BYTES_MAX = (1 << 16) - 1

HEAD = np.dtype(
    [
        ("version", "u1"),
        ("dimensions", "<u2"),
        ("literal_bytes", "<u4"),
        ("event_id_bytes", "<u4"),
        ("profile_bytes", "<u4"),
        ("changes_bytes", "<u4"),
        ("folds_bytes", "<u4"),
        ("sealed", "<i4"),
        ("dropped", "<i4"),
        ("scores", "u1", (3,)),
        ("pending_cause", "u1"),
        ("due_ms", "<i8"),
        ("pending_at_ms", "<i8"),
        ("signed_up_ms", "<i8"),
        ("folded_before_ms", "<i8"),
        ("folded_first_ms", "<i8"),
        ("folded_last_ms", "<i8"),
        ("folded_orders", "<i8"),
        ("folded_paid_minor", "<i8"),
        ("folded_refunds_minor", "<i8"),
        ("evaluated_by", "<u4"),
    ]
)

STORED_COLUMNS = tuple(HEAD.names or ())[9:]
"""Columns of the table that HEAD holds under the same name."""

STAMP_BYTES = 16
"""since_ms and value_seq of one dimension."""


class RowKey(NamedTuple):
    """What a key of the customers topic names; `page` 0 is a customer's head row."""

    kind: int
    identity: bytes
    page: int


def encode_key(kind: int, identity: bytes, page: int = 0) -> bytes:
    """Return kind u8, length u16, id, page u32, big-endian; a ValueError if the id is too long."""
    if len(identity) > ID_BYTES_MAX:
        raise ValueError(f"id of {len(identity)} bytes; a row key holds at most {ID_BYTES_MAX}")
    return bytes((kind,)) + len(identity).to_bytes(2, "big") + identity + page.to_bytes(4, "big")


def decode_key(key: bytes) -> RowKey:
    """Read what encode_key wrote; StateCorrupt for anything else."""
    if len(key) < KEY_BYTES or len(key) != KEY_BYTES + int.from_bytes(key[1:3], "big"):
        raise StateCorrupt(f"row key of {len(key)} bytes contradicts its own length")
    return RowKey(key[0], key[3:-4], int.from_bytes(key[-4:], "big"))


def encode_literals(pairs: Iterable[tuple[str, str | None]]) -> bytes:
    """Return (dimension, value) pairs as length-prefixed texts; a null value has no text."""
    parts = []
    for text in (text for pair in pairs for text in pair):
        encoded = b"" if text is None else text.encode()
        parts.append((0 if text is None else 1 + len(encoded)).to_bytes(2, "big") + encoded)
    return b"".join(parts)


def decode_literals(encoded: bytes) -> list[tuple[str, str | None]]:
    """Read what encode_literals wrote."""
    texts: list[str | None] = []
    at = 0
    while at < len(encoded):
        size = int.from_bytes(encoded[at : at + 2], "big") - 1
        texts.append(encoded[at + 2 : at + 2 + size].decode() if size >= 0 else None)
        at += 2 + max(size, 0)
    return [(name or "", value) for name, value in zip(texts[::2], texts[1::2], strict=True)]


class RowFormat:
    """Writes rows for one list of dimensions and their literals."""

    def __init__(self, dimensions: tuple[str, ...], values: tuple[tuple[str, ...], ...]) -> None:
        self._pairs: list[list[bytes]] = [
            [encode_literals([(name, text)]) for text in (*literals, None)]
            for name, literals in zip(dimensions, values, strict=True)
        ]
        """By dimension and value, null last, where -1 finds it."""
        entries = [STAMP_BYTES + max(map(len, pairs)) for pairs in self._pairs]
        wide = [size for size, literals in zip(entries, values, strict=True) if len(literals) != 1]
        self.entry_bytes_max = max(entries, default=0)
        """What a customer is or was in one dimension takes no more."""
        self.head_bytes_max = KEY_BYTES + HEAD.itemsize + sum(wide)
        """No head row is longer, without id, event id, profile, changes, facts and single dimensions."""

    def rows(self, state: CustomerState, slots: Int64s) -> list[tuple[bytes, bytes | None]]:
        """Return the head rows of `slots`, and the page rows not yet taken."""
        written: list[tuple[bytes, bytes | None]] = []
        if len(slots):
            written += self._heads(state, slots)
        for (slot, page), facts in state.pages.take().items():
            written.append((encode_key(CUSTOMER_ROW, state.slots.id_of(slot), page), facts))
        return written

    def _heads(self, state: CustomerState, slots: Int64s) -> list[tuple[bytes, bytes | None]]:
        entries = state.held.entries(slots)
        counts = np.bincount(entries.row, minlength=len(slots))
        ends = counts.cumsum()
        bounds = list(zip((ends - counts).tolist(), ends.tolist(), strict=True))
        literals = self._literals_of(entries, bounds)
        owners = slots.tolist()
        head = self._head(state, slots)
        head["dimensions"] = counts
        head["literal_bytes"] = list(map(len, literals))
        profiles = changes = folds = events = [b""] * len(slots)
        if state.profiles:
            held = map(state.profiles.get, owners)
            profiles = [b"" if profile is None else profile.encoded() for profile in held]
            # From here on the table knows them to the byte.
            head["profile_bytes"] = state.profile_bytes_max[slots] = list(map(len, profiles))
        if state.books:
            books = map(state.books.get, owners)
            changes = [b"" if book is None else book.encoded() for book in books]
            head["changes_bytes"] = list(map(len, changes))
        if state.series_facts is not None and state.series_facts.folds:
            folds = [state.series_facts.folds.encoded(slot) for slot in owners]
            head["folds_bytes"] = list(map(len, folds))
        if state.pending_event_id:
            events = [state.pending_event_id.get(slot, b"") for slot in owners]
            head["event_id_bytes"] = list(map(len, events))
        fixed_parts = head.view((np.void, HEAD.itemsize)).tolist()
        stamps = np.stack((entries.since_ms, entries.seq), axis=1).tobytes()
        facts, sizes = state.pages.open_pages(slots)
        ends = np.cumsum(sizes)
        # All texts of one row side by side: the rest is done without a step of Python per row.
        values = map(
            b"".join,
            zip(
                fixed_parts,
                [stamps[STAMP_BYTES * start : STAMP_BYTES * end] for start, end in bounds],
                literals,
                events,
                profiles,
                changes,
                folds,
                [facts[start:end] for start, end in zip((ends - sizes).tolist(), ends.tolist(), strict=True)],
                strict=True,
            ),
        )
        identities = state.slots.ids_of(slots)
        prefixes = {size: encode_key(CUSTOMER_ROW, bytes(size))[:3] for size in set(map(len, identities))}
        keys = [prefixes[len(identity)] + identity + HEAD_PAGE for identity in identities]
        return list(zip(keys, values, strict=True))

    def _head(self, state: CustomerState, slots: Int64s) -> Column:
        head = np.zeros(len(slots), HEAD)
        head["version"] = FORMAT_VERSION
        head["sealed"], head["dropped"] = state.pages.sealed[slots], state.pages.dropped[slots]
        for name in STORED_COLUMNS:
            head[name] = getattr(state, name)[slots]
        return head

    def _literals_of(self, entries: Entries, bounds: list[tuple[int, int]]) -> list[bytes]:
        """Return the encoded literals of every row."""
        known = self._pairs
        pairs = [
            known[d][code] for d, code in zip(entries.dimension.tolist(), entries.value.tolist(), strict=True)
        ]
        return [b"".join(pairs[start:end]) for start, end in bounds]
