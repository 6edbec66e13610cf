"""What an edit does to segments: what is waited for, what is hidden, when it is true, and its cause."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from streams.segments.versions import Versions
from streams.steps import conversion
from tests.simulation import SimulatedPartition
from tests.streams.segments.custom import with_sections
from tests.streams.segments.edits import version
from tests.streams.steps.test_custom_segments import DAY, T0, bought, run, told

HOUR = DAY // 24


def file_of(**segments: dict[str, Any]) -> str:
    """A file with these segments."""
    lines = ["segments:"]
    for key, fields in segments.items():
        lines.append(f"  {key}:")
        lines += [f"    {name}: {value}" for name, value in fields.items()]
    return with_sections("\n".join(lines) + "\n") if segments else with_sections("")


def partition_of(text: str, **options: Any) -> SimulatedPartition:
    """A partition that begins with this file."""
    versions = Versions([version(1, text)])
    return SimulatedPartition(versions.newest.definition, versions=versions, **options)


def apply(partition: SimulatedPartition, text: str) -> list[dict[str, Any]]:
    """Convert to this file, restart, and return what was told."""
    assert partition.versions is not None
    count = len(partition.changes)
    partition.versions.add(version(partition.versions.newest_number + 1, text))
    partition.convert()
    assert partition.engine.refusal is None and partition.engine.unconverted == 0
    partition.crash()
    return partition.changes[count:]


def ticks(partition: SimulatedPartition, start: float, until: float) -> None:
    """Let time pass, an hour at a time."""
    for hour in range(round(start * 24), round(until * 24) + 1):
        partition.tick(T0 + hour * HOUR)
    run(partition)


def of_s(partition: SimulatedPartition) -> list[tuple[str, str, float]]:
    """What was told of `s`: change, cause, and when."""
    return [(c[0], c[3], round(c[4], 3)) for c in told(partition, "s")]


SLOW = {"when": "orders(20d) >= 1", "dwell_enter": "4d", "dwell_exit": "2d", "cooldown": "5d"}


def test_what_is_waited_for_goes_on_when_something_else_is_edited() -> None:
    """In since day 5 after four days of dwell, though another segment was edited on day 3 and on day 4."""
    partition = partition_of(file_of(s=SLOW, other={"when": "orders(9d) >= 1"}))
    bought(partition, "ann", 1, 1_000)
    ticks(partition, 1, 3)
    assert [c["dimension"] for c in apply(partition, file_of(s=SLOW))] == ["other"]
    ticks(partition, 3, 4)
    assert apply(partition, file_of(s=SLOW, other={"when": "orders(9d) >= 2"})) == []
    ticks(partition, 4, 24)
    assert of_s(partition) == [("entered", "time_elapsed", 5.0), ("exited", "time_elapsed", 23.0)]


def test_a_pause_goes_on_when_something_else_is_edited() -> None:
    """Out on day 3, a pause of five days: in again on day 8, whatever else is edited on day 6."""
    slow = {"when": "orders(2d) >= 1", "cooldown": "5d"}
    partition = partition_of(file_of(s=slow))
    bought(partition, "ann", 1, 1_000)
    ticks(partition, 1, 5)
    bought(partition, "ann", 5.5, 1_000)
    ticks(partition, 5.6, 6)
    assert apply(partition, file_of(s=slow, other={"when": "orders(9d) >= 9"})) == []
    bought(partition, "ann", 7, 1_000)
    ticks(partition, 7.1, 9)
    assert of_s(partition)[:3] == [
        ("entered", "event", 1.0),
        ("exited", "time_elapsed", 3.0),
        ("entered", "time_elapsed", 8.0),
    ]


@pytest.mark.parametrize(
    "edit", [{"dwell_enter": "30d"}, {"when": "orders(19d) >= 1"}, {"valid_from": "2020-01-01T00:00:00Z"}]
)
def test_an_edited_segment_is_what_its_rule_says_and_waits_afterwards(edit: dict[str, str]) -> None:
    """Waiting to enter since day 1, edited on day 3: in at once, caused by the edit, at the clock."""
    partition = partition_of(file_of(s=SLOW))
    bought(partition, "ann", 1, 1_000)
    ticks(partition, 1, 3)
    (change,) = apply(partition, file_of(s=SLOW | edit))
    assert (change["change"], change["cause"], change["effective_at"]) == (
        "entered",
        "rule_changed",
        T0 + 3 * DAY,
    )
    ticks(partition, 3, 30)
    out = 22.0 if "when" in edit else 23.0
    assert of_s(partition)[1:] == [("exited", "time_elapsed", out)]


def test_a_pause_is_forgotten_with_an_edit_and_an_exit_by_it_starts_none() -> None:
    """Out by itself on day 3, in by an edit on day 4; out by an edit on day 5, in by an order on day 6."""
    slow = {"when": "orders(2d) >= 1", "cooldown": "30d"}
    partition = partition_of(file_of(s=slow))
    bought(partition, "ann", 1, 1_000)
    ticks(partition, 1, 4)
    apply(partition, file_of(s=slow | {"when": "orders(9d) >= 1"}))
    ticks(partition, 4, 5)
    apply(partition, file_of(s=slow | {"when": "orders(3d) >= 1"}))
    bought(partition, "ann", 6, 1_000)
    ticks(partition, 6, 7)
    assert of_s(partition) == [
        ("entered", "event", 1.0),
        ("exited", "time_elapsed", 3.0),
        ("entered", "rule_changed", 4.0),
        ("exited", "rule_changed", 5.0),
        ("entered", "event", 6.0),
    ]


@pytest.mark.parametrize("restarts", [False, True])
def test_a_segment_that_was_gone_remembers_no_pause(restarts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left on day 3, the segment removed on day 4, back on day 5: an order on day 6 enters at once."""
    slow = {"when": "orders(2d) >= 1", "cooldown": "30d"}
    partition = partition_of(file_of(s=slow))
    for name in ("ann", "bob"):
        bought(partition, name, 1, 1_000)
    ticks(partition, 1, 4)
    if restarts:
        monkeypatch.setattr(conversion, "SLICE_CUSTOMERS_MAX", 1)
        assert partition.versions is not None
        partition.versions.add(version(2, file_of()))
        partition.convert(slices=1)
        partition.crash()
        partition.convert()
    else:
        assert apply(partition, file_of()) == []
    ticks(partition, 4, 5)
    assert apply(partition, file_of(s=slow)) == []
    for name in ("ann", "bob"):
        bought(partition, name, 6, 1_000)
    ticks(partition, 6, 7)
    assert of_s(partition)[4:] == [("entered", "event", 6.0)] * 2


def test_an_edit_that_was_taken_back_before_its_slice_came_is_an_edit_all_the_same() -> None:
    """Three versions in a row, of which only the middle one differs: the dwell begun before is forgotten."""
    partition = partition_of(file_of(s=SLOW))
    bought(partition, "ann", 1, 1_000)
    ticks(partition, 1, 3)
    assert partition.versions is not None
    partition.versions.add(version(2, file_of(s=SLOW | {"dwell_enter": "3d"})))
    assert [c["cause"] for c in apply(partition, file_of(s=SLOW))] == ["rule_changed"]


def test_becoming_shown_enters_every_member_and_becoming_hidden_puts_all_out() -> None:
    """Shadow, live, shadow, draft, live: told where it is live, silent where it is not."""
    rule = {"when": "orders(20d) >= 1"}
    partition = partition_of(file_of(s=rule | {"state": "shadow"}))
    for name in ("ann", "bob"):
        bought(partition, name, 1, 1_000)
    bought(partition, "cid", -30, 1_000)
    ticks(partition, 1, 2)
    assert told(partition, "s") == []

    def seen(state: str) -> list[tuple[str, str, str]]:
        changes = apply(partition, file_of(s=rule | {"state": state}))
        assert {c["dimension_kind"] for c in changes} <= {"custom"}
        return sorted((c["customer_id"], c["change"], c["cause"]) for c in changes)

    entered = [("ann", "entered", "rule_changed"), ("bob", "entered", "rule_changed")]
    exited = [("ann", "exited", "rule_changed"), ("bob", "exited", "rule_changed")]
    assert seen("live") == entered
    assert seen("shadow") == exited
    assert seen("draft") == []
    assert seen("live") == entered
    assert seen("draft") == exited
    assert seen("shadow") == []
    assert apply(partition, file_of()) == []
    assert all("s" not in values for values in partition.values().values())


def test_a_hidden_segment_that_goes_while_a_worker_restarts_stays_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shadow with a delay, removed; restarts among the slices: nothing is told of it."""
    monkeypatch.setattr(conversion, "SLICE_CUSTOMERS_MAX", 2)
    partition = partition_of(file_of(s=SLOW | {"state": "shadow", "dwell_enter": "1h"}))
    for i in range(5):
        bought(partition, f"c{i}", 1, 1_000)
    ticks(partition, 1, 3)
    assert partition.versions is not None
    partition.versions.add(version(2, file_of()))
    count, commits = len(partition.changes), itertools.count()
    partition.convert(crash=lambda: next(commits) % 3 == 0)
    assert len(partition.changes) == count and partition.engine.unconverted == 0


def test_a_rule_says_nothing_of_what_was_before_it() -> None:
    """Put out by an edit at noon; an order of half an hour before comes on time: in at noon, not before."""
    partition = partition_of(file_of(s={"when": "orders(9d) >= 1"}))
    bought(partition, "ann", 1, 1_000)
    ticks(partition, 1, 2)
    assert len(apply(partition, file_of())) == 1
    assert apply(partition, file_of(s={"when": "orders(9d) >= 2"})) == []
    partition.crash()
    bought(partition, "ann", 2 - 0.5 / 24, 2_000)
    partition.tick(T0 + 2 * DAY + 60_000)
    run(partition)
    assert of_s(partition)[1:] == [("exited", "rule_changed", 2.0), ("entered", "event", 2.0)]
    # What is no edit of its own is dated as ever; and after an hour nothing is held back any more.
    ticks(partition, 2.5, 4)
    assert partition.engine._conversion.begun_ms == {}


def test_nobody_comes_back_before_the_slice_that_put_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The edit is taken on at noon, a slice comes half an hour later, then an order of between them."""
    monkeypatch.setattr(conversion, "SLICE_CUSTOMERS_MAX", 1)
    slow = {"when": "orders(6h) >= 1", "dwell_exit": "20d"}
    partition = partition_of(file_of(s=slow))
    for name in ("ann", "bob"):
        bought(partition, name, 1, 1_000)
    ticks(partition, 1, 2)
    assert partition.versions is not None
    partition.versions.add(version(2, file_of(s=slow | {"dwell_exit": "19d"})))
    partition.convert(slices=1)
    partition.tick(T0 + 2 * DAY + HOUR // 2)
    run(partition)
    partition.convert()
    for name in ("ann", "bob"):
        bought(partition, name, 2 + 0.25 / 24, 1_000)
    partition.tick(T0 + 2 * DAY + HOUR)
    run(partition)
    for name in ("ann", "bob"):
        mine = [c for c in partition.changes if (c["customer_id"], c["dimension"]) == (name, "s")]
        assert [c["change"] for c in mine] == ["entered", "exited", "entered"]
        assert [c["effective_at"] for c in mine] == sorted(c["effective_at"] for c in mine)


def test_a_pause_is_forgotten_by_whom_an_event_converts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out since day 3, edited on day 4, a refund that changes nothing first: in with the order of day 5."""
    monkeypatch.setattr(conversion, "SLICE_CUSTOMERS_MAX", 1)
    slow = {"when": "orders(2d) >= 1", "cooldown": "30d"}
    partition = partition_of(file_of(s=slow))
    for name in ("ann", "bob"):
        bought(partition, name, 1, 1_000)
    ticks(partition, 1, 4)
    assert partition.versions is not None
    partition.versions.add(version(2, file_of(s=slow | {"cooldown": "29d"})))
    partition.convert(slices=1)
    for name in ("ann", "bob"):
        fields = {"event_id": f"r{name}", "occurred_at": T0 + 4 * DAY, "kind": "refund", "currency": "GBP"}
        partition.event("Refunded", name, fields | {"refund_id": f"r{name}", "amount_minor": 1})
    ticks(partition, 4, 4.5)
    for name in ("ann", "bob"):
        bought(partition, name, 5, 1_000)
    ticks(partition, 5, 5)
    assert sorted(c[4] for c in told(partition, "s") if c[0] == "entered") == [1.0, 1.0, 5.0, 5.0]


@pytest.mark.parametrize("whole", [True, False])
def test_a_restart_knows_by_which_version_everybody_was_judged(
    whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dwell was edited in version 2, to which everybody or half of them came; 3 edits something else.

    Who was converted to 2 and is not written, for nothing differed, waits from the order on; who was not
    begins afresh with it, and is in at once.
    """
    names, stories = ("ann", "bob", "cid", "dan"), []
    for crashes in (False, True):
        partition = partition_of(file_of(s=SLOW), new_fact_key=lambda: b"0123456789abcdef")
        for name in names:
            bought(partition, name, -30, 1_000)
        ticks(partition, 1, 2)
        assert partition.versions is not None
        for number, other, slices in ((2, 1, 99 if whole else 1), (3, 2, 1)):
            edited = file_of(s=SLOW | {"dwell_enter": "3d"}, other={"when": f"orders(1d) >= {other}"})
            partition.versions.add(version(number, edited))
            # Two come to version 2, if not all do; one to version 3.
            monkeypatch.setattr(conversion, "SLICE_CUSTOMERS_MAX", 4 - number)
            partition.convert(slices=slices)
        if crashes:
            partition.crash()
        for name in names:
            bought(partition, name, 3, 1_000)
        ticks(partition, 3, 8)
        stories.append(
            sorted((c["customer_id"], c["effective_at"]) for c in partition.changes if c["dimension"] == "s")
        )
    at_once = [at_ms for _, at_ms in stories[0] if at_ms < T0 + 6 * DAY]
    assert stories[0] == stories[1] and len(at_once) == (0 if whole else 2)


def test_a_segment_that_becomes_a_dimension_goes_on_under_its_name() -> None:
    """One change from what it was to what it is, under the new kind; and back."""
    tier = "dimensions:\n  s:\n    values:\n      much: orders(9d) >= 1\n    otherwise: little\n"
    partition = partition_of(file_of(s={"when": "orders(9d) >= 1"}))
    bought(partition, "ann", 1, 1_000)
    bought(partition, "bob", -20, 1_000)
    ticks(partition, 1, 2)
    for text, expected in (
        (with_sections(tier), [("ann", "moved", "s", "much"), ("bob", "entered", None, "little")]),
        (
            file_of(s={"when": "orders(9d) >= 1"}),
            [("ann", "moved", "much", "s"), ("bob", "exited", "little", None)],
        ),
    ):
        changes = apply(partition, text)
        assert sorted((c["customer_id"], c["change"], c["from"], c["to"]) for c in changes) == expected
