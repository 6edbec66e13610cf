"""`shoal rebuild` on a real broker: the difference of two fresh computations, exactly once, through kills."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.synthetic import START_MS, stream
from schemas.events import encode_event
from schemas.markers import REBUILD_BEGINS, REBUILD_ENDS
from streams.definitions import read_held, read_versions
from streams.segments.loading import load
from tests.pipeline.judging import undisturbed
from tests.pipeline.running import DONE_S_MAX, POLL_S, Pipeline, Produced, Worker, home
from tests.pipeline.test_definitions import TEXT, file
from tests.streams.steps.test_conversion import assert_chained, held

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

DAY_MS = 86_400_000
DAYS = 380
REBUILT = (
    TEXT.replace("    5: 30d", "    5: 45d").replace("    champions: ", "    stars: ")
    + """
segments:
  exporters:
    name: Exporters
    description: Exported twice in ninety days
    owner: growth@example.com
    when: count("exported", 90d) >= 2
"""
)
Told = tuple[str, str, str | None, str | None]


def log_of(events: int = 600, customers: int = 40, partitions: int = 2) -> list[Produced]:
    """A year of some customers, with Ticks and activities that version 1 keeps nothing of."""
    rng, log = random.Random(3), []
    plain = list(
        stream(events=events, customers=customers, partitions=partitions, days=DAYS, tick_ms=7 * DAY_MS)
    )
    names = [key.decode() for _, key, value in plain if len(key) > 3]
    for number, record in enumerate(plain):
        log.append(record)
        if rng.random() < 0.3:
            who, at = rng.choice(names), START_MS + DAYS * DAY_MS * number // len(plain)
            fields = {"customer_id": who, "event_id": f"a{number}", "occurred_at": at, "name": "exported"}
            log.append(
                (home(who, partitions), who.encode(), encode_event("Activity", {**fields, "properties": {}}))
            )
    last = [record for record in reversed(plain) if len(record[1]) <= 3][:partitions]
    return log + last


def rebuild(pipeline: Pipeline, path: Path, *options: str, **settings: object) -> subprocess.Popen[bytes]:
    """`shoal rebuild` as a process; what it says is in a file."""
    with (pipeline.folder / "rebuild.log").open("ab") as sink:
        return subprocess.Popen(
            [sys.executable, "-m", "cli", "rebuild", str(path), *options],
            cwd=pipeline.folder,
            env=pipeline.environment(**settings),
            stdout=sink,
            stderr=subprocess.STDOUT,
        )


def said(pipeline: Pipeline) -> str:
    """What rebuilds said so far."""
    return (pipeline.folder / "rebuild.log").read_text()


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Return the exit status."""
    return await asyncio.to_thread(process.wait, 2 * DONE_S_MAX)


async def taken_over(pipeline: Pipeline, *workers: Worker) -> None:
    """Return when every partition is whole in epoch 2."""
    async with asyncio.timeout(DONE_S_MAX):
        while True:
            markers = [await pipeline.markers(p) for p in range(pipeline.partitions)]
            if all(any(each.kind == REBUILD_ENDS for each in mine) for mine in markers):
                return
            for worker in workers:
                worker.check()
            await asyncio.sleep(POLL_S)


async def assert_rebuilt(pipeline: Pipeline, text: str = REBUILT) -> dict[int, list[dict[str, Any]]]:
    """Changes and memberships are what a run of the new version alone over the very log comes to.

    Numbers have no gap, each change begins where the last ended, and markers stand around the difference.
    """
    all_changes = {}
    for partition in range(pipeline.partitions):
        records = [(r.timestamp, r.key, r.value) for r in await pipeline.records("events", partition)]
        fresh = {
            n: v
            for n, v in held(undisturbed(records, partition, pipeline.partitions, load(text, "x"))).items()
            if v
        }
        changes = all_changes[partition] = await pipeline.changes(partition)
        assert {name: values for name, values in assert_chained(changes).items() if values} == fresh
        members = await pipeline.memberships(partition)
        said = {
            name: {each["dimension"]: each["value"] for each in record["values"]}
            for name, record in members.items()
        }
        assert {name: values for name, values in said.items() if values} == fresh
        begins, ends = await pipeline.markers(partition)
        assert (begins.kind, ends.kind, begins.epoch) == (REBUILD_BEGINS, REBUILD_ENDS, 2)
        reconciled = [c for c in changes if c["origin"] == "reconcile"]
        assert ends.changes == len(reconciled)
        assert {c["run_id"] for c in reconciled} <= {"rebuild-e2"}
        assert all(begins.seq < c["seq"] <= ends.seq for c in reconciled)
        assert {c["epoch"] for c in changes if c["seq"] > begins.seq} <= {2}
        row = await pipeline.partition_row(partition, 2)
        assert row.source_offset == len(records) and row.rebuilt is None
        assert (await pipeline.partition_row(partition)).superseded_by == 2
        assert await pipeline.rows("dead-letters", partition) == []
    return all_changes


async def test_what_a_rebuild_tells_is_the_difference_of_two_fresh_computations(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """`apply` names the command; the command refuses what `apply` does; each difference is told once.

    A worker that starts afterwards, and one that starts without any state in memory, goes on in the epoch.
    """
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    log = log_of()
    await pipeline.produce(log)
    path = file(tmp_path, REBUILT)
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        before = {p: await pipeline.changes(p) for p in range(2)}
        refused = pipeline.command("apply", str(path), "--confirm")
        assert refused.returncode == 1 and "shoal rebuild" in refused.stdout + refused.stderr
        simple = pipeline.command(
            "rebuild", str(file(tmp_path, TEXT.replace("    5: 30d", "    5: 29d"), "e.yaml"))
        )
        assert simple.returncode == 1 and "`shoal apply` does" in simple.stdout, simple.stderr
        done = pipeline.command("rebuild", str(path), "--comment", "exports", "--by", "mia", "--delete-old")
        assert done.returncode == 0, done.stdout + done.stderr
        changes = await assert_rebuilt(pipeline)
        told = [c for p in range(2) for c in changes[p][len(before[p]) :]]
        assert {(c["origin"], c["cause"]) for c in told} == {("reconcile", "rule_changed")}
        difference = {(c["customer_id"], c["dimension"]): (c["from"], c["to"]) for c in told}
        assert len(difference) == len(told) > 20
        assert f"{len(told):,} differences were told" in done.stdout
        for partition in range(2):
            old, new = assert_chained(before[partition]), assert_chained(changes[partition])
            mine = {key: each for key, each in difference.items() if home(key[0], 2) == partition}
            assert mine == {
                (name, dimension): (old.get(name, {}).get(dimension), new.get(name, {}).get(dimension))
                for name in old.keys() | new.keys()
                for dimension in old.get(name, {}).keys() | new.get(name, {}).keys()
                if old.get(name, {}).get(dimension) != new.get(name, {}).get(dimension)
            }
        assert worker.end() == 0
    versions = await read_versions(kafka, prefix)
    assert [(v.number, v.epoch, v.by) for v in versions][1:] == [(2, 2, "mia")]
    assert "epoch 2" not in worker.log or " ERROR " not in worker.log
    ends = await pipeline.ends("segment-changes")
    with pipeline.worker() as worker:
        await worker.said("Worker ready")
        assert worker.end() == 0
    assert await pipeline.ends("segment-changes") == ends


def parts(log: list[Produced], count: int) -> Iterator[list[Produced]]:
    """The log in so many parts."""
    size = -(-len(log) // count)
    for first in range(0, len(log), size):
        yield log[first : first + size]


async def claimed(kafka: str, prefix: str, state: str) -> None:
    """Return when the claim says so."""
    async with asyncio.timeout(DONE_S_MAX):
        while True:
            claim = (await read_held(kafka, prefix)).claim
            if claim is not None and claim.state == state:
                return
            await asyncio.sleep(POLL_S)
