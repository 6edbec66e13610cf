from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import errors
from schemas.events import encode_event, encode_tick
from streams import reading
from streams.customers.facts import Kind, RefundKind
from streams.reading import Reading, read
from streams.segments.currencies import Rates
from streams.segments.loading import default_definition
from streams.traits import encoded_bytes

NOW = 1_700_000_000_000
RATES = Rates("GBP", {"EUR": Fraction("0.85"), "JPY": Fraction("0.005")})
DEFINITION = dataclasses.replace(default_definition(), rates=RATES)


@dataclass(frozen=True)
class Consumed:
    """What a consumer hands over, as far as it is read."""

    value: bytes | None
    key: bytes | None = b"c"
    offset: int = 0
    timestamp: int = NOW


def event(type_name: str, **fields: Any) -> Consumed:
    common = {"event_id": "e", "customer_id": "c", "occurred_at": NOW}
    value = encode_event(type_name, {**common, **fields})
    return Consumed(value, str(fields.get("customer_id", "c")).encode())


def purchased(**fields: Any) -> Consumed:
    return event("Purchased", **{"order_id": "o", "amount_minor": 100, "currency": "GBP", **fields})


def refunded(**fields: Any) -> Consumed:
    money = {"amount_minor": 100, "currency": "GBP"}
    return event("Refunded", **{"refund_id": "r", "kind": "refund", **money, **fields})


def profile(**traits: Any) -> Consumed:
    return event("ProfileUpdated", traits=traits)


def tick(at_ms: int, key: bytes | None = b"3") -> Consumed:
    return Consumed(encode_tick(at_ms), key)


def read_all(*records: Consumed) -> Reading:
    placed = [dataclasses.replace(record, offset=100 + at) for at, record in enumerate(records)]
    return read(placed, partition=3, definition=DEFINITION)


def as_rows(result: Reading) -> list[tuple[Any, ...]]:
    facts = result.facts
    columns = (
        facts.position.tolist(), facts.kind.tolist(), facts.customer, facts.event_id,
        facts.occurred_at_ms.tolist(), facts.natural_id, facts.order_id, facts.refund_kind.tolist(),
        facts.amount_minor.tolist(),
    )  # fmt: skip
    sparse = [(facts.traits.get(row), facts.account_id.get(row)) for row in range(len(facts))]
    return [(*row, *more) for row, more in zip(zip(*columns, strict=True), sparse, strict=True)]


def test_an_order_is_a_fact() -> None:
    """Each column holds what the record says; what a Purchased does not have is empty."""
    record = purchased(customer_id="ü", event_id="e1", order_id="o1", account_id="acme")
    assert as_rows(read_all(record)) == [
        (0, Kind.PURCHASED, "ü".encode(), b"e1", NOW, b"o1", b"", 0, 100, None, "acme")
    ]


def test_kinds_come_in_log_order() -> None:
    """Facts of all types are merged by position, ticks are kept apart with theirs."""
    result = read_all(
        purchased(customer_id="a", order_id="o1"), tick(5), event("SignedUp", customer_id="b"),
        refunded(customer_id="a", refund_id="r1", order_id="o1", kind="cancellation"),
        profile(plan="pro"), tick(6), purchased(customer_id="d", order_id="o2", account_id="x"),
    )  # fmt: skip
    assert as_rows(result) == [
        (0, Kind.PURCHASED, b"a", b"e", NOW, b"o1", b"", 0, 100, None, None),
        (2, Kind.SIGNED_UP, b"b", b"e", NOW, b"e", b"", 0, 0, None, None),
        (3, Kind.REFUNDED, b"a", b"e", NOW, b"r1", b"o1", RefundKind.CANCELLATION, 100, None, None),
        (4, Kind.PROFILE_UPDATED, b"c", b"e", NOW, b"e", b"", 0, 0, {"plan": "pro"}, None),
        (6, Kind.PURCHASED, b"d", b"e", NOW, b"o2", b"", 0, 100, None, "x"),
    ]
    assert result.tick_position.tolist() == [1, 5] and result.tick_ms.tolist() == [5, 6]
    assert result.dead == ()


def test_nothing_read_is_nothing() -> None:
    """An empty chunk has no facts, ticks or dead letters."""
    result = read_all()
    assert len(result.facts) == len(result.tick_position) == len(result.tick_ms) == len(result.dead) == 0


@pytest.mark.parametrize(("kind", "code"), [("refund", RefundKind.REFUND), ("return", RefundKind.RETURN)])
def test_refund_kinds_are_codes(kind: str, code: RefundKind) -> None:
    """The enum's symbol becomes the table's code; without an order the link is empty."""
    result = read_all(refunded(kind=kind), refunded(kind="cancellation", order_id=None))
    assert result.facts.refund_kind.tolist() == [code, RefundKind.CANCELLATION]
    assert list(result.facts.order_id) == [b"", b""]


def test_amounts_are_converted_by_their_currency() -> None:
    """Each row at its own rate, minor units to minor units, in any mix."""
    currencies = ["GBP", "EUR", "JPY", "EUR", "GBP"]
    records = [purchased(amount_minor=1_001, currency=currency) for currency in currencies]
    assert read_all(*records).facts.amount_minor.tolist() == [1_001, 851, 500, 851, 1_001]
    assert read_all(records[1], refunded(amount_minor=20, currency="EUR")).facts.amount_minor.tolist() == [
        851,
        17,
    ]


def test_currencies_are_told_apart_by_their_ends() -> None:
    """Texts that are, end to end, the first one over and over are still different texts."""
    result = read_all(*(purchased(currency=currency) for currency in ("GBP", "GBPGBP", "")))
    assert result.facts.position.tolist() == [0] and [at for at, _ in result.dead] == [1, 2]


def test_traits_of_every_type_are_kept_apart() -> None:
    """Null deletes; an instant is a one-tuple, an array a sorted tuple without repeats."""
    traits = {
        "gone": None, "plan": "é", "seats": 3, "score": 1.5, "vip": True, "not": False, "none": [],
        "at": ("shoal.events.Instant", {"at": -5}), "apps": ["slack", "jira", "slack"], "text": "",
    }  # fmt: skip
    result = read_all(profile(**traits), profile(), profile(plan="x"))
    assert result.facts.traits == {
        0: {**traits, "at": (-5,), "apps": ("jira", "slack"), "none": ()},
        2: {"plan": "x"},
    }
    assert [type(value) for value in result.facts.traits[0].values()][:6] == [
        type(None), str, int, float, bool, bool,
    ]  # fmt: skip


def test_the_sign_up_source_is_a_trait() -> None:
    """SignedUp.source is kept as signup_source, unless the event sets that trait itself."""
    result = read_all(
        event("SignedUp", source="friend", traits={"plan": "pro"}),
        event("SignedUp", source="friend", traits={"signup_source": None}),
        event("SignedUp"),
    )
    assert result.facts.traits == {0: {"plan": "pro", "signup_source": "friend"}, 1: {"signup_source": None}}


BIG = "x" * 16_384
FINE = "x" * 256
DEAD = [
    (Consumed(None), errors.NullValue, "value: "),
    (Consumed(b"{}"), errors.UndecodableValue, "value: "),
    (Consumed(b"\xc3\x0112345678"), errors.UnknownFingerprint, "value: "),
    (Consumed((purchased().value or b"") + b"x"), errors.UndecodableValue, "value: not a Purchased v1"),
    (Consumed((purchased().value or b"").replace(b"GBP", b"\xff\xff\xff")), errors.InvalidText, "'currency'"),
    (purchased(customer_id=""), errors.InvalidCustomerId, "Purchased.customer_id: expected 1 to 256 bytes"),
    (purchased(customer_id="ü" * 129), errors.InvalidCustomerId, "(258 bytes)"),
    (purchased(event_id=""), errors.InvalidField, "Purchased.event_id: "),
    (profile() and event("SignedUp", event_id="e" * 257), errors.InvalidField, "SignedUp.event_id: "),
    (purchased(order_id=""), errors.InvalidField, "Purchased.order_id: "),
    (purchased(order_id="o" * 257), errors.InvalidField, "Purchased.order_id: "),
    (refunded(refund_id=""), errors.InvalidField, "Refunded.refund_id: "),
    (refunded(order_id=""), errors.InvalidField, "Refunded.order_id: "),
    (refunded(order_id="o" * 257), errors.InvalidField, "Refunded.order_id: "),
    (purchased(account_id=""), errors.InvalidField, "Purchased.account_id: "),
    (dataclasses.replace(purchased(), key=b"d"), errors.WrongKey, "got 'c' (1 bytes) under key 'd'"),
    (dataclasses.replace(purchased(), key=None), errors.WrongKey, "under key null"),
    (purchased(amount_minor=-1), errors.InvalidField, "Purchased.amount_minor: expected 0 to"),
    (purchased(amount_minor=1 << 53), errors.InvalidField, "Purchased.amount_minor: expected 0 to"),
    (
        purchased(amount_minor=RATES.limit_minor("EUR") + 1, currency="EUR"),
        errors.InvalidField,
        "Purchased.amount_minor: expected at most",
    ),
    (purchased(currency="XXX"), errors.CurrencyWithoutRate, "one with a rate (EUR, GBP, JPY), got 'XXX'"),
    (refunded(currency="gbp"), errors.CurrencyWithoutRate, "Refunded.currency: "),
    (refunded(kind="unknown"), errors.InvalidField, "Refunded.kind: expected refund or return or"),
    (profile(**{f"t{n}": n for n in range(65)}), errors.InvalidField, "traits: expected at most 64 names"),
    (profile(**{"": 1}), errors.InvalidField, "traits: expected names of 1 to 256 bytes"),
    (profile(**{"n" * 257: 1}), errors.InvalidField, "traits: expected names of 1 to 256 bytes"),
    (profile(a=1.0, x=float("nan")), errors.InvalidField, "traits: expected finite numbers, got 'x' = nan"),
    (profile(x=float("-inf")), errors.InvalidField, "traits: expected finite numbers"),
    (profile(x=BIG), errors.InvalidField, "traits: expected at most 16384 bytes in all, got"),
    (event("SignedUp", source=BIG), errors.InvalidField, "SignedUp.traits: expected at most 16384 bytes"),
    (purchased(occurred_at=-1), errors.InvalidField, "Purchased.occurred_at: expected a time from 1970"),
    (refunded(occurred_at=253_402_300_800_000), errors.InvalidField, "Refunded.occurred_at: "),
    (purchased(occurred_at=NOW + 300_001), errors.InvalidField, "occurred_at: expected at most 300000 ms"),
    (tick(5, key=b"4"), errors.WrongKey, "Tick.key: expected the partition's number '3'"),
    (tick(5, key=None), errors.WrongKey, "got null"),
    (tick(-1), errors.InvalidField, "Tick.at: expected a time from 1970"),
    (tick(253_402_300_800_000), errors.InvalidField, "Tick.at: expected a time from 1970"),
]  # fmt: skip
GOOD = [purchased(customer_id="z"), refunded(), profile(plan="pro"), event("SignedUp"), tick(7)]


@pytest.mark.parametrize(("record", "error", "message"), DEAD)
def test_a_record_that_fails_a_check_is_dead(
    record: Consumed, error: type[errors.RecordError], message: str
) -> None:
    """Alone or among others it gets one dead letter with place and reason; the others are read."""
    for before, after in (([], []), (GOOD, GOOD)):
        result = read_all(*before, record, *after)
        ((position, why),) = result.dead
        assert type(why) is error and message in str(why)
        assert position == len(before) and str(why).startswith(f"partition 3 offset {100 + position}: ")
        expected = [at for at in range(len(before) + 1 + len(after)) if at != position]
        assert sorted([*result.facts.position.tolist(), *result.tick_position.tolist()]) == expected
    assert as_rows(result)[:4] == as_rows(read_all(*GOOD))
    assert [row[1:] for row in as_rows(result)[4:]] == [row[1:] for row in as_rows(read_all(*GOOD))]


def test_a_record_that_is_no_event_is_dead() -> None:
    """A stored type that does not belong on the topic is not guessed at."""
    membership = {"customer_id": "c", "epoch": 1, "partition": 1, "seq": 1, "definition_version": 1}
    ((_, why),) = read_all(Consumed(encode_event("Membership", membership))).dead
    assert type(why) is errors.InvalidField and "Membership.value: expected an event" in str(why)


@pytest.mark.parametrize(
    "record",
    [
        purchased(customer_id=FINE, order_id=FINE, event_id=FINE, account_id=FINE),
        purchased(amount_minor=0),
        purchased(amount_minor=RATES.limit_minor("EUR"), currency="EUR"),
        purchased(occurred_at=0),
        purchased(occurred_at=NOW + 300_000),
        profile(**{f"t{n}": n for n in range(64)}),
        profile(**{FINE: "x" * 16_000}),
        dataclasses.replace(purchased(occurred_at=NOW), timestamp=-1),
        tick(253_402_300_799_999),
    ],
)
def test_what_is_just_within_the_bounds_is_read(record: Consumed) -> None:
    """Every bound is inclusive where its message says so."""
    assert read_all(record).dead == ()


def test_the_first_failed_check_is_the_reason() -> None:
    """Of a record wrong in every way, the check named first in read() gives the one reason."""
    wrong: dict[str, Any] = {
        "occurred_at": -1, "kind": "unknown", "currency": "XXX", "amount_minor": -1,
        "refund_id": "", "customer_id": "",
    }  # fmt: skip
    expected = ["customer_id", "refund_id", "key", "amount_minor", "currency", "kind", "occurred_at"]
    for field in expected:
        record = refunded(**wrong)
        if field in ("customer_id", "refund_id", "key"):
            record = dataclasses.replace(record, key=b"?")
        ((_, why),) = read_all(record).dead
        assert field in str(why).split(", got")[0]
        wrong.pop(field, None)


def test_a_bulky_record_with_small_traits_is_read() -> None:
    """Only the traits are bounded to 16 KiB, not the record they come in."""
    record = event("SignedUp", context={"referrer": BIG}, traits={"plan": "pro"})
    assert read_all(record).facts.traits == {0: {"plan": "pro"}}


texts = st.text(st.characters(codec="utf-8"), max_size=9)
trait_values = st.one_of(
    st.none(), texts, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(), st.lists(texts, max_size=3).map(lambda each: tuple(sorted(set(each)))),
    st.integers(-(2**63), 2**63 - 1).map(lambda time: (time,)),
)  # fmt: skip
trait_maps = st.dictionaries(texts.filter(bool), trait_values, max_size=6)


def as_avro(value: Any) -> Any:
    if isinstance(value, tuple):
        return (
            ("shoal.events.Instant", {"at": value[0]}) if value and isinstance(value[0], int) else list(value)
        )
    return value


@given(st.lists(trait_maps, min_size=1, max_size=5))
def test_any_traits_come_back(events: list[dict[str, Any]]) -> None:
    """Whatever is set is what is read, and takes the bytes Avro takes for it."""
    records = [profile(**{name: as_avro(value) for name, value in traits.items()}) for traits in events]
    result = read_all(*records)
    assert result.dead == ()
    assert result.facts.traits == {row: traits for row, traits in enumerate(events) if traits}
    rest = len(profile().value or b"") - 1
    assert [encoded_bytes(traits) for traits in events] == [
        len(record.value or b"") - rest for record in records
    ]


CHOICES = st.sampled_from(
    [*GOOD, *(record for record, *_ in DEAD), purchased(currency="EUR", account_id="a")]
)


@given(st.lists(CHOICES, max_size=30), st.integers(1, 30))
def test_a_record_reads_the_same_in_any_chunk(records: list[Consumed], size: int) -> None:
    """Cutting the log into other chunks changes no fact, tick or dead letter."""
    whole = read_all(*records)
    starts = range(0, len(records), size)
    parts = [(start, read_all(*records[start : start + size])) for start in starts]
    rows = [(start + row[0], *row[1:]) for start, part in parts for row in as_rows(part)]
    assert as_rows(whole) == rows
    assert whole.tick_position.tolist() == [
        start + at for start, part in parts for at in part.tick_position.tolist()
    ]
    reasons = [(start + at, type(why)) for start, part in parts for at, why in part.dead]
    assert [(at, type(why)) for at, why in whole.dead] == reasons


def test_poison_among_thousands_costs_only_itself() -> None:
    """Of 5,000 records four are dead for different reasons; the rest is in order."""
    records = [purchased(customer_id=f"c{n}", order_id=f"o{n}") for n in range(5_000)]
    records[0] = dataclasses.replace(records[0], key=b"?")
    records[1_234] = Consumed((records[1_234].value or b"")[:-3], b"c1234")
    records[2_000], records[4_999] = purchased(amount_minor=-1), Consumed(None)
    result = read_all(*records)
    assert [at for at, _ in result.dead] == [0, 1_234, 2_000, 4_999]
    assert list(result.facts.natural_id) == [b"o%d" % at for at in result.facts.position.tolist()]
    assert len(result.facts) == 4_996 and not np.diff(result.facts.position).min() < 1


def test_kinds_cover_every_fact() -> None:
    """Each kind of fact has the record type it is read from."""
    assert set(reading._KINDS.values()) == set(Kind)
