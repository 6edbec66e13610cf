"""A plan against what applying then does, without Kafka: to the customer, with clock and log still."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.plan_report import as_json, as_text
from streams.planning import Move, PartitionPlan, Plan, plan_partition, samples
from streams.segments.loading import default_definition, load
from tests.simulation import SimulatedPartition
from tests.streams.segments.edits import edited, version
from tests.streams.steps.streams_of_events import DAY, T0, random_log
from tests.streams.steps.test_conversion import BOUGHT, edit, extend, held, partition_of, tick, write

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
