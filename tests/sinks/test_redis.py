"""What is Redis's own: its keys and messages, what its errors mean, and what others did to it."""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Iterator

import pytest
import redis.exceptions
from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from deploy.local.redis import LocalRedis
from errors import SinkRejected, SinkUnavailable
from sinks.contract import Watermark
from sinks.redis import RedisSink, sink_error
from tests.sinks.making import APP, RedisStage, batch, begun, change, member

BIG = 2**53 - 1
WAIT = {
    "BusyLoadingError", "ClusterDownError", "ConnectionError", "ExternalAuthProviderError",
    "InvalidResponse", "MasterDownError", "MaxConnectionsError", "OutOfMemoryError", "ReadOnlyError",
    "TimeoutError", "TryAgainError",
}  # fmt: skip
"""Errors of the client after which the same call may succeed."""


@pytest.fixture(scope="module")
def server() -> Iterator[LocalRedis]:
    with LocalRedis() as running:
        yield running


@pytest.fixture
def stage(server: LocalRedis) -> Iterator[RedisStage]:
    staged = RedisStage(server)
    yield staged
    staged.close()


async def test_keys_fields_and_messages_are_as_promised(stage: RedisStage) -> None:
    """Whoever reads Redis without Shoal relies on these names; numbers are written out, however large."""
    sink = await begun(stage, watermark=Watermark(1, BIG - 1, 5))
    messages = stage.reader.pubsub(ignore_subscribe_messages=True)
    messages.subscribe("shoal:changes:rfm")
    messages.get_message(timeout=1.0)
    await sink.deliver(batch(change(BIG, "ada lovelace\n½", "new", expires_at=1_700_000_000_000)))
    base = "shoal:{test:3}:"
    assert sorted(stage.reader.keys()) == [
        f"{base}c:ada lovelace\n½",
        f"{base}m:rfm:new",
        f"{base}sets",
        f"{base}watermark",
    ]
    held = {"rfm": "new", "epoch": "1", "seq": str(BIG), "expires_at": "1700000000000"}
    assert stage.reader.hgetall(f"{base}c:ada lovelace\n½") == held
    assert stage.reader.hgetall(f"{base}watermark") == {
        "epoch": "1",
        "seq": str(BIG),
        "offset": str(BIG * 10),
    }
    message = messages.get_message(timeout=1.0)
    messages.close()
    assert message is not None and json.loads(message["data"]) == {
        "app": APP, "customer_id": "ada lovelace\n½", "dimension": "rfm", "change": "entered", "from": None,
        "to": "new", "cause": "event", "effective_at": 1_000 + BIG, "epoch": 1, "partition": 3, "seq": BIG,
    }  # fmt: skip
    await sink.close()


async def test_a_deadline_that_is_gone_is_not_kept(stage: RedisStage) -> None:
    """`expires_at` is the latest change's, also when that is none."""
    sink = await begun(stage)
    await sink.deliver(batch(change(1, "ada", "new", expires_at=5), change(2, "ada", "lost")))
    assert stage.reader.hget("shoal:{test:3}:c:ada", "expires_at") is None
    await sink.close()


async def test_a_rebuild_puts_right_what_others_did(stage: RedisStage) -> None:
    """Somebody made up, taken out of a set, given another value, deleted: all as the members say."""
    members = {name: member(name, 1, rfm="new") for name in ("ada", "bob", "eve")}
    sink = await begun(stage, *members.values(), watermark=Watermark(1, 1, 10))
    base = "shoal:{test:3}:"
    stage.reader.sadd(f"{base}m:rfm:new", "nobody")
    stage.reader.hset(f"{base}c:nobody", "rfm", "new")
    stage.reader.srem(f"{base}m:rfm:new", "bob")
    stage.reader.hset(f"{base}c:ada", "rfm", "lost")
    stage.reader.delete(f"{base}c:eve")
    assert await sink.rebuild(3, members, Watermark(1, 1, 10)) == 1
    wanted = {name: {"rfm": "new"} for name in members}
    assert stage.held() == stage.listed() == wanted
    await sink.close()


async def test_a_script_that_fails_half_way_can_be_repeated(stage: RedisStage) -> None:
    """Somebody's key of another type is in the way of the second customer; once it is gone all is right."""
    sink = await begun(stage)
    stage.reader.set("shoal:{test:3}:c:bob", "not a hash")
    both = batch(change(1, "ada", "new"), change(2, "bob", "new"))
    with pytest.raises(SinkRejected, match="WRONGTYPE"):
        await sink.deliver(both)
    assert await sink.watermark(3) == Watermark(0, 0, 0)
    stage.reader.delete("shoal:{test:3}:c:bob")
    await sink.deliver(both)
    assert stage.held() == stage.listed() == {"ada": {"rfm": "new"}, "bob": {"rfm": "new"}}
    assert await sink.watermark(3) == Watermark(1, 2, 20)
    await sink.close()


async def test_a_full_redis_is_waited_for(stage: RedisStage) -> None:
    """It refuses whole deliveries until somebody makes room."""
    sink = await begun(stage)
    before = stage.reader.config_get("maxmemory")["maxmemory"]
    stage.reader.config_set("maxmemory", 1)
    try:
        with pytest.raises(SinkUnavailable, match="OOM"):
            await sink.deliver(batch(change(1, "ada", "new")))
    finally:
        stage.reader.config_set("maxmemory", before)
    assert await sink.deliver(batch(change(1, "ada", "new"))) == 1
    await sink.close()


async def test_a_redis_that_evicts_is_warned_of(stage: RedisStage, caplog: pytest.LogCaptureFixture) -> None:
    """Evicted customers would look as if they had no segment."""
    stage.reader.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with caplog.at_level(logging.WARNING):
            await stage.sink.open()
    finally:
        stage.reader.config_set("maxmemory-policy", "noeviction")
    assert "allkeys-lru" in caplog.text
    await stage.sink.close()


def test_every_error_of_the_client_means_something() -> None:
    """Those that pass by themselves are waited for; every other one ends the process."""
    classes = [each for each in vars(redis.exceptions).values() if inspect.isclass(each)]
    raised = [each for each in classes if issubclass(each, Exception)]
    waited = set()
    for each in raised:
        error = each.__new__(each)
        Exception.__init__(error, "said")
        if isinstance(sink_error(error), SinkUnavailable):
            waited.add(each.__name__)
    assert waited == WAIT


def test_errors_within_a_script_are_told_by_their_code(server: LocalRedis) -> None:
    """Redis wraps them into a message of its own."""
    for code in (
        "OOM command not allowed",
        "READONLY You can't write",
        "MISCONF snapshots",
        "BUSY Redis is busy",
    ):
        wrapped = ResponseError(f"Error running script (call to f_1): @user_script: 30: -{code}")
        assert isinstance(sink_error(wrapped), SinkUnavailable)
    assert isinstance(sink_error(ResponseError("WRONGTYPE Operation")), SinkRejected)
    loading = sink_error(redis.exceptions.BusyLoadingError("LOADING"))
    assert isinstance(loading, SinkUnavailable) and loading.retry_after_seconds == 1.0
    assert isinstance(sink_error(OutOfMemoryError("OOM")), SinkUnavailable)


async def test_nobody_there_is_unavailable(server: LocalRedis) -> None:
    """A refused connection is no error of the client's own, and no stack."""
    sink = RedisSink("redis://127.0.0.1:1/0", APP, timeout_s=0.5)
    with pytest.raises(SinkUnavailable) as caught:
        await sink.open()
    assert isinstance(caught.value.__cause__, RedisError)
    await sink.close()
