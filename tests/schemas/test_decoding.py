from __future__ import annotations

import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import errors
from schemas import decoding, framing
from schemas.decoding import Decoded, decode
from schemas.events import encode_event, encode_tick
from schemas.registry import Registry, committed, store

INSTANT = "shoal.events.Instant"


def purchased(number: int = 1, **changed: Any) -> bytes:
    fields = {
        "event_id": f"e{number}",
        "customer_id": f"c{number}",
        "occurred_at": 1_700_000_000_000 + number,
        "context": {"channel": "web", "campaign": {"source": "mail"}},
        "order_id": f"o{number}",
        "amount_minor": 1200,
        "currency": "GBP",
        "items": [{"sku": "aXXb", "name": "nXXm", "quantity": 2, "unit_price_minor": 600}],
    }
    return encode_event("Purchased", {**fields, **changed})


def refunded(**changed: Any) -> bytes:
    fields = {"event_id": "e", "customer_id": "c", "occurred_at": 5, "refund_id": "r", "kind": "refund"}
    return encode_event("Refunded", {**fields, "amount_minor": 5, "currency": "GBP", **changed})


def profile(traits: dict[str, Any]) -> bytes:
    fields = {"event_id": "e", "customer_id": "c", "occurred_at": 5, "traits": traits}
    return encode_event("ProfileUpdated", fields)


def only_failure(decoded: Decoded) -> errors.RecordError:
    assert decoded.groups == () and len(decoded.failures) == 1
    return decoded.failures[0].error


def test_a_record_comes_back_as_columns() -> None:
    """Strings, nested context, timestamps and lists of records keep their values."""
    (group,) = decode([purchased(7)]).groups
    (row,) = group.batch.to_pylist()
    assert (group.type, group.version, group.rows.tolist()) == ("Purchased", 1, [0])
    assert row["order_id"] == "o7" and row["context"]["campaign"]["source"] == "mail"
    assert row["items"][0]["quantity"] == 2 and row["coupon"] is None
    assert group.batch.column("occurred_at").cast("int64").to_pylist() == [1_700_000_000_007]


def test_traits_of_every_branch_come_back() -> None:
    """A map of unions keeps null, text, numbers, truth, instants and arrays apart."""
    traits = {
        "gone": None, "plan": "pro", "seats": 3, "score": 1.5, "vip": True,
        "at": (INSTANT, {"at": 5}), "apps": ["slack", "jira"],
    }  # fmt: skip
    (group,) = decode([profile(traits)]).groups
    items = group.batch.column("traits").items
    assert group.batch.column("traits").keys.to_pylist() == list(traits)
    assert items.type.mode == "sparse"
    assert items.to_pylist()[:5] == [None, "pro", 3, 1.5, True] and items.to_pylist()[6] == ["slack", "jira"]


def test_an_enum_comes_back_as_text() -> None:
    """Also `unknown`, which is for the reader to refuse."""
    (group,) = decode([refunded(), refunded(kind="unknown")]).groups
    assert group.batch.column("kind").to_pylist() == ["refund", "unknown"]


def test_types_are_grouped_and_positions_kept() -> None:
    """Interleaved types come in one group each, with ascending positions."""
    decoded = decode([purchased(1), encode_tick(5), purchased(2), refunded(), encode_tick(6)])
    assert {group.type: group.rows.tolist() for group in decoded.groups} == {
        "Purchased": [0, 2], "Tick": [1, 4], "Refunded": [3],
    }  # fmt: skip


def test_no_values_are_no_groups() -> None:
    """An empty chunk decodes to nothing."""
    assert decode([]) == Decoded((), ())


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (None, errors.NullValue, "got null"),
        (b"", errors.UndecodableValue, "got 0 bytes"),
        (b"\xc3", errors.UndecodableValue, "expected it to start with c3 01, got c3"),
        (b"{}", errors.UndecodableValue, "expected it to start with c3 01, got 7b 7d"),
        (b"\x00\x00\x00\x00\x07abcdefgh", errors.UndecodableValue, "Confluent wire format"),
        (framing.MAGIC + b"1234567", errors.UndecodableValue, "it was cut short"),
        (framing.MAGIC + b"12345678body", errors.UnknownFingerprint, "3132333435363738"),
        (purchased()[:-1], errors.UndecodableValue, "not a Purchased v1: unexpected end"),
        (purchased()[: framing.HEADER_BYTES], errors.UndecodableValue, "not a Purchased v1"),
        (purchased() + b"\x00", errors.UndecodableValue, "more bytes follow"),
        (purchased().replace(b"c1", b"\xff1"), errors.InvalidText, "'customer_id'"),
        (purchased().replace(b"mail", b"\xc3\x28\xff\xff"), errors.InvalidText, "'context.campaign.source'"),
        (purchased().replace(b"nXXm", b"n\xed\xa0m"), errors.InvalidText, "'items.name'"),
        (profile({"kXXk": "v"}).replace(b"kXXk", b"k\xff\xffk"), errors.InvalidText, "'traits (a name)'"),
        (profile({"k": "vXXv"}).replace(b"vXXv", b"v\xff\xffv"), errors.InvalidText, "'traits (a value)'"),
        (profile({"k": ["vXXv"]}).replace(b"vXXv", b"v\xff\xffv"), errors.InvalidText, "'traits (a value)'"),
    ],
)
@pytest.mark.parametrize("neighbours", [0, 1, 40])
def test_a_bad_record_fails_alone(
    value: bytes | None, error: type[errors.RecordError], message: str, neighbours: int
) -> None:
    """Each kind of bad record gets its own error, and the same one whatever it lies between."""
    good = [purchased(number) for number in range(neighbours)]
    decoded = decode([*good, value, *good])
    (failure,) = decoded.failures
    assert type(failure.error) is error and message in str(failure.error)
    assert failure.position == neighbours
    rows = [position for group in decoded.groups for position in group.rows.tolist()]
    assert rows == [position for position in range(2 * neighbours + 1) if position != neighbours]


def test_poison_within_a_large_group_is_isolated() -> None:
    """Of 5,000 records 3 are bad in different ways; the others are all decoded, in order."""
    values = [purchased(number) for number in range(5_000)]
    values[0], values[2_345], values[4_999] = (
        values[0][:-2],
        values[1] + b"!",
        values[2].replace(b"o2", b"\xff2"),
    )
    decoded = decode(values)
    (group,) = decoded.groups
    assert [failure.position for failure in decoded.failures] == [0, 2_345, 4_999]
    assert [type(failure.error) for failure in decoded.failures] == [
        errors.UndecodableValue, errors.UndecodableValue, errors.InvalidText,
    ]  # fmt: skip
    assert group.batch.column("order_id").to_pylist() == [f"o{row}" for row in group.rows.tolist()]
    assert len(group.rows) == 4_997


def test_a_group_of_bad_records_only_is_no_group() -> None:
    """When nothing of a type decodes there is no empty group of it."""
    decoded = decode([purchased()[:-1]] * 20)
    assert decoded.groups == () and len(decoded.failures) == 20


def test_the_end_mark_is_the_avro_long_it_stands_for() -> None:
    """The bytes appended to every body decode to the value compared with."""
    assert (
        fastavro.schemaless_reader(io.BytesIO(decoding._END_BYTES), {"type": "long"}) == decoding._END_VALUE
    )


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_panic_of_the_decoder_is_a_bad_record() -> None:
    """What the Rust decoder cannot do at all fails the record, not the partition."""
    fixed = {"name": "f", "type": {"type": "fixed", "name": "F", "size": 2}}
    stored = store(json.dumps({"type": "record", "name": "T", "fields": [fixed]}), 1, source="t")
    error = only_failure(decode([framing.frame(stored.fingerprint, b"ab")], Registry([stored])))
    assert type(error) is errors.UndecodableValue and "panicked" in str(error)


texts = st.text(st.characters(codec="utf-8"), max_size=12)
longs = st.integers(-(2**63), 2**63 - 1)
trait_values = st.one_of(
    st.none(), texts, longs, st.floats(allow_nan=False), st.booleans(), st.lists(texts, max_size=3)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(texts, trait_values, max_size=5), min_size=1, max_size=6), longs)
def test_round_trip_of_any_traits(events: list[dict[str, Any]], amount: int) -> None:
    """What fastavro writes, the columns hold, for any text, number and mix of branches."""
    decoded = decode([*map(profile, events), purchased(amount_minor=amount)])
    assert decoded.failures == ()
    profiles, purchases = decoded.groups
    assert [dict(row) for row in profiles.batch.column("traits").to_pylist()] == events
    assert purchases.batch.column("amount_minor").to_pylist() == [amount]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_either_read_or_dead_and_never_more(data: st.DataObject) -> None:
    """Whatever bytes come, decode() returns, each value is in one place, and good neighbours stay good."""
    value = bytearray(data.draw(st.sampled_from([purchased(), refunded(), profile({"a": 1, "b": "x"})])))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(framing.HEADER_BYTES, len(value) - 1))] = data.draw(st.integers(0, 255))
    alone = decode([bytes(value)])
    among = decode([purchased(), bytes(value), refunded(), profile({}), bytes(value)])
    assert len(among.failures) == 2 * len(alone.failures)
    assert sum(len(group.rows) for group in among.groups) + len(among.failures) == 5


def test_every_stored_type_decodes() -> None:
    """The Rust decoder knows every construct of every committed schema."""
    for stored in committed():
        assert decode([framing.frame(stored.fingerprint, b"")]).groups == ()
