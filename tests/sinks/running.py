"""`shoal sink redis` as a process to be killed, and what its Redis holds, from outside."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import redis

from deploy.local.redis import LocalRedis
from tests.pipeline.running import DONE_S_MAX, POLL_S, ROOT, Pipeline
from tests.sinks.making import Values, held_in, listed_in, series

SMALL = {"sink_batch_changes_max": 20, "sink_timeout_ms": 500, "session_timeout_ms": 2_000}
"""Many deliveries, so that a signal often meets one under way; the dead are soon missed."""


class Sink:
    """`shoal sink redis` as a process of its own; killed when the block ends."""

    def __init__(self, pipeline: Pipeline, server: LocalRedis, *arguments: str) -> None:
        self._log = pipeline.folder / f"sink-{time.monotonic_ns()}.log"
        self._arguments = arguments
        self._environment = pipeline.environment(redis_url=server.url, **SMALL)

    def __enter__(self) -> Sink:
        with self._log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli", "sink", "redis", *self._arguments],
                cwd=ROOT,
                env=self._environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)

    @property
    def log(self) -> str:
        """What it said so far."""
        return self._log.read_text(errors="replace")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait, return the exit status."""
        self.send(number)
        return self.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end, return the exit status."""
        return self._process.wait(DONE_S_MAX)

    async def until(self, done: Callable[[], bool]) -> None:
        """Return when `done` says so; fail if the sink has ended, or after DONE_S_MAX."""
        deadline_s = time.monotonic() + DONE_S_MAX
        while not done():
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline_s, self.log
            await asyncio.sleep(POLL_S)

    async def get(self, path: str) -> tuple[int, Any]:
        """Ask it over HTTP; return the status and the JSON, or the series of a scrape."""
        await self.until(lambda: "metrics at " in self.log)
        found = re.search(r"metrics at (http://\S+)/metrics", self.log)
        assert found is not None
        async with aiohttp.ClientSession() as session, session.get(f"{found[1]}/{path}") as response:
            text = await response.text()
        return response.status, json.loads(text) if text.startswith("{") else series(text)

    async def asked(self, done: Callable[[], Awaitable[bool]]) -> None:
        """Ask until `done` says so; fail after DONE_S_MAX."""
        deadline_s = time.monotonic() + DONE_S_MAX
        while not await done():
            assert time.monotonic() < deadline_s, self.log
            await asyncio.sleep(POLL_S)


class Held:
    """What Redis holds, from outside."""

    def __init__(self, pipeline: Pipeline, server: LocalRedis) -> None:
        self._pipeline, self._client = pipeline, redis.Redis.from_url(server.url, decode_responses=True)

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def seq(self) -> int:
        """The seqs of all watermarks added up."""
        keys = (f"shoal:{{{self._pipeline.prefix}:{p}}}:watermark" for p in range(self._pipeline.partitions))
        return sum(int(self._client.hget(key, "seq") or 0) for key in keys)

    def tamper(self) -> None:
        """Make somebody up, and lie about everybody else in one set."""
        base = f"shoal:{{{self._pipeline.prefix}:0}}:"
        self._client.sadd(f"{base}m:rfm:champions", "nobody", *self._client.smembers(f"{base}m:rfm:lost"))
        self._client.hset(f"{base}c:nobody", mapping={"rfm": "champions", "epoch": 1, "seq": 1})

    def values(self, partition: int) -> tuple[Values, Values]:
        """By customer, and by value."""
        prefix = self._pipeline.prefix
        return held_in(self._client, prefix, partition), listed_in(self._client, prefix, partition)
