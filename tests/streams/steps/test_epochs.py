"""A rebuilt epoch taking over from the old one: the difference exactly once, through crashes at any point."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from errors import DefinitionBehind
from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow
from streams.segments.loading import load
from streams.segments.versions import Version, Versions
from streams.steps.room import Bounds
from tests.simulation import SimulatedPartition
from tests.streams.segments.edits import TEXT, edited, version
from tests.streams.steps.streams_of_events import DAY, T0, Entry, random_log
from tests.streams.steps.test_conversion import (
    BOUGHT,
    assert_chained,
    computed,
    half_swept,
    held,
    purchase,
    tick,
    write,
)

ADDED = """
segments:
  export_fans: {name: Export fans, description: Exported, owner: a, when: 'count("exported", 700d) >= 2'}
  spenders: {name: Spenders, description: Spent, owner: a, when: spend(700d) >= 500}
  proven: {name: Proven, description: Bought, owner: a, when: orders(ever) >= 3}
"""


def claim_of(text: str, number: int, epoch: int) -> Version:
    """A version that comes with a rebuild."""
    return replace(version(number, text), epoch=epoch)


def with_activities(rng: random.Random, log: list[Entry]) -> list[Entry]:
    """The log, with an activity here and there."""
    out: list[Entry] = []
    for number, entry in enumerate(log):
        out.append(entry)
        if entry[0] != "Tick" and rng.random() < 0.3:
            fields = {"event_id": f"x{number}", "occurred_at": entry[2]["occurred_at"], "name": "exported"}
            out.append(("Activity", entry[1], {**fields, "properties": {}}))
    return out


def with_erasures(rng: random.Random, log: list[Entry]) -> list[Entry]:
    """The log, with customers who ask to be forgotten, some of them twice, or late."""
    out: list[Entry] = []
    for number, entry in enumerate(log):
        out.append(entry)
        if entry[0] != "Tick" and rng.random() < 0.05:
            at = entry[2]["occurred_at"] - rng.choice((0, 0, 86_400_000))
            out.append(("Erased", entry[1], {"event_id": f"z{number}", "occurred_at": at}))
    return out


def partition_of(log: list[Entry], text: str = TEXT, **options: Any) -> SimulatedPartition:
    """A partition under version 1, whose log holds these entries."""
    definition = load(text, "test").numbered(1)
    partition = SimulatedPartition(definition, versions=Versions([version(1, text)]), **options)
    write(partition, log)
    return partition


def finish_and_go_over(partition: SimulatedPartition) -> None:
    """Restart with something under way in the first epoch: it is finished there, then the second comes."""
    partition.crash()
    assert partition.engine.epoch == 1 and partition.engine.converting and not partition.engine.leaves
    partition.convert()
    assert partition.engine.leaves and partition.markers == []
    partition.crash()
    assert partition.engine.epoch == 2
    partition.convert()


def fresh(log: list[Entry], text: str) -> SimulatedPartition:
    """What one run under this text alone comes to."""
    partition = partition_of(log, text)
    partition.run(itertools.repeat(50))
    return partition


def publish(partition: SimulatedPartition, claim: Version) -> None:
    """Let the partition know of the rebuild."""
    assert partition.versions is not None
    partition.versions.add(claim)


def assert_taken_over(partition: SimulatedPartition, log: list[Entry], text: str) -> None:
    """Everybody is what a run under the new text alone says; so say changes, memberships and a restart."""
    engine = partition.engine
    assert not engine.converting and not engine.leaves and engine.unconverted == 0
    expected = {name: values for name, values in held(fresh(log, text)).items() if values}
    assert {name: values for name, values in held(partition).items() if values} == expected
    assert {n: v for n, v in assert_chained(partition.changes).items() if v} == expected
    assert {n: v for n, v in partition.values().items() if v} == expected
    partition.crash()
    assert not partition.engine.converting
    assert {name: values for name, values in computed(partition).items() if values} == expected
    kinds = [marker.kind for _, marker in partition.markers]
    assert kinds == ["rebuild-begins", "rebuild-ends"]
    row = PartitionRow.decode(partition.changelog_of(2)[PARTITION_ROW_KEY])
    assert row.rebuilt is None and row.converting is None and row.epoch == 2
    old = PartitionRow.decode(partition.changelog[PARTITION_ROW_KEY])
    assert old.superseded_by == 2


@pytest.mark.parametrize("seed", range(8))
def test_the_difference_of_two_fresh_computations_is_what_is_told(seed: int) -> None:
    """Nothing happens meanwhile: each change of a rebuild is one difference, none is told twice."""
    rng = random.Random(seed)
    log = with_activities(rng, random_log(rng, 300, customers=12))
    partition = partition_of(log, bounds=Bounds(rows_max=3))
    partition.run(itertools.repeat(40))
    before, count = held(partition), len(partition.changes)
    text = edited(rng) + ADDED
    claim = claim_of(text, 2, 2)
    partition.rebuild(claim, until=len(log) // 2)
    partition.rebuild(claim, until=len(log) - 5)
    assert len(partition.changes) == count, "quiet"
    publish(partition, claim)
    assert partition.engine.leaves
    partition.convert()
    assert_taken_over(partition, log, text)
    after = held(fresh(log, text))
    difference = {
        (name, dimension, before.get(name, {}).get(dimension), after.get(name, {}).get(dimension))
        for name in before.keys() | after.keys()
        for dimension in before.get(name, {}).keys() | after.get(name, {}).keys()
    }
    told = [(c["customer_id"], c["dimension"], c["from"], c["to"]) for c in partition.changes[count:]]
    assert len(told) == len(set(told))
    assert set(told) == {each for each in difference if each[2] != each[3]}
    assert {(c["origin"], c["cause"], c["run_id"], c["epoch"]) for c in partition.changes[count:]} <= {
        ("reconcile", "rule_changed", "rebuild-e2", 2)
    }
    (begin_at, begin), (end_at, end) = partition.markers
    assert (begin_at, end_at) == (count, len(partition.changes))
    assert (begin.seq, begin.changes, end.seq, end.changes) == (count, 0, count + len(told), len(told))


@pytest.mark.parametrize("seed", range(12))
def test_crashes_at_any_point_lose_and_double_nothing(seed: int) -> None:
    """Of the replay, of the taking over, of slices, with events and erasures all the while."""
    rng = random.Random(100 + seed)
    log = with_activities(rng, random_log(rng, 300, customers=12))
    if seed % 2:
        log = with_erasures(rng, log)
    partition = partition_of(log[:200], bounds=Bounds(rows_max=rng.choice((1, 3, 50))))
    partition.run(itertools.repeat(17))
    text = edited(rng) + ADDED
    claim = claim_of(text, 2, 2)
    for until in (60, 61, 150):
        partition.rebuild(claim, until=until)
    write(partition, log[200:])
    publish(partition, claim)

    def crash() -> bool:
        return rng.random() < 0.3

    while (
        partition.engine.applied_offset < len(log) or partition.engine.converting or partition.engine.leaves
    ):
        partition.convert(crash, slices=rng.randrange(3))
        if rng.random() < 0.5:
            end = min(len(log), partition.engine.applied_offset + rng.randrange(1, 30))
            held_back, partition.log[end:] = partition.log[end:], []
            partition.run(iter(lambda: rng.randrange(1, 9), 0), crash)
            partition.log += held_back
    partition.commit()
    assert_taken_over(partition, log, text)


def test_a_worker_that_has_not_heard_of_the_epoch_does_not_go_on_with_the_old_one() -> None:
    """The old changelog says that it was left, in the same transaction that begins the new one."""
    rng = random.Random(5)
    log = random_log(rng, 100)
    partition = partition_of(log)
    partition.run(itertools.repeat(50))
    claim = claim_of(TEXT + ADDED, 2, 2)
    partition.rebuild(claim, until=10)
    publish(partition, claim)
    partition.crash()
    partition.crash()
    old = partition.versions
    partition.versions = Versions([version(1)])
    partition.crash()
    partition.versions = old
    partition.crash()
    partition.commit()
    partition.versions = Versions([version(1)])
    with pytest.raises(DefinitionBehind, match="epoch 2"):
        partition.crash()


def test_what_is_told_keeps_its_instants_and_numbers() -> None:
    """Who is what it was is told nothing, and stays that since when, and by the change by which, it was."""
    rng = random.Random(9)
    log = random_log(rng, 200, customers=6)
    partition = partition_of(log)
    partition.run(itertools.repeat(50))

    def stamps() -> dict[bytes, list[tuple[int, int]]]:
        table = partition.engine.table
        ids = table.slots.ids_of(table.slots.find_or_add(_names(table)))
        return {
            name: list(zip(table.since_ms[slot].tolist(), table.value_seq[slot].tolist(), strict=True))
            for slot, name in enumerate(ids)
        }

    before, due = stamps(), _due(partition)
    count, clock_ms = len(partition.changes), partition.engine.clock_ms
    claim = claim_of(TEXT, 2, 2)
    partition.rebuild(claim, until=len(log))
    publish(partition, claim)
    partition.convert()
    assert len(partition.changes) == count and partition.engine.clock_ms == clock_ms
    assert stamps() == before and _due(partition) == due
    partition.crash()
    assert stamps() == before and _due(partition) == due


def _names(table: Any) -> Any:
    from streams.customers.facts import Strings

    return Strings.from_list(table.slots.ids_of(range(table.count)))


def _due(partition: SimulatedPartition) -> dict[bytes, int]:
    table = partition.engine.table
    return {name: int(table.due_ms[slot]) for slot, name in enumerate(table.slots.ids_of(range(table.count)))}


DELAYED = """
segments:
  kept:
    {name: Kept, description: Same, owner: a, when: orders(60d) >= 1, dwell_enter: 20d, cooldown: 90d}
  edited:
    {name: Edited, description: No, owner: a, when: orders(90d) >= FLOOR, dwell_enter: 10d, dwell_exit: 30d}
"""


@pytest.mark.parametrize("seed", range(6))
def test_a_rebuild_ends_as_applying_would(seed: int) -> None:
    """Where `apply` does as well: the same changes but for their origin, numbers, stages and deadlines too.

    So what a segment waits for goes on if it is declared as before, and begins afresh where it was edited.
    """
    rng = random.Random(200 + seed)
    log = random_log(rng, 250, customers=10)
    first, then = (TEXT + DELAYED.replace("FLOOR", floor) for floor in "12")
    stay = log[: rng.randrange(150, 240)]
    ends = []
    for epoch in (1, 2):
        partition = partition_of(stay, first)
        partition.run(itertools.repeat(40))
        claim = claim_of(then, 2, epoch)
        if epoch == 2:
            partition.rebuild(claim, until=len(stay) // 2)
        publish(partition, claim)
        partition.convert()
        write(partition, log[len(stay) :])
        partition.run(itertools.repeat(40))
        partition.convert()
        table = partition.engine.table
        names = table.slots.ids_of(range(table.count))
        order = sorted(range(table.count), key=names.__getitem__)
        columns = [table.value, table.since_ms, table.value_seq, table.due_ms, table.scores]
        told = [{**c, "event_id": "", "epoch": 0, "origin": "", "run_id": ""} for c in partition.changes]
        ends.append((table.dimensions, [c[: table.count][order].tolist() for c in columns], told))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("seed", range(4))
def test_on_the_wall_clock_the_clock_goes_on_and_so_do_deadlines(seed: int) -> None:
    """The replay's clock is that of the log; the owner's, which swept further, is taken over."""
    rng = random.Random(300 + seed)
    ends = []
    for rebuilds in (True, False):
        rng = random.Random(300 + seed)
        log = [entry for entry in random_log(rng, 120, customers=8) if entry[0] != "Tick"]
        text = edited(rng)
        partition = partition_of([], TEXT if rebuilds else text, mode="wall")
        now = 0
        for type_name, customer, fields in log[:100]:
            now = max(now, fields["occurred_at"])
            partition.event(type_name, customer, fields, now)
        partition.run(itertools.repeat(9))
        swept = now + 45 * 86_400_000
        _sweep(partition, swept)
        if rebuilds:
            claim = claim_of(text, 2, 2)
            partition.rebuild(claim, until=70)
            publish(partition, claim)
            partition.convert()
            assert partition.engine.clock_ms == swept
        for type_name, customer, fields in log[100:]:
            swept = max(swept, fields["occurred_at"])
            partition.event(type_name, customer, fields, swept)
        partition.run(itertools.repeat(9))
        _sweep(partition, swept + 200 * 86_400_000)
        ends.append((held(partition), _due(partition), partition.engine.clock_ms))
    assert ends[0] == ends[1]


def _sweep(partition: SimulatedPartition, now_ms: int) -> None:
    while not partition.engine.sweep(now_ms):
        partition.commit()
    partition.commit()


def _of_one_late_stranger(windows: tuple[str, str]) -> SimulatedPartition:
    """Somebody whose only purchase came 250 days late, under one window and then rebuilt under another."""
    first, then = (TEXT.replace("window: 365d", f"window: {window}") for window in windows)
    start = 1_700_000_000_000
    day = 86_400_000
    order = {"event_id": "e1", "order_id": "o1", "amount_minor": 90_000, "currency": "GBP"}
    log: list[Entry] = [
        ("Purchased", "ada", {**order, "occurred_at": start}),
        ("Tick", "", {"at": start}),
        ("Purchased", "late", {**order, "occurred_at": start - 250 * day}),
        ("Tick", "", {"at": start + day}),
    ]
    partition = partition_of(log, first)
    partition.run(itertools.repeat(9))
    claim = claim_of(then, 2, 2)
    partition.rebuild(claim, until=len(log))
    publish(partition, claim)
    partition.convert()
    return partition


def test_whom_only_the_replay_knows_enters() -> None:
    """Too old to make a customer under a short window, but not under a long one: it enters now."""
    partition = _of_one_late_stranger(("200d", "365d"))
    late = [c for c in partition.changes if c["customer_id"] == "late"]
    assert [(c["dimension"], c["change"], c["cause"], c["origin"]) for c in late] == [
        ("rfm", "entered", "rule_changed", "reconcile"),
        ("lifecycle", "entered", "rule_changed", "reconcile"),
    ]
    assert held(partition)["late"]["rfm"] == "lost" and set(partition.values()) == {"ada", "late"}
    before = held(partition)
    partition.crash()
    assert held(partition) == before


def test_whom_the_replay_does_not_know_is_told_as_nobody_who_ever_bought() -> None:
    """Known under a long window, too old for a short one: not forgotten, for subscribers hold it."""
    partition = _of_one_late_stranger(("365d", "200d"))
    late = [c for c in partition.changes if c["customer_id"] == "late"]
    assert [(c["dimension"], c["change"], c["to"]) for c in late[2:]] == [
        ("rfm", "moved", "prospect"),
        ("lifecycle", "moved", "lead"),
    ]
    assert held(partition)["late"] == partition.values()["late"] == {"rfm": "prospect", "lifecycle": "lead"}
    before = held(partition)
    partition.crash()
    assert held(partition) == before and not partition.engine.converting


def test_what_makes_somebody_pending_outlives_the_taking_over() -> None:
    """Whom no tick has seen yet the next one judges, for the reason it became pending, crash or not."""
    for crashes in (False, True):
        rng = random.Random(1)
        log = random_log(rng, 60)[:-1]
        at = max(fields.get("occurred_at", fields.get("at")) for _, _, fields in log) + 1
        order = {"order_id": "o1", "amount_minor": 90_000, "currency": "GBP"}
        log += [
            ("Tick", "", {"at": at}),
            ("Purchased", "late", {**order, "event_id": "first", "occurred_at": at - 40_000_000}),
            ("SignedUp", "late", {"event_id": "then", "occurred_at": at + 5}),
        ]
        partition = partition_of(log)
        partition.run(itertools.repeat(9))
        claim = claim_of(TEXT + ADDED, 2, 2)
        partition.rebuild(claim, until=40)
        publish(partition, claim)
        partition.convert()
        assert not partition.engine.converting
        if crashes:
            partition.crash()
        write(partition, [("Tick", "", {"at": at + 10})])
        partition.run(itertools.repeat(9))
        entered = [c for c in partition.changes if c["customer_id"] == "late"]
        assert {(c["cause"], c["cause_event_id"], c["origin"]) for c in entered} == {
            ("late_event", "first", "live"),
        }


def test_an_earlier_conversion_is_finished_before_the_epoch_is_left() -> None:
    """What was told is then of one version; and the epoch is left as soon as that is so, crash or not."""
    rng = random.Random(12)
    log = random_log(rng, 200, customers=12)
    partition = partition_of(log, bounds=Bounds(rows_max=2))
    partition.run(itertools.repeat(20))
    assert partition.versions is not None
    applied, text = edited(rng), edited(rng) + ADDED
    partition.versions.add(version(2, applied))
    partition.convert(slices=2)
    claim = claim_of(text, 3, 2)
    partition.rebuild(claim, until=len(log))
    publish(partition, claim)
    finish_and_go_over(partition)
    assert_taken_over(partition, log, text)


def test_a_sweep_that_lost_its_worker_is_finished_in_the_old_epoch_first() -> None:
    """What was told is then of one instant: all move once, by time, and the rebuild has nothing to add."""
    partition = half_swept(partition_of)
    claim = claim_of(TEXT, 2, 2)
    partition.rebuild(claim, until=len(partition.log) - 1)
    publish(partition, claim)
    finish_and_go_over(partition)
    moves = Counter((c["customer_id"], c["cause"], c["effective_at"]) for c in partition.changes[12:])
    assert moves == {(f"c{i}", "time_elapsed", T0 + 30 * DAY): 2 for i in range(6)}
    partition.run(itertools.repeat(50))
    assert len(partition.changes) == 24 and not partition.engine.converting


def test_the_replay_refuses_what_is_too_old_and_says_nothing_of_what_is_dead() -> None:
    """Its clock is that of the log, so its fold line is where that of a worker would have been."""
    start, day = 1_700_000_000_000, 86_400_000
    log: list[Entry] = []
    for number, (seen, occurred) in enumerate(((0, 0), (900, 899), (901, 1))):
        order = {"event_id": f"e{number}", "order_id": f"o{number}", "amount_minor": 900, "currency": "GBP"}
        log.append(("Purchased", "ada", {**order, "occurred_at": start + occurred * day}))
        log.append(("Tick", "", {"at": start + seen * day}))
    partition, text = partition_of(log), TEXT + ADDED
    partition.append(b"ada", b"garbage")
    partition.run(itertools.repeat(2))
    claim = claim_of(text, 2, 2)
    for until in range(1, len(log) + 2):
        partition.rebuild(claim, until=until)
    publish(partition, claim)
    partition.convert()
    assert "proven" not in held(partition)["ada"]
    again = fresh(log, text)
    assert partition.engine.complete_since_ms == again.engine.complete_since_ms
    assert partition.engine.complete_since_ms["orders"] > 0
    assert len(partition.dead_letters) == 1


def test_who_was_erased_stays_erased_up_to_when_either_epoch_says() -> None:
    """The old definition knew of something later than the new one does: that counts, also after a restart."""
    start = 1_700_000_000_000
    order = {"order_id": "o1", "amount_minor": 900, "currency": "GBP"}
    log: list[Entry] = [
        ("Purchased", "ada", {**order, "event_id": "e1", "occurred_at": start}),
        (
            "Activity",
            "ada",
            {"event_id": "x", "occurred_at": start + 50, "name": "exported", "properties": {}},
        ),
        ("Erased", "ada", {"event_id": "z", "occurred_at": start + 10}),
        ("Tick", "", {"at": start + 60}),
    ]
    partition = partition_of(log, TEXT + ADDED)
    partition.run(itertools.repeat(9))
    claim = claim_of(TEXT, 2, 2)
    partition.rebuild(claim, until=len(log))
    publish(partition, claim)
    partition.convert()
    partition.crash()
    late = {**order, "event_id": "e2", "order_id": "o2", "occurred_at": start + 30}
    write(partition, [("Purchased", "ada", late), ("Tick", "", {"at": start + 70})])
    partition.run(itertools.repeat(9))
    assert partition.values() == {} and held(partition) == {}


def test_who_is_erased_before_it_was_told_of_leaves_no_row() -> None:
    """An event no Tick has seen, the taking over, then the Erased: no row of nobody, nor after a restart."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    kind, _, fields = purchase("nn", T0 + 100 * DAY, 200_000)
    write(partition, [(kind, "newbie", fields)])
    partition.run(itertools.repeat(50))
    claim = claim_of(TEXT + ADDED, 2, 2)
    partition.rebuild(claim, until=len(partition.log))
    publish(partition, claim)
    partition.crash()
    write(partition, [("Erased", "newbie", {"event_id": "z1", "occurred_at": T0 + 100 * DAY + 1})])
    partition.run(itertools.repeat(50))
    partition.convert()
    partition.crash()
    names = set(held(partition))
    assert names == set(partition.values()) and not names & {"", "newbie"}


def _of_a_disputed_erasure() -> tuple[SimulatedPartition, int]:
    """Erased when only the new definition keeps a later activity, then a purchase from in between."""
    partition = partition_of(BOUGHT, bounds=Bounds(rows_max=3))
    partition.run(itertools.repeat(50))
    now_ms = partition.engine.clock_ms
    write(
        partition,
        [
            ("Purchased", "er", purchase("p1", now_ms + 1_000)[2]),
            _exported("er", "a1", now_ms + 3_000),
            ("Erased", "er", {"event_id": "z1", "occurred_at": now_ms + 1_500}),
            ("Purchased", "er", purchase("p2", now_ms + 2_000)[2]),
            tick(now_ms + 60_000),
        ],
    )
    partition.run(itertools.repeat(50))
    assert partition.values()["er"] == {"rfm": "new", "lifecycle": "new"}
    return partition, now_ms


def _exported(customer: str, event_id: str, at_ms: int) -> Entry:
    fields = {"event_id": event_id, "occurred_at": at_ms, "name": "exported", "properties": {}}
    return ("Activity", customer, fields)


@pytest.mark.parametrize("slices", [None, 0, 1, 3])
def test_whom_only_the_replay_erased_leaves_what_it_was_told(slices: int | None) -> None:
    """Its marker says later than the old one, yet nobody erased it since: no membership stays for ever."""
    partition, now_ms = _of_a_disputed_erasure()
    claim = claim_of(TEXT + ADDED, 2, 2)
    partition.rebuild(claim, until=len(partition.log) - 3)
    publish(partition, claim)
    if slices is not None:
        # A crash behind the first transaction of the new epoch, and behind some of the conversion.
        partition.convert(slices=slices)
        partition.crash()
    partition.convert()
    nobody = {"rfm": "prospect", "lifecycle": "lead"}
    assert held(partition)["er"] == partition.values()["er"] == nobody
    assert assert_chained(partition.changes)["er"] == nobody
    # What was erased stays so, however often it is sent.
    before = partition.engine.counts["erased"]
    write(partition, [_exported("er", "a1", now_ms + 3_000), tick(now_ms + 90_000)])
    partition.run(itertools.repeat(50))
    assert partition.engine.counts["erased"] == before + 1
    partition.crash()
    assert held(partition)["er"] == partition.values()["er"] == nobody
    assert computed(partition) == held(partition)


@pytest.mark.parametrize("commits", [False, True])
def test_whom_only_the_replay_erased_can_be_erased_since(commits: bool) -> None:
    """In the first transaction of the new epoch or behind it: then it leaves everything, for good."""
    partition, now_ms = _of_a_disputed_erasure()
    claim = claim_of(TEXT + ADDED, 2, 2)
    partition.rebuild(claim, until=len(partition.log))
    publish(partition, claim)
    partition.crash()
    if commits:
        partition.commit()
        partition.crash()
    write(partition, [("Erased", "er", {"event_id": "z2", "occurred_at": now_ms + 70_000})])
    partition.run(itertools.repeat(50))
    partition.crash()
    partition.convert()
    partition.crash()
    assert "er" not in held(partition) and "er" not in partition.values()
    assert not assert_chained(partition.changes).get("er")


@pytest.mark.parametrize("restarts", [False, True])
def test_an_unedited_segment_waits_on_over_a_rebuild(restarts: bool) -> None:
    """Whoever an earlier conversion did not move has the segment as it was, so its dwell is waited for."""
    waits = "\nsegments:\n  waits: {when: spend(ever) > 90000, dwell_enter: 5d}\n"
    partition = partition_of(BOUGHT, bounds=Bounds(rows_max=3))
    partition.run(itertools.repeat(50))
    publish(partition, version(2, TEXT + waits))
    partition.convert()
    claim = claim_of(TEXT + waits + "  other: {when: 'count(\"exported\", 30d) >= 1'}\n", 3, 2)
    partition.rebuild(claim, until=len(partition.log))
    publish(partition, claim)
    partition.crash()
    partition.commit()
    if restarts:
        partition.crash()
    now_ms, count = partition.engine.clock_ms, len(partition.changes)
    kind, _, fields = purchase("zz", now_ms + 60_000, 10_000_000)
    write(partition, [(kind, "c05", fields), tick(now_ms + 120_000)])
    partition.run(itertools.repeat(50))
    assert [each for each in partition.changes[count:] if each["dimension"] == "waits"] == []


def test_a_replay_of_a_log_without_its_beginning_is_whole_only_since_then() -> None:
    """Its facts are complete since then alone, and whom the old epoch says was erased stays so."""
    partition = partition_of(BOUGHT)
    at_ms = T0 + 100 * DAY
    write(partition, [("Erased", "c05", {"event_id": "z1", "occurred_at": at_ms})])
    partition.run(itertools.repeat(50))
    publish(partition, claim_of(TEXT + ADDED, 2, 2))
    engine = partition.engine
    engine.begin_restore(2, quiet=True)
    for key, value in partition.changelog.items():
        engine.told_row(key, value)
    assert engine.finish_restore(partitions=1) is None
    engine.start_at(7, at_ms)
    assert set(engine.complete_since_ms.values()) == {at_ms} and engine.applied_offset == 7
    assert engine.table.erasures.of([b"c05"]) >= at_ms and len(engine.table.erasures) == 1
