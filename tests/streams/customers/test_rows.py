"""Rows hold everything that must survive, in literals, in pages, within a bound known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import DefinitionMismatch, StateCorrupt
from streams.customers.facts import PENDING_MS, RefundKind
from streams.customers.pages import FACTS_PER_PAGE
from streams.customers.profiles import PROFILE_BYTES_MAX
from streams.customers.row_format import (
    CUSTOMER_ROW,
    RowKey,
    decode_key,
    decode_literals,
    encode_key,
    encode_literals,
)
from streams.customers.rows import Restorer
from streams.customers.table import CustomerTable, Result
from tests.streams.customers.building import (
    all_observed,
    apply,
    new_table,
    profile,
    purchase,
    refund,
    restored,
    sign_up,
)


@given(st.integers(0, 255), st.binary(max_size=300), st.integers(0, 2**32 - 1))
def test_keys_are_read_back(kind: int, identity: bytes, page: int) -> None:
    """Any id, also one that looks like a page of another."""
    assert decode_key(encode_key(kind, identity, page)) == RowKey(kind, identity, page)


@pytest.mark.parametrize("key", [b"", b"\1\0\5abc\0\0\0\0", b"\1\0\0\0\0\0\0\0"])
def test_a_key_that_contradicts_itself_is_corrupt(key: bytes) -> None:
    """Too short, too long or cut."""
    with pytest.raises(StateCorrupt, match="contradicts its own length"):
        decode_key(key)


def test_an_id_too_long_for_a_key_is_an_error() -> None:
    """The length has two bytes."""
    with pytest.raises(ValueError, match="at most 65535"):
        encode_key(CUSTOMER_ROW, b"x" * 65536)


@given(st.lists(st.tuples(st.text(max_size=9), st.none() | st.text(max_size=9)), max_size=4))
def test_literals_are_read_back(pairs: list[tuple[str, str | None]]) -> None:
    """Null and the empty text stay apart."""
    assert decode_literals(encode_literals(pairs)) == pairs


def derived(table: CustomerTable, slot: int) -> dict[str, object]:
    """Return everything the engine stores about a customer."""
    columns = ("due_ms", "scores", "value", "since_ms", "value_seq", "pending_cause", "pending_at_ms")
    found: dict[str, object] = {name: getattr(table, name)[slot].tolist() for name in columns}
    return {**found, "event_id": table.pending_event_id.get(slot)}


def test_what_the_engine_stores_is_restored() -> None:
    """Due, scores, values with their stamps, and the pending columns survive, in another slot too."""
    table = new_table()
    apply(table, [purchase("a", 1, "o", 5), purchase("b", 2, "o", 5), purchase("c", 3, "o", 5)])
    one = np.array([1])
    table.due_ms[one], table.scores[one], table.value[one] = 123, [5, 4, 3], [2, -1]
    table.since_ms[one], table.value_seq[one] = [7, 8], [9, 10]
    table.pending_cause[one], table.pending_at_ms[one] = 3, 77
    table.pending_event_id[1] = b"event-1"
    table.mark_dirty(one)
    copy = restored(reversed(table.take_rows()))
    assert copy.slots.ids_of(np.arange(3)) == [b"c", b"b", b"a"]
    for slot in range(3):
        assert derived(copy, 2 - slot) == derived(table, slot)
    assert copy.due_ms[0] == PENDING_MS


def test_memberships_are_stored_as_literals() -> None:
    """A table whose vocabulary is in another order restores the same value."""
    table = new_table()
    apply(table, [purchase("a", 1, "o", 5)])
    table.value[0] = [1, 0]
    rows = table.take_rows()
    other = CustomerTable(
        fact_key=b"key",
        dimensions=("lifecycle", "new", "rfm"),
        values=(("x", "lead"), ("y",), ("champions",)),
    )
    restorer = Restorer(other)
    restorer.add(*rows[0])
    restorer.finish()
    assert other.value[0].tolist() == [1, -1, 0]


def test_a_value_the_definition_does_not_know_is_a_mismatch() -> None:
    """Neither an unknown dimension nor an unknown literal is guessed away."""
    table = new_table()
    apply(table, [purchase("a", 1, "o", 5)])
    table.value[0] = [1, 0]
    rows = table.take_rows()
    for dimensions, values in ((("rfm",), (("champions",),)), (("rfm", "lifecycle"), (("lost",), ("lead",)))):
        restorer = Restorer(CustomerTable(fact_key=b"key", dimensions=dimensions, values=values))
        restorer.add(*rows[0])
        with pytest.raises(DefinitionMismatch, match="the definition does not"):
            restorer.finish()


def test_a_long_history_goes_into_pages_that_are_written_once() -> None:
    """A page is a row of its own, and a further fact rewrites neither pages nor a long head."""
    table = new_table()
    apply(table, [purchase("a", i, f"o{i}", 1) for i in range(100)])
    pages = [decode_key(key).page for key, _ in table.take_rows()]
    assert pages == [0, 1, 2, 3]
    apply(table, [purchase("a", 0, "late", 1)])
    ((_, value),) = table.take_rows()
    assert value is not None
    assert len(value) < 33 * FACTS_PER_PAGE


def test_the_bound_holds_with_everything_in_the_rows() -> None:
    """dirty_bytes_max is never less than what is taken: pages, profiles, event ids, long literals."""
    table = new_table()
    for turn in range(30):
        events = [purchase(f"customer-{i % 3}", turn, f"o{turn}-{i}", 1, "account") for i in range(turn * 5)]
        events += [profile(f"p{i}", turn, f"e{turn}-{i}", plan="pro" * turn, note="ü") for i in range(turn)]
        events += [sign_up("p0", turn, f"s{turn}"), refund("p1", turn, f"r{turn}", 4, "o")]
        apply(table, events)
        everybody = np.arange(table.count)
        if turn % 3:
            table.value[everybody] = [2, 1]
            for slot in everybody.tolist():
                table.pending_event_id[slot] = b"e" * turn
            table.mark_dirty(everybody)
        if turn % 2:
            bound = table.dirty_bytes_max
            rows = table.take_rows()
            assert sum(len(key) + len(value or b"") for key, value in rows) <= bound
            assert (table.dirty_count, table.dirty_bytes_max, table.row_count) == (0, 0, len(rows))


def test_a_tombstone_removes_a_row_and_a_later_row_replaces_one() -> None:
    """The restorer takes rows as a compacted log gives them."""
    table = new_table()
    apply(table, [purchase("a", 1, "o", 5), purchase("b", 1, "o", 5)])
    old = table.take_rows()
    apply(table, [purchase("a", 2, "p", 6)])
    copy = restored([*old, *table.take_rows(), (encode_key(CUSTOMER_ROW, b"b"), None)])
    assert list(all_observed(copy)) == ["a"]
    assert all_observed(copy)["a"]["orders"] == [(1, 5), (2, 6)]


def test_rows_that_contradict_each_other_are_corrupt() -> None:
    """A missing page, a page without a customer and an unknown format are found."""
    table = new_table()
    apply(table, [purchase("a", i, f"o{i}", 1) for i in range(40)])
    head, page = table.take_rows()
    assert head[1] is not None
    for rows in ([head], [page], [(head[0], b"\x63" + head[1][1:]), page], [(head[0], head[1][:-1]), page]):
        with pytest.raises(StateCorrupt):
            restored(rows)


def test_a_table_that_has_customers_cannot_be_restored_into() -> None:
    """Rows go into an empty table."""
    table = new_table()
    apply(table, [purchase("a", 1, "o", 5)])
    with pytest.raises(ValueError, match="empty table"):
        Restorer(table)


def test_a_lost_content_stays_lost_after_a_restore() -> None:
    """Both contents are on record; the restored table knows which is which, and the refund kinds."""
    table = new_table()
    apply(
        table,
        [
            purchase("a", 5, "o", 10),
            purchase("a", 4, "o", 12),
            refund("a", 9, "r", 0, "o", RefundKind.CANCELLATION),
        ],
    )
    apply(table, [purchase("a", 6, "p", 3), refund("a", 8, "q", 2)])
    copy = restored(table.take_rows())
    assert all_observed(copy) == all_observed(table)
    assert all_observed(copy)["a"]["orders"] == [(6, 3)]


def test_the_bound_counts_a_profile_that_did_not_change() -> None:
    """A purchase writes the whole head row, with all the traits set long ago and the old event id."""
    table = new_table()
    apply(table, [profile("a", 1, "e", note="x" * 5000)])
    table.pending_event_id[0] = b"e" * 3000
    table.take_rows()
    apply(table, [purchase("a", 2, "o", 5)])
    bound = table.dirty_bytes_max
    assert 8000 < sum(len(key) + len(value or b"") for key, value in table.take_rows()) <= bound


def test_the_bound_counts_a_profile_that_grows_after_its_row_became_dirty() -> None:
    """Traits merged into a dirty customer are in the bound, and so is what a refused event leaves."""
    table = new_table()
    apply(table, [purchase("a", 1, "o", 5), purchase("b", 1, "o", 5)])
    before = table.dirty_bytes_max
    apply(table, [profile("a", 2, "e", note="x" * 5000)])
    assert table.dirty_bytes_max >= before + 5000
    assert apply(table, [profile("b", 2, "e", note="x" * PROFILE_BYTES_MAX)]) == [Result.REFUSED]
    bound = table.dirty_bytes_max
    assert sum(len(key) + len(value or b"") for key, value in table.take_rows()) <= bound
