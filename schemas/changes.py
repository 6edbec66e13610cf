"""SegmentChange: encode the changes of a step from columns, read one back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt

import errors
from schemas import binary, framing
from schemas.assembly import Assembly, assembly
from schemas.binary import Int16s, Int64s
from schemas.registry import Registry, committed

UInt8s = npt.NDArray[np.uint8]

NEVER_MS = int(np.iinfo(np.int64).max)
"""Stands for null in every column of times."""

DIMENSION_KINDS = ("unknown", "exclusive", "custom")
CAUSES = ("unknown", "event", "late_event", "refund", "time_elapsed", "rule_changed", "erasure")
ORIGINS = ("unknown", "live", "backfill", "reconcile")
_CHANGES = ("unknown", "entered", "exited", "moved")

_ENTERED, _EXITED, _MOVED = (binary.long(_CHANGES.index(name)) for name in ("entered", "exited", "moved"))
_KIND = {name: binary.long(index) for index, name in enumerate(DIMENSION_KINDS)}
_CAUSES = [binary.long(index) for index in range(len(CAUSES))]
_ORIGIN = {name: binary.long(index) for index, name in enumerate(ORIGINS)}

_DIMENSIONS_CACHED_MAX = 16
"""Dimensions are a definition's, and a process works with one definition."""

_TYPE = "SegmentChange"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every change of one step has in common."""

    app: str
    epoch: int
    partition: int
    definition_version: int
    emitted_at_ms: int
    """Wall clock."""
    origin: str
    """One of ORIGINS."""
    run_id: str | None
    currency: str
    window_days: int


@dataclass(frozen=True, slots=True)
class Dimension:
    """What all values of one dimension have in common."""

    name: str
    kind: str
    """One of DIMENSION_KINDS."""
    values: tuple[str, ...]
    """The dimension's values; a code is an index into them."""


@dataclass(frozen=True, slots=True)
class Changes:
    """n changes of one step; every column has n entries."""

    seq: Int64s
    customer_id: Sequence[bytes]
    """UTF-8."""
    account_id: Sequence[str | None]
    """None, as well as an empty one: null."""
    dimension: Int64s
    """int64[n]: indices into the dimensions given along."""
    before: Int16s
    """int16[n]: the value left, a code of its dimension; -1: entered."""
    after: Int16s
    """int16[n]: the value taken, a code of its dimension; -1: exited."""
    cause: UInt8s
    """uint8[n]: indices into CAUSES."""
    cause_event_id: Sequence[bytes]
    """UTF-8; empty when no event caused the change."""
    effective_at_ms: Int64s
    previous_since_ms: Int64s
    """NEVER_MS: null."""
    expires_at_ms: Int64s
    """NEVER_MS: null."""
    scores_before: UInt8s
    """uint8[n, 3]: r, f, m, each below 64; r = 0: null."""
    scores_after: UInt8s
    """uint8[n, 3]: r, f, m, each below 64; r = 0: null."""
    last_purchase_ms: Int64s
    """NEVER_MS: null."""
    orders: Int64s
    """Below 0: the change carries no facts at all."""
    net_minor: Int64s
    reasons: Sequence[Sequence[str]] = ()
    """One entry per change; an empty sequence: no change has any."""

    def __len__(self) -> int:
        return len(self.customer_id)


def encode_changes(stamp: Stamp, dimensions: Sequence[Dimension], changes: Changes) -> list[bytes]:
    """Return the framed value of each change, in order; the key is its customer id.

    Whether it entered, exited or moved follows from `before` and `after`. Raises a KeyError for
    a kind or origin, an IndexError for a cause that is not in the schema.
    """
    count = len(changes)
    tail = binary.long(stamp.definition_version) + _ORIGIN[stamp.origin] + binary.optional_text(stamp.run_id)
    if not count:
        return []
    out = assembly(count)
    out.constant(framing.frame(committed().versions(_TYPE)[_VERSION - 1].fingerprint, b""))
    out.numbered_texts(f"{stamp.app}/{stamp.epoch}/{stamp.partition}/".encode(), changes.seq)
    out.constant(binary.long(stamp.epoch) + binary.long(stamp.partition))
    out.longs(changes.seq)
    out.texts(changes.customer_id)
    write_accounts(out, changes.account_id)
    _values(out, dimensions, changes)
    out.choices(_CAUSES, changes.cause)
    out.optional_texts(changes.cause_event_id)
    out.longs(changes.effective_at_ms)
    out.constant(binary.long(stamp.emitted_at_ms))
    out.optional_longs(changes.previous_since_ms, NEVER_MS)
    out.optional_longs(changes.expires_at_ms, NEVER_MS)
    _scores(out, changes.scores_before)
    _scores(out, changes.scores_after)
    _facts(out, stamp, changes)
    if any(changes.reasons):
        out.encoded([binary.array([binary.text(each.encode()) for each in row]) for row in changes.reasons])
    else:
        out.constant(binary.END_OF_ARRAY)
    out.constant(tail)
    return out.records()


def write_accounts(out: Assembly, accounts: Sequence[str | None]) -> None:
    """Write the account of each row, or null."""
    out.optional_texts([account.encode() if account else b"" for account in accounts])


def dimension_heads(dimensions: Sequence[Dimension]) -> list[bytes]:
    """Return name and kind of each, encoded; a KeyError for a kind that is not in the schema."""
    return [binary.text(each.name.encode()) + _KIND[each.kind] for each in dimensions]


def _values(out: Assembly, dimensions: Sequence[Dimension], changes: Changes) -> None:
    """Write dimension, kind, change, from and to."""
    out.choices(dimension_heads(dimensions), changes.dimension)
    entered, exited = changes.before < 0, changes.after < 0
    out.choices((_MOVED, _EXITED, _ENTERED), np.where(entered, 2, exited.astype(np.int64)))
    labels, firsts = _labels(tuple(dimensions))
    first = firsts[changes.dimension]
    out.choices(labels, first + changes.before)
    out.choices(labels, first + changes.after)


@lru_cache(_DIMENSIONS_CACHED_MAX)
def _labels(dimensions: tuple[Dimension, ...]) -> tuple[list[bytes], Int64s]:
    """Return the values of all dimensions end to end, and where each dimension's begin, behind one null."""
    labels: list[bytes] = []
    firsts: list[int] = []
    for each in dimensions:
        firsts.append(len(labels) + 1)
        labels += [binary.NULL, *(binary.PRESENT + binary.text(value.encode()) for value in each.values)]
    return labels, np.array(firsts, np.int64)


def _scores(out: Assembly, scores: UInt8s) -> None:
    """Write r, f and m: each is below 64, and so one byte with its value doubled."""
    present = scores[:, 0] > 0
    out.choices((binary.NULL, binary.PRESENT), present.view(np.uint8))
    out.cells(scores << np.uint8(1), present)


def _facts(out: Assembly, stamp: Stamp, changes: Changes) -> None:
    there = changes.orders >= 0
    present = None if there.all() else there
    out.choices((binary.NULL, binary.PRESENT), there.view(np.uint8))
    out.optional_longs(changes.last_purchase_ms, NEVER_MS, present)
    out.longs(changes.orders, present)
    out.longs(changes.net_minor, present)
    out.constant(binary.text(stamp.currency.encode()) + binary.long(stamp.window_days), present)


def decode_change(value: bytes, registry: Registry | None = None) -> dict[str, Any]:
    """Read one framed change, of any stored version, as the latest; times are int UTC ms.

    Raises UnknownFingerprint or UndecodableValue.
    """
    return read_as(_TYPE, value, registry)


def read_as(type_name: str, value: bytes, registry: Registry | None = None) -> dict[str, Any]:
    """Read one framed record of any stored version of a type with the latest version's schema.

    Raises UnknownFingerprint when it is of no stored version of that type, and UndecodableValue.
    """
    registry = committed() if registry is None else registry
    fingerprint, body = framing.split(value)
    stored = registry.find(fingerprint)
    if stored is None or stored.type != type_name:
        raise errors.UnknownFingerprint(f"value: {fingerprint.hex()} is no stored version of {type_name}")
    source = io.BytesIO(body)
    try:
        record = fastavro.schemaless_reader(source, stored.parsed, registry.latest(type_name).parsed)
    except (ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError) as error:
        raise errors.UndecodableValue(
            f"value: not a {stored.name}: {error}; {framing.shown(value)}"
        ) from error
    if source.tell() != len(body) or not isinstance(record, dict):
        raise errors.UndecodableValue(f"value: more bytes follow the {stored.name}; {framing.shown(value)}")
    return record
