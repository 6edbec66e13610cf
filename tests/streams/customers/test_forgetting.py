"""A customer let go by the table: rows become tombstones, columns as new, and nobody else is touched."""

from __future__ import annotations

import numpy as np

from streams.customers.facts import Strings
from streams.customers.pages import FACTS_PER_PAGE
from streams.customers.row_format import CUSTOMER_ROW, encode_key
from streams.customers.table import CustomerTable
from tests.streams.customers.building import (
    Event,
    all_observed,
    apply,
    new_table,
    observed,
    profile,
    purchase,
    refund,
    restored,
    sign_up,
)


def life(customer: str, facts: int = 40) -> list[Event]:
    """Orders over more than a page, a linked and an unlinked refund, one that waits, a profile."""
    events = [purchase(customer, 100 + n, f"{customer}-o{n}", 50, account="acme") for n in range(facts)]
    events += [refund(customer, 300, f"{customer}-r1", 20, f"{customer}-o1")]
    events += [refund(customer, 310, f"{customer}-r2", 5), refund(customer, 320, f"{customer}-r3", 5, "none")]
    return [*events, sign_up(customer, 90, f"{customer}-s", plan="pro"), profile(customer, 400, "p", a=1)]


def slot_of(customer: str, table: CustomerTable) -> int:
    """The slot a customer has, -1 for none."""
    return int(table.slots.find(Strings.from_list([customer.encode()]))[0])


def test_rows_of_the_forgotten_are_tombstones_and_the_others_are_as_they_were() -> None:
    """The row, and every page: those on the topic and those that became tombstones before."""
    table = new_table()
    apply(table, [*life("ann"), *life("bob")])
    rows = dict(table.take_rows())
    bob = observed(table, slot_of("bob", table))
    table.forget(slot_of("ann", table))
    tombstones = table.take_rows()
    assert tombstones == [(encode_key(CUSTOMER_ROW, b"ann", page), None) for page in (0, 1)]
    assert all_observed(restored([*rows.items(), *tombstones])) == {"bob": bob}
    assert observed(table, slot_of("bob", table)) == bob and slot_of("ann", table) == -1
    assert (table.customers, table.count) == (1, 2)


def test_what_was_never_written_needs_no_tombstone() -> None:
    """A page sealed in the transaction that forgets it; the row's own costs nothing to be sure of."""
    table = new_table()
    apply(table, life("ann", FACTS_PER_PAGE * 3))
    table.forget(slot_of("ann", table))
    assert table.take_rows() == [(encode_key(CUSTOMER_ROW, b"ann"), None)]


def test_a_page_dropped_and_not_yet_taken_keeps_its_tombstone() -> None:
    """Folding had begun to drop it in the same transaction."""
    table = new_table()
    apply(table, life("ann", 3 * FACTS_PER_PAGE))
    table.take_rows()
    slot = slot_of("ann", table)
    assert table.drop_pages(slot, 2) == 2 and table.drop_pages(slot, 9) == 1
    table.forget(slot)
    assert {key for key, value in table.take_rows() if value is None} == {
        encode_key(CUSTOMER_ROW, b"ann", page) for page in range(4)
    }


def test_whoever_has_the_slot_next_begins_with_nothing() -> None:
    """Everything that can be asked is what it would be in a table of its own, also of the same facts."""
    table, fresh = new_table(), new_table()
    apply(table, life("ann"))
    slot = slot_of("ann", table)
    table.value[slot], table.since_ms[slot], table.erased_ms[slot] = 1, 7, 7
    table.forget(slot)
    table.take_rows()
    assert apply(table, life("eve")) == apply(fresh, life("eve"))
    assert slot_of("eve", table) == slot and table.count == 1
    assert observed(table, slot) == observed(fresh, 0)
    for name, column in vars(table).items():
        if isinstance(column, np.ndarray):
            assert column[slot].tolist() == vars(fresh)[name][0].tolist(), name
    assert (int(table.pages.sealed[slot]), int(table.pages.dropped[slot])) == (1, 0)
    assert table.ledger.entries.keys() == {slot} == table.profiles.keys()


def test_the_row_bound_holds_for_who_is_forgotten() -> None:
    """No fewer bytes are announced than are taken: tombstones and markers, beside other rows."""
    table = new_table()
    apply(table, [*life("ann", 200), *life("bob")])
    table.take_rows()
    apply(table, [purchase("ann", 900, "late", 1), purchase("bob", 900, "late", 1)])
    before = table.dirty_bytes_max
    slot = slot_of("ann", table)
    needed = table.erasure_bytes(slot)
    table.forget(slot)
    table.erasures.note(b"ann", 900)
    assert table.dirty_bytes_max <= before + needed and table.dirty_count == 2
    bound = table.dirty_bytes_max
    assert sum(len(key) + len(value or b"") for key, value in table.take_rows()) <= bound
    assert (table.dirty_count, table.dirty_bytes_max) == (0, 0)


def test_the_latest_of_what_is_kept() -> None:
    """Of facts, what waits in the ledger, and words; nothing for who has none."""
    table = new_table()
    apply(
        table, [purchase("ann", 100, "o", 5), refund("ann", 700, "r", 5, "o"), profile("bob", 900, "p", a=1)]
    )
    apply(table, [purchase("eve", 100, "o", 5), profile("eve", 50, "p", a=1)])
    assert [table.latest_ms(slot_of(name, table)) for name in ("ann", "bob", "eve")] == [700, 900, 100]


def test_who_came_back_is_known_as_such_after_a_restart() -> None:
    """The marker is found for a customer who is there again."""
    table = new_table()
    apply(table, life("ann"))
    rows = dict(table.take_rows())
    table.erasures.note(b"ann", 5)
    rows.update(table.take_rows())
    copy = restored(rows.items())
    assert copy.erased_ms[slot_of("ann", copy)] == 5 and len(copy.erasures) == 1
