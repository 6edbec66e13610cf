"""Avro single-object encoding of the event types this package carries.

The .avsc files in avro/ are copies of the repository's schemas/avro, which are the source of truth
(a test holds them equal). To refresh them, in the repository's root:

    for f in sdk/src/shoal_sdk/avro/*.avsc; do cp schemas/avro/"$(basename "$f")" "$f"; done
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.resources import files
from typing import Any

from fastavro import parse_schema, schemaless_writer
from fastavro.schema import fingerprint, to_parsing_canonical_form

MAGIC = b"\xc3\x01"


class EventType(Enum):
    """The record types; a value is the file name of the version written."""

    SIGNED_UP = "signed_up.v1.avsc"
    PROFILE_UPDATED = "profile_updated.v1.avsc"
    PURCHASED = "purchased.v1.avsc"
    REFUNDED = "refunded.v1.avsc"
    PLAN_CHANGED = "plan_changed.v1.avsc"
    TICKET_CHANGED = "ticket_changed.v1.avsc"
    ACTIVITY = "activity.v1.avsc"
    ERASED = "erased.v1.avsc"


@dataclass(frozen=True, slots=True)
class Schema:
    """A parsed schema and the 10 bytes that precede every body written with it."""

    parsed: Any
    prefix: bytes


@cache
def schema_of(event_type: EventType) -> Schema:
    """Return the schema of `event_type`; read once per process."""
    # One step at a time, for joinpath() takes no more in Python 3.10.
    source = json.loads((files("shoal_sdk") / "avro" / event_type.value).read_text("utf-8"))
    # The hexadecimal digits come in the order in which the wire wants the bytes: little-endian.
    mark = bytes.fromhex(fingerprint(to_parsing_canonical_form(source), "CRC-64-AVRO"))
    return Schema(parse_schema(source), MAGIC + mark)


def encode(event_type: EventType, record: Mapping[str, Any]) -> bytes:
    """Return C3 01, the fingerprint (8 bytes, little-endian) and the Avro body of a checked record."""
    schema = schema_of(event_type)
    out = io.BytesIO()
    out.write(schema.prefix)
    schemaless_writer(out, schema.parsed, record)
    return out.getvalue()
