"""All conditions at once say what each says by itself, in so many steps as there are measures."""

from __future__ import annotations

import random

import numpy as np
import pytest

from benchmarks.many_segments import definition_text
from streams.segments.definition import Definition
from streams.segments.loading import load
from streams.segments.measures import Count
from streams.segments.view import FAR_MS, View
from streams.steps.engine import PartitionEngine
from tests.simulation import SimulatedPartition
from tests.streams.steps.streams_of_events import DAY
from tests.streams.steps.test_room import CUSTOM
from tests.streams.steps.test_series_steps import random_log


def many(count: int) -> Definition:
    return load(definition_text(count), "segments.yaml")


def engine_of(definition: Definition, seed: int) -> PartitionEngine:
    """An engine whose customers have done all kinds of things."""
    p = SimulatedPartition(definition)
    for type_name, customer, fields in random_log(random.Random(seed), 300):
        if type_name == "Tick":
            p.tick(fields["at"])
        else:
            p.event(type_name, customer, fields)
    p.run(iter(lambda: 50, None))
    return p.engine


@pytest.mark.parametrize("definition", [CUSTOM, many(200)], ids=["every kind of rule", "200 segments"])
def test_the_panel_says_what_the_nodes_say(definition: Definition) -> None:
    """Values and deadlines of every condition, at instants before, within and after what happened."""
    held = 0
    for seed in range(6):
        engine = engine_of(definition, seed)
        table, evaluator = engine.table, engine.evaluator
        slots = np.arange(table.count).repeat(40)
        rng = random.Random(seed)
        now_ms = np.array([engine.clock_ms + rng.randrange(-30 * DAY, 400 * DAY) for _ in slots], np.int64)
        together, alone = (evaluator.view(table, slots, now_ms) for _ in range(2))
        truths, due_ms = evaluator.panel.evaluate(together)
        assert (truths == [alone.value(node) for node in evaluator.segments]).all()
        dues = [alone.due(node) for node in evaluator.segments if not node.timeless]
        assert np.minimum(due_ms, FAR_MS).tolist() == np.minimum(np.min(dues, axis=0), FAR_MS).tolist()
        held += int(truths.sum())
    assert held > 1_000


def test_a_measure_is_worked_out_once_whatever_it_is_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 segments search each series once, and count orders in a window once for all thresholds."""
    searched: list[str] = []
    counted: list[Count] = []
    search, count = View._search, Count.evaluate
    monkeypatch.setattr(View, "_search", lambda self, key: (searched.append(key), search(self, key))[1])
    monkeypatch.setattr(Count, "evaluate", lambda self, view: (counted.append(self), count(self, view))[1])
    measures = []
    for segments in (20, 200):
        engine = engine_of(many(segments), 1)
        searched.clear(), counted.clear()
        slots = np.arange(engine.table.count)
        engine.evaluator.evaluate(engine.table, slots, np.full(len(slots), engine.clock_ms))
        assert len(searched) == len(set(searched)) == 2 + len(engine.definition.series)
        assert len(counted) == len({each.window for each in counted})
        measures.append(engine.evaluator.panel.comparisons)
    # Ten times the segments ask for half as many measures again.
    assert measures[1] <= 2 * measures[0]
