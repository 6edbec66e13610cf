from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

import errors
from schemas import compatibility
from schemas.registry import Registry, committed, store

Edit = Callable[[dict[str, Any]], None]

ORDER: dict[str, Any] = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "note", "type": ["null", "string"], "default": None},
        {
            "name": "kind",
            "type": {"type": "enum", "name": "Kind", "symbols": ["unknown", "web"], "default": "unknown"},
        },
        {
            "name": "lines",
            "type": {
                "type": "array",
                "items": {"type": "record", "name": "Line", "fields": [{"name": "sku", "type": "string"}]},
            },
            "default": [],
        },
    ],
}


def versions(*edits: Edit) -> Registry:
    """Return a registry of ORDER as v1 and, for each edit, one more version made by it from the last."""
    schema, stored = ORDER, [store(json.dumps(ORDER), 1, source="v1")]
    for number, edit in enumerate(edits, 2):
        schema = copy.deepcopy(schema)
        edit(schema)
        stored.append(store(json.dumps(schema), number, source=f"v{number}"))
    return Registry(stored)


def add(field: dict[str, Any]) -> Edit:
    return lambda schema: schema["fields"].append(field)


def change(name: str, **to: Any) -> Edit:
    return lambda schema: next(f for f in schema["fields"] if f["name"] == name).update(to)


def drop(name: str) -> Edit:
    def edit(schema: dict[str, Any]) -> None:
        schema["fields"] = [field for field in schema["fields"] if field["name"] != name]

    return edit


def line_field(field: dict[str, Any]) -> Edit:
    return lambda schema: schema["fields"][4]["type"]["items"]["fields"].append(field)


def symbols(*names: str, default: str | None = "unknown") -> Edit:
    def edit(schema: dict[str, Any]) -> None:
        schema["fields"][3]["type"]["symbols"] = list(names)
        if default is None:
            del schema["fields"][3]["type"]["default"]

    return edit


def both(first: Edit, second: Edit) -> Edit:
    def edit(schema: dict[str, Any]) -> None:
        first(schema)
        second(schema)

    return edit


OPTIONAL = {"name": "coupon", "type": ["null", "string"], "default": None}


def test_stored_versions_are_full_transitive_compatible() -> None:
    """Every committed version can be read with every other version of its type."""
    assert compatibility.incompatibilities(committed()) == []


def test_stored_versions_differ_in_fingerprint() -> None:
    """No two committed schemas share a fingerprint: building the registry again would raise."""
    stored = list(committed())
    assert len({one.fingerprint for one in stored}) == len(stored) == len(Registry(stored))


@pytest.mark.parametrize(
    "edits",
    [
        [add(OPTIONAL)],
        [drop("note")],
        [add(OPTIONAL), drop("note")],
        [line_field(OPTIONAL)],
        [symbols("unknown", "web", "shop")],
        [symbols("unknown")],
    ],
    ids=["optional", "dropped optional", "both", "optional in a line", "symbol", "dropped symbol"],
)
def test_changes_both_sides_can_read_pass(edits: list[Edit]) -> None:
    """Optional fields and enum symbols may come and go."""
    assert compatibility.incompatibilities(versions(*edits)) == []


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ([add({"name": "till", "type": "int"})], "Order v2 cannot read Order v1: Order.till: has no default"),
        ([drop("id")], "Order v1 cannot read Order v2: Order.id: has no default"),
        ([change("id", type="long")], "Order.id: is long, was written as string"),
        ([change("id", type="bytes")], "Order.id: is bytes, was written as string"),
        ([change("note", type=["null", "long"])], "Order.note: is a union of ['null', 'long']"),
        ([change("note", type=["null", "string", "long"])], "Order.note: is a union of"),
        ([change("note", type="string", default="")], "Order.note: is string, was written as union"),
        ([line_field({"name": "n", "type": "long"})], "Order.lines[].n: has no default"),
        ([symbols("unknown", "web", "x", default=None)], "enum Kind has no default `unknown`"),
        ([symbols("web", "x", default=None)], "Order.kind: does not know ['unknown'] and has no default"),
        (
            [drop("note"), add({"name": "note", "type": "long", "default": 0})],
            "Order v3 cannot read Order v1",
        ),
        (
            [both(change("at", type="long"), add(OPTIONAL))],
            "Order.at: means None, was written as timestamp-millis",
        ),
    ],
)
def test_changes_a_reader_would_stumble_on_fail(edits: list[Edit], expected: str) -> None:
    """A pair that cannot be read, in either direction and at any distance, is named with its field."""
    problems = compatibility.incompatibilities(versions(*edits))
    assert any(expected in problem for problem in problems), problems


@pytest.mark.parametrize(
    "edit",
    [
        change("note", default=None, doc="text"),
        change("at", type="long"),
        change("lines", default=[{"sku": "a"}]),
    ],
    ids=["doc", "logical type", "default"],
)
def test_versions_that_look_alike_on_the_wire_are_refused(edit: Edit) -> None:
    """The fingerprint ignores docs, logical types and defaults, so they alone make no version."""
    with pytest.raises(errors.SchemaError, match="same fingerprint"):
        versions(edit)
