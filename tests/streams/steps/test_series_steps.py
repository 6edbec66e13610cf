"""Activities, lines of orders, subscriptions and tickets through the engine: seen exactly as of each tick."""

from __future__ import annotations

import itertools
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.customers.entities import settled
from streams.customers.facts import Int64s
from streams.customers.series import MILLIONTHS, Comparison, Series
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator, Outcome
from streams.segments.loading import default_definition
from streams.segments.view import Table
from streams.steps.room import Bounds
from tests.simulation import SimulatedPartition, stable

DAY = 86_400_000
T0 = 1_600_000_000_000
DEFINITION = default_definition()
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)

SERIES = (
    Series("activity", "export", where=Comparison("format", "==", "csv")),
    Series("activity", "export", value="rows"),
    Series("activity", "login", value="device", distinct=True),
    Series("active_day"),
    Series("active_day", "login"),
    Series("order", where=Comparison("category", "==", "books")),
    Series("order", where=Comparison("unit_price", ">", 5 * MILLIONTHS), value="sku", distinct=True),
)

Seen = dict[tuple[bytes, int], Any]
"""(customer, instant) to everything an evaluation read of the customer."""


class Recording(Evaluator):
    """The default definition, and a record of all that an evaluation may read at each tick."""

    def __init__(self, definition: Definition) -> None:
        super().__init__(definition)
        # The default definition reads no traits, and what records them here does.
        self.reads_traits = True

    def evaluate(self, table: Table, slots: Int64s, now_ms: Int64s) -> Outcome:
        """Evaluate, and note per customer and tick the last that was seen."""
        outcome = super().evaluate(table, slots, now_ms)
        if len(slots):
            self._note(table, slots, now_ms)
        return outcome

    def _note(self, table: Any, slots: Int64s, now_ms: Int64s) -> None:
        if not hasattr(self, "seen"):
            self.seen: Seen = {}
        runs = {}
        for series in self.series:
            histories = table.series(series.key)
            spans = zip(histories.start(slots).tolist(), histories.end(slots).tolist(), strict=True)
            runs[series.key] = [
                (histories.times[a:b].tolist(), worth_reading(series) and values_of(histories, a, b))
                for a, b in spans
            ]
        subscriptions, standings = table.subscriptions(slots), table.standings(slots)
        tickets, plans, ids = table.tickets(slots), table.trait("plan", slots), table.ids(slots)
        # Looking for the instant of a change, the facts of a tick are evaluated at other times than its own.
        at_tick = getattr(table, "_as_of_ms", now_ms) == now_ms
        for i, (identity, now) in enumerate(zip(ids, now_ms.tolist(), strict=True)):
            if not at_tick[i]:
                continue
            self.seen[identity, now] = (
                {key: columns[i] for key, columns in runs.items()},
                settled(subscriptions[i], standings[i], now),
                tickets[i],
                plans[i],
            )


def worth_reading(series: Series) -> bool:
    """Of days only the midnights are read, and hashes depend on the partition's random key."""
    return series.event != "active_day" and not series.distinct


def values_of(histories: Any, start: int, end: int) -> list[tuple[int, int]]:
    """What the entries of one run are worth, with their times: equal times keep no order."""
    values = np.diff(histories.sums[start:end], prepend=0).tolist()
    return sorted(zip(histories.times[start:end].tolist(), values, strict=True))


def random_log(rng: random.Random, entries: int) -> list[tuple[str, str, dict[str, Any]]]:
    """A log of all types, mostly in order, with late, doubled and conflicting events, and ticks."""
    now = T0
    log: list[tuple[str, str, dict[str, Any]]] = []
    for i in range(entries):
        now += rng.choice((1, 60_000, 3_600_000, 8 * 3_600_000, DAY))
        at = now - (rng.choice((3_600_000, DAY, 5 * DAY)) if rng.random() < 0.15 else 0)
        at += rng.choice((60_000, 200_000)) if rng.random() < 0.05 else 0
        if rng.random() < 0.25:
            log.append(("Tick", "", {"at": now}))
        elif rng.random() < 0.15 and (sent := [entry for entry in log[-20:] if entry[1]]):
            # Not ticks: what is seen is noted by instant, and a second tick at one sees more.
            log.append(rng.choice(sent))
        else:
            event_id = f"e{rng.randrange(i, i + 3) if rng.random() < 0.2 else i}"
            type_name, fields = _event(rng, i, at)
            said = {"event_id": event_id, "occurred_at": at, **fields}
            log.append((type_name, f"c{rng.randrange(3)}", said))
    log.append(("Tick", "", {"at": now + DAY}))
    return log


def _event(rng: random.Random, i: int, at: int) -> tuple[str, dict[str, Any]]:
    kind = rng.choice(
        ("Activity",) * 4 + ("Purchased",) * 2 + ("Refunded", "PlanChanged", "TicketChanged", "SignedUp")
    )
    if kind == "Activity":
        properties = {
            "format": rng.choice(("csv", "pdf")),
            "rows": rng.choice((1, 2.5, "many")),
            "device": rng.choice("abc"),
        }
        chosen = dict(rng.sample(sorted(properties.items(), key=lambda pair: pair[0]), rng.randrange(4)))
        return kind, {"name": rng.choice(("export", "login", "other")), "properties": chosen}
    if kind == "Purchased":
        items = [
            {
                "sku": rng.choice("xyz"),
                "category": rng.choice(("books", "food", None)),
                "quantity": rng.choice((1, 3)),
                "unit_price_minor": rng.choice((0, 499, 501)),
            }
            for _ in range(rng.randrange(4))
        ]
        amount = {"amount_minor": rng.choice((0, 1001, 5000)), "currency": "GBP"}
        return kind, {"order_id": f"o{rng.randrange(i // 3 + 1)}", "items": items, **amount}
    if kind == "Refunded":
        refund = {"refund_id": f"r{i}", "order_id": f"o{rng.randrange(i // 3 + 1)}", "amount_minor": 700}
        return kind, {**refund, "kind": rng.choice(("refund", "cancellation")), "currency": "GBP"}
    if kind == "PlanChanged":
        said: dict[str, Any] = {"subscription_id": rng.choice("st"), "mrr_minor": rng.choice((None, 0, 900))}
        change = rng.choice(
            ("started", "trial_started", "renewed", "payment_failed", "cancellation_scheduled", "ended")
        )
        times = {"cancel_at": at + DAY, "trial_ends_at": at + 3 * DAY}
        return kind, {**said, **times, "currency": "GBP", "change": change}
    if kind == "TicketChanged":
        change = rng.choice(("opened", "replied", "closed", "reopened", "rated"))
        return kind, {
            "ticket_id": rng.choice("pq"),
            "change": change,
            "author": rng.choice(("customer", "agent")),
            "rating": 4,
        }
    return kind, {"traits": {"plan": rng.choice(("pro", "free"))}}


def filled(log: list[tuple[str, str, dict[str, Any]]], **options: Any) -> SimulatedPartition:
    """A partition that records what its evaluations see, with this log."""
    partition = SimulatedPartition(DEFINITION, series=SERIES, evaluator_type=Recording, **options)
    for type_name, customer, fields in log:
        if type_name == "Tick":
            partition.tick(fields["at"])
        else:
            partition.event(type_name, customer, fields)
    return partition


def seen(partition: SimulatedPartition) -> Seen:
    """What evaluations saw."""
    return partition.evaluator.seen  # type: ignore[attr-defined,no-any-return]  # Recording has it.


@pytest.mark.timeout(600)  # A minute of work for one core, which others may be using too.
@given(seed=st.integers(0, 10**9))
@settings(max_examples=60, phases=PHASES)
def test_whatever_the_chunks_and_crashes_an_evaluation_sees_the_same(seed: int) -> None:
    """Every (customer, tick) that is evaluated sees the same series, subscriptions, tickets and traits.

    A quiet run record by record against random chunks, tiny transactions and crashes; then both
    write the same changes, and restored tables know the same.
    """
    rng = random.Random(seed)
    log = random_log(rng, 120)
    quiet = filled(log)
    quiet.run(itertools.repeat(1))
    rough = filled(log, bounds=Bounds(rows_max=rng.choice((1, 3, 1000))))
    rough.run((rng.choice((1, 5, 40, 200)) for _ in itertools.count()), crash=lambda: rng.random() < 0.1)
    assert stable(rough.changes) == stable(quiet.changes)
    assert not rough.dead_letters
    both = seen(quiet).keys() & seen(rough).keys()
    assert both
    assert {key: seen(rough)[key] for key in both} == {key: seen(quiet)[key] for key in both}
    assert known(rough) == known(quiet)
    quiet.crash()
    assert known(rough) == known(quiet)


def known(partition: SimulatedPartition) -> dict[bytes, Any]:
    """All that the table holds of every customer, in no order of slots."""
    table, evaluator = partition.engine.table, Recording(DEFINITION)
    evaluator.series = SERIES
    slots = np.arange(table.count)
    evaluator._note(table, slots, np.full(table.count, T0 + 1000 * DAY))
    return {identity: what for (identity, _), what in evaluator.seen.items()}


def test_a_transaction_holds_at_most_its_bound_of_bytes_with_series_and_changes() -> None:
    """Whatever activities, lines and changes leave on record was counted before it was applied."""
    partition = SimulatedPartition(DEFINITION, series=SERIES, bounds=Bounds(bytes_max=250_000))
    for i in range(2_000):
        said = {"event_id": f"e{i}", "occurred_at": T0 + i * 3_600_000}
        properties = {"format": "csv", "rows": i, "device": f"d{i}"}
        partition.event("Activity", f"c{i % 7}", {**said, "name": "export", "properties": properties})
        partition.event("Activity", f"c{i % 7}", {**said, "name": "login", "properties": properties})
        items = [
            {"sku": f"s{i}-{n}", "category": "books", "quantity": 1, "unit_price_minor": 900}
            for n in range(9)
        ]
        money = {"amount_minor": 5000, "currency": "GBP"}
        partition.event("Purchased", f"c{i % 7}", {**said, "order_id": f"o{i}", "items": items, **money})
        plan = {
            "subscription_id": "ü" * 20,
            "change": "renewed",
            "plan": "\x01" * 9,
            "mrr_minor": i,
            "currency": "GBP",
        }
        partition.event("PlanChanged", f"c{i % 7}", {**said, **plan})
    partition.tick(T0 + 3000 * 3_600_000)
    partition.run(itertools.repeat(5_000))
    sizes = [
        sum(len(key) + len(value or b"") for key, value in (*t.rows, *t.changes, *t.memberships))
        for t in partition.transactions
    ]
    assert len(sizes) > 10
    assert max(sizes) <= 250_000
