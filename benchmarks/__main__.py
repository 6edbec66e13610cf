"""`python -m benchmarks`: a million synthetic events through real Kafka, and what the worker spent on them.

The stream is written first, then the worker starts on the backlog: what is measured is the
worker alone, from outside (user and system time of all its threads), beside the broker on
the same machine. Stages are what the worker itself reports.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError

from benchmarks.synthetic import produce, stream
from demo import worker
from demo.topics import fresh_topics
from deploy.local.cluster import kafka_for
from streams.app import group_id
from streams.kafka.reading import extent, reader

POLL_S = 0.2
SECONDS_MAX = 900.0
_STAGE = re.compile(r"(\w+) (\d+) ms(?=,|$)")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system seconds of all threads of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def peak_mib(pid: int) -> float:
    """The most memory a process has been resident with so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


async def _ends(bootstrap: str, topic: str, partitions: int) -> dict[int, int]:
    async with reader(bootstrap) as consumer:
        return {p: (await extent(consumer, topic, p)).end for p in range(partitions)}


async def _wait_until_read(bootstrap: str, prefix: str, ends: dict[int, int], running: worker.Worker) -> None:
    """Return when the worker's group stands at the end of every partition."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    topic, group = f"{prefix}.events", group_id(prefix)
    try:
        deadline_s = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline_s:
            running.check()
            try:
                offsets = await admin.list_consumer_group_offsets(group)
            except GroupCoordinatorNotAvailableError:
                # The group exists once the worker has joined it.
                offsets = {}
            if all(
                (at := offsets.get(TopicPartition(topic, p))) is not None and at.offset >= end
                for p, end in ends.items()
            ):
                return
            await asyncio.sleep(POLL_S)
        raise TimeoutError(f"not done within {SECONDS_MAX:.0f} s")
    finally:
        await admin.close()


async def run(options: argparse.Namespace, bootstrap: str) -> None:
    """Write the stream, run the worker on it, print what it spent."""
    prefix = f"bench-{os.getpid()}-{int(time.time())}"
    topic = f"{prefix}.events"
    async with fresh_topics(bootstrap, prefix, options.partitions):
        events = await produce(
            bootstrap,
            topic,
            stream(
                events=options.events,
                customers=options.customers,
                partitions=options.partitions,
                days=options.days,
            ),
        )
        ends = await _ends(bootstrap, topic, options.partitions)
        print(f"{events:,} events and {sum(ends.values()) - events:,} ticks written", flush=True)
        log = Path(tempfile.mkdtemp(prefix="shoal-bench-")) / "worker.log"
        settings = {
            "SHOAL_KAFKA": bootstrap,
            "SHOAL_PREFIX": prefix,
            "SHOAL_CLOCK": "event",
            "SHOAL_PARTITIONS": str(options.partitions),
            "SHOAL_CHUNK_RECORDS_MAX": str(options.chunk),
        }
        began_s = time.monotonic()
        async with worker.running(log, settings) as running:
            await _wait_until_read(bootstrap, prefix, ends, running)
            spent_s, memory_mib = cpu_s(running.pid), peak_mib(running.pid)
            seconds = time.monotonic() - began_s
    text = log.read_text()
    figures = worker.figures(text)
    stages: Counter[str] = Counter()
    for line in text.splitlines():
        # What the worker reports every few seconds ends with the stages.
        if "partitions pending" in line:
            stages.update({name: int(ms) for name, ms in _STAGE.findall(line)})
    print(
        f"worker: {seconds:.1f} s from start, {events / seconds:,.0f} events/s, {memory_mib:.0f} MiB at most"
    )
    print(f"CPU: {spent_s * 1e6 / events:.2f} µs/event, start-up and all threads included")
    if figures:
        print(f"steps: {figures.pieces} of {figures.piece_ms_mean:.2f} ms;", end=" ")
        print(f"transactions: {figures.transactions} of {figures.transaction_ms_mean:.1f} ms (wall)")
    for name, ms in stages.most_common():
        print(f"  {name:<12} {ms * 1e3 / events:6.2f} µs/event")
    print(f"log: {log}")


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--chunk", type=int, default=5_000)
    options = parser.parse_args()
    with kafka_for() as bootstrap:
        asyncio.run(run(options, bootstrap))


if __name__ == "__main__":
    main()
