from __future__ import annotations

import io
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import errors
from schemas import binary, changes, framing, memberships
from schemas.changes import CAUSES, DIMENSION_KINDS, NEVER_MS, ORIGINS, Changes, Stamp
from schemas.memberships import Dimension, Memberships
from schemas.registry import committed

int64s = st.integers(-(2**63), 2**63 - 1)
times = st.one_of(st.just(NEVER_MS), st.integers(0, 2**45), int64s)
texts = st.text(st.characters(codec="utf-8"), max_size=80)
names = st.one_of(st.none(), texts)
counts = st.one_of(st.integers(1, 4), st.integers(25, 40))


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


def drawn_changes(data: st.DataObject, count: int) -> Changes:
    encoded = texts.map(str.encode)
    return Changes(
        seq=int_column(data, count),
        customer_id=column(data, count, encoded),
        account_id=column(data, count, names),
        dimension=column(data, count, texts),
        dimension_kind=column(data, count, st.sampled_from(DIMENSION_KINDS)),
        before=column(data, count, names),
        after=column(data, count, names),
        cause=column(data, count, st.sampled_from(CAUSES)),
        cause_event_id=column(data, count, st.one_of(st.none(), encoded)),
        effective_at_ms=int_column(data, count),
        previous_since_ms=int_column(data, count, times),
        expires_at_ms=int_column(data, count, times),
        scores_before=score_column(data, count),
        scores_after=score_column(data, count),
        last_purchase_ms=int_column(data, count, times),
        orders=int_column(data, count),
        net_minor=int_column(data, count),
        reasons=column(data, count, st.lists(texts, max_size=2)),
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


def change_record(stamp: Stamp, all_changes: Changes, row: int) -> dict[str, Any]:
    """Return one change as the schema names its fields."""
    c = all_changes
    before, after = c.before[row], c.after[row]
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
        "dimension": c.dimension[row], "dimension_kind": c.dimension_kind[row],
        "change": "entered" if before is None else "exited" if after is None else "moved",
        "from": before, "to": after, "cause": c.cause[row],
        "cause_event_id": None if cause_id is None else cause_id.decode(),
        "effective_at": int(c.effective_at_ms[row]), "emitted_at": stamp.emitted_at_ms,
        "previous_since": optional(int(c.previous_since_ms[row])),
        "expires_at": optional(int(c.expires_at_ms[row])),
        "scores_before": scores[0], "scores_after": scores[1],
        "facts": facts if c.orders[row] >= 0 else None, "reasons": list(c.reasons[row]),
        "definition_version": stamp.definition_version, "origin": stamp.origin, "run_id": stamp.run_id,
    }  # fmt: skip


@given(st.data(), stamps, counts)
def test_changes_are_the_bytes_fastavro_writes(data: st.DataObject, stamp: Stamp, count: int) -> None:
    """For any columns, few or many, the encoder made for them equals the general one, and reads back."""
    columns = drawn_changes(data, count)
    encoded = changes.encode_changes(stamp, columns)
    records = [change_record(stamp, columns, row) for row in range(count)]
    assert encoded == [as_written_by_fastavro("SegmentChange", record) for record in records]
    assert [changes.decode_change(value) for value in encoded] == records


@given(st.data(), counts, st.integers(0, 3))
def test_memberships_are_the_bytes_fastavro_writes(data: st.DataObject, count: int, width: int) -> None:
    """For any values in any number of dimensions, with those a customer has no value in left out."""
    kinds = st.sampled_from(DIMENSION_KINDS)
    dimensions = [Dimension(data.draw(texts), data.draw(kinds), ("lead", "é")) for _ in range(width)]
    square = (count, width)
    columns = Memberships(
        customer_id=column(data, count, texts.map(str.encode)),
        account_id=column(data, count, names),
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


def test_a_cause_that_is_not_in_the_schema_is_refused() -> None:
    """A label nobody declared never reaches the topic."""
    with pytest.raises(KeyError, match="whim"):
        changes.encode_changes(
            Stamp("a", 1, 1, 1, 1, "whim", None, "GBP", 1), Changes(*[np.zeros(0, np.int64)] * 18)  # type: ignore[arg-type]  # No row is read.
        )  # fmt: skip


def test_no_changes_are_no_values() -> None:
    """A step without changes costs nothing more."""
    stamp = Stamp("a", 1, 1, 1, 1, "live", None, "GBP", 1)
    none = np.zeros(0, np.int64)
    assert changes.encode_changes(stamp, Changes(none, *[()] * 8, *[none] * 8, ())) == []  # type: ignore[arg-type]  # Every column is empty.


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


@given(st.lists(int64s, max_size=60))
def test_longs_by_the_column_are_longs_one_by_one(values: list[int]) -> None:
    """Whatever the count and the mix of lengths."""
    assert binary.longs(np.array(values, np.int64)) == [binary.long(value) for value in values]


def test_a_long_has_64_bits() -> None:
    """What no reader could take is refused."""
    with pytest.raises(OverflowError, match="64 bits"):
        binary.long(1 << 63)
