from __future__ import annotations

import json
from typing import Any

import pytest

import errors
from schemas import resolution
from schemas.decoding import decode
from schemas.events import encode_event
from schemas.registry import Registry, store

COLOUR = {"type": "enum", "name": "Colour", "symbols": ["unknown", "red"], "default": "unknown"}
PLACE: dict[str, Any] = {
    "type": "record", "name": "Place",
    "fields": [{"name": "city", "type": ["null", "string"], "default": None}],
}  # fmt: skip


def visit(*more: dict[str, Any], place: Any = PLACE, colour: Any = COLOUR, line: Any = PLACE) -> str:
    line = {**line, "name": "Line"}
    fields = [
        {"name": "id", "type": "string"},
        {"name": "place", "type": ["null", place], "default": None},
        {"name": "colour", "type": colour},
        {"name": "lines", "type": {"type": "array", "items": line}, "default": []},
    ]
    return json.dumps({"type": "record", "name": "Visit", "fields": fields + list(more)})


def resolved(old: str, new: str, *records: dict[str, Any]) -> list[dict[str, Any]]:
    """Write `records` with `old`, decode them where `new` is stored too, as rows."""
    registry = Registry([store(old, 1, source="1"), store(new, 2, source="2")])
    values = [encode_event("Visit", record, version=1, registry=registry) for record in records]
    (group,) = decode(values, registry).groups
    fresh = decode([encode_event("Visit", {"id": "n", "colour": "unknown"}, registry=registry)], registry)
    assert group.batch.schema == fresh.groups[0].batch.schema and group.version == 1
    group.batch.validate(full=True)
    rows: list[dict[str, Any]] = group.batch.to_pylist()
    return rows


BIGGER = {**PLACE, "fields": [*PLACE["fields"], {"name": "floor", "type": "long", "default": 7}]}
OLD = {"id": "a", "place": {"city": "Bath"}, "colour": "red", "lines": [{"city": "x"}, {"city": None}]}


def test_missing_columns_carry_their_defaults() -> None:
    """A field of any type that came later is its default in older records."""
    more = [
        {"name": "note", "type": ["null", "string"], "default": None},
        {"name": "count", "type": "long", "default": 3},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": ["a"]},
        {"name": "extra", "type": {"type": "map", "values": ["null", "long"]}, "default": {}},
        {"name": "where", "type": {**PLACE, "name": "Where"}, "default": {"city": "Rome"}},
    ]
    first, second = resolved(visit(), visit(*more), OLD, {**OLD, "id": "b"})
    assert first["note"] is None and first["count"] == 3 and first["tags"] == ["a"] and first["extra"] == []
    assert first["where"] == {"city": "Rome"} and (first["id"], second["id"]) == ("a", "b")


def test_missing_fields_of_nested_records_carry_their_defaults() -> None:
    """Also inside a nullable record and inside an array; a null record stays null."""
    first, second = resolved(visit(), visit(place=BIGGER, line=BIGGER), OLD, {"id": "b", "colour": "red"})
    assert first["place"] == {"city": "Bath", "floor": 7} and second["place"] is None
    assert first["lines"] == [{"city": "x", "floor": 7}, {"city": None, "floor": 7}] and second["lines"] == []


def test_fields_only_the_older_version_had_are_dropped() -> None:
    """A reader sees exactly the columns of the latest version."""
    (row,) = resolved(visit({"name": "note", "type": ["null", "string"], "default": None}), visit(), OLD)
    assert set(row) == {"id", "place", "colour", "lines"}


def test_a_symbol_no_longer_known_is_unknown() -> None:
    """An enum's default stands for what the reader does not know."""
    (row,) = resolved(visit(), visit(colour={**COLOUR, "symbols": ["unknown", "blue"]}), OLD)
    assert row["colour"] == "unknown"


def test_a_change_beyond_columns_is_refused() -> None:
    """What the compatibility check would never let in is not guessed at either."""
    old, new = store(visit(), 1, source="1"), store(visit(colour="string"), 2, source="2")
    registry = Registry([old])
    (group,) = decode([encode_event("Visit", OLD, registry=registry)], registry).groups
    with pytest.raises(errors.SchemaError, match=r"Visit\.colour: cannot be resolved"):
        resolution.resolve(group.batch, old, new)
