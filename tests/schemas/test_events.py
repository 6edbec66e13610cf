from __future__ import annotations

from typing import Any

import pytest

import errors
from schemas import catalogue, framing
from schemas.events import encode_event, encode_tick
from schemas.registry import committed

PROFILE: dict[str, Any] = {"event_id": "e", "customer_id": "c", "occurred_at": 5}


def test_a_tick_is_its_header_and_one_long() -> None:
    """The bytes on the wire, spelled out."""
    fingerprint = committed().latest("Tick").fingerprint
    assert encode_tick(1) == b"\xc3\x01" + fingerprint + b"\x02"
    assert framing.split(encode_tick(1)) == (fingerprint, b"\x02")


@pytest.mark.parametrize(
    "fields",
    [
        {**PROFILE, "coupon": "x"},
        {"event_id": "e", "customer_id": "c"},
        {**PROFILE, "occurred_at": "now"},
        {**PROFILE, "traits": {"a": object()}},
        {**PROFILE, "occurred_at": 1 << 63},
    ],
    ids=["unknown field", "missing field", "wrong type", "wrong trait", "too large"],
)
def test_fields_that_do_not_fit_are_refused(fields: dict[str, Any]) -> None:
    """Nothing is dropped or guessed on the way out."""
    with pytest.raises(errors.SchemaError, match="not a ProfileUpdated v1"):
        encode_event("ProfileUpdated", fields)


def test_a_version_that_is_not_stored_is_refused() -> None:
    """Writing needs a schema readers can find."""
    with pytest.raises(errors.SchemaError, match="Tick v9 is not stored"):
        encode_event("Tick", {"at": 1}, version=9)


def test_the_catalogue_holds_every_schema_under_its_fingerprint() -> None:
    """What the topic says is exactly what is stored, and reads back as it."""
    records = catalogue.records()
    assert len(records) == len(committed())
    for key, value in records:
        stored = committed().find(key)
        assert stored is not None and value.decode() == stored.text
        assert catalogue.read(key, value, version=stored.version) == stored


@pytest.mark.parametrize("value", [b"\xff", b"{}", committed().latest("Tick").text.encode()])
def test_a_catalogue_record_under_a_wrong_key_is_refused(value: bytes) -> None:
    """Neither junk nor a schema filed under another's fingerprint is believed."""
    with pytest.raises(errors.SchemaError, match="schemas topic"):
        catalogue.read(b"12345678", value, version=1)
