"""The copies of the schemas, and what is written with them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from fastavro.schema import fingerprint

from shoal_sdk.encoding import MAGIC, EventType, schema_of

SOURCE = Path(__file__).parents[2] / "schemas" / "avro"


@pytest.mark.parametrize("event_type", EventType)
def test_the_wheels_schemas_equal_the_repositorys(event_type: EventType) -> None:
    """One source of truth: the copies are byte for byte what schemas/avro holds."""
    copy = files("shoal_sdk").joinpath("avro", event_type.value).read_bytes()
    assert copy == (SOURCE / event_type.value).read_bytes()


def test_no_copy_is_left_unused() -> None:
    """Every file in the wheel is a type the client writes."""
    copies = {path.name for path in files("shoal_sdk").joinpath("avro").iterdir()}
    assert copies == {event_type.value for event_type in EventType}


def test_fingerprints_are_written_little_endian() -> None:
    """The Avro specification's example: "int" is 0x7275d51a3f395c8f, so 8f comes first on the wire."""
    assert bytes.fromhex(fingerprint('"int"', "CRC-64-AVRO")) == (0x7275D51A3F395C8F).to_bytes(8, "little")
    for event_type in EventType:
        assert schema_of(event_type).prefix[:2] == MAGIC
        assert len(schema_of(event_type).prefix) == 10
