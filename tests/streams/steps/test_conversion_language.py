"""Any definition becomes any other, over the whole language: restarts, slices and events at any point."""

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

from streams.planning import plan_partition
from streams.segments.loading import load
from streams.segments.settling import is_hidden
from streams.segments.versions import Versions
from streams.steps import conversion
from streams.steps.room import Bounds
from tests.simulation import SimulatedPartition
from tests.streams.segments.brute_force import T0
from tests.streams.segments.edits import version
from tests.streams.steps.everything import Entry, first_version, random_log, random_version, rules_of

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
ANSWERED = ("customer_id", "dimension", "dimension_kind", "change", "from", "to", "cause", "cause_event_id")
ANSWERED += ("effective_at", "previous_since", "expires_at", "definition_version", "origin")


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two customers a slice, as the one that is disturbed has them in a transaction."""
    monkeypatch.setattr(conversion, "SLICE_CUSTOMERS_MAX", 2)


def write(partition: SimulatedPartition, log: list[Entry]) -> None:
    for type_name, customer, fields in log:
        if type_name == "Tick":
            partition.tick(fields["at"])
        else:
            partition.event(type_name, customer, fields)


def held(partition: SimulatedPartition, *, hidden: bool = True) -> dict[str, dict[str, str]]:
    """What the state says of every customer, nulls left out."""
    table = partition.engine.table
    ids = table.slots.ids_of(np.arange(table.count))
    return {
        name.decode(): {
            dimension: table.values[d][code]
            for d, (dimension, code) in enumerate(zip(table.dimensions, codes, strict=True))
            if code >= 0 and (hidden or not is_hidden(dimension))
        }
        for name, codes in zip(ids, table.value[: table.count].tolist(), strict=True)
    }


def computed(partition: SimulatedPartition) -> dict[str, dict[str, str]]:
    """What the rules in force say of every customer, from the facts alone."""
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


def stages(partition: SimulatedPartition) -> dict[tuple[str, str], tuple[str | None, int]]:
    """(customer, dimension) to value and since when, unless there never was a value."""
    table = partition.engine.table
    ids = table.slots.ids_of(np.arange(table.count))
    return {
        (name.decode(), dimension): (
            table.values[d][table.value[slot, d]] if table.value[slot, d] >= 0 else None,
            int(table.since_ms[slot, d]),
        )
        for slot, name in enumerate(ids)
        for d, dimension in enumerate(table.dimensions)
        if (table.value[slot, d], table.since_ms[slot, d]) != (-1, 0)
    }


def assert_chained(changes: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Numbers without a gap; each change begins where and not before the last ended; what they add up to."""
    assert [change["seq"] for change in changes] == list(range(1, len(changes) + 1))
    values: dict[str, dict[str, str]] = {}
    latest: dict[tuple[str, str], int] = {}
    for change in changes:
        assert not is_hidden(change["dimension"])
        mine = values.setdefault(change["customer_id"], {})
        assert change["from"] == mine.get(change["dimension"])
        assert change["from"] != change["to"]
        place = change["customer_id"], change["dimension"]
        assert change["effective_at"] >= latest.get(place, 0), change
        latest[place] = change["effective_at"]
        if change["to"] is None:
            del mine[change["dimension"]]
        else:
            mine[change["dimension"]] = change["to"]
    return values


def assert_told(partition: SimulatedPartition) -> None:
    """Changes and memberships say what the state does of what people are told of."""
    told = held(partition, hidden=False)
    assert assert_chained(partition.changes) == {name: told[name] for name in told if told[name]} | {
        name: {} for name in {c["customer_id"] for c in partition.changes} if not told[name]
    }
    assert {n: v for n, v in partition.values().items() if v} == {n: v for n, v in told.items() if v}


def answers(partition: SimulatedPartition) -> Counter[tuple[str, ...]]:
    """Every change, without what depends on where transactions end."""
    return Counter(tuple(str(change.get(name)) for name in ANSWERED) for change in partition.changes)


class Script:
    """The same edits and events for a partition that is never disturbed and one that is."""

    def __init__(self, seed: int, *, delays: bool) -> None:
        self.rng = rng = random.Random(seed)
        self.delays = delays
        self.rules = rules_of(rng, 8)
        self.key = rng.randbytes(16)
        text = first_version(self.rules)
        # Compiled once for both: that is what takes longest.
        self.versions = Versions([version(1, text)])
        options: dict[str, Any] = {"versions": self.versions, "new_fact_key": lambda: self.key}
        definition = self.versions.newest.definition
        self.quiet = SimulatedPartition(definition, **options)
        self.rough = SimulatedPartition(definition, bounds=Bounds(rows_max=2), **options)
        self.now, self.count = T0, 0
        self.texts = [text]

    def crash(self) -> bool:
        return self.rng.random() < 0.2

    def happen(self, entries: int) -> None:
        """Let the same things happen to both."""
        log = random_log(self.rng, entries, self.count, self.now)
        self.count += entries
        self.now = max(fields["at"] for type_name, _, fields in log if type_name == "Tick")
        for partition in (self.quiet, self.rough):
            write(partition, log)
        self.quiet.run(itertools.repeat(1_000))
        self.rough.run((self.rng.choice((1, 3, 20)) for _ in itertools.count()), self.crash)

    def apply(self, text: str) -> None:
        """Apply a file as the next version."""
        self.texts.append(text)
        self.versions.add(version(len(self.texts), text))

    def convert(self, slices: int) -> None:
        """Let one partition convert so many slices, and the other get as far with restarts among them."""
        self.quiet.convert(slices=slices)
        for _ in range(10_000):
            if _progress(self.quiet) == _progress(self.rough):
                break
            self.rough.convert(self.crash, slices=1)
        assert _progress(self.quiet) == _progress(self.rough)
        self.rough.crash()

    def compare(self) -> None:
        """Whatever was lost and done again, the same was told, and the same is known."""
        told = [answers(partition) for partition in (self.quiet, self.rough)]
        assert (told[0] - told[1], told[1] - told[0]) == ({}, {})
        known = [set(stages(partition).items()) for partition in (self.quiet, self.rough)]
        assert known[0] ^ known[1] == set()


def _progress(partition: SimulatedPartition) -> tuple[int, int, bool]:
    engine = partition.engine
    return engine.definition.version, engine.unconverted, engine.converting


def run_script(seed: int, *, delays: bool, after: Callable[[Script], None] = lambda script: None) -> Script:
    """Seven edits with events in between; each is converted wholly, partly or not before the next."""
    script = Script(seed, delays=delays)
    rng = script.rng
    script.happen(40)
    for _ in range(7):
        keeps = rng.random() < 0.8
        script.apply(random_version(rng, script.rules, delays=delays, keeps=keeps))
        script.convert(rng.choice((0, 1, 2, 1 << 30)))
        after(script)
        script.compare()
        script.happen(rng.randrange(0, 12))
        script.compare()
    script.happen(5)
    script.convert(1 << 30)
    script.compare()
    for partition in (script.quiet, script.rough):
        # After a restart a version that was refused is looked at once more.
        partition.convert()
        assert partition.engine.unconverted == 0 and not partition.engine.converting
        assert_told(partition)
    return script


@given(seed=st.integers(0, 10**9))
@settings(max_examples=4, deadline=None, phases=PHASES)
def test_everybody_ends_up_as_a_fresh_computation_says(seed: int) -> None:
    """Without delays: the state, the changes and the memberships are what the last definition in force says,
    computed anew, and what a partition says that read the whole log by nothing else."""
    script = run_script(seed, delays=False)
    partition = script.rough
    assert held(partition) == computed(partition)
    number = partition.engine.definition.version
    fresh = SimulatedPartition(load(script.texts[number - 1], "x").numbered(number))
    for record in partition.log:
        fresh.append(record.key, record.value)
    fresh.run(itertools.repeat(1_000))
    assert held(fresh) == held(partition)


@given(seed=st.integers(0, 10**9))
@settings(max_examples=4, deadline=None, phases=PHASES)
def test_with_delays_stages_are_kept_or_begin_afresh(seed: int) -> None:
    """With delays: restarts change nothing, and everybody is told all that the state says, in a chain."""
    run_script(seed, delays=True)


@given(seed=st.integers(0, 10**9), delays=st.booleans())
@settings(max_examples=4, deadline=None, phases=PHASES)
def test_a_conversion_is_what_its_plan_says_and_keeps_what_is_not_edited(seed: int, delays: bool) -> None:
    """From one settled state to the next: the moves of the plan, truth in what is edited, else waiting on."""
    script = Script(seed, delays=delays)
    rng, partition = script.rng, script.quiet
    script.happen(60)
    for _ in range(4):
        before, number = stages(partition), partition.engine.definition.version
        script.apply(random_version(rng, script.rules, delays=delays, keeps=True))
        count, versions = len(partition.changes), script.versions
        plan = plan_partition(partition._restored())
        script.convert(1 << 30)
        assert Counter(plan.moves) == Counter(
            (c["customer_id"], c["dimension"], c["from"], c["to"]) for c in partition.changes[count:]
        )
        engine = partition.engine
        assert engine.definition.version == len(script.texts) and engine.refusal is None
        edited = versions.edited(number, engine.definition.version)
        truth, now = computed(partition), held(partition)
        memberships = [engine.evaluator.dimensions[delay.membership] for delay in engine.evaluator.delays]
        for customer, values in truth.items():
            for dimension in engine.evaluator.dimensions:
                if dimension in edited or dimension not in memberships:
                    assert now[customer].get(dimension) == values.get(dimension), dimension
                else:
                    # What is waited for goes on, also where the truth turned by an edit of something else.
                    place = customer, dimension
                    assert stages(partition).get(place) == before.get(place)
        script.happen(12)
