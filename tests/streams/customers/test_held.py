"""What customers are and were: as an array of every dimension, and in no more bytes than they hold values."""

from __future__ import annotations

import random

import numpy as np
import pytest

from streams.customers.held import HeldValues, Values
from tests.simulation import SimulatedPartition
from tests.streams.segments.custom import segments
from tests.streams.steps.streams_of_events import DAY, T0

LITERALS = (("a", "b", "c"), ("in",), ("x", "y"), *((f"s{n}",) for n in range(30)))


@pytest.mark.parametrize("seed", range(5))
def test_what_is_put_is_found(seed: int) -> None:
    """Random values, in and out again, single numbers and all; beside a plain array."""
    rng, draws = random.Random(seed), np.random.default_rng(seed)
    held, count, shape = HeldValues(LITERALS), 40, (40, len(LITERALS))
    held.hold(count)
    plain = Values(np.full(shape, -1, np.int16), np.zeros(shape, np.int64), np.zeros(shape, np.int64))
    for step in range(1, 60):
        slots = np.array(rng.sample(range(count), rng.randrange(1, count)), np.int64)
        now = held.take(slots)
        turned = draws.random(now.value.shape) < 0.05
        most = np.array([len(texts) for texts in LITERALS])
        now.value[turned] = np.where(now.value < 0, draws.integers(0, most, now.value.shape), -1)[turned]
        now.since_ms[turned] = step
        held.put(slots, now)
        plain.value[slots], plain.since_ms[slots] = now.value, now.since_ms
        row, dimension = turned.nonzero()
        seqs = step * 1_000 + np.arange(len(row))
        held.number(slots[row], dimension, seqs)
        plain.seq[slots[row], dimension] = seqs
        if rng.random() < 0.2:
            gone = rng.randrange(count)
            held.clear(gone)
            plain.value[gone], plain.since_ms[gone], plain.seq[gone] = -1, 0, 0
    everybody = np.arange(count)
    found = held.take(everybody)
    assert (found.value == plain.value).all() and (found.since_ms == plain.since_ms).all()
    assert (found.seq == plain.seq).all()
    entries = held.entries(everybody)
    assert len(entries.row) == ((plain.value >= 0) | (plain.since_ms != 0)).sum()
    assert (plain.value[entries.row, entries.dimension] == entries.value).all()
    members = held.members(count, LITERALS)
    assert members == [
        [int((plain.value[:, d] == c).sum()) for c in range(len(t))] for d, t in enumerate(LITERALS)
    ]
    order = rng.sample(range(len(LITERALS)), 20)
    other, kept = HeldValues([LITERALS[d] for d in order]), [(d, LITERALS[d]) for d in order]
    other.hold(count)
    other.take_over(held, count, kept, [LITERALS[d] for d in order])
    assert (other.take(everybody).value == plain.value[:, order]).all()


def test_who_is_in_no_segment_costs_the_same_however_many_there_are() -> None:
    """The row and the arrays of a customer with 20 and with 200 segments declared, and none of them true."""
    rows, sizes = [], []
    for count in (20, 200):
        definition = segments(**{f"segment_{n:03}": f"orders(90d) >= {n + 5}" for n in range(count)})
        p = SimulatedPartition(definition)
        for n in range(50):
            fields = {"event_id": f"e{n}", "order_id": f"o{n}", "occurred_at": T0 + n, "amount_minor": 100}
            p.event("Purchased", f"customer-{n}", {**fields, "currency": "GBP"})
        p.tick(T0 + DAY)
        p.run(iter(lambda: 100, None))
        rows.append(sorted(len(value) for key, value in p.changelog.items() if key[0] == 1))
        sizes.append(p.engine.table.state_bytes()["columns"])
    assert rows[0] == rows[1]
    assert sizes[0] == sizes[1]
