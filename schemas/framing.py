"""Avro single-object encoding: two magic bytes, the fingerprint of the writer's schema, the body."""

from __future__ import annotations

import errors

MAGIC = b"\xc3\x01"
"""The first two bytes of every value Shoal writes or reads."""

FINGERPRINT_BYTES = 8
HEADER_BYTES = len(MAGIC) + FINGERPRINT_BYTES

SHOWN_BYTES_MAX = 16
"""How many bytes of a value an error message shows."""


def frame(fingerprint: bytes, body: bytes) -> bytes:
    """Return the value to write: magic, little-endian CRC-64-AVRO `fingerprint`, Avro `body`."""
    return MAGIC + fingerprint + body


def split(value: bytes | None) -> tuple[bytes, bytes]:
    """Return (fingerprint, body) of a framed value.

    Raises NullValue when there is no value and UndecodableValue when it is not framed.
    """
    refuse_unframed(value)
    assert value is not None
    return value[len(MAGIC) : HEADER_BYTES], value[HEADER_BYTES:]


def refuse_unframed(value: bytes | None) -> None:
    """Raise the RecordError that says why `value` has no readable header; return when it has one."""
    if value is None:
        raise errors.NullValue(
            "value: expected a framed Avro record, got null; write an event: a tombstone means nothing here"
        )
    if not value:
        raise errors.UndecodableValue("value: expected a framed Avro record, got 0 bytes")
    if value[: len(MAGIC)] != MAGIC:
        hint = ""
        if value[0] == 0:
            hint = " (this looks like Confluent wire format)"
        raise errors.UndecodableValue(
            f"value: expected it to start with c3 01, got {shown(value)}{hint}; "
            "write Avro single-object encoding, as the SDK does"
        )
    if len(value) < HEADER_BYTES:
        raise errors.UndecodableValue(
            f"value: expected a header of {HEADER_BYTES} bytes, got all of {shown(value)}; it was cut short"
        )


def shown(value: bytes) -> str:
    """Return the first bytes of `value` in hex, for a message: `c3 01 … (17 bytes)`."""
    start = value[:SHOWN_BYTES_MAX].hex(" ")
    return f"{start}{' …' if len(value) > SHOWN_BYTES_MAX else ''} ({len(value)} bytes)"
