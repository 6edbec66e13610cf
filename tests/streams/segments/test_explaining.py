"""An explanation against the evaluation itself, and what comes next against what time then does."""

from __future__ import annotations

import itertools
import random

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.explanation import as_json, as_text, explained_by
from streams.segments.conditions import And, Compare, Not, Or
from streams.segments.evaluate import Evaluator
from streams.segments.explaining import MEASURES, Explainer
from streams.segments.loading import default_definition
from tests.simulation import SimulatedPartition
from tests.streams.steps.streams_of_events import DAY, T0, random_log
from tests.streams.steps.test_conversion import BOUGHT, edit, partition_of, write
from tests.streams.steps.test_engine import purchase, tick

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


@given(seed=st.integers(0, 10**9))
@settings(max_examples=15, phases=PHASES)
def test_the_last_clause_decides_and_the_next_change_comes_when_it_says(seed: int) -> None:
    """Of every customer: the value is the evaluation's, all clauses but the last are false where one
    decides, and letting time pass makes exactly the next change that was foretold."""
    rng = random.Random(seed)
    partition = partition_of(random_log(rng, 80, customers=6))
    partition.run(itertools.repeat(50))
    engine = partition.engine
    table, explainer = engine.table, Explainer(engine.evaluator)
    foretold = {}
    for slot in range(table.count):
        told = explainer.explain(table, slot, engine.clock_ms)
        codes = table.value[slot].tolist()
        assert [each.value for each in told] == [
            table.values[d][code] if code >= 0 else None for d, code in enumerate(codes)
        ]
        lifecycle = told[1].clauses
        assert [clause.holds for clause in lifecycle] == [False] * (len(lifecycle) - 1) + [True]
        assert lifecycle[-1].text.startswith(f"{told[1].value}: ")
        for coming in explainer.coming(table, slot, engine.clock_ms):
            foretold[table.slots.id_of(slot).decode(), coming.dimension] = coming
    count = len(partition.changes)
    # A value that comes and goes between two ticks is none; at a tick of its own it shows.
    write(partition, [tick(at_ms) for at_ms in sorted({c.at_ms for c in foretold.values()})])
    partition.run(itertools.repeat(50))
    first = {}
    for change in partition.changes[count:]:
        first.setdefault((change["customer_id"], change["dimension"]), change)
    assert {key: (c["from"], c["to"], c["effective_at"]) for key, c in first.items()} == {
        key: (c.before, c.after, c.at_ms) for key, c in foretold.items()
    }


def card_text(partition: SimulatedPartition, customer: str, at_ms: int | None = None) -> str:
    """What an operator reads of a customer."""
    found = explained_by(partition.engine, customer, at_ms)
    assert found is not None
    return as_text(found)


def test_figures_edges_and_the_cell_are_in_the_text() -> None:
    """One order of 60.00, 20 days ago: why R is 5, F and M are 1, and which name that makes."""
    partition = partition_of([purchase("a", T0, 6_000), tick(T0 + 20 * DAY)])
    partition.run(itertools.repeat(50))
    text = card_text(partition, "c")
    for line in (
        "rfm: new since 2020-09-13 12:26:40 UTC",
        "  no  prospect: not: has bought",
        "  yes R 5: time since the last order is 20d, under 30d, until 2020-10-13 12:26:40 UTC at least",
        "  yes F 1: orders(365d) is 1, under 2",
        "  yes M 1: net(365d) is 60.00 GBP, under 100.00 GBP",
        "  yes F + M = 2 is column FM1 of the grid, cell R5 FM1",
        "  next: promising at 2020-10-13 12:26:40 UTC, if nothing else happens",
        "  no  churned: time since the last order >= 180d (it is 20d)",
        "  no  reactivated: an order within 30d after 180d without one",
        "  yes new: time since the first order < 30d (it is 20d)",
    ):
        assert line in text, text
    told = as_json(explained_by(partition.engine, "c"))  # type: ignore[arg-type]  # Known to be there.
    assert told["dimensions"]["rfm"]["next"]["value"] == "promising"
    assert told["dimensions"]["lifecycle"]["clauses"][-1]["holds"] is True
    assert explained_by(partition.engine, "nobody") is None


def test_another_instant_is_judged_by_the_facts_up_to_then() -> None:
    """Before the second order, between, and in days to come; what is stored is not said to be of then."""
    partition = partition_of(
        [purchase("a", T0, 6_000), purchase("b", T0 + 40 * DAY, 6_000), tick(T0 + 50 * DAY)]
    )
    partition.run(itertools.repeat(50))
    before = card_text(partition, "c", T0 + 35 * DAY)
    assert "orders(365d) is 1" in before and "rfm: promising\n" in before
    now = card_text(partition, "c")
    assert "orders(365d) is 2" in now and "note:" not in now
    later = card_text(partition, "c", T0 + 300 * DAY)
    assert "lifecycle: churned\n" in later and "note: that is to come" in later


def test_a_customer_that_waits_for_its_conversion_is_said_to() -> None:
    """The clauses are the new version's, and a note says that the stored values are not."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    edit(partition, ("    potential_loyalist: ", "    stars: "))
    partition.convert(slices=0)
    partition.engine.convert()
    partition.engine.table.evaluated_by[5] = 1
    partition.engine.table.value[5, 0] = 0
    name = partition.engine.table.slots.id_of(5).decode()
    assert "note: its stored values are those of definition 1" in card_text(partition, name)


def nodes_of(node: object) -> set[type]:
    """Every condition and measure a node is made of."""
    found: set[type] = set()
    parts = vars(node).values()
    for part in itertools.chain(parts, *(each for each in parts if isinstance(each, tuple))):
        if isinstance(part, tuple):
            for each in part:
                if hasattr(each, "windows"):
                    found |= {type(each)} | nodes_of(each)
        elif hasattr(part, "windows"):
            found |= {type(part)} | nodes_of(part)
    return found


def test_every_node_of_a_definition_is_described() -> None:
    """No node is told by the name of its class: it has words of its own."""
    evaluator = Evaluator(default_definition())
    described = {*MEASURES, *Explainer(evaluator)._clauses}
    structural = {"Lookup", "FirstMatch", "Bands", "Band"}
    used = set().union(*(nodes_of(node) for node in evaluator.nodes()))
    assert {each.__name__ for each in used - described} <= structural
    assert {Compare, And, Not} <= used | {Or}
