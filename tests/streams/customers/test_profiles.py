"""A profile's bytes are plain JSON, its bounds are exact, and its length is known beforehand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.customers.facts import TraitValue
from streams.customers.profiles import PROFILE_BYTES_MAX, Profile

VALUES = st.one_of(
    st.none(),
    st.text(max_size=8),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.lists(st.text(max_size=4), max_size=3).map(lambda texts: tuple(sorted(set(texts)))),
    st.tuples(st.integers(0, 1 << 60)),
)
MERGES = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.binary(max_size=6),
        st.dictionaries(st.text(max_size=3), VALUES, max_size=4),
        st.none() | st.text(max_size=5),
    ),
    max_size=8,
)


def plain(stamped: tuple[int, bytes, TraitValue]) -> list[Any]:
    time, event_id, value = stamped
    if isinstance(value, tuple):
        instant = len(value) == 1 and isinstance(value[0], int)
        return [time, event_id.decode("utf-8", "surrogateescape"), {"at": value[0]} if instant else [*value]]
    return [time, event_id.decode("utf-8", "surrogateescape"), value]


@given(MERGES)
def test_a_profile_is_written_as_json_writes_it(
    merges: list[tuple[int, bytes, dict[str, TraitValue], str | None]],
) -> None:
    """The bytes are those of json.dumps, compact with keys sorted, no longer than len() said."""
    profile = Profile()
    for merge in merges:
        profile.merge(*merge)
        bound = len(profile)
        content: dict[str, Any] = {"traits": {name: plain(at) for name, at in profile.traits.items()}}
        if profile.account is not None:
            content["account"] = plain(profile.account)
        expected = json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
        assert profile.encoded() == expected
        assert len(expected) <= bound
    copy = Profile.decode(profile.encoded())
    assert (copy.traits, copy.account) == (profile.traits, profile.account)


@pytest.mark.parametrize("character", ["x", '"', "\\", "\x00", "\x7f", "ü", "\U0001f600"])
def test_the_length_is_known_whatever_a_text_grows_to(character: str) -> None:
    """As a name, as a value, in a set, or in an event's id: no less than what JSON makes of it."""
    for name, value, event_id in (
        (character * 200, None, b"e"),
        ("n", character * 200, b"e"),
        ("n", (character * 200, character * 201), b"e"),
        ("n", 1.5, character.encode() * 50),
        ("n", -(1 << 63), b"\xff" * 200),
    ):
        profile = Profile()
        profile.merge(10**14, event_id, {name: value}, None)
        bound = len(profile)
        assert len(profile.encoded()) <= bound


def test_the_length_of_a_profile_that_is_written_between_does_not_creep() -> None:
    """Setting one trait over and over is bounded by its size, not by how often it was set."""
    profile = Profile()
    for turn in range(1000):
        assert profile.merge(turn, b"e", {"note": "x" * 100}, None)
        assert len(profile) < 1000
        profile.encoded()


def test_what_was_set_over_and_over_without_being_written_still_leaves_its_room() -> None:
    """The bound is on the bytes themselves, however rough the running estimate has become."""
    profile = Profile()
    half = "x" * (PROFILE_BYTES_MAX // 2 - 200)
    assert all(profile.merge(turn, b"e", {"note": half}, None) for turn in range(5))
    assert profile.merge(9, b"e", {"other": half}, None)
    assert profile.merge(9, b"f", {"third": half}, "account") is None
    assert (sorted(profile.traits), profile.account) == (["note", "other"], None)
