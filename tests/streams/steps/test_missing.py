"""Which facts another definition needs, and what of them is kept."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tests.simulation import SimulatedPartition
from tests.streams.segments.edits import TEXT, version
from tests.streams.steps.test_custom_segments import DAY, T0, bought
from tests.streams.steps.test_edits import file_of, partition_of

LOGINS = {"when": 'count("login", 7d) >= 2'}
EXPORTS = {"when": 'count("export", 7d) >= 1'}


def logged_in(partition: SimulatedPartition, day: float, name: str = "login") -> None:
    at = T0 + round(day * DAY)
    partition.event("Activity", "ann", {"event_id": f"{name}{day}", "occurred_at": at, "name": name})


def going(text: str) -> SimulatedPartition:
    """A partition with one customer who did a few things, and a clock of five days."""
    partition = partition_of(text)
    bought(partition, "ann", 1, 1_000)
    for day in (1.0, 2.0, 3.0):
        logged_in(partition, day)
        logged_in(partition, day, "export")
    partition.tick(T0 + 5 * DAY)
    partition.run(itertools.repeat(50))
    return partition


def taken_on(partition: SimulatedPartition, text: str) -> str | None:
    """Apply a file; return why the partition keeps its own, None when it does not."""
    assert partition.versions is not None
    before = partition.engine.definition.version
    partition.versions.add(version(partition.versions.newest_number + 1, text))
    count = len(partition.transactions)
    partition.convert()
    refusal = partition.engine.refusal
    if refusal is not None:
        assert partition.engine.definition.version == before
        assert len(partition.transactions) == count, "a refused version leaves no trace"
    return refusal


def test_a_series_that_is_not_kept_is_refused_and_one_that_is_may_be_asked_anew() -> None:
    """Exports were never kept; of logins another rule, with another window, is no difficulty."""
    partition = going(file_of(s=LOGINS))
    refusal = taken_on(partition, file_of(s=LOGINS, t=EXPORTS))
    assert refusal is not None and "export" in refusal and "shoal rebuild FILE" in refusal
    assert taken_on(partition, file_of(t={"when": 'count("login", 30d) >= 3'})) is None
    assert partition.values()["ann"]["t"] == "t"
    other = taken_on(partition, file_of(t={"when": 'count("login", 7d where web) >= 1'}))
    assert other is not None and "not kept" in other


@pytest.mark.parametrize("restarts", [False, True])
def test_a_series_that_was_dropped_takes_none_of_its_facts_back(restarts: bool) -> None:
    """No longer declared, it is no longer complete: to be asked again it has to be rebuilt."""
    partition = going(file_of(s=LOGINS, t=EXPORTS))
    assert partition.values()["ann"]["t"] == "t"
    assert taken_on(partition, file_of(s=LOGINS)) is None
    if restarts:
        partition.crash()
    for day in (9.5, 9.6):
        logged_in(partition, day)
        logged_in(partition, day, "export")
    partition.tick(T0 + 11 * DAY)
    partition.run(itertools.repeat(50))
    # By these two alone: they are read as what they are, whatever lies beside them in memory.
    assert partition.values()["ann"].get("s") == "s"
    assert not any("export" in name for name in partition.engine.complete_since_ms)
    refusal = taken_on(partition, file_of(s=LOGINS, t=EXPORTS))
    assert refusal is not None and "not kept" in refusal


def test_kept_series_are_complete_since_when_they_were() -> None:
    """A conversion that drops one of two series leaves the other as complete as it was."""
    partition = going(file_of(s=LOGINS, t=EXPORTS))
    assert set(partition.engine.complete_since_ms.values()) == {0}
    assert taken_on(partition, file_of(s=LOGINS)) is None
    partition.crash()
    assert set(partition.engine.complete_since_ms.values()) == {0}
    assert taken_on(partition, file_of(s={"when": 'ever("login")'})) is None
    assert partition.values()["ann"]["s"] == "s"


def test_of_nobody_everything_is_known() -> None:
    """A partition without customers takes on any definition, and keeps what it asks from the beginning."""
    partition = partition_of(TEXT)
    assert taken_on(partition, file_of(s=LOGINS, t=EXPORTS)) is None
    partition.crash()
    logged_in(partition, 1, "export")
    partition.tick(T0 + 2 * DAY)
    partition.run(itertools.repeat(50))
    assert partition.values()["ann"]["t"] == "t"


def test_another_currency_is_refused() -> None:
    """What is kept was counted in pounds."""
    partition = going(TEXT)
    euros = TEXT.replace("reporting_currency: GBP", "reporting_currency: EUR")
    euros = euros.replace("    EUR:", "    GBP:")
    refusal = taken_on(partition, euros)
    assert refusal is not None and "counts in EUR" in refusal


def test_a_rate_holds_for_what_is_read_from_then_on() -> None:
    """An edit of a rate moves nobody, and the next order and its lines are worth what it says."""
    text = file_of(s={"when": "orders(30d where unit_price > 8) >= 1"})
    partition = going(text)
    rated = text.replace("EUR: 0.86", "EUR: 0.50")
    assert rated != text
    assert taken_on(partition, rated) is None
    for place, (day, cents) in enumerate(((6, 1_000), (8, 2_000))):
        partition.event(
            "Purchased",
            "ann",
            {
                "event_id": f"e{day}",
                "order_id": f"euros{day}",
                "occurred_at": T0 + day * DAY,
                "amount_minor": cents,
                "currency": "EUR",
                "items": [{"sku": "x", "quantity": 1, "unit_price_minor": cents}],
            },
        )
        partition.tick(T0 + (day + 1) * DAY)
        partition.run(itertools.repeat(50))
        _, paid, _ = partition.engine.table.lifetime(np.array([0]))
        assert paid.tolist() == [(1_500, 2_500)[place]]
        # Ten euros are five pounds now, and were 8.60 before.
        assert ("s" in partition.values()["ann"]) is bool(place)
