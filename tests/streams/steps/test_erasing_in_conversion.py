"""Customers erased while a changed definition is being taken on: nobody leaves twice, nobody stays."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow
from streams.kafka.seam import Chunk
from streams.segments.evaluate import Evaluator
from streams.steps import conversion
from streams.steps.epochs import is_settled
from streams.steps.room import Bounds
from tests.simulation import SimulatedPartition
from tests.streams.segments.custom import with_sections
from tests.streams.segments.edits import TEXT, Changing, edited, version
from tests.streams.steps.erasure_oracle import with_erasures, write
from tests.streams.steps.streams_of_events import DAY, T0, Entry, random_log
from tests.streams.steps.test_conversion import (
    assert_chained,
    computed,
    edit,
    held,
    partition_of,
)
from tests.streams.steps.test_engine import purchase, tick
from tests.streams.steps.test_epochs import claim_of, publish
from tests.streams.steps.test_epochs import partition_of as of_epoch_one

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
NAMES = [f"c{n}" for n in range(12)]


def erased(customer: str, at: int) -> Entry:
    """One erasure."""
    return "Erased", customer, {"event_id": f"x{customer}", "occurred_at": at}


def bought() -> list[Entry]:
    """Everybody with one order of 100.00, and a tick."""
    orders = [(kind, name, fields) for name in NAMES for kind, _, fields in [purchase(f"o{name}", T0)]]
    return [*orders, tick(T0 + DAY)]


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "SLICE_CUSTOMERS_MAX", 3)


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("crash", [False, True])
def test_who_is_erased_before_its_slice_leaves_what_it_held(crash: bool) -> None:
    """From the old values, for erasure, once; the conversion then finds nobody there."""
    p = partition_of(bought())
    p.run(itertools.repeat(100))
    edit(p, ("    new: ", "    fresh: "))
    p.convert(slices=2)
    stale = [name for name, values in held(p).items() if values.get("rfm") == "new"]
    done = [name for name, values in held(p).items() if values.get("rfm") == "fresh"]
    assert len(stale) > 2 and len(done) > 2
    write(p, [erased(stale[0], T0 + 2 * DAY), erased(done[0], T0 + 2 * DAY), tick(T0 + 3 * DAY)])
    p.run(itertools.repeat(100))
    if crash:
        p.crash()
    p.convert()
    left = [(c["customer_id"], c["dimension"], c["from"], c["cause"]) for c in p.changes if c["to"] is None]
    assert sorted(left) == sorted(
        (name, dimension, before, "erasure")
        for name, rfm in ((stale[0], "new"), (done[0], "fresh"))
        for dimension, before in (("rfm", rfm), ("lifecycle", "new"))
    )
    assert not {stale[0], done[0]} & held(p).keys() - {""}
    assert {values["rfm"] for name, values in held(p).items() if name} == {"fresh"}
    assert not p.engine.converting and p.engine.unconverted == 0


@pytest.mark.usefixtures("small_slices")
@pytest.mark.parametrize("state", ["shadow", "draft", None])
def test_a_segment_that_is_being_hidden_or_removed_is_left_once(state: str | None) -> None:
    """By the conversion or by the erasure, whichever comes first, and never by both."""
    rules = "segments:\n  buyers:\n    when: orders(30d) >= 1\n"
    after = "" if state is None else f"{rules}    state: {state}\n"
    first = version(1, with_sections(rules))
    versions = Changing(only=Evaluator(first.definition()))
    p = write(SimulatedPartition(first.definition(), versions=versions), bought())
    p.run(itertools.repeat(100))
    versions.add(version(2, with_sections(after)))
    p.convert(slices=2)
    write(p, [*(erased(name, T0 + 2 * DAY) for name in NAMES[:6]), tick(T0 + 3 * DAY)])
    p.run(itertools.repeat(4))
    p.convert()
    exits = Counter(c["customer_id"] for c in p.changes if c["dimension"] == "buyers" and c["to"] is None)
    assert exits == dict.fromkeys(NAMES, 1)
    causes = {
        (c["customer_id"], c["cause"]) for c in p.changes if c["dimension"] == "buyers" and c["to"] is None
    }
    assert {cause for name, cause in causes if name in NAMES[6:]} == {"rule_changed"}
    assert {cause for name, cause in causes if name in NAMES[:6]} == {"rule_changed", "erasure"}
    assert_chained(p.changes)
    assert p.memberships.keys() == {name.encode() for name in NAMES[6:]}


def test_who_was_erased_stays_so_when_an_empty_partition_takes_on_a_definition() -> None:
    """Of nobody everything is known, whatever a new definition asks; but markers stay."""
    p = partition_of([erased("c1", T0 + DAY), tick(T0 + DAY)])
    p.run(itertools.repeat(10))
    edit(p, ("    new: ", "    fresh: "))
    p.convert()
    kind, _, fields = purchase("o1", T0)
    write(p, [(kind, "c1", fields), tick(T0 + 2 * DAY)])
    p.run(itertools.repeat(10))
    assert p.changes == [] and p.engine.counts["erased"] == 1


@pytest.mark.timeout(900)
@pytest.mark.usefixtures("small_slices")
@given(seed=st.integers(0, 10**9))
@settings(max_examples=25, phases=PHASES)
def test_erasures_conversions_and_crashes_in_any_order(seed: int) -> None:
    """Changes, memberships and state say the same: what the definition in force says of what is left."""
    rng = random.Random(seed)
    p = partition_of([])
    log = with_erasures(rng, random_log(rng, 120, customers=9), share=0.15)
    cuts = sorted(rng.sample(range(1, len(log)), 3))
    for number, (start, end) in enumerate(itertools.pairwise([0, *cuts, len(log)])):
        write(p, log[start:end])
        p.run((rng.choice((1, 5, 40)) for _ in itertools.count()), crash=lambda: rng.random() < 0.1)
        if number < 3:
            assert p.versions is not None
            p.versions.add(version(p.versions.newest_number + 1, edited(rng)))
            p.convert(crash=lambda: rng.random() < 0.2, slices=rng.choice((0, 1, 2, 9)))
    p.convert(crash=lambda: rng.random() < 0.2)
    write(p, [tick(T0 + 4_000 * DAY)])
    p.run(itertools.repeat(50))
    p.convert()
    p.crash()
    expected = computed(p)
    assert held(p) == expected and not p.engine.converting
    assert p.values() == {name: values for name, values in expected.items() if values}
    added_up = assert_chained(p.changes)
    assert {name: values for name, values in added_up.items() if values} == p.values()


@pytest.mark.parametrize("commits", [False, True])
def test_whom_only_a_rebuild_knows_is_erased_like_anybody(commits: bool) -> None:
    """Before its slice, nobody told of it yet: no row stays, and whoever gets its slot inherits nothing."""
    first, then = (TEXT.replace("window: 365d", f"window: {days}d") for days in (100, 365))
    early = purchase("early", T0 - 250 * DAY)
    log = [purchase("a", T0), tick(T0), ("Purchased", "late", early[2]), tick(T0 + DAY)]
    p = of_epoch_one(log, first)
    p.run(itertools.repeat(9))
    claim = claim_of(then, 2, 2)
    p.rebuild(claim, until=len(log))
    publish(p, claim)
    p.crash()
    if commits:
        p.commit()
        p.crash()
    write(p, [erased("late", T0 + 2 * DAY)])
    p.run(itertools.repeat(9))
    other = purchase("other", T0 + 2 * DAY, 100)
    write(p, [("Purchased", "new", other[2]), tick(T0 + 3 * DAY)])
    p.run(itertools.repeat(9))
    p.convert()
    assert not [key for key in p.changelog_of(2) if b"late" in key]
    assert {c["facts"]["orders"] for c in p.changes if c["customer_id"] == "new"} == {1}
    p.crash()
    assert "late" not in held(p)


def test_nobody_is_judged_by_what_an_erasure_has_left_so_far() -> None:
    """The pages of a whale go before it does; killed then, an edit waits until it is gone."""
    orders = [("Purchased", "whale", purchase(f"o{n}", T0 + n * 1_000, 100)[2]) for n in range(9_600)]
    p = partition_of([*orders, tick(T0 + 10 * DAY)], bounds=Bounds(rows_max=50, bytes_max=5_000))
    p.run(itertools.repeat(500))
    count = len(p.changes)
    write(p, [erased("whale", T0 + 11 * DAY)])
    start = p.engine.applied_offset
    work = p.engine.begin(Chunk(start, p.log[start:], len(p.log), 0))
    assert not p.engine.advance(work)
    p.commit()
    p.crash()
    text = with_sections("segments:\n  few: {when: orders(365d) < 9000}\n")
    assert p.versions is not None
    p.versions.add(version(2, text))
    row = PartitionRow.decode(p.changelog[PARTITION_ROW_KEY])
    assert row.erasing and not is_settled(row) and not p.engine.converting
    p.convert()
    p.run(itertools.repeat(50))
    p.convert()
    assert p.engine.definition.version == 2
    p.crash()
    assert held(p) == {}
    told = [(c["dimension"], c["to"], c["cause"]) for c in p.changes[count:]]
    assert sorted(told) == [("lifecycle", None, "erasure"), ("rfm", None, "erasure")]
