"""How late live changes are while everybody is converted: `python -m benchmarks.conversion_latency`.

Customers with 90 days of facts lie on a real Kafka; a worker on the wall clock has them all. Purchases
arrive through the SDK at a steady rate; in the middle an edited definition is applied, by which everybody
is evaluated again. A read_committed consumer notes when each change by an event could be read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.latency_phases import Seen, by_phase, table
from benchmarks.machine import provenance
from benchmarks.many_segments import definition_text, log
from benchmarks.process_cpu import ROOT, cpu_s
from benchmarks.report import markdown
from benchmarks.synthetic import DAY_MS, produce
from clock import SystemClock
from demo import worker
from demo.topics import fresh_topics
from deploy.local.cluster import kafka_for
from shoal_sdk import Money, Shoal
from streams.applying import Pipeline, apply
from streams.change_feed import changes
from streams.committed import partition_rows
from streams.customers.partition_row import PartitionRow
from streams.definitions import read_versions
from streams.kafka.reading import ends, reader
from streams.planning import Plan
from streams.segments.loading import load
from streams.segments.versions import Version
from streams.topics import EVENTS, topic_name

RESULTS = ROOT / "benchmarks/results/conversion-latency.json"
DAYS = 90
TICK_KEY_BYTES_MAX = 4
WARM_UP_S = 10.0
"""Left out of the figures."""
SETTLE_S = 5.0
POLL_S = 0.2
WAIT_S_MAX = 400.0
EDIT = ("days_since(last()) > 60'", "days_since(last()) > 55'")
"""Of all who ever ordered, those whose last order is 55 to 60 days ago enter."""
_ALL_CONVERTED = 1 << 64
"""The cursor behind the last customer."""


class Run:
    """One pipeline, loaded, and edited once while events arrive."""

    def __init__(self, bootstrap: str, options: argparse.Namespace, segments: int, folder: Path) -> None:
        self._options, self._segments, self._folder = options, segments, folder
        self._pipeline = Pipeline(bootstrap, f"converting-{os.getpid()}-{segments}", options.partitions)
        self._sent_ms: dict[str, float] = {}
        self._seen: list[Seen] = []
        self._moved: set[str] = set()

    async def figures(self) -> dict[str, Any]:
        """Do it all on fresh topics; return what it came to."""
        pipeline, options = self._pipeline, self._options
        path = self._folder / "segments.yaml"
        path.write_text(definition_text(self._segments), "utf-8")
        settings = {
            "SHOAL_KAFKA": pipeline.bootstrap,
            "SHOAL_PREFIX": pipeline.prefix,
            "SHOAL_PARTITIONS": str(pipeline.partitions),
            "SHOAL_DEFINITIONS": str(path),
        }
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(
                fresh_topics(pipeline.bootstrap, pipeline.prefix, pipeline.partitions)
            )
            facts = await self._load_facts()
            workers = [
                await stack.enter_async_context(worker.running(self._folder / f"{number}.log", settings))
                for number in range(options.workers)
            ]
            await self._until_read(workers)
            found = await self._measure(workers)
        return {"segments": self._segments, "facts": facts, **found}

    async def _load_facts(self) -> int:
        """Write everybody's past, which ends now; no Ticks: a worker on the wall clock takes none."""
        customers = self._options.customers
        records = log(
            customers=customers, events=customers * 9 // 4, partitions=self._pipeline.partitions,
            days=DAYS, start_ms=SystemClock().now_ms() - DAYS * DAY_MS,
        )  # fmt: skip
        facts = (record for record in records if len(record[1]) > TICK_KEY_BYTES_MAX)
        return await produce(self._pipeline.bootstrap, topic_name(self._pipeline.prefix, EVENTS), facts)

    async def _rows(self) -> dict[int, PartitionRow]:
        pipeline = self._pipeline
        return await partition_rows(pipeline.bootstrap, pipeline.prefix, pipeline.partitions)

    async def _until_read(self, workers: Sequence[worker.Worker]) -> None:
        """Return when every fact is in the committed state."""
        topic = topic_name(self._pipeline.prefix, EVENTS)
        async with reader(self._pipeline.bootstrap) as consumer:
            last = await ends(consumer, topic, range(self._pipeline.partitions))
        async with asyncio.timeout(WAIT_S_MAX):
            while True:
                rows = await self._rows()
                if all(p in rows and rows[p].source_offset >= end for p, end in last.items()):
                    return
                for each in workers:
                    each.check()
                await asyncio.sleep(1)

    async def _measure(self, workers: Sequence[worker.Worker]) -> dict[str, Any]:
        """Send, apply in the middle, and return the figures of all three phases."""
        options, done = self._options, asyncio.Event()
        listening = asyncio.create_task(self._listen(done))
        sending = asyncio.create_task(asyncio.to_thread(self._send))
        await asyncio.sleep(WARM_UP_S)
        begin_ms = time.time() * 1000
        await asyncio.sleep(options.seconds / 2)
        load, cpu = list(os.getloadavg()), [cpu_s(each.pid) for each in workers]
        applied_ms = time.time() * 1000
        number = await self._apply()
        # In a thread with a loop of its own: it is not to keep the listener from noting what it reads.
        converted_ms = await asyncio.to_thread(asyncio.run, self._converted_ms(number))
        cpu = [cpu_s(each.pid) - before for each, before in zip(workers, cpu, strict=True)]
        undelivered = await sending
        await asyncio.sleep(SETTLE_S)
        done.set()
        await listening
        for each in workers:
            each.check()
        seen = [each for each in self._seen if each.sent_ms >= begin_ms]
        return {
            "events": len(self._sent_ms),
            "undelivered": undelivered,
            "moved_by_the_edit": len(self._moved),
            "converting_s": (converted_ms - applied_ms) / 1000,
            "converting_worker_cpu_s": cpu,
            "load_at_edit": load,
            "phases": by_phase(seen, applied_ms, converted_ms),
        }

    def _send(self) -> int:
        """Send purchases at a steady rate; return how many could not be delivered."""
        options, pipeline, rng = self._options, self._pipeline, random.Random(1)
        began_s = time.monotonic()
        with Shoal(pipeline.bootstrap, app="live", prefix=pipeline.prefix) as shoal:
            for i in range(int((WARM_UP_S + options.seconds) * options.rate)):
                wait_s = began_s + i / options.rate - time.monotonic()
                if wait_s > 0:
                    time.sleep(wait_s)
                self._sent_ms[f"live-{i}"] = time.time() * 1000
                shoal.purchased(
                    f"customer-{rng.randrange(options.customers):07}",
                    order_id=f"live-order-{i}",
                    amount=Money(rng.randrange(100, 20_000), "GBP"),
                    event_id=f"live-{i}",
                )
            return shoal.close(timeout=30)

    async def _listen(self, done: asyncio.Event) -> None:
        """Note when each change by an event that was sent here could be read, and whom the edit moved."""
        pipeline = self._pipeline
        feed = changes(
            pipeline.bootstrap,
            pipeline.prefix,
            pipeline.partitions,
            from_beginning=False,
            stopped=done.is_set,
        )
        async for change in feed:
            sent_ms = self._sent_ms.get(change["cause_event_id"] or "")
            if change["cause"] == "event" and sent_ms is not None:
                self._seen.append(Seen(sent_ms, time.time() * 1000))
            elif change["cause"] == "rule_changed":
                self._moved.add(change["customer_id"])

    async def _apply(self) -> int:
        """Apply the edit, return its number; not planned: a plan reads all state, on these cores."""
        pipeline, text = self._pipeline, definition_text(self._segments)
        assert EDIT[0] in text, "the rule that is edited is there"
        text = text.replace(*EDIT, 1)
        definition = load(text, "segments.yaml")
        applied = await read_versions(pipeline.bootstrap, pipeline.prefix)
        plan = Plan(applied[-1].number if applied else 0, definition, {})
        version = Version(0, text, definition.hash, 0, "bench", "")
        return (await apply(pipeline, plan, version, confirmed=True, clock=SystemClock())).number

    async def _converted_ms(self, number: int) -> float:
        """Return when all partitions were seen to be through; who waits for an event counts as done."""
        async with asyncio.timeout(WAIT_S_MAX):
            while True:
                rows = await self._rows()
                if all(_is_through(row, number) for row in rows.values()):
                    return time.time() * 1000
                await asyncio.sleep(POLL_S)


def _is_through(row: PartitionRow, number: int) -> bool:
    converting = row.converting
    return row.definition_version == number and (converting is None or converting.cursor == _ALL_CONVERTED)


def main(arguments: Sequence[str]) -> None:
    """Measure, append to the JSON, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conversion_latency", description=__doc__)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument(
        "--segments", type=int, nargs="+", default=[20], help="3 at least: the third is edited"
    )
    parser.add_argument("--partitions", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=90.0)
    parser.add_argument("--rate", type=float, default=200.0, help="events a second")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    runs: list[dict[str, Any]] = json.loads(options.json.read_text()) if options.json.exists() else []
    size = {name: value for name, value in vars(options).items() if name not in ("json", "segments")}
    found = []
    for segments in options.segments:
        where = provenance()
        where["command"] = f"python -m benchmarks.conversion_latency {' '.join(arguments)}".strip()
        with kafka_for() as bootstrap, tempfile.TemporaryDirectory(prefix="shoal-converting-") as folder:
            figures = asyncio.run(Run(bootstrap, options, segments, Path(folder)).figures())
        where["load_at_end"] = list(os.getloadavg())
        found.append({"provenance": where, "size": size, **figures})
        options.json.write_text(json.dumps([*runs, *found], indent=1) + "\n")
    print(markdown(table(found)))


if __name__ == "__main__":
    main(sys.argv[1:])
