"""Members sent again: each once, in slices, whatever crashes; state and memberships know nothing of it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from streams.steps import resending
from streams.steps.room import Bounds
from tests.simulation import SimulatedPartition
from tests.streams.steps.streams_of_events import DAY, T0
from tests.streams.steps.test_conversion import (
    BOUGHT,
    CUSTOMERS,
    assert_settled,
    edit,
    extend,
    held,
    partition_of,
    purchase,
    tick,
    write,
)
from tests.streams.steps.test_edits import file_of
from tests.streams.steps.test_edits import partition_of as partition_of_file


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven customers a slice."""
    monkeypatch.setattr(resending, "SLICE_CUSTOMERS_MAX", 7)


def ask(partition: SimulatedPartition, run_id: str) -> None:
    """Request what `shoal resend` does."""
    assert partition.versions is not None
    partition.versions.resend_run_id = run_id


def told(changes: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Who has which value, from members sent again."""
    values: dict[str, dict[str, str]] = {}
    for change in changes:
        assert (change["change"], change["origin"], change["from"]) == ("entered", "reconcile", None)
        mine = values.setdefault(change["customer_id"], {})
        assert change["dimension"] not in mine, "sent twice"
        mine[change["dimension"]] = change["to"]
    return values


@pytest.mark.parametrize("crash_at", [None, *range(0, 14, 3)])
def test_every_member_is_sent_once_whichever_commit_is_lost(crash_at: int | None) -> None:
    """A new subscriber's whole truth, numbered without a gap, as of when each value came to hold."""
    partition = partition_of(BOUGHT, bounds=Bounds(rows_max=5))
    partition.run(itertools.repeat(50))
    extend(partition, regulars=2)
    partition.convert()
    before, count, memberships = held(partition), len(partition.changes), dict(partition.memberships)
    ask(partition, "run-1")
    questions = itertools.count()
    partition.convert(crash=lambda: next(questions) == crash_at)
    again = partition.changes[count:]
    assert told(again) == before == held(partition)
    assert {c["run_id"] for c in again} == {"run-1"}
    assert [c["seq"] for c in partition.changes] == list(range(1, len(partition.changes) + 1))
    since = {(c["customer_id"], c["dimension"]): c["effective_at"] for c in partition.changes[:count]}
    assert all(c["effective_at"] == since[c["customer_id"], c["dimension"]] for c in again)
    assert partition.memberships == memberships
    assert not partition.engine.converting


def test_a_request_is_met_once_and_the_next_one_again() -> None:
    """Neither a restart nor time brings a request back; changes made in between are not lost."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    ask(partition, "run-1")
    partition.convert(slices=2)
    kind, _, fields = purchase("z", T0 + 61 * DAY, 200_000)
    write(partition, [(kind, "c05", fields), tick(T0 + 61 * DAY + 1)])
    partition.run(itertools.repeat(50))
    partition.convert()
    partition.crash()
    assert not partition.engine.converting
    count = len(partition.changes)
    ask(partition, "run-2")
    partition.convert()
    assert told(partition.changes[count:]) == held(partition) and len(held(partition)) == CUSTOMERS


def test_a_new_definition_comes_before_members() -> None:
    """What is sent is what the newest version says."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    ask(partition, "run-1")
    edit(partition, ("    potential_loyalist: ", "    stars: "))
    partition.convert()
    again = [c for c in partition.changes if c["origin"] == "reconcile"]
    assert told(again) == held(partition) and {c["definition_version"] for c in again} == {2}


def test_where_nothing_is_to_be_done_nobody_is_sent_anything() -> None:
    """Asked to convert all the same, an engine does nothing at all."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    count = len(partition.changes)
    assert not partition.engine.converting and partition.engine.convert()
    assert not partition.engine.has_pending() and not partition.engine.converting
    partition.commit()
    assert len(partition.changes) == count


def test_a_partition_nobody_is_in_has_nothing_to_send() -> None:
    """A request from before there was anybody is met already."""
    partition = partition_of([])
    ask(partition, "run-1")
    partition.crash()
    assert not partition.engine.converting
    write(partition, BOUGHT)
    partition.run(itertools.repeat(50))
    assert not partition.engine.converting
    assert_settled(partition)


def test_what_nobody_is_told_of_is_not_sent() -> None:
    """Members of a shadow, and the truth behind a delay, stay where they are."""
    fields = {"when": "orders(90d) >= 1", "dwell_exit": "1d"}
    partition = partition_of_file(file_of(s=fields | {"state": "shadow"}, t=fields))
    write(partition, BOUGHT)
    partition.run(itertools.repeat(50))
    count = len(partition.changes)
    ask(partition, "run-1")
    partition.convert()
    sent = told(partition.changes[count:])
    assert {name for values in sent.values() for name in values} == {"rfm", "lifecycle", "t"}
    assert sent == {name: values for name, values in partition.values().items() if values}
    counted = sum(
        count
        for transaction in partition.transactions
        for (_, _, _, origin), count in transaction.tally.changes.items()
        if origin == "reconcile"
    )
    assert counted == sum(map(len, sent.values()))


def test_whoever_gets_the_slot_of_somebody_erased_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it comes in the order, and whatever restarts: the cursor is a place, not a slot."""
    monkeypatch.setattr(resending, "SLICE_CUSTOMERS_MAX", 1)
    places = set()
    for number in range(40):
        bought = [(kind, f"c{i}", fields) for i in range(6) for kind, _, fields in [purchase(f"a{i}", T0)]]
        partition = partition_of([*bought, tick(T0 + DAY)], new_fact_key=lambda: bytes(16))
        partition.run(itertools.repeat(50))
        ask(partition, "run-1")
        partition.convert(slices=1)
        table = partition.engine.table
        gone = table.slots.id_of(int(table.ordering()[:6].argsort()[3])).decode()
        write(partition, [("Erased", gone, {"event_id": "x", "occurred_at": T0 + DAY})])
        partition.run(itertools.repeat(50))
        kind, _, fields = purchase("n", T0 + DAY + 1)
        write(partition, [(kind, f"n{number}", fields), tick(T0 + 2 * DAY)])
        partition.run(itertools.repeat(50))
        partition.convert(slices=3)
        partition.crash()
        partition.convert()
        told([change for change in partition.changes if change["run_id"] == "run-1"])
        table = partition.engine.table
        names = [table.slots.id_of(int(slot)) for slot in table.ordering()[: table.count].argsort()]
        places.add(names.index(b"n%d" % number))
    assert len(places) > 3, "it came behind the one it replaced, and before it"
