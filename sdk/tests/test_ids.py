"""Event ids: stable for a natural key, growing without one."""

from __future__ import annotations

import subprocess
import sys
import uuid

from shoal_sdk.ids import TimeOrderedIds, app_namespace, natural_id

SHOP = app_namespace("shop")


def test_an_id_of_a_natural_key_never_changes() -> None:
    """A released id: were it to change, every retry across an upgrade would be a second event."""
    assert natural_id(SHOP, "purchased", "c1", "o1") == "bc331e77-3b81-5cc7-878a-c87bcb56cd32"


def test_an_id_is_the_same_in_another_process() -> None:
    """Nothing of the process goes into it."""
    code = "from shoal_sdk.ids import *; print(natural_id(app_namespace('shop'), 'purchased', 'c', 'o'))"
    env = {"PYTHONPATH": ":".join(sys.path)}
    other = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == natural_id(SHOP, "purchased", "c", "o")


def test_different_keys_have_different_ids() -> None:
    """App, kind, customer and key all count, and do not run together."""
    ids = [
        natural_id(SHOP, "purchased", "c1", "o1"),
        natural_id(SHOP, "refunded", "c1", "o1"),
        natural_id(SHOP, "purchased", "c", "1o1"),
        natural_id(SHOP, "purchased", "c1", "o2"),
        natural_id(app_namespace("other"), "purchased", "c1", "o1"),
    ]
    assert len(set(ids)) == len(ids)


def test_ids_without_a_key_only_grow() -> None:
    """Also when the clock stands still or goes back, and past 4,096 in a millisecond."""
    times = iter([5_000_000_000] * 5000 + [4_000_000_000] * 10 + [6_000_000_000] * 10)
    ids = TimeOrderedIds(lambda: next(times))
    made = [ids.next() for _ in range(5020)]
    assert made == sorted(set(made))
    assert {uuid.UUID(one).version for one in made} == {7}
