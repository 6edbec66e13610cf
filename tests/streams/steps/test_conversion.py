"""A changed definition on state that is there: slices, crashes at any point, events in between."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow
from streams.explanation import explained_by
from streams.kafka.seam import Chunk
from streams.segments.evaluate import Evaluator
from streams.segments.loading import default_definition, load
from streams.steps import conversion
from streams.steps.room import Bounds
from tests.simulation import SimulatedPartition, stable
from tests.streams.segments.edits import TEXT, Changing, Extended, edited, version
from tests.streams.steps.streams_of_events import DAY, T0, Entry, random_log
from tests.streams.steps.test_engine import purchase, tick

DEFINITION = default_definition()
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
Make = Callable[..., SimulatedPartition]
"""From a log, and options of the partition."""


def partition_of(log: list[Entry], **options: Any) -> SimulatedPartition:
    """A partition with versions to come, whose log holds these entries."""
    versions = Changing(only=Evaluator(DEFINITION))
    partition = SimulatedPartition(DEFINITION, versions=versions, **options)
    write(partition, log)
    return partition


def write(partition: SimulatedPartition, log: list[Entry]) -> None:
    """Append entries to the log."""
    for type_name, customer, fields in log:
        if type_name == "Tick":
            partition.tick(fields["at"])
        else:
            partition.event(type_name, customer, fields)


def edit(partition: SimulatedPartition, *changes: tuple[str, str]) -> None:
    """Apply the default file with these changes as the next version."""
    text = TEXT
    for before, after in changes:
        assert text.count(before) == 1
        text = text.replace(before, after)
    assert partition.versions is not None
    partition.versions.add(version(partition.versions.newest_number + 1, text))


def extend(partition: SimulatedPartition, **extra: int | tuple[int, ...]) -> None:
    """Apply the default definition with further dimensions as the next version."""
    assert isinstance(partition.versions, Changing)
    definition = DEFINITION.numbered(partition.versions.newest_number + 1)
    partition.versions.extend(Extended(definition, extra))


def held(partition: SimulatedPartition) -> dict[str, dict[str, str]]:
    """What the state says of every customer, nulls left out."""
    table = partition.engine.table
    ids = table.slots.ids_of(np.arange(table.count))
    return {
        name.decode(): {
            dimension: table.values[d][code]
            for d, (dimension, code) in enumerate(zip(table.dimensions, codes, strict=True))
            if code >= 0
        }
        for name, codes in zip(ids, table.value[: table.count].tolist(), strict=True)
    }


def deadlines(partition: SimulatedPartition) -> dict[bytes, int]:
    """When each customer must next be evaluated."""
    table = partition.engine.table
    ids = table.slots.ids_of(np.arange(table.count))
    return dict(zip(ids, table.due_ms[: table.count].tolist(), strict=True))


def computed(partition: SimulatedPartition) -> dict[str, dict[str, str]]:
    """What the definition in force says of every customer, from the facts alone."""
    engine = partition.engine
    table, evaluator = engine.table, engine.evaluator
    slots = np.arange(table.count)
    value = evaluator.evaluate(table, slots, np.full(len(slots), engine.clock_ms)).value
    return {
        name.decode(): {
            dimension: evaluator.values[d][code]
            for d, (dimension, code) in enumerate(zip(evaluator.dimensions, codes, strict=True))
            if code >= 0
        }
        for name, codes in zip(table.slots.ids_of(slots), value.tolist(), strict=True)
    }


def assert_chained(changes: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Numbers without a gap; each change begins where the last ended; return what they add up to."""
    assert [change["seq"] for change in changes] == list(range(1, len(changes) + 1))
    values: dict[str, dict[str, str]] = {}
    for change in changes:
        mine = values.setdefault(change["customer_id"], {})
        assert change["from"] == mine.get(change["dimension"])
        assert change["from"] != change["to"]
        if change["to"] is None:
            del mine[change["dimension"]]
        else:
            mine[change["dimension"]] = change["to"]
    return values


def assert_settled(partition: SimulatedPartition) -> None:
    """Everybody is what a fresh computation says, and so say changes, memberships and a restart."""
    assert not partition.engine.converting and partition.engine.unconverted == 0
    expected = computed(partition)
    assert held(partition) == expected
    assert partition.values() == {name: values for name, values in expected.items() if values}
    assert assert_chained(partition.changes) == expected
    before = deadlines(partition)
    partition.crash()
    assert held(partition) == expected and not partition.engine.converting
    assert deadlines(partition) == before
    row = PartitionRow.decode(partition.changelog[PARTITION_ROW_KEY])
    assert row.converting is None
    assert row.definition_version == partition.engine.definition.version


CUSTOMERS = 40
BOUGHT: list[Entry] = [
    (kind, f"c{i:02}", fields)
    for i in range(CUSTOMERS)
    for kind, _, fields in (
        purchase(f"a{i}", T0 + i * DAY, 9_000 + 4_000 * i),
        purchase(f"b{i}", T0 + (i + 2) * DAY, 5_000),
    )
    if fields["order_id"][0] == "a" or i % 2
]
BOUGHT.append(tick(T0 + 60 * DAY))
EDIT = (("    5: 30d", "    5: 41d"), ("    potential_loyalist: ", "    stars: "))


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven customers a slice."""
    monkeypatch.setattr(conversion, "SLICE_CUSTOMERS_MAX", 7)


@pytest.mark.usefixtures("small_slices")
def test_an_edit_moves_whom_it_concerns_and_nobody_else() -> None:
    """Each mover has one change a dimension, rule_changed, at the clock, under the new version."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    before, count = held(partition), len(partition.changes)
    edit(partition, *EDIT)
    partition.convert()
    after, changes = held(partition), partition.changes[count:]
    moved = {(c, d) for c in before for d in before[c] if before[c][d] != after[c][d]}
    assert len(moved) > 5
    assert Counter((c["customer_id"], c["dimension"]) for c in changes) == Counter(moved)
    for change in changes:
        assert (change["cause"], change["cause_event_id"], change["definition_version"]) == (
            "rule_changed",
            None,
            2,
        )
        assert change["effective_at"] == T0 + 60 * DAY and change["origin"] == "live"
    assert_settled(partition)


@pytest.mark.usefixtures("small_slices")
def test_who_is_what_it_was_is_not_written_again() -> None:
    """An edit that concerns few customers writes few rows."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    count = len(partition.transactions)
    edit(partition, ("    5: 1000", "    5: 1001"))
    partition.convert()
    assert sum(len(t.rows) - 1 for t in partition.transactions[count:]) == 0
    assert_settled(partition)


@pytest.mark.usefixtures("small_slices")
def test_a_slice_is_a_transaction_within_its_bound() -> None:
    """Neither more customers than a slice holds, nor more rows or bytes than a transaction may."""
    partition = partition_of(BOUGHT, bounds=Bounds(rows_max=5, bytes_max=5_000))
    partition.run(itertools.repeat(50))
    count = len(partition.transactions)
    extend(partition, everybody=1)
    partition.convert()
    rest = partition.transactions[count:]
    assert max(len(t.rows) for t in rest) <= 6
    sizes = [sum(len(k) + len(v or b"") for k, v in (*t.rows, *t.changes, *t.memberships)) for t in rest]
    assert max(sizes) <= 5_000
    assert_settled(partition)


@pytest.mark.usefixtures("small_slices")
def test_whom_an_event_reaches_first_is_converted_then() -> None:
    """One net change, rule_changed, not the event; its next one is the event's again."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    edit(partition, ("    potential_loyalist: ", "    stars: "))
    partition.convert(slices=1)
    late = next(c for c, values in held(partition).items() if values["rfm"] == "potential_loyalist")
    count = len(partition.changes)
    for i, days in enumerate((61, 62)):
        kind, _, fields = purchase(f"z{i}", T0 + days * DAY, 200_000)
        write(partition, [(kind, late, fields), tick(T0 + days * DAY + 1)])
    partition.run(itertools.repeat(50))
    mine = [c for c in partition.changes[count:] if (c["customer_id"], c["dimension"]) == (late, "rfm")]
    assert [(c["cause"], c["cause_event_id"], c["effective_at"]) for c in mine[:1]] == [
        ("rule_changed", None, T0 + 61 * DAY + 1)
    ]
    partition.convert()
    assert_settled(partition)


@pytest.mark.usefixtures("small_slices")
def test_dimensions_come_go_and_change_their_values() -> None:
    """A new segment enters its members; a removed one sends everybody off; renamed values move them."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    extend(partition, regulars=2, tier=(2,))
    partition.convert()
    assert_settled(partition)
    members = {c for c, values in held(partition).items() if "regulars" in values}
    assert len(members) == CUSTOMERS // 2
    kinds = {(c["dimension"], c["dimension_kind"]) for c in partition.changes}
    assert kinds >= {("regulars", "custom"), ("tier", "exclusive")}

    count = len(partition.changes)
    extend(partition, tier=(3, 1))
    partition.convert()
    changes = partition.changes[count:]
    left = [c for c in changes if c["dimension"] == "regulars"]
    assert {c["customer_id"] for c in left} == members and len(left) == len(members)
    assert {(c["change"], c["from"], c["to"], c["dimension_kind"]) for c in left} == {
        ("exited", "regulars", None, "custom")
    }
    tiers = Counter((c["change"], c["from"], c["to"]) for c in changes if c["dimension"] == "tier")
    assert tiers == {("moved", "t2", "t1"): 20, ("moved", "rest", "t1"): 20}
    assert_settled(partition)
    assert partition.engine.table.dimensions == ("rfm", "lifecycle", "tier")

    edit(partition)
    partition.convert()
    assert {c["to"] for c in partition.changes if c["change"] == "exited"} == {None}
    assert_settled(partition)


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("crash_at", range(0, 16, 3))
def test_a_crash_at_any_commit_is_not_seen(crash_at: int) -> None:
    """The same customers change, once each, whichever commit is lost; exits keep their kind."""
    quiet, rough = partition_of(BOUGHT), partition_of(BOUGHT)
    for partition in (quiet, rough):
        partition.run(itertools.repeat(50))
        extend(partition, regulars=2)
        partition.convert()
        edit(partition, *EDIT)
    quiet.convert()
    questions = itertools.count()
    rough.convert(crash=lambda: next(questions) == crash_at)
    summary = ("customer_id", "dimension", "dimension_kind", "from", "to", "cause", "effective_at")
    told = [sorted(tuple(map(str, map(c.get, summary))) for c in p.changes) for p in (quiet, rough)]
    assert told[0] == told[1]
    assert_settled(rough)


def test_an_interrupted_conversion_gives_way_to_the_next_version(small_slices: None) -> None:
    """Rows of three versions beside each other: everybody ends up as the newest says."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    extend(partition, regulars=2)
    partition.convert(slices=3)
    extend(partition, tier=(1,))
    partition.convert(slices=2)
    partition.crash()
    edit(partition, *EDIT)
    partition.convert()
    assert_settled(partition)


def test_a_pending_customer_is_converted_at_the_tick_that_sees_its_facts(small_slices: None) -> None:
    """What a Tick has not judged yet is left to it, also across a restart after the last slice."""
    partition = partition_of(BOUGHT)
    kind, _, fields = purchase("z", T0 + 61 * DAY, 200_000)
    write(partition, [(kind, "c05", fields)])
    partition.run(itertools.repeat(50))
    edit(partition, ("    potential_loyalist: ", "    stars: "), ("    new: ", "    newcomers: "))
    partition.convert()
    assert partition.engine.unconverted == 1 and not partition.engine.converting
    partition.crash()
    assert partition.engine.unconverted == 1 and not partition.engine.converting
    count = len(partition.changes)
    write(partition, [tick(T0 + 61 * DAY + 1)])
    partition.run(itertools.repeat(50))
    assert {c["cause"] for c in partition.changes[count:] if c["customer_id"] == "c05"} == {"rule_changed"}
    partition.convert()
    assert_settled(partition)


def half_swept(make: Make = partition_of, *, restart: bool = True) -> SimulatedPartition:
    """Six customers due at a Tick, of whom two are evaluated at it when the worker is killed."""
    bought = [(kind, f"c{i}", fields) for i in range(6) for kind, _, fields in [purchase(f"a{i}", T0, 9_000)]]
    partition = make([*bought, tick(T0 + 29 * DAY)], bounds=Bounds(rows_max=2))
    partition.run(itertools.repeat(50))
    write(partition, [tick(T0 + 31 * DAY)])
    ticks = Chunk(len(bought) + 1, partition.log[-1:], len(partition.log), 0)
    assert partition.engine.advance(partition.engine.begin(ticks))
    partition.commit()
    if restart:
        partition.crash()
    return partition


@pytest.mark.parametrize("lost", range(-1, 4))
def test_a_conversion_waits_for_a_sweep_that_lost_its_worker(lost: int) -> None:
    """Nobody is judged at an instant before the one it was judged at: all move once, on day 30, by time."""
    partition = half_swept()
    edit(partition, ("    5: 1000", "    5: 1001"))
    assert partition.engine.converting
    questions = itertools.count()
    partition.convert(crash=lambda: next(questions) == lost)
    assert partition.engine.clock_ms == T0 + 31 * DAY and not partition.engine.half_swept
    partition.run(itertools.repeat(50))
    moves = Counter((c["customer_id"], c["cause"], c["effective_at"]) for c in partition.changes[12:])
    assert moves == {(f"c{i}", "time_elapsed", T0 + 30 * DAY): 2 for i in range(6)}
    assert partition.engine.definition.version == 2
    assert_settled(partition)


def test_without_a_new_version_the_rest_of_a_sweep_is_made_up_for_as_well() -> None:
    """By whichever comes first, its Tick or a look for work; the other finds nothing."""
    looked, read = half_swept(), half_swept()
    looked.convert()
    for partition in (looked, read):
        partition.run(itertools.repeat(50))
        assert_settled(partition)
    assert stable(looked.changes) == stable(read.changes) and len(read.changes) == 24


@pytest.mark.parametrize("restart", [False, True])
def test_a_customer_ahead_of_the_clock_is_shown_as_of_its_tick(restart: bool) -> None:
    """Who was swept is shown as of day 31, who was not yet as of day 29: both as their values say."""
    engine = half_swept(restart=restart).engine
    for customer, days, value in (("c0", 31, "promising"), ("c5", 29, "new")):
        explained = explained_by(engine, customer)
        assert explained is not None and explained.notes == ()
        assert explained.at_ms == explained.card.as_of_ms == T0 + days * DAY
        held = explained.card.values["rfm"]
        assert held is not None and held[0] == explained.explanations[0].value == value


@pytest.mark.usefixtures("small_slices")
def test_whose_events_lie_ahead_of_the_clock_is_converted_with_all_of_them() -> None:
    """As it was judged before: an edit that does not concern it moves it nowhere."""
    ahead = [purchase(f"ahead-{i}", T0 + 21 * DAY + i, 90_000) for i in range(6)]
    partition = partition_of([purchase("now", T0, 1_000), *ahead, tick(T0 + 20 * DAY)])
    partition.run(itertools.repeat(50))
    before, count = held(partition), len(partition.changes)
    assert before["c"]["rfm"] == "champions"
    edit(partition, ("    5: 30d", "    5: 31d"))
    partition.convert()
    assert held(partition) == before and len(partition.changes) == count
    assert_settled(partition)


@pytest.mark.usefixtures("small_slices")
def test_an_edit_that_only_moves_a_deadline_is_met_at_the_new_one() -> None:
    """Nobody's value differs yet; after a restart the sooner edge still takes effect when it comes."""
    partition = partition_of([purchase("a", T0, 6_000), tick(T0 + 20 * DAY)])
    partition.run(itertools.repeat(50))
    edit(partition, ("    5: 30d", "    5: 25d"))
    partition.convert()
    assert_settled(partition)
    write(partition, [tick(T0 + 26 * DAY)])
    partition.run(itertools.repeat(50))
    last = partition.changes[-1]
    assert (last["to"], last["effective_at"], last["cause"]) == ("promising", T0 + 25 * DAY, "time_elapsed")


@pytest.mark.parametrize("customer", ["c01", "nobody before"])
def test_a_longer_look_back_is_refused_once_facts_were_lost(customer: str) -> None:
    """An event beyond the old window was turned away: 400 days cannot be computed, and it is said how."""
    long = (("  window: 365d", "  window: 400d"),)
    kept = partition_of(BOUGHT)
    kept.run(itertools.repeat(50))
    edit(kept, *long)
    kept.convert()
    assert kept.engine.refusal is None and kept.engine.definition.version == 2
    assert kept.engine.fold_line_ms == T0 + 60 * DAY - 407 * DAY

    partition = partition_of(BOUGHT)
    old = purchase("old", T0 - 330 * DAY)
    write(partition, [("Purchased", customer, old[2])])
    partition.run(itertools.repeat(50))
    count, rows = len(partition.changes), dict(partition.changelog)
    edit(partition, *long)
    partition.convert()
    refusal = partition.engine.refusal
    assert refusal is not None and "look back 400 days" in refusal.replace("looks", "look")
    assert "shoal rebuild" in refusal
    assert partition.engine.definition.version == 1 and not partition.engine.converting
    assert len(partition.changes) == count and partition.changelog == rows
    partition.crash()
    assert partition.engine.definition.version == 1
    edit(partition, *EDIT)
    partition.convert()
    assert partition.engine.refusal is None and partition.engine.definition.version == 3
    assert_settled(partition)


@given(seed=st.integers(0, 10**9))
@settings(max_examples=4, phases=PHASES)
def test_random_edits_in_a_row_end_where_a_fresh_computation_does(seed: int) -> None:
    """25 edits each, four times over: crashes among them, slices of three, events in between.

    The end is compared with another partition that read the whole log under the last version alone.
    """
    rng = random.Random(seed)
    log = random_log(rng, 400, customers=12)
    partition = partition_of(log[:40], bounds=Bounds(rows_max=3))
    chunks = (rng.choice((1, 3, 20)) for _ in itertools.count())

    def crash() -> bool:
        return rng.random() < 0.15

    partition.run(chunks, crash)
    at, text = 40, TEXT
    versions = partition.versions
    assert versions is not None
    for number in range(2, 27):
        text = edited(rng)
        versions.add(version(number, text))
        partition.convert(crash, slices=rng.choice((0, 1, 2, 9)))
        more = rng.randrange(0, 25)
        write(partition, log[at : at + more])
        at += more
        partition.run(chunks, crash)
        if rng.random() < 0.5:
            partition.convert(crash)
    write(partition, [*log[at:], tick(log[-1][2]["at"] + DAY)])
    partition.run(chunks, crash)
    partition.convert(crash)
    assert_settled(partition)
    fresh = SimulatedPartition(load(text, "x").numbered(26))
    for record in partition.log:
        fresh.append(record.key, record.value)
    fresh.run(itertools.repeat(1000))
    assert held(fresh) == held(partition)
