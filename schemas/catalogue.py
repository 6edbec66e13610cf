"""The records of the `schemas` topic: every stored writer schema under its fingerprint."""

from __future__ import annotations

import errors
from schemas.registry import Registry, Stored, committed, store


def records(registry: Registry | None = None) -> list[tuple[bytes, bytes]]:
    """Return (key, value) for each stored version, by type and version.

    The key is the 8-byte fingerprint as it stands in a value's header, the value the schema's
    JSON (UTF-8) exactly as stored. `registry` defaults to what this version of Shoal carries.
    """
    registry = committed() if registry is None else registry
    return [(stored.fingerprint, stored.text.encode()) for stored in registry]


def read(key: bytes, value: bytes, *, version: int) -> Stored:
    """Return the schema a record of the topic holds, as `version` of its type.

    Raises a SchemaError when it is not a schema, or its key is not its fingerprint.
    """
    stored = store(value.decode("utf-8", "replace"), version, source=f"schemas topic, key {key.hex()}")
    if stored.fingerprint != key:
        raise errors.SchemaError(
            f"schemas topic: key {key.hex()} holds {stored.type} with fingerprint {stored.fingerprint.hex()}"
        )
    return stored
