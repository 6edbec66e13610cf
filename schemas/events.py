"""Encode events one at a time: for writers without the SDK, the replayer's Tick, and tests."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import fastavro

import errors
from schemas import framing
from schemas.registry import Registry, committed


def encode_event(
    type_name: str,
    fields: Mapping[str, Any],
    *,
    version: int | None = None,
    registry: Registry | None = None,
) -> bytes:
    """Return the framed bytes of one record.

    Times are int UTC ms; fields left out take their default; an instant as a trait is
    `("shoal.events.Instant", {"at": ms})`. `version` defaults to the latest, `registry` to the
    schemas this version of Shoal carries. Raises a SchemaError when the type or version is not
    stored, or when `fields` do not fit the schema: unknown names are refused, not dropped.
    """
    registry = committed() if registry is None else registry
    versions = registry.versions(type_name)
    stored = versions[-1] if version is None else next((v for v in versions if v.version == version), None)
    if stored is None:
        raise errors.SchemaError(f"{type_name} v{version} is not stored")
    body = io.BytesIO()
    try:
        fastavro.schemaless_writer(body, stored.parsed, dict(fields), strict_allow_default=True)
    except (ValueError, TypeError, OverflowError, KeyError, AttributeError) as error:
        raise errors.SchemaError(f"not a {stored.name}: {error}") from error
    return framing.frame(stored.fingerprint, body.getvalue())


def encode_tick(at_ms: int) -> bytes:
    """Return the framed Tick that says event time has reached `at_ms` (UTC ms)."""
    return encode_event("Tick", {"at": at_ms})
