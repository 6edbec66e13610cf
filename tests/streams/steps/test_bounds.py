"""What a transaction holds at most, whatever the log is made of; what a whale and a crowd cost."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.kafka.seam import Transaction
from streams.segments.loading import default_definition
from streams.steps import rounds
from streams.steps.room import Bounds
from tests.simulation import SimulatedPartition, stable
from tests.streams.steps.streams_of_events import DAY, T0, random_log

DEFINITION = default_definition()
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
SMALLEST = 1 << 16


def partition(bytes_max: int = 8 << 20, rows_max: int = 5_000, **options: Any) -> SimulatedPartition:
    """A partition with these bounds."""
    return SimulatedPartition(DEFINITION, bounds=Bounds(rows_max, bytes_max), **options)


def order(
    p: SimulatedPartition, customer: str, at: int, n: object, amount: int = 10_000, **more: Any
) -> None:
    """One order."""
    fields = {"event_id": f"e{n}", "occurred_at": at, "order_id": f"o{n}"}
    p.event("Purchased", customer, {**fields, "amount_minor": amount, "currency": "GBP", **more})


def size(transaction: Transaction) -> int:
    """Bytes of all keys and values."""
    pairs = [*transaction.rows, *transaction.changes, *transaction.memberships]
    pairs += [(letter.key or b"", letter.value) for letter in transaction.dead_letters]
    return sum(len(key) + len(value or b"") for key, value in pairs)


def customers(transaction: Transaction) -> int:
    """How many customers' head rows a transaction holds."""
    return sum(key[0] == 1 and key[-4:] == bytes(4) for key, _ in transaction.rows)


def traits_heavy(p: SimulatedPartition) -> None:
    """400 profiles of 8 KB in one chunk, of texts that grow when stored."""
    for n in range(400):
        text = ("ü\x01" * 60) if n % 2 else "x" * 120
        traits = {f"trait-{i}-{n % 3}": text for i in range(40)}
        fields = {"event_id": f"p{n}", "occurred_at": T0 + n, "traits": traits}
        p.event("ProfileUpdated", f"c{n % 150}", {**fields, "account_id": "a" * 256})
    p.tick(T0 + DAY)


def change_heavy(p: SimulatedPartition) -> None:
    """Orders and their full refunds in turn, a tick after each: every one moves a customer to and fro."""
    for n in range(600):
        customer, at = f"{n % 3}" + "c" * 200, T0 + n * 60_000
        order(p, customer, at, n, 200_000)
        p.tick(at)
        fields = {"event_id": f"r{n}" + "e" * 200, "occurred_at": at + 1, "refund_id": f"r{n}"}
        more = {"order_id": f"o{n}", "kind": "refund", "amount_minor": 200_000, "currency": "GBP"}
        p.event("Refunded", customer, {**fields, **more})
        p.tick(at + 1)


def deadline_heavy(p: SimulatedPartition) -> None:
    """200 customers with orders in a row, then two years of daily ticks: time alone moves them."""
    for n in range(2_000):
        order(p, f"c{n % 200}", T0 + n * 3_600_000, n, 40_000)
    for day in range(84, 800):
        p.tick(T0 + day * DAY)


def bad_heavy(p: SimulatedPartition) -> None:
    """Dead letters of 3 KB among orders."""
    for n in range(200):
        order(p, f"c{n % 9}", T0 + n, n)
        p.append(b"c", b"\x00" * 3_000)
    p.tick(T0 + DAY)


@pytest.mark.parametrize("fill", [traits_heavy, change_heavy, deadline_heavy, bad_heavy])
@pytest.mark.parametrize("bytes_max", [200_000, 500_000])
def test_no_transaction_is_larger_than_its_bound(fill: Any, bytes_max: int) -> None:
    """Bytes of keys and values, of everything in it; and the changes are those of one large transaction."""
    p, whole = partition(bytes_max), partition(1 << 40, 10**9)
    for each in (p, whole):
        fill(each)
        each.run(itertools.repeat(5_000))
    assert max(map(size, p.transactions)) <= bytes_max
    assert len(whole.transactions) < len(p.transactions)
    assert stable(p.changes) == stable(whole.changes)
    assert p.values() == whole.values()
    assert [d.offset for d in p.dead_letters] == [d.offset for d in whole.dead_letters]


@given(seed=st.integers(0, 10**9), chunk=st.sampled_from((20, 150, 1000)))
@settings(max_examples=30, phases=PHASES)
def test_the_bound_holds_for_any_log(seed: int, chunk: int) -> None:
    """Late, doubled, refunded, renamed, at the edges of windows: never beyond the smallest bound."""
    p = partition(SMALLEST)
    for type_name, customer, fields in random_log(random.Random(seed), 300, customers=40):
        p.tick(fields["at"]) if type_name == "Tick" else p.event(type_name, customer, fields)
    p.run(itertools.repeat(chunk))
    assert max(map(size, p.transactions)) <= SMALLEST


def test_ten_thousand_customers_due_in_one_second() -> None:
    """Two transactions of 5,000 at the most, each customer changed once; within 8 MiB."""
    p = partition(mode="wall")
    for n in range(10_000):
        fields = {"event_id": f"e{n}", "occurred_at": T0 + n // 10, "order_id": f"o{n}"}
        p.event(
            "Purchased", f"c{n}", {**fields, "amount_minor": 10_000, "currency": "GBP"}, timestamp=T0 + 1_000
        )
    p.run(itertools.repeat(5_000))
    before = len(p.transactions)
    while not p.engine.sweep(T0 + 30 * DAY + 1_000):
        p.commit()
    p.commit()
    swept = p.transactions[before:]
    assert max(map(customers, swept)) <= 5_000 and max(map(size, swept)) <= 8 << 20
    assert len(swept) <= 4
    moved = [c for c in p.changes if c["cause"] == "time_elapsed" and c["dimension"] == "rfm"]
    assert len(moved) == 10_000 == len({c["customer_id"] for c in moved})


def test_a_whale_of_100_000_events_costs_per_event_what_anyone_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many evaluations and calls for the last 10,000 events as for the first; rows do not grow."""
    calls: list[int] = []
    evaluate = rounds.Rounds._evaluate

    def counted(self: Any, who: Any, at: Any, now_ms: Any) -> Any:
        calls.append(len(who))
        return evaluate(self, who, at, now_ms)

    monkeypatch.setattr(rounds.Rounds, "_evaluate", counted)
    p = partition()
    costs = []
    # Within the window, so that nothing is folded away and the history is really that long.
    for part in range(10):
        for n in range(part * 10_000, (part + 1) * 10_000):
            order(p, "whale", T0 + n * 300_000, n, 100)
            if n % 100 == 99:
                p.tick(T0 + n * 300_000)
        began, written = len(calls), len(p.transactions)
        p.run(itertools.repeat(5_000))
        new = p.transactions[written:]
        costs.append((len(calls) - began, sum(calls[began:]), len(new), sum(map(size, new))))
    assert p.engine.table.facts_kept == 100_000
    first, last = costs[1], costs[-1]
    assert last[0] <= first[0] + 2 and last[1] <= first[1] + 2 and last[2] <= first[2]
    assert last[3] <= first[3] * 1.1


def test_a_backlog_is_worked_off_within_bounds() -> None:
    """60,000 events of 3,000 customers that waited: every transaction within rows and bytes."""
    p, rng = partition(mode="wall", bytes_max=1 << 20, rows_max=500), random.Random(3)
    for n in range(60_000):
        at = T0 + n * 20_000
        fields = {"event_id": f"e{n}", "occurred_at": at, "order_id": f"o{n}"}
        p.event(
            "Purchased", f"c{rng.randrange(3_000)}",
            {**fields, "amount_minor": 5_000, "currency": "GBP"}, timestamp=at,
        )  # fmt: skip
    p.run(itertools.repeat(5_000))
    assert p.engine.applied_offset == 60_000
    assert max(map(size, p.transactions)) <= 1 << 20
    assert max(map(customers, p.transactions)) <= 500
