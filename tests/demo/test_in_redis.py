"""What the demo finds in Redis, and that it finds what is wrong there."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from demo import in_redis
from demo.oracle import Standing
from deploy.local.redis import LocalRedis

BEST = Standing(1_000, 20, 200_000, (5, 5, 5), "champions", "loyal")
HELD = {"rfm": "champions", "lifecycle": "loyal"}
LOST = {"rfm": "lost", "lifecycle": "churned"}


def test_whoever_is_the_same_both_ways_does_not_differ() -> None:
    """By customer and by value."""
    assert in_redis.compare({"1": BEST}, {"1": HELD}, {"1": HELD}) == {}


@pytest.mark.parametrize(
    ("by_customer", "by_value", "wrong"),
    [
        ({"1": LOST}, {"1": HELD}, {"1"}),
        ({"1": HELD}, {"1": LOST}, {"1"}),
        ({"1": HELD}, {}, {"1"}),
        ({}, {"1": HELD}, {"1"}),
        ({"1": HELD, "2": HELD}, {"1": HELD}, {"2"}),
        ({"1": HELD}, {"1": HELD, "2": LOST}, {"2"}),
    ],
)
def test_whoever_is_wrong_either_way_differs(
    by_customer: in_redis.Values, by_value: in_redis.Values, wrong: set[str]
) -> None:
    """Another value, missing, or unexpected; in the hash or in the sets."""
    assert in_redis.compare({"1": BEST}, by_customer, by_value).keys() == wrong


async def test_a_customer_in_two_sets_of_a_dimension_is_read_as_neither(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Read from a real Redis, whose other keys stay and whose keys of the run go."""
    monkeypatch.setattr(in_redis, "COMMAND", ("--help",))
    settings = {"SHOAL_PREFIX": "demo-1", "SHOAL_PARTITIONS": "1"}
    with LocalRedis() as server, redis.Redis.from_url(server.url, decode_responses=True) as client:
        client.hset("shoal:{demo-1:0}:c:1", mapping=HELD)
        client.hset("shoal:{demo-10:0}:c:1", mapping=HELD)
        for value in ("rfm:champions", "rfm:lost", "lifecycle:loyal"):
            client.sadd(f"shoal:{{demo-1:0}}:m:{value}", "1")
        wrong = await in_redis.differences(tmp_path / "log", settings, server.url, {"1": BEST})
        assert wrong is not None and "lost" in wrong["1"] and "sets" in wrong["1"]
        assert client.keys() == ["shoal:{demo-10:0}:c:1"]
