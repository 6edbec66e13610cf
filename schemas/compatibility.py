"""Whether two versions of a record type can read each other: the rule every stored pair must pass."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import fastavro.schema

from schemas.registry import Registry, Stored


def incompatibilities(registry: Registry) -> list[str]:
    """Return why the stored versions are not FULL_TRANSITIVE compatible; empty when they are.

    Every version must be readable with every other version of its type, earlier and later, by
    Avro's rules of schema resolution, narrowed: no promotions between primitive types, no
    aliases, unions with the same branches, and every enum with the default `unknown`.
    """
    problems: list[str] = []
    for type_name in registry.types:
        versions = registry.versions(type_name)
        for stored in versions:
            problems += (f"{stored.name}: {problem}" for problem in _enums_without_unknown(stored))
        for reader, writer in permutations(versions, 2):
            found = _unreadable(_expanded(reader), _expanded(writer), type_name)
            problems += (f"{reader.name} cannot read {writer.name}: {problem}" for problem in found)
    return problems


def _expanded(stored: Stored) -> Any:
    return fastavro.schema.expand_schema(stored.to_json())


def _kind(schema: Any) -> str:
    if isinstance(schema, list):
        return "union"
    return str(schema["type"]) if isinstance(schema, dict) else str(schema)


def _unreadable(reader: Any, writer: Any, path: str) -> Iterator[str]:
    """Yield each reason why data written with `writer` cannot be read with `reader`."""
    kind = _kind(reader)
    if kind != _kind(writer):
        yield f"{path}: is {kind}, was written as {_kind(writer)}"
    elif kind == "union":
        yield from _unreadable_union(reader, writer, path)
    elif kind == "record":
        if reader["name"] != writer["name"]:
            yield f"{path}: is named {reader['name']}, was written as {writer['name']}"
        written = {field["name"]: field["type"] for field in writer["fields"]}
        for field in reader["fields"]:
            name = field["name"]
            if name in written:
                yield from _unreadable(field["type"], written[name], f"{path}.{name}")
            elif "default" not in field:
                yield f"{path}.{name}: has no default and was not written"
    elif kind == "enum":
        missing = [symbol for symbol in writer["symbols"] if symbol not in reader["symbols"]]
        if missing and "default" not in reader:
            yield f"{path}: does not know {missing} and has no default"
        if reader["name"] != writer["name"]:
            yield f"{path}: is named {reader['name']}, was written as {writer['name']}"
    elif kind in ("array", "map"):
        part = "items" if kind == "array" else "values"
        yield from _unreadable(reader[part], writer[part], f"{path}[]")
    elif _logical(reader) != _logical(writer):
        yield f"{path}: means {_logical(reader)}, was written as {_logical(writer)}"


def _unreadable_union(reader: list[Any], writer: list[Any], path: str) -> Iterator[str]:
    kinds = [_kind(branch) for branch in reader]
    if kinds != [_kind(branch) for branch in writer]:
        yield f"{path}: is a union of {kinds}, was written as {[_kind(branch) for branch in writer]}"
        return
    for one, other in zip(reader, writer, strict=True):
        yield from _unreadable(one, other, path)


def _logical(schema: Any) -> str | None:
    return schema.get("logicalType") if isinstance(schema, dict) else None


def _enums_without_unknown(stored: Stored) -> Iterator[str]:
    """Yield each enum that has no symbol `unknown` as its default."""
    waiting: list[Any] = [stored.to_json()]
    while waiting:
        schema = waiting.pop()
        if isinstance(schema, list):
            waiting += schema
        elif isinstance(schema, dict):
            if schema.get("type") == "enum" and schema.get("default") != "unknown":
                yield f"enum {schema['name']} has no default `unknown`"
            waiting += schema.values()
