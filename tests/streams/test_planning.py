"""A plan against what applying then does, without Kafka: to the customer, with clock and log still."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.backtesting import changes_a_day
from streams.plan_report import as_json, as_text
from streams.planning import Move, PartitionPlan, Plan, plan_on_top, plan_partition, samples
from streams.segments.loading import default_definition, load
from streams.segments.settling import RULE_SUFFIX, SHADOW_SUFFIX
from streams.segments.versions import Versions
from streams.steps import resending
from tests.simulation import SimulatedPartition
from tests.streams.edited_sections import custom_version, log_of
from tests.streams.segments.custom import defined, with_sections
from tests.streams.segments.edits import edited, version
from tests.streams.steps.streams_of_events import DAY, T0, random_log
from tests.streams.steps.test_conversion import (
    BOUGHT,
    edit,
    extend,
    half_swept,
    held,
    partition_of,
    tick,
    write,
)
from tests.streams.steps.test_edits import partition_of as partition_of_file
from tests.streams.steps.test_engine import purchase

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


def planned(partition: SimulatedPartition) -> PartitionPlan:
    """Plan on what is committed; the partition itself stays as it is."""
    return plan_partition(partition._restored())


def plan_of(part: PartitionPlan) -> Plan:
    """The plan of a pipeline of one partition."""
    return Plan(1, default_definition().numbered(2), {0: part}, {"rfm": 1.5})


@given(seed=st.integers(0, 10**9))
@settings(max_examples=15, phases=PHASES)
def test_a_plan_says_what_applying_then_does(seed: int) -> None:
    """Moves, sizes before and after, and who waits for a tick: as the conversion makes them."""
    rng = random.Random(seed)
    log = random_log(rng, 120, customers=15)
    partition = partition_of(log[: rng.randrange(20, 120)])
    partition.run(itertools.repeat(50))
    assert partition.versions is not None
    partition.versions.add(version(2, edited(rng)))
    part = planned(partition)
    before, count = held(partition), len(partition.changes)
    partition.convert()
    emitted = [Move(c["customer_id"], c["dimension"], c["from"], c["to"]) for c in partition.changes[count:]]
    assert sorted(part.moves) == sorted(emitted)
    assert part.waiting == partition.engine.unconverted
    for values, told in ((before, part.before), (held(partition), part.after)):
        sizes = {
            (dimension, value): sum(mine.get(dimension) == value for mine in values.values())
            for dimension, value in told
        }
        assert sizes == dict(told)


@given(seed=st.integers(0, 10**9))
@settings(max_examples=15, phases=PHASES, deadline=None)
def test_a_plan_of_custom_segments_says_what_applying_then_does(seed: int) -> None:
    """Rules, delays, shadows, drafts and dimensions come, go and change; subscriptions, tickets, traits and
    series decide: every change that is emitted was planned, and no other; shadows as their members move."""
    rng = random.Random(seed)
    first = custom_version(1, rng)
    definition = first.definition()
    partition = SimulatedPartition(definition, versions=Versions([first]))
    write(partition, log_of(rng, rng.randrange(20, 80), customers=8))
    partition.run(itertools.repeat(50))
    assert partition.versions is not None
    for number in (2, 3):
        partition.versions.add(custom_version(number, rng))
        part = planned(partition)
        assert part.refusal is None, part.refusal
        before, count = held(partition), len(partition.changes)
        partition.convert()
        emitted = [
            Move(c["customer_id"], c["dimension"], c["from"], c["to"]) for c in partition.changes[count:]
        ]
        assert sorted(part.moves, key=str) == sorted(emitted, key=str)
        after = held(partition)
        silent = {
            (name, dimension, value is not None)
            for name in after
            for dimension in {*before[name], *after[name]}
            if dimension.endswith(SHADOW_SUFFIX)
            and (value := after[name].get(dimension)) != before[name].get(dimension)
        }
        assert {(m.customer_id, m.dimension, m.after is not None) for m in part.silent_moves} == silent
        for values, told in ((before, part.before), (after, part.after)):
            sizes = {key: sum(mine.get(key[0]) == key[1] for mine in values.values()) for key in told}
            assert sizes == dict(told)
            assert not any(dimension.endswith(RULE_SUFFIX) for dimension, _ in told)
        assert {each for pair in part.shared for each in pair} <= part.after.keys()
        for (mine, theirs), together in part.shared.items():
            both = [
                each.get(mine[0]) == mine[1] and each.get(theirs[0]) == theirs[1] for each in after.values()
            ]
            assert together == sum(both)
        as_text(Plan(number - 1, partition.versions.newest.definition, {0: part}))


def test_changes_a_day_follow_the_delays() -> None:
    """An order every ten days: with a delay on either side, whoever comes and goes does so once or never."""
    log = [purchase(f"a{day}", T0 + day * DAY, 1_000) for day in (0, 10, 20)]
    rates = {}
    for delays in ("", ", dwell_enter: 4d", ", dwell_exit: 8d"):
        sections_ = f"segments:\n  s: {{when: orders(3d) >= 1{delays}}}\n"
        partition = SimulatedPartition(defined(sections_))
        write(partition, [*log, tick(T0 + 30 * DAY)])
        partition.run(itertools.repeat(50))
        found, looked_at = changes_a_day(partition.engine)
        rates[delays] = round(found["s"] * 30)
        assert looked_at == 1
    # In on the day of the first order already; later ones bring an entry and an exit each. Three days are
    # too short to enter again, and whoever leaves eight days later has come again before.
    assert rates == {"": 5, ", dwell_enter: 4d": 1, ", dwell_exit: 8d": 0}


def test_changes_a_day_begin_with_nobody_waiting() -> None:
    """Who is out on the first day has not just left: no cooldown keeps them from entering."""
    partition = SimulatedPartition(defined("segments:\n  s: {when: orders(3d) >= 1, cooldown: 25d}\n"))
    signed_up = {"event_id": "s", "occurred_at": T0 - DAY, "source": "x", "traits": {}}
    log = [("SignedUp", "c", signed_up), purchase("a", T0 + 5 * DAY, 1_000)]
    write(partition, [*log, tick(T0 + 30 * DAY)])
    partition.run(itertools.repeat(50))
    assert round(changes_a_day(partition.engine)[0]["s"] * 30) == 2


def test_changes_a_day_know_what_was_not_so_yet() -> None:
    """A subscription and a ticket count from their day on; a trait as if it had always been what it is."""
    fields = {"event_id": "t", "occurred_at": T0 + 20 * DAY, "ticket_id": "t", "change": "opened"}
    traits = {"event_id": "p", "occurred_at": T0 + 20 * DAY, "traits": {"country": "DE"}}
    sections_ = (
        'traits: {country: string}\nsegments:\n  busy: {when: ticket_open}\n  de: {when: country == "DE"}\n'
    )
    partition = SimulatedPartition(defined(sections_))
    log = [purchase("a", T0, 1_000), ("TicketChanged", "c", fields), ("ProfileUpdated", "c", traits)]
    write(partition, [*log, tick(T0 + 30 * DAY)])
    partition.run(itertools.repeat(50))
    found, _ = changes_a_day(partition.engine)
    assert (round(found["busy"] * 30), round(found["de"] * 30)) == (1, 0)


def edited_plan(before: str, after: str) -> Plan:
    """The plan of an edit of some sections, of customers who have bought."""
    first, second = (version(number, with_sections(text)) for number, text in ((1, before), (2, after)))
    partition = SimulatedPartition(first.definition(), versions=Versions([first]))
    write(partition, BOUGHT)
    write(partition, [tick(T0 + 60 * DAY)])
    partition.run(itertools.repeat(50))
    assert partition.versions is not None
    partition.versions.add(second)
    return Plan(1, second.definition(), {0: planned(partition)}, {}, first.definition())


def test_a_plan_names_what_is_added_edited_removed_hidden_and_missing() -> None:
    """By the names in the file; a segment without anybody is told of and warned about."""
    before = (
        "segments:\n  stays: {when: orders(5d) > 0}\n"
        "  goes: {when: orders(5d) > 0}\n  turns: {when: orders(9d) > 0}\n"
        "  hidden: {when: orders(300d) > 0, state: shadow}\n"
    )
    after = (
        "segments:\n  stays: {when: orders(5d) > 0}\n  turns: {when: orders(8d) > 0, dwell_exit: 2d}\n"
        "  comes: {when: orders(300d) > 7}\n  hides: {when: orders(300d) > 0, state: shadow}\n"
        "  waits: {when: orders(3d) > 0, state: draft}\n  hidden: {when: orders(300d) > 0, state: shadow}\n"
    )
    plan = edited_plan(before, after)
    text = as_text(plan)
    for line in (
        "added: comes, hides, waits",
        "edited: turns",
        "removed: goes",
        "shadow, computed and nobody is told: hidden, hides",
        "draft, checked only: waits",
        "the facts that are kept are all it needs",
        "comes: 0 customers change (0.0%)",
        "  comes: 0 now, 0 then; 0 enter, 0 leave",
        "warning: comes=comes: only 0 members (0.00%)",
        "hides (shadow): 40 customers change (100.0%)",
        "note: changes a day: delays are followed from 30 days ago on, as if nobody waited then",
    ):
        assert line in text, text
    assert "stays:" not in text and "waits:" not in text and "hidden (shadow):" not in text
    assert not any("shadow" in sentence for sentence in plan.to_confirm())
    declared = as_json(plan)["declared"]
    assert declared == {
        "added": ["comes", "hides", "waits"],
        "edited": ["turns"],
        "removed": ["goes"],
        "shadow": ["hidden", "hides"],
        "draft": ["waits"],
    }


def test_a_plan_names_every_series_whose_facts_are_missing() -> None:
    """What was not asked for before was not kept: each is named, with what to run."""
    after = 'segments:\n  a: {when: \'count("login", 5d) > 0 or count("export", 5d) > 0\'}\n'
    plan = edited_plan("segments:\n  b: {when: orders(5d) > 0}\n", after)
    (refusal,) = plan.refusals
    assert 'the series activity "login", which is not kept so far' in refusal
    assert 'the series activity "export", which is not kept so far' in refusal
    assert "run `shoal rebuild FILE`" in refusal and plan.moves == []


def test_a_plan_tells_overlaps_and_how_often_values_would_have_changed() -> None:
    """Shared members of a new segment; a day by day count of its own entries and exits."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    extend(partition, regulars=2)
    part = planned(partition)
    assert len(part.moves) == 20 and {move.after for move in part.moves} == {"regulars"}
    with_regulars = {other: n for (mine, other), n in part.shared.items() if mine[0] == "regulars"}
    assert sum(n for (dimension, _), n in with_regulars.items() if dimension == "rfm") == 20
    # Second orders came on every odd day from 3 to 41, six of them in the last 30 days, 31 to 60.
    assert part.moves_a_day["regulars"] * 30 == pytest.approx(6)


def test_a_plan_warns_and_wants_confirmation() -> None:
    """Half the customers move: said as a share, to be confirmed; so are sizes nobody may have meant."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    extend(partition, regulars=2)
    plan = plan_of(planned(partition))
    assert plan.to_confirm() == ["regulars: 20 of 40 customers move (50.0%), more than 5%"]
    assert plan.warnings()[1:] == ["regulars=regulars: only 20 members (50.00%)"]
    text = as_text(plan)
    assert "20 enter, 0 leave" in text and "warning: regulars: 20 of 40" in text
    told = as_json(plan)["dimensions"]["regulars"]["values"]["regulars"]
    assert (told["members_now"], told["members_then"], len(told["entering_samples"])) == (0, 20, 20)


def test_a_plan_says_when_facts_are_missing() -> None:
    """A longer look back than is kept: the refusal is the plan."""
    partition = partition_of(BOUGHT)
    old = next(fields for _, customer, fields in BOUGHT if customer == "c01")
    late = {**old, "event_id": "late", "order_id": "late", "occurred_at": T0 - 330 * DAY}
    write(partition, [("Purchased", "c01", late), tick(T0 + 61 * DAY)])
    partition.run(itertools.repeat(50))
    edit(partition, ("  window: 365d", "  window: 400d"))
    plan = plan_of(planned(partition))
    assert plan.moves == [] and len(plan.refusals) == 1 and "shoal rebuild" in plan.refusals[0]
    assert "shoal rebuild" in as_text(plan)


def test_samples_are_spread_over_all() -> None:
    """At most so many, the first among them, none twice."""
    everybody = [f"c{i:04}" for i in range(1000)]
    shown = samples(everybody, 20)
    assert len(shown) == len(set(shown)) == 20 and shown[0] == "c0000" and shown[-1] > "c0900"
    assert samples(everybody[:3], 20) == everybody[:3]


def test_an_edit_of_nothing_moves_nobody() -> None:
    """The same content as another version: no move, no warning."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    edit(partition)
    plan = plan_of(planned(partition))
    assert plan.moves == [] and plan.warnings() == []
    assert "nobody's value changes" in as_text(plan)
    assert load(version(2).yaml, "x").hash == default_definition().hash


def test_who_is_sent_again_meanwhile_does_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resend under way is no part of a plan."""
    monkeypatch.setattr(resending, "SLICE_CUSTOMERS_MAX", 3)
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    assert partition.versions is not None
    partition.versions.resend_run_id = "run-1"
    partition.convert(slices=2)
    partition.versions.add(version(2))
    assert partition._restored().converting
    assert planned(partition).moves == []


def test_a_plan_in_the_middle_of_a_sweep_is_what_comes_behind_it() -> None:
    """Whom the sweep has not reached is planned as it will leave them; its own changes are not told."""
    partition, applied = half_swept(), Versions([version(1)])
    restored = SimulatedPartition(
        partition.definition, versions=applied, log=partition.log, changelog=dict(partition.changelog)
    )
    edit(partition, ("    promising: ", "    hopeful: "))
    assert partition.versions is not None
    part = plan_on_top(restored.engine, applied, Versions(partition.versions.records()))
    assert part.clock_ms == T0 + 31 * DAY
    expected = [(f"c{i}", "rfm", "promising", "hopeful") for i in range(6)]
    assert sorted(part.moves) == expected
    partition.convert()
    told = [(*map(c.get, ("customer_id", "dimension", "from", "to")), c["cause"]) for c in partition.changes]
    assert sorted(each[:4] for each in told if each[4] == "rule_changed") == expected


def test_what_an_applied_version_stops_keeping_is_not_counted_on() -> None:
    """Version 2 drops a series, nobody has taken it on yet, and 3 asks for it again: facts are missing."""
    reads = "\nsegments:\n  fans: {when: 'count(\"exported\", 30d) >= 1'}\n"
    text = version(1).yaml
    partition = partition_of_file(text + reads)
    write(partition, BOUGHT)
    partition.run(itertools.repeat(50))
    assert partition.versions is not None
    partition.versions.add(version(2, text))
    applied = Versions(partition.versions.records())
    planned_on = Versions([*applied.records(), version(3, text + reads)])
    restored = SimulatedPartition(
        partition.definition, versions=applied, log=partition.log, changelog=dict(partition.changelog)
    )
    part = plan_on_top(restored.engine, applied, planned_on)
    assert part.refusal is not None and "exported" in part.refusal
