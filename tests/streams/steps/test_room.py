"""What a piece of work adds at most, said before it is applied: never too little, and hardly too much."""

from __future__ import annotations

import itertools
import random
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.segments.loading import default_definition
from streams.steps.engine import PARTITION_ROW_BYTES_MAX, Bounds
from streams.steps.room import Room
from tests.simulation import SimulatedPartition
from tests.streams.steps.streams_of_events import DAY, T0, random_log
from tests.streams.steps.test_bounds import deadline_heavy, size

DEFINITION = default_definition()
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


class RecordingRoom:
    """A room that asks for the loose bound and, as if that did not fit, for the tight one."""

    def __init__(self, room: Room) -> None:
        self._room, self.bounds = room, list[int]()

    def piece_bytes(self, *args: Any) -> int:
        """Answer with the tight bound, and remember it."""
        loose = self._room.piece_bytes(*args[:-1], 1 << 60)
        tight = self._room.piece_bytes(*args[:-1], loose - 1)
        self.bounds.append(min(loose, tight))
        return self.bounds[-1]


def recorded(p: SimulatedPartition, chunk: int) -> list[tuple[int, int]]:
    """Run a partition; return what each of its transactions was to hold at most, and held."""
    room = RecordingRoom(p.engine._room)
    p.engine._room = room  # type: ignore[assignment]  # it stands in for what the engine asks of it
    pairs, take = [], p.engine.take

    def taken() -> Any:
        transaction = take()
        pairs.append((sum(room.bounds) + PARTITION_ROW_BYTES_MAX, size(transaction)))
        room.bounds.clear()
        return transaction

    p.engine.take = taken  # type: ignore[method-assign]  # to know which pieces a transaction holds
    p.run(itertools.repeat(chunk))
    return pairs


def unbounded() -> SimulatedPartition:
    """A partition that never has to cut anything, so that a bound stands for each piece applied."""
    return SimulatedPartition(DEFINITION, bounds=Bounds(10**9, 1 << 50))


@given(seed=st.integers(0, 10**9), chunk=st.sampled_from((1, 7, 60, 1000)))
@settings(max_examples=40, phases=PHASES)
def test_no_piece_adds_more_than_its_bound(seed: int, chunk: int) -> None:
    """Loose or tight, for logs that are late, doubled, refunded, and at the edges of every span."""
    p = unbounded()
    for type_name, customer, fields in random_log(random.Random(seed), 300, customers=8):
        p.tick(fields["at"]) if type_name == "Tick" else p.event(type_name, customer, fields)
    for bound, held in recorded(p, chunk):
        assert held <= bound


@given(seed=st.integers(0, 10**9))
@settings(max_examples=20, phases=PHASES)
def test_time_alone_adds_no_more_than_its_bound(seed: int) -> None:
    """Days and weeks between ticks, after orders that were cancelled, found late, or contradicted."""
    rng, p = random.Random(seed), unbounded()
    for type_name, customer, fields in random_log(rng, 120, customers=3):
        if type_name != "Tick":
            p.event(type_name, customer, fields)
        if rng.random() < 0.2:
            p.tick(fields.get("at", fields.get("occurred_at")))
    now = T0 + 200 * DAY
    for _ in range(60):
        now += rng.choice((DAY // 2, DAY, 9 * DAY, 31 * DAY))
        p.tick(now)
    for bound, held in recorded(p, 1000):
        assert held <= bound


def test_two_years_of_deadlines_in_one_piece_are_within_its_bound() -> None:
    """200 customers, each moved by time alone again and again: what facts bring is the least of it."""
    p = unbounded()
    deadline_heavy(p)
    for bound, held in recorded(p, 5_000):
        assert held <= bound


def test_the_tight_bound_is_within_six_times_what_is_written() -> None:
    """A chunk of 2,000 orders among 40 ticks, as a backlog is read: loose bounds cut it for nothing."""
    p, rng = unbounded(), random.Random(5)
    for n in range(12_000):
        at = T0 + n * 600_000
        fields = {"event_id": f"event-{n}", "occurred_at": at, "order_id": f"order-{n}"}
        amount = {"amount_minor": rng.randrange(20_000), "currency": "GBP"}
        p.event("Purchased", f"customer-{int(800 * rng.random() ** 2)}", {**fields, **amount})
        if n % 50 == 49:
            p.tick(at)
    pairs = recorded(p, 2_000)
    bound, held = map(sum, zip(*pairs[2:], strict=True))
    assert bound <= 6 * held
