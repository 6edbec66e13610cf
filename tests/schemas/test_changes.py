from __future__ import annotations

import io
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import errors
from schemas import assembly, binary, changes, framing, memberships
from schemas.changes import CAUSES, DIMENSION_KINDS, NEVER_MS, ORIGINS, Changes, Dimension, Stamp
from schemas.memberships import Memberships
from schemas.registry import committed

WIDTH = 2
"""Dimensions of the changes drawn."""

int64s = st.integers(-(2**63), 2**63 - 1)
times = st.one_of(st.just(NEVER_MS), st.integers(0, 2**45), int64s)
texts = st.text(st.characters(codec="utf-8"), max_size=80)
names = st.one_of(st.none(), texts)
some_texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80)
counts = st.one_of(st.integers(1, 4), st.integers(assembly._MANY_ROWS_MIN, 60))


def as_written_by_fastavro(type_name: str, record: dict[str, Any]) -> bytes:
    """Return the framed bytes the general encoder makes of a record."""
    stored, body = committed().latest(type_name), io.BytesIO()
    fastavro.schemaless_writer(body, stored.parsed, record, strict=True)
    return framing.frame(stored.fingerprint, body.getvalue())


def column(data: st.DataObject, count: int, values: st.SearchStrategy[Any]) -> list[Any]:
    return data.draw(st.lists(values, min_size=count, max_size=count))


def int_column(data: st.DataObject, count: int, values: st.SearchStrategy[int] = int64s) -> Any:
    return np.array(column(data, count, values), np.int64)


def score_column(data: st.DataObject, count: int) -> Any:
    triple = st.one_of(st.just([0, 0, 0]), st.lists(st.integers(1, 5), min_size=3, max_size=3))
    return np.array(column(data, count, triple), np.uint8).reshape(count, 3)


def codes(data: st.DataObject, count: int, least: int, most: int, dtype: Any) -> Any:
    return np.array(column(data, count, st.integers(least, most)), dtype)


def drawn_dimensions(data: st.DataObject, width: int) -> list[Dimension]:
    kinds = st.sampled_from(DIMENSION_KINDS)
    return [
        Dimension(data.draw(texts), data.draw(kinds), (data.draw(texts), data.draw(texts)))
        for _ in range(width)
    ]


def drawn_changes(data: st.DataObject, count: int) -> Changes:
    encoded = texts.map(str.encode)
    return Changes(
        seq=int_column(data, count, data.draw(st.sampled_from((int64s, st.integers(0, 2_000))))),
        customer_id=column(data, count, encoded),
        account_id=column(data, count, st.one_of(st.none(), some_texts)),
        dimension=codes(data, count, 0, WIDTH - 1, np.int64),
        before=codes(data, count, -1, 1, np.int16),
        after=codes(data, count, -1, 1, np.int16),
        cause=codes(data, count, 0, len(CAUSES) - 1, np.uint8),
        cause_event_id=column(data, count, encoded),
        effective_at_ms=int_column(data, count),
        previous_since_ms=int_column(data, count, times),
        expires_at_ms=int_column(data, count, times),
        scores_before=score_column(data, count),
        scores_after=score_column(data, count),
        last_purchase_ms=int_column(data, count, times),
        orders=int_column(data, count),
        net_minor=int_column(data, count),
        reasons=column(data, count, st.lists(texts, max_size=2)) if data.draw(st.booleans()) else (),
    )


stamps = st.builds(
    Stamp,
    app=texts,
    epoch=st.integers(-(2**31), 2**31 - 1),
    partition=st.integers(0, 2**31 - 1),
    definition_version=st.integers(0, 2**31 - 1),
    emitted_at_ms=int64s,
    origin=st.sampled_from(ORIGINS),
    run_id=names,
    currency=texts,
    window_days=st.integers(0, 2**31 - 1),
)


def optional(value: int) -> int | None:
    return None if value == NEVER_MS else value


def change_record(
    stamp: Stamp, dimensions: list[Dimension], all_changes: Changes, row: int
) -> dict[str, Any]:
    """Return one change as the schema names its fields."""
    c = all_changes
    dimension = dimensions[c.dimension[row]]
    before, after = (dimension.values[code] if code >= 0 else None for code in (c.before[row], c.after[row]))
    scores = [
        {"r": r, "f": f, "m": m} if r else None
        for r, f, m in (c.scores_before[row].tolist(), c.scores_after[row].tolist())
    ]
    facts = {
        "last_purchase_at": optional(int(c.last_purchase_ms[row])), "orders": int(c.orders[row]),
        "net_minor": int(c.net_minor[row]), "currency": stamp.currency, "window_days": stamp.window_days,
    }  # fmt: skip
    cause_id = c.cause_event_id[row]
    return {
        "event_id": f"{stamp.app}/{stamp.epoch}/{stamp.partition}/{c.seq[row]}",
        "epoch": stamp.epoch, "partition": stamp.partition, "seq": int(c.seq[row]),
        "customer_id": c.customer_id[row].decode(), "account_id": c.account_id[row],
        "dimension": dimension.name, "dimension_kind": dimension.kind,
        "change": "entered" if before is None else "exited" if after is None else "moved",
        "from": before, "to": after, "cause": CAUSES[c.cause[row]],
        "cause_event_id": cause_id.decode() or None,
        "effective_at": int(c.effective_at_ms[row]), "emitted_at": stamp.emitted_at_ms,
        "previous_since": optional(int(c.previous_since_ms[row])),
        "expires_at": optional(int(c.expires_at_ms[row])),
        "scores_before": scores[0], "scores_after": scores[1],
        "facts": facts if c.orders[row] >= 0 else None, "reasons": list(c.reasons[row]) if c.reasons else [],
        "definition_version": stamp.definition_version, "origin": stamp.origin, "run_id": stamp.run_id,
    }  # fmt: skip


@given(st.data(), stamps, counts)
def test_changes_are_the_bytes_fastavro_writes(data: st.DataObject, stamp: Stamp, count: int) -> None:
    """For any columns, few or many, the encoder made for them equals the general one, and reads back."""
    columns, dimensions = drawn_changes(data, count), drawn_dimensions(data, WIDTH)
    encoded = changes.encode_changes(stamp, dimensions, columns)
    records = [change_record(stamp, dimensions, columns, row) for row in range(count)]
    assert encoded == [as_written_by_fastavro("SegmentChange", record) for record in records]
    assert [changes.decode_change(value) for value in encoded] == records


@given(st.data(), counts, st.integers(0, 3))
def test_memberships_are_the_bytes_fastavro_writes(data: st.DataObject, count: int, width: int) -> None:
    """For any values in any number of dimensions, with those a customer has no value in left out."""
    dimensions = drawn_dimensions(data, width)
    square = (count, width)
    columns = Memberships(
        customer_id=column(data, count, texts.map(str.encode)),
        account_id=column(data, count, st.one_of(st.none(), some_texts)),
        seq=int_column(data, count),
        value=np.array(column(data, count * width, st.integers(-1, 1)), np.int16).reshape(square),
        since_ms=int_column(data, count * width).reshape(square),
        value_seq=int_column(data, count * width).reshape(square),
        expires_at_ms=int_column(data, count, times),
    )
    encoded = memberships.encode_memberships(dimensions, columns, epoch=2, partition=3, definition_version=4)
    for row, value in enumerate(encoded):
        record = {
            "customer_id": columns.customer_id[row].decode(), "account_id": columns.account_id[row],
            "epoch": 2, "partition": 3, "seq": int(columns.seq[row]), "definition_version": 4,
            "values": [
                {
                    "dimension": dimension.name, "dimension_kind": dimension.kind,
                    "value": dimension.values[columns.value[row, at]],
                    "since": int(columns.since_ms[row, at]),
                    "expires_at": optional(int(columns.expires_at_ms[row])),
                    "seq": int(columns.value_seq[row, at]),
                }
                for at, dimension in enumerate(dimensions) if columns.value[row, at] >= 0
            ],
        }  # fmt: skip
        assert value == as_written_by_fastavro("Membership", record)
        assert memberships.decode_membership(value) == record


def test_the_encoders_know_the_latest_schemas() -> None:
    """Both are written for one version by hand, so a new version needs them changed."""
    assert committed().latest("SegmentChange").version == changes._VERSION
    assert committed().latest("Membership").version == memberships._VERSION


@pytest.mark.parametrize("count", [1, assembly._MANY_ROWS_MIN])
def test_a_cause_that_is_not_in_the_schema_is_refused(count: int) -> None:
    """A number nobody declared never reaches the topic."""
    stamp, none = Stamp("a", 1, 1, 1, 1, "live", None, "GBP", 1), np.zeros(count, np.int64)
    columns = Changes(
        none, [b"c"] * count, [None] * count, none, none.astype(np.int16), none.astype(np.int16),
        np.full(count, len(CAUSES), np.uint8), [b""] * count, none, none, none,
        np.zeros((count, 3), np.uint8), np.zeros((count, 3), np.uint8), none, none, none,
    )  # fmt: skip
    with pytest.raises(IndexError):
        changes.encode_changes(stamp, [Dimension("d", "custom", ("v",))], columns)


def test_a_kind_or_origin_that_is_not_in_the_schema_is_refused() -> None:
    """A label nobody declared never reaches the topic, not even of no change."""
    none = Changes(*[np.zeros(0, np.int64)] * 16)  # type: ignore[arg-type]  # No row is read.
    with pytest.raises(KeyError, match="whim"):
        changes.encode_changes(Stamp("a", 1, 1, 1, 1, "whim", None, "GBP", 1), [], none)
    with pytest.raises(KeyError, match="whim"):
        changes.dimension_heads([Dimension("d", "whim", ())])


def test_no_changes_are_no_values() -> None:
    """A step without changes costs nothing more."""
    stamp = Stamp("a", 1, 1, 1, 1, "live", None, "GBP", 1)
    none = Changes(*[np.zeros(0, np.int64)] * 16)  # type: ignore[arg-type]  # Every column is empty.
    assert changes.encode_changes(stamp, [], none) == []


@pytest.mark.parametrize("damage", [lambda v: v[:-1], lambda v: v + b"x"])
def test_a_damaged_change_is_undecodable(damage: Any) -> None:
    """Cut short or followed by more, it is not read."""
    value = memberships.encode_memberships(
        [], Memberships([b"c"], [None], *[np.zeros((1,), np.int64), *[np.zeros((1, 0), np.int64)] * 3],
                        expires_at_ms=np.zeros(1, np.int64)),
        epoch=1, partition=1, definition_version=1,
    )[0]  # fmt: skip
    with pytest.raises(errors.UndecodableValue):
        memberships.decode_membership(damage(value))
    with pytest.raises(errors.UnknownFingerprint):
        changes.decode_change(value)


@given(int64s)
def test_a_long_is_what_fastavro_writes(value: int) -> None:
    """Of any length."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, {"type": "long"}, value)
    assert binary.long(value) == out.getvalue()


def test_a_long_has_64_bits() -> None:
    """What no reader could take is refused."""
    with pytest.raises(OverflowError, match="64 bits"):
        binary.long(1 << 63)
