"""What transactions say of themselves adds up to what was in the log and what came out."""

from __future__ import annotations

import itertools
import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from streams.segments.loading import default_definition
from streams.steps.room import Bounds
from tests.simulation import SimulatedPartition
from tests.streams.steps.streams_of_events import DAY, T0, random_log


def filled(seed: int, entries: int, **options: object) -> SimulatedPartition:
    """A partition whose log holds a random history, none of it applied."""
    partition = SimulatedPartition(default_definition(), **options)  # type: ignore[arg-type]  # Checked there.
    for type_name, customer, fields in random_log(random.Random(seed), entries):
        if type_name == "Tick":
            partition.tick(fields["at"])
        else:
            partition.event(type_name, customer, fields)
    return partition


def events(partition: SimulatedPartition) -> Counter[tuple[str, str]]:
    """Events by (type, result), over all committed transactions."""
    return sum((transaction.tally.events for transaction in partition.transactions), Counter())


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1 << 32), size=st.integers(1, 40), rows_max=st.integers(1, 6), kills=st.integers(0, 4)
)
def test_every_event_and_change_is_counted_once(seed: int, size: int, rows_max: int, kills: int) -> None:
    """However the log is cut, and though crashes make work be done again, the committed counts add up."""
    partition = filled(seed, 60, bounds=Bounds(rows_max=rows_max))
    crashes = iter([False, True] * kills)
    partition.run(itertools.repeat(size), lambda: next(crashes, False))
    sent = [record for record in partition.log if not (record.key or b"").isdigit()]
    counted = events(partition)
    assert counted.total() + len(partition.dead_letters) == len(sent)
    assert {result for _, result in counted} <= {"applied", "duplicate", "too_old"}
    changes = sum((transaction.tally.changes for transaction in partition.transactions), Counter())
    names = ("dimension", "change", "cause", "origin")
    assert changes == Counter(tuple(change[name] for name in names) for change in partition.changes)


def test_events_are_counted_under_their_type_and_what_became_of_them() -> None:
    """Applied, known already, too old for a known customer and for a stranger: each is told apart."""
    partition = SimulatedPartition(default_definition())
    order = {"event_id": "e", "occurred_at": T0, "order_id": "o", "amount_minor": 1, "currency": "GBP"}
    ancient = {**order, "order_id": "old", "occurred_at": T0 - 400 * DAY}
    partition.event("SignedUp", "c", {"event_id": "s", "occurred_at": T0})
    partition.event("Purchased", "c", order)
    partition.event("Purchased", "c", order)
    partition.tick(T0 + DAY)
    partition.event("Purchased", "c", ancient)
    partition.event("Purchased", "stranger", ancient)
    partition.event("Purchased", "c", {**order, "order_id": "", "event_id": "x"})
    partition.run(itertools.repeat(3))
    assert events(partition) == {
        ("SignedUp", "applied"): 1,
        ("Purchased", "applied"): 1,
        ("Purchased", "duplicate"): 1,
        ("Purchased", "too_old"): 2,
    }
    assert len(partition.dead_letters) == 1


def test_ages_and_latencies_are_kept_with_the_wall_clock_only() -> None:
    """In a replay they would tell the age of the archive."""
    for mode, kept in (("event", 0), ("wall", 1)):
        partition = SimulatedPartition(default_definition(), mode=mode)  # type: ignore[arg-type]  # Literals.
        partition.event("SignedUp", "c", {"event_id": "s", "occurred_at": T0}, timestamp=T0 + 1000)
        if mode == "event":
            partition.tick(T0 + 1000)
        partition.run(itertools.repeat(10))
        tallies = [transaction.tally for transaction in partition.transactions]
        assert sum(len(column) for tally in tallies for column in tally.age_ms) == kept
        effective = [(cause, at.tolist()) for tally in tallies for cause, at in tally.effective_at_ms]
        assert effective == ([("event", [T0, T0])] if kept else [])
