"""What Redis says of every customer once `shoal sink redis` has run, compared with what the pipeline says."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from demo import worker
from demo.oracle import Standing
from errors import SinkUnavailable

COMMAND = ("sink", "redis", "--once")
SCANNED = 1_000
"""About how many keys are asked for at a time."""

Values = dict[str, dict[str, str]]
"""Customer to dimension to value."""


async def differences(
    log: Path, settings: Mapping[str, str], url: str | None, standings: Mapping[str, Standing]
) -> dict[str, str] | None:
    """Fill a Redis from the topics the settings name; return who is not as in `standings`, and how.

    Read both ways: by customer, and by value. The keys are removed again, for the Redis may be
    somebody's. None without a url. Raises WorkerEnded, or SinkUnavailable when Redis does not answer.
    """
    if url is None:
        return None
    prefix, partitions = settings["SHOAL_PREFIX"], int(settings["SHOAL_PARTITIONS"])
    # Its answers are typed for either way of decoding them; ours are text.
    client: Any = Redis.from_url(url, decode_responses=True)
    by_customer: Values = {}
    by_value: Values = {}
    try:
        async with worker.running(log, {**settings, "SHOAL_REDIS_URL": url}, COMMAND) as sink:
            await sink.finish()
        for partition in range(partitions):
            base = f"shoal:{{{prefix}:{partition}}}:"
            by_customer |= await _by_customer(client, base)
            by_value |= await _by_value(client, base)
    except RedisError as error:
        raise SinkUnavailable(f"reading Redis: {type(error).__name__}: {error}") from error
    finally:
        with contextlib.suppress(RedisError):
            await _forget(client, prefix)
        await client.aclose()
    return compare(standings, by_customer, by_value)


def compare(standings: Mapping[str, Standing], by_customer: Values, by_value: Values) -> dict[str, str]:
    """Return what is wrong with whom."""
    wrong = {}
    for customer in standings.keys() | by_customer.keys() | by_value.keys():
        standing = standings.get(customer)
        if standing is None:
            wrong[customer] = "unexpected"
            continue
        expected = {"rfm": standing.rfm, "lifecycle": standing.lifecycle}
        for how, found in (("hash", by_customer.get(customer)), ("sets", by_value.get(customer))):
            if found != expected:
                wrong[customer] = f"{how}: {found or 'missing'}, expected {expected}"
    return wrong


async def _by_customer(client: Any, base: str) -> Values:
    found = {}
    async for keys in _keys(client, f"{base}c:*"):
        batch = client.pipeline(transaction=False)
        for key in keys:
            batch.hmget(key, ["rfm", "lifecycle"])
        for key, (rfm, lifecycle) in zip(keys, await batch.execute(), strict=True):
            found[key.removeprefix(f"{base}c:")] = {"rfm": rfm, "lifecycle": lifecycle}
    return found


async def _by_value(client: Any, base: str) -> Values:
    found: Values = {}
    async for keys in _keys(client, f"{base}m:*"):
        for key in keys:
            dimension, value = key.removeprefix(f"{base}m:").split(":", 1)
            for customer in await client.smembers(key):
                held = found.setdefault(customer, {})
                # In two sets of one dimension: neither value is right.
                held[dimension] = value if dimension not in held else f"{held[dimension]}, {value}"
    return found


async def _forget(client: Any, prefix: str) -> None:
    """Delete every key of the run."""
    async for keys in _keys(client, f"shoal:{{{prefix}:*"):
        await client.unlink(*keys)


async def _keys(client: Any, pattern: str) -> AsyncIterator[list[str]]:
    """Iterate over portions of the keys that match; one may come twice."""
    cursor = 0
    while True:
        cursor, keys = await client.scan(cursor, match=pattern, count=SCANNED)
        if keys:
            yield keys
        if not cursor:
            return
