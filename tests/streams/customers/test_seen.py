"""The set of seen keys answers for each key whether it is new, once."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streams.customers.seen import KEYS_MIN, SeenSet


@given(
    st.lists(
        st.lists(st.integers(0, 30) | st.sampled_from([KEYS_MIN, 2 * KEYS_MIN]), max_size=30), max_size=5
    )
)
def test_a_key_is_new_once(batches: list[list[int]]) -> None:
    """As with a set; neighbours and keys that want one place included."""
    seen, expected = SeenSet(lambda: np.zeros(0, np.uint64)), set()
    for batch in batches:
        fresh = seen.add(np.array(batch, np.uint64)).tolist()
        for key, new in zip((max(key, 1) for key in batch), fresh, strict=True):
            assert new == (key not in expected)
            expected.add(key)


def test_growing_keeps_the_live_keys_and_forgets_the_others() -> None:
    """When the table is full it starts over from the keys still of use."""
    live = np.arange(1, 2001, dtype=np.uint64)
    seen = SeenSet(lambda: live)
    seen.add(np.arange(1, KEYS_MIN // 2 + 1, dtype=np.uint64))
    seen.add(np.array([10**6], np.uint64))
    assert not seen.add(live).any()
    assert seen.add(np.arange(2001, KEYS_MIN // 2 + 1, dtype=np.uint64)).all()
