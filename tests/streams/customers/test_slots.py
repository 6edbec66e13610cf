"""Ids get slots in order of first appearance, and never each other's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.customers.facts import Strings, UInt64s
from streams.customers.hashing import KeyedHash, Words
from streams.customers.slots import SLOTS_MIN, Slots

IDS = st.lists(st.binary(max_size=20) | st.sampled_from([b"a", b"b", b"a\0", b"", b"\0"]), max_size=40)


@settings(max_examples=100)
@given(st.lists(IDS, max_size=5))
def test_slots_are_numbered_in_order_of_first_appearance(batches: list[list[bytes]]) -> None:
    """The same as a dictionary that gives every new id the next number."""
    slots = Slots()
    expected: dict[bytes, int] = {}
    for batch in batches:
        unknown = [expected.get(identity, -1) for identity in batch]
        assert slots.find(Strings.from_list(batch)).tolist() == unknown
        found = slots.find_or_add(Strings.from_list(batch)).tolist()
        assert found == [expected.setdefault(identity, len(expected)) for identity in batch]
    assert slots.ids_of(np.arange(len(slots))) == list(expected)
    assert [slots.id_of(slot) for slot in range(len(slots))] == list(expected)
    assert slots.lengths_of(np.arange(len(slots))).tolist() == [len(identity) for identity in expected]


def test_growth_keeps_every_slot_and_announces_the_capacity() -> None:
    """Before a slot beyond the capacity is given out, the new capacity is announced."""
    announced: list[int] = []
    slots = Slots(on_growth=announced.append)
    ids = [b"customer-%d" % number for number in range(5 * SLOTS_MIN)]
    for at in range(0, len(ids), 700):
        slots.find_or_add(Strings.from_list(ids[at : at + 700]))
    assert announced == [2 * SLOTS_MIN, 4 * SLOTS_MIN, 8 * SLOTS_MIN]
    assert slots.find(Strings.from_list(ids)).tolist() == list(range(len(ids)))


@settings(max_examples=50)
@given(st.lists(IDS, max_size=4), st.integers(0, 3))
def test_ids_with_one_hash_keep_their_own_slots(batches: list[list[bytes]], mask: int) -> None:
    """Even if almost all hashes collide, an id is verified by its bytes."""

    class WeakHash(KeyedHash):
        def hash_words(self, words: Words) -> UInt64s:
            return super().hash_words(words) & np.uint64(mask)

    slots = Slots()
    slots._hash = WeakHash(b"key")
    expected: dict[bytes, int] = {}
    for batch in batches:
        found = slots.find_or_add(Strings.from_list(batch)).tolist()
        for identity, slot in zip(batch, found, strict=True):
            assert expected.setdefault(identity, slot) == slot
    assert sorted(expected.values()) == list(range(len(expected)))
    assert slots.find(Strings.from_list(expected)).tolist() == list(expected.values())
    slots._hold(4 * SLOTS_MIN)
    assert slots.find(Strings.from_list(expected)).tolist() == list(expected.values())


def test_a_slot_nobody_has_is_an_error() -> None:
    """id_of() of an unknown slot is an IndexError."""
    with pytest.raises(IndexError, match="slot 0 of 0"):
        Slots().id_of(0)


def test_two_ids_of_one_length_and_one_hash_differ_in_their_bytes() -> None:
    """The bytes are compared, not only hash and length."""

    class NoHash(KeyedHash):
        def hash_words(self, words: Words) -> UInt64s:
            return np.zeros(len(words.counts), np.uint64)

    slots = Slots()
    slots._hash = NoHash(b"")
    assert slots.find_or_add(Strings.from_list([b"aa", b"bb", b"aa"])).tolist() == [0, 1, 0]
    assert slots.find(Strings.from_list([b"bb", b"cc"])).tolist() == [1, -1]


@settings(max_examples=80)
@given(
    st.lists(st.tuples(IDS, st.sets(st.integers(0, 20))), max_size=6),
    st.sampled_from((0, 3, ~0x7FC & ((1 << 64) - 1))),
)
def test_who_is_removed_is_gone_and_everybody_else_is_found(
    turns: list[tuple[list[bytes], set[int]]], mask: int
) -> None:
    """Whatever ids shared a hash, or a search from one of four places; numbers come back after a release."""

    class WeakHash(KeyedHash):
        def hash_words(self, words: Words) -> UInt64s:
            return super().hash_words(words) & np.uint64(mask)

    slots = Slots()
    slots._hash = WeakHash(b"key")
    held: dict[bytes, int] = {}
    for batch, gone in turns:
        given_out = set(held.values())
        found = slots.find_or_add(Strings.from_list(batch)).tolist()
        for identity, slot in zip(batch, found, strict=True):
            assert held.setdefault(identity, slot) == slot
        assert len(set(held.values())) == len(held) and given_out <= set(held.values())
        for identity in [name for at, name in enumerate(sorted(held)) if at in gone]:
            slots.remove(held.pop(identity))
            assert slots.find(Strings.from_list([identity])).tolist() == [-1]
        assert slots.held == len(held)
        assert slots.find(Strings.from_list(held)).tolist() == list(held.values())
        assert slots.ids_of(np.array(list(held.values()), np.int64)) == list(held)
        slots.release()
    slots._hold(4 * SLOTS_MIN)
    assert slots.find(Strings.from_list(held)).tolist() == list(held.values())


def test_a_number_is_given_out_again_after_a_release_and_the_id_is_overwritten() -> None:
    """To the next id of as many words; one that is longer gets a number of its own."""
    slots = Slots()
    assert slots.find_or_add(Strings.from_list([b"first-id", b"second-i"])).tolist() == [0, 1]
    slots.remove(0)
    assert b"first-id" not in slots._words.tobytes() and b"second-i" in slots._words.tobytes()
    assert slots.find_or_add(Strings.from_list([b"third-id"])).tolist() == [2]
    slots.release()
    assert slots.find_or_add(Strings.from_list([b"an id of two words", b"fourth-i"])).tolist() == [3, 0]
    assert (len(slots), slots.held) == (4, 4)
