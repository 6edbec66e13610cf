"""The facts of a chunk as the table stores them: hashed ids and fixed-width records, made once a chunk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from streams.customers.facts import Bools, Facts, Int64s, Kind, Strings, UInt8s, UInt64s
from streams.customers.hashing import KeyedHash, as_words, mix

FACT = np.dtype([("time", "<i8"), ("value", "<i8"), ("id", "<u8"), ("link", "<u8"), ("code", "u1")])
"""One fact as it is kept in pages: 33 bytes."""

PACKED = np.dtype((np.void, FACT.itemsize))
"""A fact without its fields."""

Records = npt.NDArray[Any]

ORDERS, REFUNDS, OTHERS, LEDGER = 0, 1, 2, 3
"""Where a fact goes: one of three runs, or the ledger, fact by fact."""

SERIES = 3
"""Runs per customer: ORDERS, REFUNDS and OTHERS."""

KIND_MASK = 0x0F
REFUND_KIND_SHIFT = 4
STALE = 0x80
"""Flag in `code`: the order of this linked refund was past the fold line when the refund came."""

ENTRY, LINES, DAY = 13, 14, 15
"""What series keep is on record beside events, under these codes instead of a Kind; `link` says of which
series (series_facts.py). All have room in KIND_MASK, and DAY is the greatest."""

FIRST = 0x10
"""Flag in `code`: the first ENTRY of one content of an activity."""

_FAMILY_OF_KIND = np.zeros(KIND_MASK + 1, np.int64)
_FAMILY_OF_KIND[[Kind.SIGNED_UP, Kind.PROFILE_UPDATED, Kind.PURCHASED, Kind.REFUNDED]] = 3, 3, 1, 2
_FAMILY_OF_KIND[[Kind.PLAN_CHANGED, Kind.TICKET_CHANGED, Kind.ACTIVITY]] = 3
_FAMILY_SALTS = mix(np.arange(4, dtype=np.uint64) + np.uint64(0x5A17))
_PLAIN = KeyedHash(b"")
_PLAIN_BITS = np.uint64(16)
_SLOT_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class FactColumns:
    """n facts. `route` is uint8[n]: ORDERS, REFUNDS, OTHERS or LEDGER."""

    packed: Records
    """FACT[n] as plain bytes, which NumPy gathers ten times faster than fields."""
    time: Int64s
    value: Int64s
    id: UInt64s
    route: UInt8s
    signed_up: Bools
    wordy: Bools
    """Rows that carry traits or an account, which are merged one by one."""
    any_wordy: bool
    any_signed_up: bool
    core: bool
    """All of them are sign-ups, profiles, purchases and refunds, and none adds to a series."""


def columns_of(facts: Facts, hashes: KeyedHash) -> FactColumns:
    """Hash the ids of a chunk. Ids of orders, refunds and other events never meet."""
    kind = facts.kind
    ids = _fact_ids(facts.natural_id, _FAMILY_OF_KIND[kind], hashes)
    linked = np.flatnonzero((facts.order_id.lengths > 0) & (kind == Kind.REFUNDED))
    links = np.zeros(len(kind), np.uint64)
    if len(linked):
        family = np.full(len(linked), _FAMILY_OF_KIND[Kind.PURCHASED])
        links[linked] = _fact_ids(facts.order_id.take(linked), family, hashes)
    records = np.empty(len(kind), FACT)
    signed_up = kind == Kind.SIGNED_UP
    other = signed_up | (kind == Kind.PROFILE_UPDATED)
    value = np.where(other, 0, facts.amount_minor)
    records["time"], records["value"] = facts.occurred_at_ms, value
    records["id"], records["link"] = ids, links
    records["code"] = kind | (facts.refund_kind << REFUND_KIND_SHIFT)
    route = np.where(kind == Kind.PURCHASED, ORDERS, REFUNDS).astype(np.uint8)
    route[other] = OTHERS
    route[((value == 0) & ~other) | (links != 0)] = LEDGER
    wordy = np.zeros(len(kind), np.bool_)
    wordy[[*facts.traits, *facts.account_id]] = True
    return FactColumns(
        packed=records.view(PACKED),
        time=facts.occurred_at_ms,
        value=value,
        id=ids,
        route=route,
        signed_up=signed_up,
        wordy=wordy,
        any_wordy=bool(facts.traits or facts.account_id),
        any_signed_up=bool(signed_up.any()),
        core=not len(facts.entries) and (not len(kind) or int(kind.max()) <= Kind.REFUNDED),
    )


def _fact_ids(texts: Strings, family: Int64s, hashes: KeyedHash) -> UInt64s:
    """Return uint64[n], never 0: 16 bits that do not depend on the key, then 48 that do.

    The former come first in comparisons, so that which of two conflicting refunds wins does not
    change with the key even if they differ in nothing but the order they name.
    """
    words = as_words(texts)
    keyed = mix(hashes.hash_words(words) ^ _FAMILY_SALTS[family])
    plain = _PLAIN.hash_words(words)
    ids = (keyed >> _PLAIN_BITS) | (plain << (np.uint64(64) - _PLAIN_BITS))
    return np.maximum(ids, np.uint64(1))


def seen_keys(slots: Int64s, ids: UInt64s) -> UInt64s:
    """Return uint64[n]: one key per (slot, fact id) for the set of seen facts.

    Ids are hashes with a key already, and an odd multiplier spreads one id's slots over all
    places, so nothing more is mixed.
    """
    return ids + slots.view(np.uint64) * _SLOT_MULTIPLIER
