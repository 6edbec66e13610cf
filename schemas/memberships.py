"""Membership: encode the current values of many customers from columns, read one back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schemas import binary, framing
from schemas.assembly import Bools, assembly
from schemas.binary import Int64s
from schemas.changes import NEVER_MS, Dimension, dimension_heads, read_as, write_accounts
from schemas.registry import Registry, committed

_TYPE = "Membership"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Memberships:
    """n customers and their values in d dimensions."""

    customer_id: Sequence[bytes]
    """UTF-8."""
    account_id: Sequence[str | None]
    seq: Int64s
    """int64[n]: the seq of each customer's latest change."""
    value: binary.Int16s
    """int16[n, d]: codes; -1: no value in that dimension, which is then left out."""
    since_ms: Int64s
    """int64[n, d]."""
    value_seq: Int64s
    """int64[n, d]: the seq of the change that set each value."""
    expires_at_ms: Int64s
    """int64[n]: each customer's next deadline; NEVER_MS: null."""

    def __len__(self) -> int:
        return len(self.customer_id)


def encode_memberships(
    dimensions: Sequence[Dimension],
    memberships: Memberships,
    *,
    epoch: int,
    partition: int,
    definition_version: int,
) -> list[bytes]:
    """Return the framed value of each customer, in order; the key is the customer id.

    Raises a KeyError for a dimension kind that is not in the schema.
    """
    count, held = len(memberships), memberships.value >= 0
    if not count:
        return []
    out = assembly(count)
    out.constant(framing.frame(committed().versions(_TYPE)[_VERSION - 1].fingerprint, b""))
    out.texts(memberships.customer_id)
    write_accounts(out, memberships.account_id)
    out.constant(binary.long(epoch) + binary.long(partition))
    out.longs(memberships.seq)
    out.constant(binary.long(definition_version))
    items = np.count_nonzero(held, axis=1)
    # An array is its items behind their number, then a zero; an empty one is the zero.
    out.longs(items, items > 0)
    out.encoded(_values(dimensions, memberships, held, items))
    out.constant(binary.END_OF_ARRAY)
    return out.records()


def _values(
    dimensions: Sequence[Dimension], memberships: Memberships, held: Bools, items: Int64s
) -> list[bytes]:
    """Return the values of each customer end to end: many dimensions cost nothing to who has none in them."""
    row, dimension = held.nonzero()
    heads = dimension_heads(dimensions)
    if not len(row):
        return [b""] * len(held)
    labels = [
        head + binary.text(value.encode())
        for head, each in zip(heads, dimensions, strict=True)
        for value in each.values
    ]
    firsts = np.cumsum([0, *(len(each.values) for each in dimensions)])
    out = assembly(len(row))
    out.choices(labels, firsts[dimension] + memberships.value[row, dimension])
    out.longs(memberships.since_ms[row, dimension])
    out.optional_longs(memberships.expires_at_ms[row], NEVER_MS)
    out.longs(memberships.value_seq[row, dimension])
    values, ends = out.records(), items.cumsum()
    return [
        b"".join(values[end - size : end]) for size, end in zip(items.tolist(), ends.tolist(), strict=True)
    ]


def decode_membership(value: bytes, registry: Registry | None = None) -> dict[str, Any]:
    """Read one framed membership, of any stored version, as the latest; times are int UTC ms.

    Raises UnknownFingerprint or UndecodableValue.
    """
    return read_as(_TYPE, value, registry)
