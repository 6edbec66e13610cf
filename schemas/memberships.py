"""Membership: encode the current values of many customers from columns, read one back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schemas import binary, framing
from schemas.binary import Int64s
from schemas.changes import DIMENSION_KINDS, NEVER_MS, read_as
from schemas.registry import Registry, committed

_KIND = {name: binary.long(index) for index, name in enumerate(DIMENSION_KINDS)}

_TYPE = "Membership"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Dimension:
    """What every customer's value in one dimension has in common."""

    name: str
    kind: str
    """One of DIMENSION_KINDS."""
    values: tuple[str, ...]
    """The dimension's values; a code is an index into them."""


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
    count = len(memberships)
    head = framing.frame(committed().versions(_TYPE)[_VERSION - 1].fingerprint, b"")
    place = binary.long(epoch) + binary.long(partition)
    version = binary.long(definition_version)
    expires = binary.optional_longs(memberships.expires_at_ms, NEVER_MS)
    held: list[list[bytes]] = [[] for _ in range(count)]
    for index, dimension in enumerate(dimensions):
        lead = binary.text(dimension.name.encode()) + _KIND[dimension.kind]
        labels = [lead + binary.text(value.encode()) for value in dimension.values]
        for items, code, since, expiry, seq in zip(
            held,
            memberships.value[:, index].tolist(),
            binary.longs(memberships.since_ms[:, index]),
            expires,
            binary.longs(memberships.value_seq[:, index]),
            strict=True,
        ):
            if code >= 0:
                items.append(labels[code] + since + expiry + seq)
    return [
        b"".join(
            (
                head,
                binary.text(customer),
                binary.optional_text(account),
                place,
                seq,
                version,
                binary.array(items),
            )
        )
        for customer, account, seq, items in zip(
            memberships.customer_id, memberships.account_id, binary.longs(memberships.seq), held, strict=True
        )
    ]


def decode_membership(value: bytes, registry: Registry | None = None) -> dict[str, Any]:
    """Read one framed membership, of any stored version, as the latest; times are int UTC ms.

    Raises UnknownFingerprint or UndecodableValue.
    """
    return read_as(_TYPE, value, registry)
