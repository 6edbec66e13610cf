"""Redis as a sink: what a customer is now, who has which value, and a message for every change.

`shoal:{app:p}:c:<id>` is a hash (each dimension's value; epoch, seq and expires_at of the latest
change), `shoal:{app:p}:m:<dimension>:<value>` a set of ids, `shoal:{app:p}:sets` the names of those
sets, `shoal:{app:p}:watermark` a hash; messages go to `shoal:changes:<dimension>`. Never the truth:
everything can be rebuilt, and a Redis that evicts keys evicts answers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    InvalidResponse,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from errors import SinkError, SinkRejected, SinkUnavailable
from sinks.contract import Batch, Change, Member, Watermark, check, gap
from sinks.redis_scripts import DELIVER, LOAD

log = logging.getLogger(__name__)

LOAD_MEMBERS_MAX = 500
"""Customers loaded by one script; Redis serves nobody else while a script runs."""
SCAN_MEMBERS = 1_000
"""About how many members of a set are compared at a time."""
LOADING_S = 1.0
"""How long a Redis that is reading its file is given, for it says nothing of how long it takes."""

FORBIDDEN = (AuthenticationError, AuthorizationError)
TEMPORARY = (
    ConnectionError,
    TimeoutError,
    InvalidResponse,
    OutOfMemoryError,
    ReadOnlyError,
    ClusterDownError,
    TryAgainError,
    OSError,
)
TEMPORARY_CODES = ("OOM ", "READONLY ", "MISCONF ", "NOREPLICAS ", "BUSY ", "MASTERDOWN ", "LOADING ")
"""From within a script these come wrapped in another message."""

_MESSAGE = ("customer_id", "dimension", "change", "from", "to", "cause", "effective_at")
_PLACE = ("epoch", "partition", "seq")


class RedisSink:
    """One app's values in one Redis. `url` is redis://, rediss:// or unix://, and may hold a password."""

    name = "redis"

    def __init__(self, url: str, app: str, *, timeout_s: float = 5.0) -> None:
        self._app = app
        # Attempts are counted by whoever delivers: two layers of retries multiply.
        # Its answers are typed for either way of decoding them; ours are text.
        self._redis: Any = Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._deliver: Callable[..., Any] = self._redis.register_script(DELIVER)
        self._load: Callable[..., Any] = self._redis.register_script(LOAD)

    async def open(self) -> None:
        with _mapped():
            memory = await self._redis.info("memory")
        policy = memory.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            log.warning("this Redis evicts keys (maxmemory-policy %s): who is evicted has no segment", policy)

    async def watermark(self, partition: int) -> Watermark | None:
        with _mapped():
            held = await self._redis.hmget(self._key(partition, "watermark"), ["epoch", "seq", "offset"])
        if None in held:
            return None
        epoch, seq, offset = map(int, held)
        return Watermark(epoch, seq, offset)

    async def deliver(self, batch: Batch) -> int:
        check(batch)
        arguments: list[str | int] = [self._key(batch.partition, ""), batch.next_offset]
        for change in batch.changes:
            expires_at = change["expires_at"]
            arguments += (
                change["epoch"],
                change["seq"],
                change["customer_id"],
                change["dimension"],
                change["to"] or "",
                "" if expires_at is None else expires_at,
                self._message(change),
            )
        with _mapped():
            applied, epoch, seq = await self._deliver(
                keys=[self._key(batch.partition, "watermark")], args=arguments
            )
        if applied < 0:
            held = Watermark(int(epoch or 0), int(seq or 0), 0)
            raise gap(batch, held)
        return int(applied)

    async def rebuild(self, partition: int, members: Mapping[str, Member], watermark: Watermark) -> int:
        where = self._key(partition, "watermark")
        with _mapped():
            await self._redis.delete(where)
            for some in _portions(members.values(), LOAD_MEMBERS_MAX):
                await self._load(keys=[where], args=_loaded(self._key(partition, ""), some))
            removed = await self._remove_others(partition, members)
            # Last: as long as it is missing, whoever looks knows that the rest is not complete.
            await self._redis.hset(
                where,
                mapping={"epoch": watermark.epoch, "seq": watermark.seq, "offset": watermark.offset},
            )
        return removed

    async def close(self) -> None:
        with _mapped():
            await self._redis.aclose()

    async def _remove_others(self, partition: int, members: Mapping[str, Member]) -> int:
        """Take out of every set who does not belong there, and delete who is no member at all."""
        strangers: set[str] = set()
        for name in await self._redis.smembers(self._key(partition, "sets")):
            dimension, value = name.split(":", 1)
            key, cursor = self._key(partition, f"m:{name}"), 0
            while True:
                cursor, found = await self._redis.sscan(key, cursor, count=SCAN_MEMBERS)
                wrong = [
                    each
                    for each in found
                    if each not in members or members[each].values.get(dimension) != value
                ]
                gone = [each for each in wrong if each not in members]
                if wrong:
                    await self._redis.srem(key, *wrong)
                if gone:
                    await self._redis.unlink(*(self._key(partition, f"c:{each}") for each in gone))
                strangers.update(gone)
                if not cursor:
                    break
        return len(strangers)

    def _key(self, partition: int, rest: str) -> str:
        return f"shoal:{{{self._app}:{partition}}}:{rest}"

    def _message(self, change: Change) -> str:
        fields = {"app": self._app, **{name: change[name] for name in (*_MESSAGE, *_PLACE)}}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def sink_error(error: Exception) -> SinkError:
    """Return what an error of the client means: SinkUnavailable if the same call may succeed later."""
    said = f"Redis: {type(error).__name__}: {error}"
    if isinstance(error, FORBIDDEN):
        return SinkRejected(said)
    if isinstance(error, BusyLoadingError):
        return SinkUnavailable(said, retry_after_seconds=LOADING_S)
    if isinstance(error, TEMPORARY):
        return SinkUnavailable(said)
    if isinstance(error, ResponseError) and any(code in str(error) for code in TEMPORARY_CODES):
        return SinkUnavailable(said)
    return SinkRejected(said)


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except (RedisError, RedisClusterException, OSError) as error:
        raise sink_error(error) from error


def _portions(members: Iterable[Member], most: int) -> Iterator[Sequence[Member]]:
    rest = iter(members)
    while some := list(islice(rest, most)):
        yield some


def _loaded(base: str, members: Sequence[Member]) -> list[str | int]:
    arguments: list[str | int] = [base]
    for member in members:
        expires_at = "" if member.expires_at is None else member.expires_at
        arguments += (member.customer_id, member.epoch, member.seq, expires_at, len(member.values))
        for pair in member.values.items():
            arguments += pair
    return arguments
