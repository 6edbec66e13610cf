"""Live traffic on the wall clock: `python -m benchmarks.live [SECONDS] [EVENTS_PER_SECOND]`, two workers.

Purchases arrive through the SDK; one in ten happened 30 days ago less a few minutes, so that
deadlines keep coming due while it runs. Says how long after an event, or after a deadline, its
change could be read by a read_committed consumer, and what the workers cost and held.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from benchmarks.process_cpu import cpu_s
from demo import worker
from demo.topics import fresh_topics
from deploy.local.cluster import kafka_for
from shoal_sdk import Money, Shoal
from streams.change_feed import changes

PARTITIONS = 8
CUSTOMERS = 20_000
WARM_UP_S = 30.0
"""Left out of the figures: both workers have joined and every cache is warm after it."""
SETTLE_S = 5.0


def rss_mib(pid: int) -> float:
    """What a process is resident with now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def send(bootstrap: str, prefix: str, seconds: float, rate: float) -> int:
    """Send purchases at a steady rate; return how many could not be delivered."""
    rng = random.Random(1)
    began_s = time.monotonic()
    with Shoal(bootstrap, app="live", prefix=prefix) as shoal:
        for i in range(int(seconds * rate)):
            wait_s = began_s + i / rate - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            now = datetime.now(UTC)
            # 30 days after this purchase, some time within this run, recency falls from 5 to 4.
            ahead = timedelta(seconds=rng.uniform(0, seconds))
            at = now - timedelta(days=30) + ahead if i % 10 == 0 else now
            shoal.purchased(
                f"customer-{rng.randrange(CUSTOMERS)}",
                order_id=f"order-{i}",
                amount=Money(rng.randrange(100, 20_000), "GBP"),
                occurred_at=at,
            )
        return shoal.close(timeout=30)


async def listen(bootstrap: str, prefix: str, begin_ms: float, lags_ms: dict[str, list[float]]) -> None:
    """Note for every change, by cause, how long after it became true it could be read."""
    async for change in changes(bootstrap, prefix, PARTITIONS, from_beginning=False):
        now_ms = time.time() * 1000
        if now_ms >= begin_ms and change["cause"] in ("event", "time_elapsed"):
            lags_ms[change["cause"]].append(now_ms - change["effective_at"])


async def run(bootstrap: str, seconds: float, rate: float) -> None:
    """Run it and print the figures."""
    prefix = f"live-{os.getpid()}"
    folder = Path(tempfile.mkdtemp(prefix="shoal-live-"))
    settings = {"SHOAL_KAFKA": bootstrap, "SHOAL_PREFIX": prefix, "SHOAL_PARTITIONS": str(PARTITIONS)}
    lags_ms: dict[str, list[float]] = defaultdict(list)
    async with (
        fresh_topics(bootstrap, prefix, PARTITIONS),
        worker.running(folder / "one.log", settings) as one,
        worker.running(folder / "two.log", settings) as two,
    ):
        begin_ms = (time.time() + WARM_UP_S) * 1000
        listening = asyncio.create_task(listen(bootstrap, prefix, begin_ms, lags_ms))
        sending = asyncio.create_task(asyncio.to_thread(send, bootstrap, prefix, seconds, rate))
        await asyncio.sleep(WARM_UP_S)
        before = [(cpu_s(each.pid), rss_mib(each.pid)) for each in (one, two)]
        since_s = time.monotonic()
        undelivered = await sending
        spent_s = time.monotonic() - since_s
        after = [(cpu_s(each.pid), rss_mib(each.pid)) for each in (one, two)]
        await asyncio.sleep(SETTLE_S)
        one.check()
        two.check()
        listening.cancel()
    print(
        f"{seconds * rate:,.0f} events at {rate:.0f}/s, {undelivered} undelivered, measured {spent_s:.0f} s"
    )
    for cause, lags in sorted(lags_ms.items()):
        p50, p99, most = np.percentile(lags, (50, 99, 100))
        print(f"{cause:<13} {len(lags):>7,} changes read after p50 {p50:.0f} p99 {p99:.0f} max {most:.0f} ms")
    for name, (cpu0, rss0), (cpu1, rss1) in zip(("one", "two"), before, after, strict=True):
        share = 100 * (cpu1 - cpu0) / spent_s
        print(
            f"worker {name}: {share:.1f} % of a core, {rss0:.0f} MiB after warm-up, {rss1:.0f} MiB at the end"
        )


if __name__ == "__main__":
    arguments = [float(argument) for argument in sys.argv[1:]]
    with kafka_for() as address:
        asyncio.run(run(address, *(arguments + [600.0, 500.0][len(arguments) :])))
