"""Markers of erasures: who has one, what they look like on the topic, and that they never go back."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from errors import StateCorrupt
from streams.customers.erasures import MARKER_BYTES, Markers
from streams.customers.row_format import ERASURE_ROW, RowKey, decode_key, encode_key
from streams.customers.state import NOT_YET_MS

KEY = b"k" * 16


def test_a_marker_is_an_instant_under_an_hmac_of_the_id() -> None:
    """HMAC-SHA256 under the partition's key; the row has its kind, and no more bytes than are counted."""
    markers = Markers(KEY)
    markers.note(b"ann", 1_700_000_000_000)
    ((key, value),) = markers.take()
    digest = hmac.new(KEY, b"ann", hashlib.sha256).digest()
    assert decode_key(key) == RowKey(ERASURE_ROW, digest, 0)
    assert int.from_bytes(value, "little") == 1_700_000_000_000
    assert len(key) + len(value) == MARKER_BYTES
    assert markers.take() == [] and markers.unwritten == 0


def test_a_marker_only_ever_moves_forward_and_is_written_when_it_moved() -> None:
    """An older erasure that comes late is none."""
    markers = Markers(KEY)
    for at in (5, 3, 5, 7):
        markers.note(b"ann", at)
        markers.take() if at != 3 else None
    assert markers.of([b"ann", b"bob"]).tolist() == [7, NOT_YET_MS]
    markers.note(b"ann", 6)
    assert markers.take() == []


def test_markers_are_put_back_as_they_were() -> None:
    """Under the same key; under another nobody is found."""
    markers, copy, other = Markers(KEY), Markers(KEY), Markers(b"another")
    markers.note(b"ann", 5)
    markers.note(b"bob", 0)
    for key, value in markers.take():
        copy.restore(key, value)
        other.restore(key, value)
    assert copy.of([b"ann", b"bob", b"eve"]).tolist() == [5, 0, NOT_YET_MS]
    assert other.of([b"ann"]).tolist() == [NOT_YET_MS]
    assert len(copy) == 2 and copy.take() == []


@pytest.mark.parametrize(("digest", "value"), [(b"short", bytes(8)), (bytes(32), b""), (bytes(32), bytes(9))])
def test_a_row_that_is_no_marker_is_corrupt(digest: bytes, value: bytes) -> None:
    """Rather than an erasure nobody asked for."""
    with pytest.raises(StateCorrupt, match="marker of an erasure"):
        Markers(KEY).restore(encode_key(ERASURE_ROW, digest), value)
