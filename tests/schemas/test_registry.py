from __future__ import annotations

from pathlib import Path

import pytest

import errors
from schemas import registry
from schemas.registry import Registry, committed, store

LONG = '{"type": "record", "name": "a.Reading", "fields": [{"name": "x", "type": "long"}]}'


def crc_64_avro(text: str) -> bytes:
    """Return the fingerprint as the Avro specification words it, little-endian."""
    empty = 0xC15D213AA4D7A795
    table = []
    for byte in range(256):
        entry = byte
        for _ in range(8):
            entry = (entry >> 1) ^ (empty & -(entry & 1))
        table.append(entry)
    fingerprint = empty
    for byte in text.encode():
        fingerprint = (fingerprint >> 8) ^ table[(fingerprint ^ byte) & 0xFF]
    return fingerprint.to_bytes(8, "little")


def test_the_fingerprint_is_that_of_the_specification() -> None:
    """CRC-64-AVRO of the parsing canonical form, in wire order."""
    canonical = '{"name":"a.Reading","type":"record","fields":[{"name":"x","type":"long"}]}'
    assert store(LONG, 1, source="t").fingerprint == crc_64_avro(canonical)
    assert crc_64_avro('"null"') == bytes.fromhex("8a8f25cce724dd63")


def test_committed_schemas_are_found_by_fingerprint_and_type() -> None:
    """Every stored version is reached both ways."""
    for stored in committed():
        assert committed().find(stored.fingerprint) is stored
        assert stored in committed().versions(stored.type)
    assert {"Purchased", "Refunded", "SegmentChange", "Tick"} <= set(committed().types)
    assert committed().find(b"12345678") is None


def test_an_unknown_type_is_named_with_those_there_are() -> None:
    """A typing mistake shows what could be meant."""
    with pytest.raises(errors.SchemaError, match=r"'Purchase'; stored are .*'Purchased'"):
        committed().latest("Purchase")


def test_a_type_and_version_is_stored_once() -> None:
    """Two different schemas cannot both be version 1."""
    other = LONG.replace("long", "int")
    with pytest.raises(errors.SchemaError, match="Reading v1 is stored twice"):
        Registry([store(LONG, 1, source="t"), store(other, 1, source="t")])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("reading.avsc", LONG, "expected a file name like"),
        ("reading.v0.avsc", LONG, "expected a file name like"),
        ("other.v1.avsc", LONG, r"holds Reading, expected in reading\.vN\.avsc"),
        ("reading.v1.avsc", "{", "not an Avro schema"),
        ("reading.v1.avsc", '"long"', "expected a record"),
        ("reading.v1.avsc", '{"type": "record", "name": "Reading"}', "expected a record with fields"),
    ],
)
def test_a_folder_with_a_wrong_file_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    """A misnamed or unreadable file is named, never skipped."""
    (tmp_path / name).write_text(text)
    with pytest.raises(errors.SchemaError, match=message):
        registry.load(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    """An installation without its schemas says so at the start."""
    with pytest.raises(errors.SchemaError, match="no schema"):
        registry.load(tmp_path)
