"""Old facts leave their pages; no window within the fold line can tell, before or after a restore."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.customers.pages import FACTS_PER_PAGE
from streams.customers.row_format import decode_key
from streams.customers.table import CustomerTable
from tests.streams.customers.building import (
    Event,
    all_observed,
    apply,
    new_table,
    observed,
    purchase,
    refund,
    restored,
    run_of,
)

WINDOW = 40


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """A customer's years: mostly in order, with linked refunds, conflicts and repetitions."""
    events: list[Event] = []
    for step in range(draw(st.integers(100, 200))):
        number = draw(st.integers(max(0, step - 12), step))
        time = step + draw(st.integers(-8, 0))
        kind = draw(st.sampled_from("ooooolu"))
        if kind == "o":
            events.append(purchase("a", time, f"o{number}", draw(st.integers(0, 9))))
        elif kind == "l":
            events.append(refund("a", time, f"r{number}", draw(st.integers(0, 5)), f"o{number}"))
        else:
            events.append(refund("a", time, f"u{number}", draw(st.integers(1, 5))))
    return events


@settings(max_examples=25)
@given(histories(), st.integers(1, 60))
def test_folding_changes_no_answer(events: list[Event], size: int) -> None:
    """A table that folds and one that never does agree on windows, first and last, lifetime totals."""
    folding, keeping = new_table(), new_table()
    rows: dict[bytes, bytes | None] = {}
    clock = 0
    for at in range(0, len(events), size):
        chunk = events[at : at + size]
        lines = []
        for event in chunk:
            clock = max(clock, event.time)
            lines.append(clock - WINDOW)
        results = apply(folding, chunk, lines)
        live = [event for event, result in zip(chunk, results, strict=True) if result != 3]
        apply(keeping, live, -1000)
        rows.update(folding.take_rows())
    copy = restored([(key, value) for key, value in rows.items() if value is not None])
    for table in (folding, copy):
        _assert_agree(table, keeping, clock - WINDOW)
    assert all_observed(copy) == all_observed(folding)


def _assert_agree(folding: CustomerTable, keeping: CustomerTable, line: int) -> None:
    kept, whole = observed(folding, 0), observed(keeping, 0)
    for name in ("orders", "refunds"):
        recent = [entry for entry in run_of(keeping, name, 0) if entry[0] >= line]
        assert [entry for entry in run_of(folding, name, 0) if entry[0] >= line] == recent
    for name in ("first", "last", "lifetime"):
        assert kept[name] == whole[name]


def test_a_customer_with_a_long_past_keeps_a_bounded_number_of_facts() -> None:
    """Pages below the fold line get tombstones; lifetime totals stay exact."""
    table = new_table()
    rows: dict[bytes, bytes | None] = {}
    for step in range(50):
        events = [purchase("a", step * 20 + i, f"o{step}-{i}", 1) for i in range(20)]
        apply(table, events, [event.time - WINDOW for event in events])
        rows.update(table.take_rows())
    live = {decode_key(key).page for key, value in rows.items() if value is not None}
    assert len(live) <= 2 + (WINDOW + FACTS_PER_PAGE) // FACTS_PER_PAGE
    assert table.facts_kept <= WINDOW + 2 * FACTS_PER_PAGE
    assert observed(table, 0)["lifetime"] == (1000, 1000, 0)
    assert (observed(table, 0)["first"], observed(table, 0)["last"]) == (0, 999)
    copy = restored([(key, value) for key, value in rows.items() if value is not None])
    assert all_observed(copy) == all_observed(table)


def test_an_order_and_its_refund_are_folded_together_or_not_at_all() -> None:
    """A refund above the fold line keeps its order, however old, and everything after it."""
    table = new_table()
    events = [purchase("a", 0, "first", 10), *(purchase("a", i, f"o{i}", 1) for i in range(1, 31))]
    apply(table, [*events, refund("a", 90, "r", 10, "first")], 0)
    apply(table, [purchase("a", 95 + i, f"p{i}", 1) for i in range(FACTS_PER_PAGE)], 80)
    assert observed(table, 0)["first"] == 1
    assert table.folded_before_ms[0] < 0
    assert table.lifetime(np.array([0]))[1].tolist() == [30 + FACTS_PER_PAGE]


def test_where_a_history_is_cut_does_not_matter_to_folding() -> None:
    """A page is sealed by its 32nd fact, under that fact's fold line, whatever the chunks."""
    events = [purchase("a", i, f"o{i}", 1) for i in range(300)]
    tables = []
    for size in (1, 7, 300):
        table = new_table()
        for at in range(0, 300, size):
            chunk = events[at : at + size]
            apply(table, chunk, [event.time - WINDOW for event in chunk])
        tables.append((all_observed(table), table.folded_before_ms[0]))
    assert tables[0] == tables[1] == tables[2]


def test_a_restored_loser_holds_back_the_fold_line_of_its_winner() -> None:
    """The winner must not be folded while the page of the content that lost lives, or it would rise again."""
    table = new_table()
    apply(table, [purchase("a", i % 2, f"o{i}", 1) for i in range(FACTS_PER_PAGE)])
    apply(table, [purchase("a", 50, "twice", 1), purchase("a", 5, "twice", 1)])
    rows = dict(table.take_rows())
    copy = restored(list(rows.items()))
    apply(copy, [purchase("a", 100 + i, f"p{i}", 1) for i in range(FACTS_PER_PAGE)], 20)
    rows.update(copy.take_rows())
    again = restored([(key, value) for key, value in rows.items() if value is not None])
    assert copy.folded_before_ms[0] == 5
    assert all_observed(again) == all_observed(copy)
