"""Columns written with one version of a type, as the columns of another version.

The Rust decoder does not resolve schemas: it yields the writer's columns. Missing fields are
filled with the reader's defaults here, column by column, at any depth of records and arrays.
"""

from __future__ import annotations

import io
import json
from functools import lru_cache
from typing import Any

import fastavro
import fastavro.schema
import pyarrow as pa
import pyruhvro

import errors
from schemas.registry import Stored

_CACHED_MAX = 256


def resolve(batch: pa.RecordBatch, writer: Stored, reader: Stored) -> pa.RecordBatch:
    """Return `batch`, decoded with `writer`, with exactly the columns decoding with `reader` yields.

    Fields only the writer has are dropped, fields only the reader has carry their default, an
    enum symbol the reader does not know becomes the enum's default. Raises a SchemaError when a
    field changed in any other way; a test holds that no two stored versions do.
    """
    schema = _arrow_schema(reader)
    have = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns = _record(have, _expanded(writer), _expanded(reader), list(schema), batch.num_rows, reader.type)
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _record(
    have: dict[str, pa.Array],
    writer: dict[str, Any],
    reader: dict[str, Any],
    arrow_fields: list[pa.Field],
    rows: int,
    path: str,
) -> list[pa.Array]:
    written = {field["name"]: field["type"] for field in writer["fields"]}
    columns = []
    for field, arrow_field in zip(reader["fields"], arrow_fields, strict=True):
        name = field["name"]
        if name in written:
            there = f"{path}.{name}"
            columns.append(_convert(have[name], written[name], field["type"], arrow_field.type, there))
        else:
            columns.append(_default(json.dumps(field), rows))
    return columns


def _convert(array: pa.Array, writer: Any, reader: Any, wanted: pa.DataType, path: str) -> pa.Array:
    if _plain(writer) == _plain(reader):
        return array
    writer, reader = _not_null(writer), _not_null(reader)
    kind = writer.get("type") if isinstance(writer, dict) else writer
    if not isinstance(reader, dict) or reader.get("type") != kind:
        raise errors.SchemaError(f"{path}: cannot be resolved: {writer} was written, {reader} is wanted")
    if kind == "record":
        have = {field.name: array.field(index) for index, field in enumerate(array.type)}
        children = _record(have, writer, reader, list(wanted), len(array), path)
        return pa.StructArray.from_arrays(children, fields=list(wanted), mask=array.is_null())
    if kind == "array":
        values = _convert(array.values, writer["items"], reader["items"], wanted.value_type, path)
        return pa.ListArray.from_arrays(array.offsets, values, type=wanted, mask=array.is_null())
    if kind == "enum" and "default" in reader:
        symbols = frozenset(reader["symbols"])
        return pa.array(
            [text if text is None or text in symbols else reader["default"] for text in array.to_pylist()],
            wanted,
        )
    raise errors.SchemaError(f"{path}: a {kind} that changed cannot be resolved by columns")


def _not_null(schema: Any) -> Any:
    """Return what else `["null", X]` may hold; anything that is no such union as it is."""
    if isinstance(schema, list) and len(schema) == 2 and "null" in schema:
        return schema[1] if schema[0] == "null" else schema[0]
    return schema


def _plain(schema: Any) -> Any:
    """Return the schema without what does not change its columns."""
    if isinstance(schema, dict):
        return {
            key: _plain(value) for key, value in schema.items() if key not in ("doc", "default", "aliases")
        }
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    return schema


@lru_cache(_CACHED_MAX)
def _arrow_schema(stored: Stored) -> pa.Schema:
    return pyruhvro.deserialize_array([], stored.text).schema


@lru_cache(_CACHED_MAX)
def _expanded(stored: Stored) -> dict[str, Any]:
    """Return the schema with every reference to a named type replaced by the type."""
    expanded = fastavro.schema.expand_schema(stored.to_json())
    assert isinstance(expanded, dict)
    return expanded


def _default(field: str, rows: int) -> pa.Array:
    """Return a column of the default of one field, given as JSON."""
    text, body = _default_record(field)
    return pyruhvro.deserialize_array([body] * rows, text).column(0)


@lru_cache(_CACHED_MAX)
def _default_record(field: str) -> tuple[str, bytes]:
    """Return a schema with that field alone, and the Avro body of a record where it is its default."""
    schema = {"type": "record", "name": "Default", "fields": [json.loads(field)]}
    body = io.BytesIO()
    fastavro.schemaless_writer(body, fastavro.schema.parse_schema(schema), {})
    return json.dumps(schema), body.getvalue()
