"""What a piece of work adds at most, said before it is applied: never too little, and hardly too much."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.segments.definition import Definition
from streams.segments.loading import default_definition
from streams.steps.partition_state import PARTITION_ROW_BYTES_MAX
from streams.steps.room import Bounds, Room
from tests.simulation import SimulatedPartition
from tests.streams.segments.custom import defined
from tests.streams.steps.streams_of_events import DAY, T0, random_log
from tests.streams.steps.test_bounds import deadline_heavy, size
from tests.streams.steps.test_series_steps import random_log as log_of_all_types

DEFINITION = default_definition()
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


CUSTOM = defined(
    """
traits:
  contract_end: timestamp
segments:
  again: {when: orders(3d) >= 2, dwell_enter: 5h, dwell_exit: 2d, cooldown: 4d}
  quiet: {when: days_since(last()) > 2, dwell_enter: 1d}
  fresh: {when: tenure < 9d}
  paid: {when: net(5d) > 20, state: shadow}
  books: {when: 'spend(4d where category == "books") > 5'}
  skus: {when: 'distinct(sku, 3d) >= 2'}
  exports: {when: 'count("export", 6d where format == "csv") >= 2', dwell_exit: 6h}
  rows: {when: 'avg("export", rows, 2d) >= 2 or sum("export", rows, 7d) > 5'}
  active: {when: days_active(3d) >= 2}
  stale: {when: days_since("login") > 1}
  ending: {when: days_until(contract_end) < 7}
  trial: {when: days_until(trial_ends_at) < 2}
  renewing: {when: mrr >= 5 and not has(renews_at)}
  rated: {when: 'rating(3d) >= 4 and tickets(2d) >= 1 or close_time(5d) < 2'}
  spring: {when: 'orders(ever) >= 1', valid_from: 2020-09-15T00:00:00Z, valid_until: 2020-09-25T00:00:00Z}
dimensions:
  worth:
    values:
      gold: spend(2d) >= 40
      silver: spend(6d) >= 20
    otherwise: bronze
"""
)


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


def unbounded(definition: Definition = DEFINITION) -> SimulatedPartition:
    """A partition that never has to cut anything, so that a bound stands for each piece applied."""
    return SimulatedPartition(definition, bounds=Bounds(10**9, 1 << 50))


@given(seed=st.integers(0, 10**9), chunk=st.sampled_from((1, 7, 60, 1000)))
@settings(max_examples=25, phases=PHASES)
def test_custom_rules_add_no_more_than_their_bound(seed: int, chunk: int) -> None:
    """Windows and ages of orders, series, traits, subscriptions and tickets; delays; time passing by."""
    rng, p = random.Random(seed), unbounded(CUSTOM)
    names_bytes = sum(6 * len(series.key.encode()) + 32 for series in CUSTOM.series) + 200
    log = log_of_all_types(rng, 150)
    for type_name, customer, fields in log:
        if type_name == "Tick":
            # Rare ones, so that one piece holds many instants.
            if rng.random() < 0.3:
                p.tick(fields["at"])
            continue
        if "traits" in fields:
            ends = ("shoal.events.Instant", {"at": fields["occurred_at"] + rng.randrange(9) * DAY})
            fields = {**fields, "traits": {"contract_end": ends}}
        p.event(type_name, customer, fields)
    now = max(fields.get("at", fields.get("occurred_at")) for _, _, fields in log)
    for _ in range(30):
        now += rng.choice((3_600_000, DAY // 2, DAY, 3 * DAY))
        p.tick(now)
    pairs = recorded(p, chunk)
    assert {change["dimension"] for change in p.changes} > {"worth", "lifecycle"}
    for bound, held in pairs:
        assert held <= bound + names_bytes


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


MONEY = {"amount_minor": 4_000, "currency": "GBP"}
LINES = [{"sku": "s", "category": "books", "quantity": 1, "unit_price_minor": 4_000}]
ENDS = ("shoal.events.Instant", {"at": T0 + 58 * DAY})


@pytest.mark.parametrize(
    ("rule", "type_name", "fields"),
    [
        ("orders({n}d) >= 1", "Purchased", {"order_id": "o", **MONEY}),
        ("refunds({n}d) > 0", "Refunded", {"refund_id": "r", "kind": "refund", **MONEY}),
        ("days_since(last()) < {n}", "Purchased", {"order_id": "o", **MONEY}),
        ("tenure < {n}d", "Purchased", {"order_id": "o", **MONEY}),
        (
            'orders({n}d where category == "books") >= 1',
            "Purchased",
            {"order_id": "o", **MONEY, "items": LINES},
        ),
        ('count("login", {n}d) >= 1', "Activity", {"name": "login"}),
        ('days_since("login") < {n}', "Activity", {"name": "login"}),
        ("days_active({n}d) >= 1", "Activity", {"name": "login"}),
        ("days_until(contract_end) < {n}", "ProfileUpdated", {"traits": {"contract_end": ENDS}}),
        (
            "days_until(trial_ends_at) < {n}",
            "PlanChanged",
            {"subscription_id": "s", "change": "trial_started", "trial_ends_at": ENDS[1]["at"]},
        ),
        ("tickets({n}d) >= 1", "TicketChanged", {"ticket_id": "t", "change": "opened"}),
    ],
)
@pytest.mark.parametrize("apart", [True, False], ids=["known before", "in the piece"])
def test_every_span_of_every_kind_of_rule_is_in_the_bound(
    rule: str, type_name: str, fields: dict[str, Any], apart: bool
) -> None:
    """One fact, 24 instants at which ten dimensions change because of it, and nothing else happens."""
    cases = "".join(f"      v{n}: {rule.format(n=n)!r}\n" for n in range(8, 56, 2))
    dimensions = "".join(f"  d{n}:\n    values:\n{cases}    otherwise: none\n" for n in range(10))
    definition = defined(f"traits:\n  contract_end: timestamp\ndimensions:\n{dimensions}")
    p = unbounded(definition)
    p.event(type_name, "ann", {"event_id": "e", "occurred_at": T0, **fields})
    p.tick(T0 + 1)
    for day in range(1, 60):
        p.tick(T0 + day * DAY + 1)
    room = RecordingRoom(p.engine._room)
    p.engine._room = room  # type: ignore[assignment]  # it stands in for what the engine asks of it
    p.run(itertools.chain([2] if apart else [], itertools.repeat(1_000)))
    assert sum(change["dimension"] == "d3" for change in p.changes) >= 24
    for bound, transaction in zip(room.bounds, p.transactions, strict=True):
        names_bytes = sum(6 * len(series.key.encode()) + 32 for series in definition.series)
        assert size(transaction) <= bound + PARTITION_ROW_BYTES_MAX + names_bytes
