"""Framed Avro records to Arrow columns, thousands at a time, with the bad ones set aside.

Whether a record is good never depends on its neighbours: a group of records is decoded in one
call, and when that fails the same test is put to smaller and smaller parts of the group.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyruhvro

import errors
from schemas import framing, resolution
from schemas.registry import Registry, Stored, committed

Int64s = npt.NDArray[np.int64]

_END_FIELD = "__end"
_END_VALUE = -0x5CA1AB1E0DDBA115
# The Avro encoding of _END_VALUE: zigzag, then seven bits a byte, lowest first.
_END_BYTES = bytes.fromhex("a984ddddc1c7d5a1b901")

_PARTS = 8
"""A failing group is cut into this many parts: one bad record among 5,000 costs four rounds of
eight calls, and 5,000 bad ones cost 1.15 calls each."""

_SCHEMAS_CACHED_MAX = 256


@dataclass(frozen=True, slots=True)
class Group:
    """The good records of one stored version; columns are those of the type's latest version."""

    type: str
    version: int
    """The version they were written with."""
    rows: Int64s
    """int64[n], ascending: the position of each row of `batch` among the values given."""
    batch: pa.RecordBatch


@dataclass(frozen=True, slots=True)
class Failure:
    """One record that could not be decoded, and why."""

    position: int
    error: errors.RecordError


@dataclass(frozen=True, slots=True)
class Decoded:
    """Every value given is in exactly one group or one failure."""

    groups: tuple[Group, ...]
    """In order of the first position of each."""
    failures: tuple[Failure, ...]
    """In order of position."""


def decode(values: Sequence[bytes | None], registry: Registry | None = None) -> Decoded:
    """Decode framed values, grouped by the schema they were written with.

    Fails a record, and only that record, with NullValue, UndecodableValue (not framed, cut short,
    followed by more bytes, or not what its schema says), UnknownFingerprint or InvalidText.
    `registry` defaults to the schemas this version of Shoal carries.
    """
    registry = committed() if registry is None else registry
    groups: list[Group] = []
    failures: list[Failure] = []
    for header, positions in _by_header(values).items():
        stored = registry.find(header[len(framing.MAGIC) :]) if header.startswith(framing.MAGIC) else None
        if stored is None:
            failures.extend(Failure(position, _refusal(values[position])) for position in positions)
            continue
        group, failed = _decode_group(values, positions, stored, registry.latest(stored.type))
        failures.extend(failed)
        if group is not None:
            groups.append(group)
    failures.sort(key=lambda failure: failure.position)
    return Decoded(tuple(groups), tuple(failures))


def _by_header(values: Sequence[bytes | None]) -> dict[bytes, list[int]]:
    headers = [value[: framing.HEADER_BYTES] if value else b"" for value in values]
    # Most chunks hold one type only, and then one comparison a record is all it takes.
    if headers and headers.count(headers[0]) == len(headers):
        return {headers[0]: list(range(len(headers)))}
    positions: dict[bytes, list[int]] = {}
    for position, header in enumerate(headers):
        positions.setdefault(header, []).append(position)
    return positions


def _refusal(value: bytes | None) -> errors.RecordError:
    """Return why a value with no known header is refused."""
    try:
        fingerprint, _ = framing.split(value)
    except errors.RecordError as error:
        return error
    return errors.UnknownFingerprint(
        f"value: no stored schema has the fingerprint {fingerprint.hex()}; "
        "upgrade the workers before the application that writes it"
    )


def _decode_group(
    values: Sequence[bytes | None], positions: list[int], stored: Stored, latest: Stored
) -> tuple[Group | None, list[Failure]]:
    start = framing.HEADER_BYTES
    if len(positions) == len(values):
        bodies = [value[start:] + _END_BYTES for value in values if value]
    else:
        bodies = [(values[position] or b"")[start:] + _END_BYTES for position in positions]
    failures: list[Failure] = []
    batch = _decode_bodies(bodies, stored)
    if isinstance(batch, errors.RecordError):
        failed: dict[int, errors.RecordError] = {}
        _isolate(bodies, range(len(bodies)), stored, failed, batch)
        failures = [Failure(positions[index], error) for index, error in failed.items()]
        good = [index for index in range(len(bodies)) if index not in failed]
        if not good:
            return None, failures
        positions = [positions[index] for index in good]
        batch = _decode_bodies([bodies[index] for index in good], stored)
        if isinstance(batch, errors.RecordError):
            raise AssertionError(f"records good one by one failed together: {batch}") from batch
    if stored is not latest:
        batch = resolution.resolve(batch, stored, latest)
    return Group(stored.type, stored.version, np.array(positions, np.int64), batch), failures


def _isolate(
    bodies: list[bytes],
    indexes: Sequence[int],
    stored: Stored,
    failed: dict[int, errors.RecordError],
    error: errors.RecordError,
) -> None:
    """Put into `failed` each of `indexes` that fails alone, knowing they fail together with `error`."""
    if len(indexes) == 1:
        failed[indexes[0]] = error
        return
    size = -(-len(indexes) // _PARTS)
    for start in range(0, len(indexes), size):
        part = indexes[start : start + size]
        outcome = _decode_bodies([bodies[index] for index in part], stored)
        if isinstance(outcome, errors.RecordError):
            _isolate(bodies, part, stored, failed, outcome)


def _decode_bodies(bodies: list[bytes], stored: Stored) -> pa.RecordBatch | errors.RecordError:
    """Decode bodies, each followed by the end mark; return the error when one or more are bad."""
    try:
        batch = pyruhvro.deserialize_array(bodies, _with_end(stored.text))
    except ValueError as error:
        return _undecodable(bodies, stored, str(error))
    except BaseException as error:
        # A panic inside the Rust decoder arrives as a BaseException of its own. It concerns these
        # bytes only, and must not stop a partition for ever; anything else does concern us.
        if type(error).__name__ != "PanicException":
            raise
        return _undecodable(bodies, stored, f"the decoder panicked: {error}")
    last = batch.num_columns - 1
    # The decoder tolerates bytes after a record, so a mark written there is read back as a field:
    # anything else in its place means that the body is longer than the record.
    ends = np.frombuffer(batch.column(last).buffers()[1], np.int64, len(bodies))
    if (ends != _END_VALUE).any():
        return _undecodable(bodies, stored, "more bytes follow the record")
    batch = batch.remove_column(last)
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:
        return errors.InvalidText(
            f"value: {stored.name}: field {_invalid_field(batch)!r} is not valid UTF-8; encode text as UTF-8"
        )
    return batch


def _undecodable(bodies: list[bytes], stored: Stored, reason: str) -> errors.UndecodableValue:
    body = bodies[0][: -len(_END_BYTES)]
    return errors.UndecodableValue(
        f"value: not a {stored.name}: {reason}; body {framing.shown(body)}; "
        "encode it with exactly the schema whose fingerprint it carries"
    )


@lru_cache(_SCHEMAS_CACHED_MAX)
def _with_end(text: str) -> str:
    """Return the schema with one more field: the mark that must follow every record."""
    schema = json.loads(text)
    schema["fields"].append({"name": _END_FIELD, "type": "long"})
    return json.dumps(schema, separators=(",", ":"))


def _invalid_field(batch: pa.RecordBatch) -> str:
    """Return the path of the first field that Arrow finds invalid, such as `items.name`."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if path := _invalid_path(name, column):
            return path
    return "?"


def _invalid_path(path: str, array: pa.Array) -> str | None:
    try:
        array.validate(full=True)
        return None
    except pa.ArrowInvalid:
        pass
    children: list[tuple[str, pa.Array]] = []
    if isinstance(array, pa.StructArray):
        children = [(f"{path}.{f.name}", array.field(i)) for i, f in enumerate(array.type)]
    elif isinstance(array, pa.MapArray):
        children = [(f"{path} (a name)", array.keys), (f"{path} (a value)", array.items)]
    elif isinstance(array, pa.ListArray):
        children = [(path, array.values)]
    elif isinstance(array, pa.UnionArray):
        children = [(path, array.field(i)) for i in range(array.type.num_fields)]
    found = (_invalid_path(name, child) for name, child in children)
    return next((name for name in found if name), path)
