"""The engine against the scalar oracle, at every chunk size, with crashes, within its bounds."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from errors import DefinitionBehind, DefinitionMismatch, StateCorrupt, TopicMismatch
from schemas.memberships import decode_membership
from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow
from streams.kafka.seam import Chunk
from streams.segments.loading import default_definition
from streams.steps.room import Bounds
from tests.simulation import SimulatedPartition, stable
from tests.streams.steps.oracle import Oracle
from tests.streams.steps.streams_of_events import DAY, T0, Entry, random_log

DEFINITION = default_definition()
# A seed cannot be shrunk to anything simpler.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


def partition_with(log: list[Entry], **options: Any) -> SimulatedPartition:
    """A partition whose log holds these entries."""
    partition = SimulatedPartition(DEFINITION, **options)
    for type_name, customer, fields in log:
        if type_name == "Tick":
            partition.tick(fields["at"])
        else:
            partition.event(type_name, customer, fields)
    return partition


def oracle_of(log: list[Entry]) -> Oracle:
    """What the scalar rules say of these entries."""
    oracle = Oracle()
    for type_name, customer, fields in log:
        if type_name == "Tick":
            oracle.tick(fields["at"])
        else:
            oracle.event(type_name, customer, fields)
    return oracle


def summary(change: dict[str, Any]) -> tuple[Any, ...]:
    """A change as the oracle writes it."""
    scores = change["scores_after"]
    return (
        change["customer_id"],
        change["dimension"],
        change["from"],
        change["to"],
        change["cause"],
        change["cause_event_id"],
        change["effective_at"],
        (scores["r"], scores["f"], scores["m"]) if scores else (0, 0, 0),
        change["account_id"],
    )


def purchase(order_id: str, at: int, amount: int = 10_000) -> Entry:
    """One order of customer c."""
    fields = {"event_id": f"e-{order_id}", "occurred_at": at, "order_id": order_id}
    return ("Purchased", "c", {**fields, "amount_minor": amount, "currency": "GBP"})


def tick(at: int) -> Entry:
    """One Tick."""
    return ("Tick", "", {"at": at})


@given(
    seed=st.integers(0, 10**9),
    entries=st.integers(1, 160),
    customers=st.sampled_from((1, 2, 5)),
    chunk=st.sampled_from((1, 2, 7, 50, 1000)),
)
@settings(max_examples=150, phases=PHASES)
def test_changes_equal_the_scalar_rules(seed: int, entries: int, customers: int, chunk: int) -> None:
    """Values, causes, events, instants, scores and order are those of one-by-one evaluation.

    One customer alone has enough facts, over enough time, for pages to fill and old ones to be
    folded away in the middle of a chunk.
    """
    log = random_log(random.Random(seed), entries, customers)
    partition = partition_with(log)
    partition.run(itertools.repeat(chunk))
    assert [summary(change) for change in partition.changes] == oracle_of(log).changes


@pytest.mark.timeout(600)  # Some 20 s of CPU, which a crowded machine stretches.
@given(seed=st.integers(0, 10**9))
@settings(max_examples=40, phases=PHASES)
def test_chunk_sizes_crashes_and_bounds_do_not_show(seed: int) -> None:
    """Random chunks, tiny transactions and crashes before commits give the changes of one quiet run."""
    rng = random.Random(seed)
    log = random_log(rng, 150, customers=12)
    quiet = partition_with(log)
    quiet.run(itertools.repeat(1000))
    rough = partition_with(log, bounds=Bounds(rows_max=rng.choice((1, 2, 5))))
    rough.run((rng.choice((1, 3, 20, 77)) for _ in itertools.count()), crash=lambda: rng.random() < 0.2)
    assert stable(rough.changes) == stable(quiet.changes)
    assert rough.values() == quiet.values()


@pytest.mark.parametrize("chunks", [1, 3])
def test_a_membership_is_as_of_its_customers_latest_change(chunks: int) -> None:
    """Its seq and deadline are those of that change, however many chunks share the transaction."""
    partition = partition_with(random_log(random.Random(5), 150, customers=12))
    log, engine = partition.log, partition.engine
    for at in range(0, len(log), 20):
        records = log[at : at + 20]
        work = engine.begin(Chunk(at, records, at + len(records), 0))
        while not work.done:
            assert engine.advance(work)
        if at // 20 % chunks == 0 or at + 20 >= len(log):
            partition.commit()
    latest = {change["customer_id"]: change for change in partition.changes}
    assert len(partition.changes) > 2 * len(latest) == 2 * len(partition.memberships)
    for value in partition.memberships.values():
        membership = decode_membership(value)
        change = latest[membership["customer_id"]]
        assert membership["seq"] == change["seq"]
        assert {each["expires_at"] for each in membership["values"]} == {change["expires_at"]}


@given(seed=st.integers(0, 10**9))
@settings(max_examples=20, phases=PHASES)
def test_seq_has_no_gap_and_changes_chain(seed: int) -> None:
    """Seq counts 1, 2, 3, ...; each change of a customer and dimension starts where the last ended."""
    partition = partition_with(random_log(random.Random(seed), 150))
    partition.run(itertools.repeat(10))
    assert [change["seq"] for change in partition.changes] == list(range(1, len(partition.changes) + 1))
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for change in partition.changes:
        key = (change["customer_id"], change["dimension"])
        if key in last:
            assert change["from"] == last[key]["to"]
            assert change["previous_since"] == last[key]["effective_at"]
            assert change["effective_at"] >= last[key]["effective_at"]
        else:
            assert change["from"] is None
        last[key] = change


def test_a_transaction_holds_at_most_its_bound_of_customers() -> None:
    """300 customers due at one tick are written 50 at a time, each changed once, at the same clock."""
    log: list[Entry] = []
    for i in range(300):
        type_name, _, fields = purchase(f"o{i}", T0 + i)
        log.append((type_name, f"c{i:03}", fields))
    log += [tick(T0 + DAY), tick(T0 + 31 * DAY)]
    partition = partition_with(log, bounds=Bounds(rows_max=50))
    partition.run(itertools.repeat(1000))
    # Sealed pages and the partition row come on top of the customers' head rows.
    assert max(len(t.rows) for t in partition.transactions) <= 51
    moved = [
        change
        for change in partition.changes
        if change["cause"] == "time_elapsed" and change["dimension"] == "rfm"
    ]
    assert sorted(change["customer_id"] for change in moved) == [f"c{i:03}" for i in range(300)]


def test_an_event_and_a_deadline_in_one_step_make_one_change_caused_by_the_event() -> None:
    """A small order just before a deadline does not hide that the deadline set the instant."""
    log = [
        purchase("a", T0),
        tick(T0 + DAY),
        ("ProfileUpdated", "c", {"event_id": "p", "occurred_at": T0 + 29 * DAY}),
    ]
    log.append(tick(T0 + 31 * DAY))
    partition = partition_with(log)
    partition.run(itertools.repeat(10))
    moves = [change for change in partition.changes if change["dimension"] == "rfm"]
    assert [(m["to"], m["cause"], m["effective_at"]) for m in moves] == [
        ("new", "event", T0),
        ("promising", "event", T0 + 30 * DAY),
    ]
    assert moves[1]["cause_event_id"] == "p"


def test_a_deadline_alone_is_effective_at_the_deadline() -> None:
    """However coarse the ticks, the change carries the instant it became true."""
    partition = partition_with([purchase("a", T0), tick(T0), tick(T0 + 45 * DAY)])
    partition.run(itertools.repeat(10))
    move = next(c for c in partition.changes if c["cause"] == "time_elapsed" and c["dimension"] == "rfm")
    assert (move["from"], move["to"], move["effective_at"]) == ("new", "promising", T0 + 30 * DAY)
    assert move["expires_at"] == T0 + 60 * DAY


def test_a_late_event_is_effective_at_the_clock_of_its_step() -> None:
    """An event an hour and more older than the clock has cause late_event and no instant of its own."""
    log = [purchase("a", T0), tick(T0 + 2 * DAY), purchase("b", T0 + DAY, 90_000), tick(T0 + 3 * DAY)]
    partition = partition_with(log)
    partition.run(itertools.repeat(10))
    move = next(c for c in partition.changes if c["cause"] == "late_event" and c["dimension"] == "rfm")
    assert move["effective_at"] == T0 + 3 * DAY


def test_an_event_below_the_fold_line_changes_nothing() -> None:
    """Older than longest window and margin: counted as too old, makes no customer, gives no change."""
    log = [purchase("a", T0), tick(T0 + DAY)]
    old = ("Purchased", "ancient", {**purchase("x", T0 - 400 * DAY)[2]})
    partition = partition_with([*log, old, ("Purchased", "c", old[2]), tick(T0 + 2 * DAY)])
    partition.run(itertools.repeat(10))
    assert partition.engine.counts["too_old"] == 2
    assert {change["customer_id"] for change in partition.changes} == {"c"}


def test_a_tick_before_the_clock_is_ignored() -> None:
    """The clock never goes back."""
    partition = partition_with(
        [purchase("a", T0), tick(T0 + 40 * DAY), tick(T0), purchase("b", T0 + 41 * DAY)]
    )
    partition.run(itertools.repeat(10))
    assert partition.engine.clock_ms == T0 + 40 * DAY


def test_a_key_of_another_partition_is_a_dead_letter() -> None:
    """A customer nobody knows here whose key belongs elsewhere is set aside, and the rest goes on."""
    partition = SimulatedPartition(DEFINITION, partition=0, partitions=2)
    for i in range(20):
        type_name, _, fields = purchase(f"o{i}", T0)
        partition.event(type_name, f"c{i}", fields)
    partition.run(itertools.repeat(100))
    astray = [d for d in partition.dead_letters if d.error_class == "WrongPartition"]
    assert 0 < len(astray) == 20 - len(partition.engine.table.slots)
    assert partition.engine.applied_offset == 20


def test_set_aside_makes_one_record_a_dead_letter() -> None:
    """The culprit is written off with its bytes and reason; its neighbours are applied."""
    partition = partition_with([purchase("a", T0), purchase("b", T0), purchase("c", T0), tick(T0)])
    partition.engine.set_aside(1, "ValueError: boom")
    partition.run(itertools.repeat(10))
    assert [(d.offset, d.error_class) for d in partition.dead_letters] == [(1, "ApplyFailed")]
    assert partition.dead_letters[0].value == partition.log[1].value
    assert partition.changes[0]["facts"]["orders"] == 2


def test_dead_letters_appear_once_across_a_crash() -> None:
    """A bad record's dead letter belongs to the transaction that moves past it."""
    partition = partition_with([purchase("a", T0)])
    partition.append(b"c", None)
    partition.append(b"c", b"garbage")
    crashes = iter((True, False, False, False, False, False))
    partition.run(itertools.repeat(2), crash=lambda: next(crashes, False))
    assert [(d.offset, d.error_class) for d in partition.dead_letters] == [
        (1, "NullValue"),
        (2, "UndecodableValue"),
    ]


def test_restore_refuses_another_partition_count_definition_or_lost_row() -> None:
    """State built for something else is never silently taken for ours."""
    partition = partition_with([purchase("a", T0), tick(T0)])
    partition.run(itertools.repeat(10))
    rows = list(partition.changelog.items())

    def restore(partitions: int, rows: list[tuple[bytes, bytes]]) -> None:
        engine = partition.engine
        engine.begin_restore()
        for key, value in rows:
            engine.restore_row(key, value)
        engine.finish_restore(partitions=partitions)

    with pytest.raises(TopicMismatch, match="2 partitions"):
        restore(2, rows)
    with pytest.raises(StateCorrupt, match="no partition row"):
        restore(1, [row for row in rows if row[0][0] != 0])
    key = PARTITION_ROW_KEY
    row = PartitionRow.decode(dict(rows)[key])
    for changed, error, said in (
        (replace(row, definition_version=2), DefinitionBehind, "built by definition 2"),
        (replace(row, definition_hash="f" * 64), DefinitionMismatch, "this worker holds 1"),
    ):
        with pytest.raises(error, match=said):
            restore(1, [*rows, (key, changed.encode())])


def test_wall_mode_judges_a_deadline_by_what_was_known_then() -> None:
    """After an outage, the order that was waiting counts before the tick that would have moved him."""
    partition = SimulatedPartition(DEFINITION, mode="wall")
    first, second = purchase("a", T0), purchase("b", T0 + 29 * DAY)
    partition.event(first[0], "c", first[2], timestamp=T0)
    partition.event(second[0], "c", second[2], timestamp=T0 + 29 * DAY)
    third = purchase("z", T0 + 31 * DAY)
    partition.event(third[0], "other", third[2], timestamp=T0 + 31 * DAY)
    partition.run(itertools.repeat(10))
    assert not [c for c in partition.changes if c["customer_id"] == "c" and c["cause"] == "time_elapsed"
                and c["dimension"] == "rfm"]  # fmt: skip


def test_wall_mode_sweeps_an_idle_partition() -> None:
    """Without any record, a sweep at wall time evaluates those whose deadline came, at the deadline."""
    partition = SimulatedPartition(DEFINITION, mode="wall")
    first = purchase("a", T0)
    partition.event(first[0], "c", first[2], timestamp=T0)
    partition.run(itertools.repeat(10))
    assert partition.engine.sweep(T0 + 30 * DAY + 5)
    partition.commit()
    assert [
        (c["to"], c["cause"], c["effective_at"]) for c in partition.changes if c["dimension"] == "rfm"
    ] == [
        ("new", "event", T0),
        ("promising", "time_elapsed", T0 + 30 * DAY),
    ]


def test_a_minute_of_an_outage_is_swept_before_what_came_later() -> None:
    """A customer who stayed away for 40 days of backlog left at 30, and came back at 40."""
    partition = SimulatedPartition(DEFINITION, mode="wall")
    for order_id, at in (("a", T0), ("b", T0 + 40 * DAY)):
        type_name, customer, fields = purchase(order_id, at, 1)
        partition.event(type_name, customer, fields, timestamp=at)
    partition.run(itertools.repeat(10))
    assert [
        (c["to"], c["cause"], c["effective_at"]) for c in partition.changes if c["dimension"] == "rfm"
    ] == [
        ("new", "event", T0),
        ("promising", "time_elapsed", T0 + 30 * DAY),
        ("new", "event", T0 + 40 * DAY),
    ]


@pytest.mark.parametrize("crash_at", range(6))
def test_a_dead_letter_is_written_with_the_offset_that_passes_it(crash_at: int) -> None:
    """Whichever commit is lost, in transactions of one customer, a bad record dies exactly once."""
    partition = SimulatedPartition(DEFINITION, bounds=Bounds(rows_max=1))
    for customer in ("a", "b", "c"):
        type_name, _, fields = purchase(f"of {customer}", T0)
        partition.event(type_name, customer, fields)
        partition.append(customer.encode(), b"garbage")
    partition.tick(T0)
    questions = itertools.count()
    partition.run(itertools.repeat(10), crash=lambda: next(questions) == crash_at)
    assert [dead.offset for dead in partition.dead_letters] == [1, 3, 5]


def test_a_deadline_between_two_facts_of_one_chunk_is_not_skipped() -> None:
    """A value that time takes away and the next fact gives back was away in between."""
    week = 7 * DAY
    start = T0 - T0 % week
    wordless = {"event_id": "p", "occurred_at": start + int(77.2 * DAY)}
    log = [purchase(f"o{i}", start, 60_000) for i in range(2)]
    log += [purchase("o2", start + int(47.5 * DAY), 60_000), tick(start + 48 * DAY)]
    # All of this is within one week, so that it may be applied at once: the last order is three
    # days away when 30 days without one are over.
    log += [tick(start + int(77.1 * DAY)), ("ProfileUpdated", "c", wordless), tick(start + int(77.3 * DAY))]
    log += [tick(start + int(77.6 * DAY)), purchase("o3", start + 78 * DAY), tick(start + 79 * DAY)]
    partition = partition_with(log)
    partition.run(itertools.repeat(1000))
    assert [(c["to"], c["cause"]) for c in partition.changes if c["dimension"] == "rfm"] == [
        ("champions", "event"),
        ("loyal", "time_elapsed"),
        ("champions", "event"),
    ]


def test_folding_in_the_middle_of_a_chunk_takes_nothing_from_earlier_ticks() -> None:
    """A page that fills late in a chunk is folded by its own time, not by what came before in the log."""
    log = [purchase(f"o{i}", T0 + i, 10) for i in range(32)]
    log += [tick(T0 + DAY), tick(T0 + 199 * DAY)]
    for i in range(31):
        log.append(("ProfileUpdated", "c", {"event_id": f"p{i}", "occurred_at": T0 + 200 * DAY - i}))
    log += [
        tick(T0 + 200 * DAY),
        tick(T0 + 400 * DAY - 1),
        purchase("last", T0 + 400 * DAY),
        tick(T0 + 401 * DAY),
    ]
    at_once, one_by_one = partition_with(log), partition_with(log)
    at_once.run(itertools.repeat(1000))
    one_by_one.run(itertools.repeat(1))
    assert at_once.engine.table.folded_orders[0] == 32, "the log has to fold something"
    assert stable(at_once.changes) == stable(one_by_one.changes)
