"""Every stored schema version, found by the fingerprint its records carry."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import fastavro.schema

import errors

STORED_IN = Path(__file__).parent / "avro"
"""The folder of the .avsc files, the one source of truth."""

_FILE_NAME = re.compile(r"(?P<stem>[a-z][a-z0-9_]*)\.v(?P<version>[1-9][0-9]*)\.avsc")


@dataclass(frozen=True, slots=True)
class Stored:
    """One version of one record type."""

    type: str
    """The record's name without its namespace, such as `Purchased`."""
    version: int
    text: str = field(repr=False)
    """The schema as stored."""
    fingerprint: bytes
    """CRC-64-AVRO of the canonical form: 8 bytes, little-endian, as on the wire."""
    parsed: dict[str, Any] = field(repr=False, compare=False)
    """The schema as fastavro parsed it, without logical types: times are int UTC ms both ways."""

    @property
    def name(self) -> str:
        """The type and version, for messages: `Purchased v1`."""
        return f"{self.type} v{self.version}"

    def to_json(self) -> dict[str, Any]:
        """Return the schema as JSON, a fresh copy."""
        schema: dict[str, Any] = json.loads(self.text)
        return schema


class Registry:
    """Stored versions by fingerprint and by type. Never changes once built."""

    def __init__(self, stored: Iterable[Stored]) -> None:
        """Index `stored`; a SchemaError when two share a fingerprint, or a type and version.

        The fingerprint ignores defaults, docs and logical types, so two versions that differ
        in nothing else cannot be told apart on the wire.
        """
        self._by_fingerprint: dict[bytes, Stored] = {}
        self._by_type: dict[str, dict[int, Stored]] = {}
        for one in sorted(stored, key=lambda each: (each.type, each.version)):
            twin = self._by_fingerprint.setdefault(one.fingerprint, one)
            if twin is not one:
                raise errors.SchemaError(
                    f"{one.name} and {twin.name} have the same fingerprint {one.fingerprint.hex()}: "
                    "change a name or a type, not only defaults, docs or logical types"
                )
            versions = self._by_type.setdefault(one.type, {})
            if one.version in versions:
                raise errors.SchemaError(f"{one.name} is stored twice")
            versions[one.version] = one

    def __iter__(self) -> Iterator[Stored]:
        return iter(self._by_fingerprint.values())

    def __len__(self) -> int:
        return len(self._by_fingerprint)

    @property
    def types(self) -> tuple[str, ...]:
        """Every stored record type, sorted."""
        return tuple(self._by_type)

    def find(self, fingerprint: bytes) -> Stored | None:
        """Return the version whose records carry `fingerprint`, or None."""
        return self._by_fingerprint.get(fingerprint)

    def versions(self, type_name: str) -> tuple[Stored, ...]:
        """Return all versions of a type, oldest first; a SchemaError when there is none."""
        if type_name not in self._by_type:
            raise errors.SchemaError(f"no schema is stored for {type_name!r}; stored are {self.types}")
        return tuple(self._by_type[type_name].values())

    def latest(self, type_name: str) -> Stored:
        """Return the newest version of a type; a SchemaError when there is none."""
        return self.versions(type_name)[-1]


def store(text: str, version: int, *, source: str) -> Stored:
    """Read one schema; a SchemaError naming `source` when it is not a named Avro record."""
    try:
        schema = json.loads(text)
        parsed = fastavro.schema.parse_schema(_without_logical_types(schema))
        canonical = fastavro.schema.to_parsing_canonical_form(schema)
        # fastavro's hex digits are the little-endian bytes, in wire order.
        fingerprint = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    except (ValueError, KeyError, TypeError, fastavro.schema.SchemaParseException) as error:
        raise errors.SchemaError(f"{source}: not an Avro schema: {error}") from error
    if not isinstance(schema, dict) or schema.get("type") != "record" or "fields" not in schema:
        raise errors.SchemaError(f"{source}: expected a record with fields at the top")
    assert isinstance(parsed, dict)
    return Stored(str(schema["name"]).rpartition(".")[2], version, text, fingerprint, parsed)


def load(folder: Path) -> Registry:
    """Read every `<snake_case_type>.v<N>.avsc` in `folder`.

    Raises a SchemaError when a file is misnamed, unreadable or names another type than its
    file name says, or when the folder holds none.
    """
    stored = []
    for path in sorted(folder.glob("*")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise errors.SchemaError(f"{path}: expected a file name like purchased.v1.avsc")
        one = store(path.read_text(encoding="utf-8"), int(match["version"]), source=str(path))
        if _snake_case(one.type) != match["stem"]:
            raise errors.SchemaError(f"{path}: holds {one.type}, expected in {_snake_case(one.type)}.vN.avsc")
        stored.append(one)
    if not stored:
        raise errors.SchemaError(f"{folder}: no schema is stored here")
    return Registry(stored)


@cache
def committed() -> Registry:
    """Return the schemas this version of Shoal carries, read once."""
    return load(STORED_IN)


def _snake_case(type_name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type_name).lower()


def _without_logical_types(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_logical_types(value) for key, value in schema.items() if key != "logicalType"}
    if isinstance(schema, list):
        return [_without_logical_types(one) for one in schema]
    return schema
