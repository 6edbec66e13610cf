"""One run of idiomatic Faust over a whole log: the same marks as Shoal's, from outside."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from benchmarks.event_logs import EventLog, mark_when_read
from benchmarks.process_cpu import Measured, peak_mib
from benchmarks.shoal_run import START_S_MAX, Figures, spent
from streams.topics import EVENTS, topic_name

READY = re.compile(r"Worker ready")
CRASHED = re.compile(r"Crashed reason=.*")
TOPICS = ("changes", "customers-changelog", "memberships-changelog")


async def faust_run(bootstrap: str, log: EventLog, app: str, folder: Path) -> Figures:
    """Return what a Faust worker called `app`, which nobody used before, spent on the whole log."""
    topic = topic_name(log.prefix, EVENTS)
    # Before it starts, so that no topic that appears under way costs it a rebalance.
    await _create_topics(bootstrap, [f"{app}-{name}" for name in TOPICS], log.partitions)
    settings = {
        "BENCH_APP": app,
        "BENCH_KAFKA": bootstrap,
        "BENCH_EVENTS": topic,
        "BENCH_PARTITIONS": str(log.partitions),
    }
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as datadir:
        command = [sys.executable, "-m", "benchmarks.idiomatic_faust", "--datadir", datadir]
        with Measured([*command, "worker", "-l", "info"], folder / f"{app}.log", settings) as process:
            first = process.mark_when(READY, 1, START_S_MAX)
            last = await mark_when_read(bootstrap, app, topic, log.ends, process, fatal=CRASHED)
            memory_mib = peak_mib(process.pid)
            whole_s = process.stop()
    return spent(log.events, first, last, whole_s, memory_mib)


async def _create_topics(bootstrap: str, names: list[str], partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        # As Faust declares the changelogs of its tables.
        await admin.create_topics(
            [
                NewTopic(n, partitions, 1, topic_configs={"cleanup.policy": "compact"})
                for n in names
                if "log" in n
            ]
            + [NewTopic(n, partitions, 1) for n in names if "log" not in n]
        )
    finally:
        await admin.close()
