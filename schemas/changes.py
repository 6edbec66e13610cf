"""SegmentChange: encode the changes of a step from columns, read one back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fastavro
import numpy as np
import numpy.typing as npt

import errors
from schemas import binary, framing
from schemas.binary import Int64s
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
_CAUSE = {name: binary.long(index) for index, name in enumerate(CAUSES)}
_ORIGIN = {name: binary.long(index) for index, name in enumerate(ORIGINS)}

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
class Changes:
    """n changes of one step; every column has n entries."""

    seq: Int64s
    customer_id: Sequence[bytes]
    """UTF-8."""
    account_id: Sequence[str | None]
    dimension: Sequence[str]
    dimension_kind: Sequence[str]
    """Each one of DIMENSION_KINDS."""
    before: Sequence[str | None]
    """The value left; None: entered."""
    after: Sequence[str | None]
    """The value taken; None: exited."""
    cause: Sequence[str]
    """Each one of CAUSES."""
    cause_event_id: Sequence[bytes | None]
    """UTF-8; None when no event caused the change."""
    effective_at_ms: Int64s
    previous_since_ms: Int64s
    """NEVER_MS: null."""
    expires_at_ms: Int64s
    """NEVER_MS: null."""
    scores_before: UInt8s
    """uint8[n, 3]: r, f, m; r = 0: null."""
    scores_after: UInt8s
    """uint8[n, 3]: r, f, m; r = 0: null."""
    last_purchase_ms: Int64s
    """NEVER_MS: null."""
    orders: Int64s
    """Below 0: the change carries no facts at all."""
    net_minor: Int64s
    reasons: Sequence[Sequence[str]]

    def __len__(self) -> int:
        return len(self.customer_id)


def encode_changes(stamp: Stamp, changes: Changes) -> list[bytes]:
    """Return the framed value of each change, in order; the key is its customer id.

    Whether it entered, exited or moved follows from `before` and `after`. Raises a KeyError for
    a kind, cause or origin that is not in the schema.
    """
    head = framing.frame(committed().versions(_TYPE)[_VERSION - 1].fingerprint, b"")
    event_id = f"{stamp.app}/{stamp.epoch}/{stamp.partition}/".encode()
    place = binary.long(stamp.epoch) + binary.long(stamp.partition)
    emitted = binary.long(stamp.emitted_at_ms)
    tail = binary.long(stamp.definition_version) + _ORIGIN[stamp.origin] + binary.optional_text(stamp.run_id)
    labels: dict[str | None, bytes] = {None: binary.NULL}
    for label in {*changes.before, *changes.after} - {None}:
        labels[label] = binary.optional_text(label)
    dimensions = binary.remembered(lambda name: binary.text(name.encode()), changes.dimension)
    text = binary.text
    values: list[bytes] = []
    for (
        seq, seq_long, customer, account, dimension, kind, before, after, cause, cause_id,
        effective, since, expires, scores_before, scores_after, facts, reasons,
    ) in zip(
        changes.seq.tolist(), binary.longs(changes.seq), changes.customer_id, changes.account_id,
        changes.dimension, changes.dimension_kind, changes.before, changes.after, changes.cause,
        changes.cause_event_id, binary.longs(changes.effective_at_ms),
        binary.optional_longs(changes.previous_since_ms, NEVER_MS),
        binary.optional_longs(changes.expires_at_ms, NEVER_MS),
        changes.scores_before.tolist(), changes.scores_after.tolist(),
        _facts(stamp, changes), changes.reasons, strict=True,
    ):  # fmt: skip
        values.append(
            b"".join(
                (
                    head,
                    text(event_id + str(seq).encode()),
                    place,
                    seq_long,
                    text(customer),
                    binary.optional_text(account),
                    dimensions[dimension],
                    _KIND[kind],
                    _ENTERED if before is None else _EXITED if after is None else _MOVED,
                    labels[before],
                    labels[after],
                    _CAUSE[cause],
                    binary.NULL if cause_id is None else binary.PRESENT + text(cause_id),
                    effective,
                    emitted,
                    since,
                    expires,
                    _scores(scores_before),
                    _scores(scores_after),
                    facts,
                    binary.array([text(reason.encode()) for reason in reasons]) if reasons else b"\x00",
                    tail,
                )
            )
        )
    return values


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


def _scores(scores: list[int]) -> bytes:
    """Encode [r, f, m]; a score is below 64, so it is one byte with its value doubled."""
    r, f, m = scores
    return bytes((2, r << 1, f << 1, m << 1)) if r else binary.NULL


def _facts(stamp: Stamp, changes: Changes) -> list[bytes]:
    currency = binary.text(stamp.currency.encode()) + binary.long(stamp.window_days)
    return [
        b"".join((binary.PRESENT, last, orders, net, currency)) if count >= 0 else binary.NULL
        for count, last, orders, net in zip(
            changes.orders.tolist(),
            binary.optional_longs(changes.last_purchase_ms, NEVER_MS),
            binary.longs(changes.orders),
            binary.longs(changes.net_minor),
            strict=True,
        )
    ]
