"""Customers erased: they leave, nothing of them stays, and what is older never comes back."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from schemas.memberships import decode_membership
from streams.customer_card import card_of
from streams.customers.facts import Strings
from streams.customers.row_format import CUSTOMER_ROW, ERASURE_ROW, decode_key
from streams.segments.loading import default_definition
from streams.steps.room import Bounds
from tests.simulation import SimulatedPartition, stable
from tests.streams.segments.custom import defined
from tests.streams.steps import test_series_steps
from tests.streams.steps.erasure_oracle import holders, state, what_is_left, with_erasures, write
from tests.streams.steps.streams_of_events import DAY, T0, Entry, random_log

DEFINITION = default_definition()
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
HOUR = DAY // 24
NAME = "ann-whom-nobody-may-remember"
SECRET = "a-street-nobody-may-remember"


def partition(log: list[Entry], **options: Any) -> SimulatedPartition:
    """A partition whose log holds these entries."""
    return write(SimulatedPartition(**{"definition": DEFINITION, **options}), log)


def bought(at: int, order: str = "o", customer: str = NAME, **more: Any) -> Entry:
    """One order of 120.00."""
    fields = {"event_id": f"e-{order}", "occurred_at": at, "order_id": order, "amount_minor": 12_000}
    return "Purchased", customer, {**fields, "currency": "GBP", **more}


def erased(at: int, customer: str = NAME, n: object = "") -> Entry:
    """One erasure."""
    return "Erased", customer, {"event_id": f"x-{at}{n}", "occurred_at": at}


def tick(at: int) -> Entry:
    """One Tick."""
    return "Tick", "", {"at": at}


def ran(log: list[Entry], chunk: int = 1_000, **options: Any) -> SimulatedPartition:
    """A partition that has read these entries."""
    p = partition(log, **options)
    p.run(itertools.repeat(chunk))
    return p


def of(p: SimulatedPartition, customer: str = NAME) -> list[tuple[Any, ...]]:
    """What was said of a customer."""
    names = ("dimension", "from", "to", "cause", "effective_at")
    return [tuple(change[n] for n in names) for change in p.changes if change["customer_id"] == customer]


def rows_of(p: SimulatedPartition, kind: int) -> dict[bytes, bytes]:
    """The rows of one kind on the changelog, by id."""
    keys = {key: decode_key(key) for key in p.changelog}
    return {keys[key].identity: value for key, value in p.changelog.items() if keys[key].kind == kind}


def known(p: SimulatedPartition, customer: str = NAME) -> bool:
    """Whether the table knows the customer."""
    return bool(p.engine.table.slots.find(Strings.from_list([customer.encode()]))[0] >= 0)


STORY = [
    ("SignedUp", NAME, {"event_id": "s", "occurred_at": T0 - HOUR, "traits": {"street": SECRET}}),
    bought(T0, account_id="acme"),
    bought(T0, "p", "bob"),
    tick(T0 + HOUR),
]


@pytest.mark.parametrize("chunk", [1, 3, 1_000])
def test_whoever_is_erased_leaves_every_dimension(chunk: int) -> None:
    """Exited, from what it was, for erasure, at its instant; without scores or figures afterwards."""
    p = ran([*STORY, erased(T0 + 2 * HOUR), tick(T0 + 3 * HOUR)], chunk)
    at = T0 + 2 * HOUR
    assert of(p)[2:] == [("rfm", "new", None, "erasure", at), ("lifecycle", "new", None, "erasure", at)]
    last = p.changes[-1]
    assert (last["change"], last["cause_event_id"]) == ("exited", f"x-{at}")
    assert (last["scores_after"], last["facts"], last["expires_at"]) == (None, None, None)
    assert last["scores_before"] and last["previous_since"] and last["account_id"] == "acme"
    assert [change["seq"] for change in p.changes] == list(range(1, len(p.changes) + 1))


@pytest.mark.parametrize("commits", [True, False])
def test_nothing_of_the_erased_stays(commits: bool) -> None:
    """Not in rows, memberships, columns, dictionaries or caches: its row committed before, or never."""
    p = partition([*STORY, erased(T0 + 2 * HOUR)])
    p.run(itertools.repeat(2 if commits else 1_000))
    written = [key for each in p.transactions[-1:] for key, _ in each.rows]
    assert any(NAME.encode() in key for key in written), "a tombstone says the id once more"
    p.transactions.clear()
    assert set(p.memberships) == {b"bob"}
    assert rows_of(p, CUSTOMER_ROW).keys() == {b"bob"}
    for text in (NAME, SECRET, "acme", "e-o"):
        assert not any(text.encode() in key + value for key, value in p.changelog.items())
        assert holders(p.engine, text.encode()) == []
    assert holders(p.engine, b"bob"), "the search finds who is there"
    assert p.engine.table.customers == 1
    assert card_of(p.engine, NAME) is None


def test_the_marker_says_when_and_not_who() -> None:
    """A hash under the partition's key, and an instant: nothing else."""
    p = ran([*STORY, erased(T0 + 2 * HOUR)])
    ((digest, value),) = rows_of(p, ERASURE_ROW).items()
    assert len(digest) == 32 and value == (T0 + 2 * HOUR).to_bytes(8, "little")
    other = ran([*STORY, erased(T0 + 2 * HOUR)])
    assert rows_of(other, ERASURE_ROW).keys() != {digest}


def test_what_is_older_is_dropped_and_counted_and_what_is_later_begins_anew() -> None:
    """Also after a crash, and told again: what happened at the very instant is older, too."""
    at = T0 + 2 * HOUR
    p = ran([*STORY, erased(at)])
    p.crash()
    write(p, [bought(T0), bought(at, "late"), STORY[0], erased(at), tick(at + 1)])
    p.run(itertools.repeat(1_000))
    assert not known(p) and len(of(p)) == 4
    assert p.engine.counts["erased"] == 4
    assert p.transactions[-1].tally.events == {
        ("Purchased", "erased"): 2, ("SignedUp", "erased"): 1, ("Erased", "erased"): 1,
    }  # fmt: skip
    write(p, [bought(at + 1, "next"), bought(at, "late"), tick(at + HOUR)])
    p.run(itertools.repeat(1_000))
    p.crash()
    write(p, [bought(at - 5, "lost"), tick(at + 2 * HOUR)])
    p.run(itertools.repeat(1_000))
    assert of(p)[4:] == [("rfm", None, "new", "event", at + 1), ("lifecycle", None, "new", "event", at + 1)]
    (slot,) = p.engine.table.slots.find(Strings.from_list([NAME.encode()]))
    orders, _, _ = p.engine.table.lifetime(p.engine.table.slots.find(Strings.from_list([NAME.encode()])))
    assert orders.tolist() == [1] and p.engine.table.traits(int(slot)) == {}


def test_who_was_never_there_gets_a_marker_and_no_tombstone() -> None:
    """Nothing to leave, nothing on record: but what is older than that stays out."""
    p = ran([erased(T0), bought(T0 - 1), tick(T0 + DAY)])
    assert p.changes == [] and p.memberships == {} and not known(p)
    assert len(rows_of(p, ERASURE_ROW)) == 1
    assert not any(NAME.encode() in key for each in p.transactions for key, _ in each.rows)


def test_one_chunk_holds_a_life_an_erasure_and_another_life() -> None:
    """Facts no tick had seen are gone without a word; what follows in the same step is a new customer's."""
    log = [bought(T0, "1"), erased(T0 + 1), bought(T0 + 2, "2"), bought(T0, "3"), tick(T0 + HOUR)]
    for chunk in (1, 2, 1_000):
        p = ran(log, chunk)
        assert of(p) == [("rfm", None, "new", "event", T0 + 2), ("lifecycle", None, "new", "event", T0 + 2)]
        assert p.engine.table.orders.rows == 1 and p.values() == {NAME: {"rfm": "new", "lifecycle": "new"}}


def test_leaving_and_coming_back_in_one_step_are_two_changes() -> None:
    """Nothing ties the new customer to the old one: exited, then entered, in one transaction."""
    log = [*STORY, erased(T0 + 2 * HOUR), bought(T0 + 3 * HOUR, "2"), tick(T0 + 4 * HOUR)]
    p = ran(log)
    assert [(change[1], change[2]) for change in of(p)[2:]] == [
        ("new", None), ("new", None), (None, "new"), (None, "new"),
    ]  # fmt: skip
    membership = decode_membership(p.memberships[NAME.encode()])
    assert membership["seq"] == p.changes[-1]["seq"] and membership["account_id"] is None
    assert p.changes[-1]["previous_since"] is None
    p.crash()
    assert known(p) and rows_of(p, CUSTOMER_ROW).keys() == {NAME.encode(), b"bob"}


def test_what_was_known_and_had_happened_later_is_erased_as_well() -> None:
    """By another machine's clock the last order is a minute after the erasure; told again it stays out."""
    late = T0 + 60_000
    p = ran([bought(late), erased(T0), tick(T0 + HOUR), bought(late), tick(T0 + 2 * HOUR)])
    assert not known(p)
    assert list(rows_of(p, ERASURE_ROW).values()) == [late.to_bytes(8, "little")]


def test_an_erasure_that_comes_late_or_twice_changes_nothing_more() -> None:
    """Older than the marker: whoever came back since stays; a newer one erases again."""
    p = ran([erased(T0 + 10), bought(T0 + 20), erased(T0 + 5), erased(T0 + 10, n=2), tick(T0 + HOUR)])
    assert known(p) and p.engine.counts["erased"] == 2
    write(p, [erased(T0 + 2 * HOUR), tick(T0 + 3 * HOUR)])
    p.run(itertools.repeat(1_000))
    assert not known(p) and of(p)[-1][3] == "erasure"


def test_shadow_segments_are_left_without_a_word() -> None:
    """And every kind of dimension somebody was told of with one; custom ones exited like any other."""
    rules = """
segments:
  buyers:
    when: orders(30d) >= 1
  quiet:
    when: orders(30d) >= 1
    state: shadow
dimensions:
  worth:
    values:
      gold: spend(30d) >= 100
    otherwise: bronze
"""
    p = ran([*STORY, erased(T0 + 2 * HOUR), tick(T0 + DAY)], definition=defined(rules))
    assert {(change[0], change[2]) for change in of(p)[4:]} == {
        ("rfm", None), ("lifecycle", None), ("buyers", None), ("worth", None),
    }  # fmt: skip
    kinds = {change["dimension"]: change["dimension_kind"] for change in p.changes}
    assert kinds["buyers"] == "custom" and kinds["worth"] == "exclusive"


def test_a_new_customer_waits_for_no_cooldown_of_the_old_one() -> None:
    """In, out, erased, and in again within the cooldown."""
    rules = "segments:\n  s:\n    when: orders(1d) >= 1\n    cooldown: 20d\n"
    ticks = [tick(T0 + day * DAY) for day in range(8)]
    log = sorted(
        [bought(T0 + 1, "1"), erased(T0 + 5 * DAY), bought(T0 + 6 * DAY + 1, "2"), *ticks], key=_when
    )
    p = ran(log, definition=defined(rules))
    assert [(c[2], c[3]) for c in of(p) if c[0] == "s"] == [
        ("s", "event"), (None, "time_elapsed"), ("s", "event"),
    ]  # fmt: skip


def test_a_waiting_refund_is_erased_with_its_customer() -> None:
    """The order it named comes later, as another customer's: nothing is taken off it."""
    fields = {"event_id": "r", "occurred_at": T0, "refund_id": "r", "order_id": "o", "kind": "refund"}
    refund = ("Refunded", NAME, {**fields, "amount_minor": 12_000, "currency": "GBP"})
    p = ran([refund, erased(T0 + 1), bought(T0 + 2), refund, tick(T0 + HOUR)])
    slots = p.engine.table.slots.find(Strings.from_list([NAME.encode()]))
    assert [int(column[0]) for column in p.engine.table.lifetime(slots)] == [1, 12_000, 0]


def _when(entry: Entry) -> int:
    return int(entry[2].get("at", entry[2].get("occurred_at")))


@pytest.mark.parametrize(
    ("occurred", "effective"),
    [(T0 + 90_000, T0 + 90_000), (T0 - 2 * HOUR, T0 + 100_000), (T0 + 200_000, T0 + 100_000)],
)
def test_an_exit_is_effective_as_any_change_is(occurred: int, effective: int) -> None:
    """In append time: at its instant, at the step's clock when it came late or is of the future."""
    p = SimulatedPartition(DEFINITION, mode="wall")
    p.event(*bought(T0 - 3 * HOUR), timestamp=T0)
    p.event(*erased(occurred), timestamp=T0 + 100_000)
    p.run(itertools.repeat(1))
    assert [change[4] for change in of(p) if change[3] == "erasure"] == [effective] * 2


def test_no_exit_is_before_the_value_was_taken() -> None:
    """An on-time erasure from before the latest move is effective with that."""
    p = ran([bought(T0 + 2 * HOUR), tick(T0 + 2 * HOUR), erased(T0 + 90 * 60_000), tick(T0 + 3 * HOUR)])
    assert {change[4] for change in of(p)} == {T0 + 2 * HOUR}


def test_what_may_not_be_believed_is_a_dead_letter() -> None:
    """Too far in the future, of another customer's key, in the wrong partition: nobody is erased."""
    p = SimulatedPartition(DEFINITION, partitions=2, mode="wall")
    here, far = (next(n for n in (f"c{i}" for i in range(50)) if _home(n) == home) for home in (0, 1))
    p.event(*bought(T0, customer=here), timestamp=T0)
    p.event(*erased(T0 + 300_001, here), timestamp=T0)
    p.event(*erased(T0, far), timestamp=T0)
    p.append(b"other", p.log[1].value, T0)
    p.run(itertools.repeat(10))
    assert [letter.error_class for letter in p.dead_letters] == ["InvalidField", "WrongPartition", "WrongKey"]
    assert known(p, here) and rows_of(p, ERASURE_ROW) == {}


def _home(customer: str) -> int:
    from streams.customers.hashing import partitions_of

    return int(partitions_of(Strings.from_list([customer.encode()]), 2)[0])


def sizes(rng: random.Random) -> Iterator[int]:
    """Random chunk sizes."""
    return (rng.choice((1, 2, 3, 20, 77)) for _ in itertools.count())


@pytest.mark.timeout(900)
@given(seed=st.integers(0, 10**9), customers=st.sampled_from((1, 2, 5)))
@settings(max_examples=30, phases=PHASES)
def test_a_log_with_erasures_comes_to_what_is_left_of_it(seed: int, customers: int) -> None:
    """State equals that of the log without what is erased; chunks, crashes and bounds do not show."""
    rng = random.Random(seed)
    log = with_erasures(rng, random_log(rng, 120, customers))
    quiet = ran(log)
    rough = partition(log, bounds=Bounds(rows_max=rng.choice((1, 2, 5))))
    rough.run(sizes(rng), crash=lambda: rng.random() < 0.2)
    assert stable(rough.changes) == stable(quiet.changes)
    assert rough.values() == quiet.values()
    assert state(rough) == state(quiet)
    left, until = what_is_left(log, definition=DEFINITION)
    plain = ran(left)
    assert state(quiet) == state(plain) and quiet.values() == plain.values()
    assert sorted(rows_of(quiet, ERASURE_ROW).values()) == sorted(
        at.to_bytes(8, "little") for at in until.values()
    )
    quiet.crash()
    assert state(quiet) == state(plain)


@pytest.mark.timeout(900)
@given(seed=st.integers(0, 10**9))
@settings(max_examples=20, phases=PHASES)
def test_series_subscriptions_and_tickets_are_erased_as_well(seed: int) -> None:
    """Everything a definition may read, in any chunking: what is left is a log without the erased."""
    rng = random.Random(seed)
    log = with_erasures(rng, test_series_steps.random_log(rng, 120))
    options = {"definition": DEFINITION, "series": test_series_steps.SERIES}
    quiet, rough = ran(log, **options), partition(log, **options)
    rough.run(sizes(rng), crash=lambda: rng.random() < 0.1)
    assert stable(rough.changes) == stable(quiet.changes)
    assert state(rough) == state(quiet)
    left, _ = what_is_left(log, **options)
    plain = ran(left, **options)
    assert state(quiet) == state(plain) and quiet.values() == plain.values()


def test_many_are_erased_and_come_back_in_the_same_slots() -> None:
    """A thousand customers leave and others come: no more slots than were ever held at once."""
    p = SimulatedPartition(DEFINITION)
    for turn in range(4):
        for n in range(300):
            p.event(*bought(T0 + turn * DAY, f"{turn}-{n}", f"c{turn}-{n:04}"))
        p.tick(T0 + turn * DAY + HOUR)
        p.run(itertools.repeat(100))
        for n in range(300):
            p.event(*erased(T0 + turn * DAY + 2 * HOUR, f"c{turn}-{n:04}"))
        p.run(itertools.repeat(100))
    assert p.engine.table.count == 300 and p.engine.table.customers == 0
    assert len(rows_of(p, ERASURE_ROW)) == 1_200 and rows_of(p, CUSTOMER_ROW) == {}
    assert p.memberships == {}


def test_a_whale_is_erased_within_the_bound_of_a_transaction() -> None:
    """100,000 facts are 3,125 pages: tombstones in as many transactions as it takes, a crash in each."""
    whale = "whale" + "w" * 200
    p = SimulatedPartition(DEFINITION, bounds=Bounds(bytes_max=1 << 18))
    for n in range(100_000):
        p.event(*bought(T0 + n * 60_000, str(n), whale, amount_minor=1))
        if n % 20_000 == 0:
            p.tick(T0 + n * 60_000)
    p.tick(T0 + 100_000 * 60_000)
    p.run(itertools.repeat(5_000))
    assert len(p.changelog) > 3_100
    before, rng = len(p.transactions), random.Random(1)
    p.event(*erased(T0 + 100_001 * 60_000, whale))
    p.event(*bought(T0 + 100_002 * 60_000, "new", whale))
    p.tick(T0 + 100_003 * 60_000)
    p.run(itertools.repeat(5_000), crash=lambda: rng.random() < 0.5)
    erasing = p.transactions[before:]
    count = len(erasing)
    assert count >= 3
    largest = max(sum(len(k) + len(v or b"") for k, v in [*t.rows, *t.changes]) for t in erasing)
    assert largest <= 1 << 18
    rows = sum(key[0] == CUSTOMER_ROW for key in p.changelog)
    assert rows == 1
    assert [change[3] for change in of(p, whale)[-4:]] == ["erasure", "erasure", "event", "event"]
    assert p.engine.table.facts_kept == 1


@given(seed=st.integers(0, 10**9), chunk=st.sampled_from((20, 150, 1000)))
@settings(max_examples=20, phases=PHASES)
def test_no_transaction_with_erasures_is_larger_than_its_bound(seed: int, chunk: int) -> None:
    """Tombstones, markers and exits of any log are within the smallest bound there is."""
    rng = random.Random(seed)
    log = with_erasures(rng, random_log(rng, 300, customers=40), share=0.3)
    p = ran(log, chunk, bounds=Bounds(bytes_max=1 << 16))
    sizes = [
        sum(len(key) + len(value or b"") for key, value in (*t.rows, *t.changes, *t.memberships))
        for t in p.transactions
    ]
    assert max(sizes) <= 1 << 16
