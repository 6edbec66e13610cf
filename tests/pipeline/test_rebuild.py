"""`shoal rebuild` on a real broker: the difference of two fresh computations, exactly once, through kills."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from benchmarks.synthetic import START_MS, stream
from schemas.events import encode_event
from schemas.markers import REBUILD_BEGINS, REBUILD_ENDS
from streams.customers.partition_row import PARTITION_ROW_KEY
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
    await pipeline.settle()
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
        await assert_old_rows_are_gone(pipeline)
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


async def assert_old_rows_are_gone(pipeline: Pipeline) -> None:
    """Of the first epoch nothing is left but the partition rows."""
    for partition in range(2):
        latest = dict(await pipeline.rows("customers", partition))
        assert {key for key, value in latest.items() if value is not None} == {PARTITION_ROW_KEY}


async def test_old_rows_are_kept_while_a_partition_needs_them(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Without a worker nobody has gone over: that is said, with status 1. Once one ran, they are given up."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    await pipeline.produce(log_of())
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    process = rebuild(pipeline, file(tmp_path, REBUILT))
    async with asyncio.timeout(DONE_S_MAX):
        while "is published" not in said(pipeline):
            assert process.poll() is None, said(pipeline)
            await asyncio.sleep(POLL_S)
    process.kill()
    await ended(process)
    before = [await pipeline.rows("customers", p) for p in range(2)]
    kept = pipeline.command("rebuild", "--delete-old")
    assert kept.returncode == 1 and "partitions 0, 1 have not gone over" in kept.stderr, kept.stdout
    assert [await pipeline.rows("customers", p) for p in range(2)] == before
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        await taken_over(pipeline, worker)
        done = pipeline.command("rebuild", "--delete-old")
        assert done.returncode == 0, done.stdout + done.stderr
        assert worker.end() == 0
    await assert_old_rows_are_gone(pipeline)
    await assert_rebuilt(pipeline)


TIGHT = {"transaction_rows_max": 15, "session_timeout_ms": 2_000}
"""So that everything takes many transactions, and a killed worker's partitions are free soon."""


async def replayed(pipeline: Pipeline, process: subprocess.Popen[bytes]) -> None:
    """Return when the rebuild is somewhere in the middle of its replay; fails when it ended."""
    async with asyncio.timeout(DONE_S_MAX):
        while True:
            assert process.poll() is None, said(pipeline)
            if "customers-e2" in said(pipeline) and await pipeline.rows("customers-e2", 0):
                return
            await asyncio.sleep(POLL_S)


async def begun(pipeline: Pipeline) -> None:
    """Return when some partition is live in epoch 2."""
    async with asyncio.timeout(DONE_S_MAX):
        while True:
            if any([await pipeline.markers(p) for p in range(pipeline.partitions)]):
                return
            await asyncio.sleep(POLL_S)


async def test_kills_of_the_rebuild_and_of_workers_at_every_phase(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """The rebuild in its replay, twice, and once published; workers as they go over and in their slices.

    Events come all the while, and what they change is told while the rebuild stands still in its replay.
    """
    rng = random.Random(4)
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    log = log_of(events=3_000, customers=300)
    cut = [len(log) * part // 8 for part in range(9)]
    pieces = [log[first:last] for first, last in itertools.pairwise(cut)]
    path = file(tmp_path, REBUILT)
    await pipeline.produce(log[: cut[4]])
    with pipeline.worker(**TIGHT) as worker:
        await pipeline.wait_until_done(worker)
        for _ in range(2):
            process = rebuild(pipeline, path, **TIGHT)
            await replayed(pipeline, process)
            process.kill()
            assert await ended(process) == -signal.SIGKILL
        process = rebuild(pipeline, path, **TIGHT)
        await replayed(pipeline, process)
        process.send_signal(signal.SIGSTOP)
        count = [len(await pipeline.changes(p)) for p in range(2)]
        await pipeline.produce(pieces[4])
        await pipeline.wait_until_done(worker)
        assert all([len(await pipeline.changes(p)) > count[p] for p in range(2)])
        assert await pipeline.markers(0) == await pipeline.markers(1) == []
        process.send_signal(signal.SIGCONT)
        await worker.said("goes to epoch 2")
        worker.kill()
        process.kill()
        await ended(process)
    assert "going on with the rebuild of definition 2" in said(pipeline)
    await pipeline.produce(pieces[5])
    with pipeline.worker(**TIGHT) as worker:
        await begun(pipeline)
        worker.kill()
    for _ in range(3):
        with pipeline.worker(**TIGHT) as worker:
            await worker.said("Worker ready")
            await asyncio.sleep(rng.random() / 2)
            worker.kill()
    await pipeline.produce(pieces[6] + pieces[7])
    with pipeline.worker(**TIGHT) as worker, pipeline.worker(**TIGHT):
        await pipeline.wait_until_done(worker)
        await taken_over(pipeline, worker)
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    changes = await assert_rebuilt(pipeline)
    assert sum(c["origin"] == "reconcile" for p in range(2) for c in changes[p]) > 100


async def test_of_two_rebuilds_one_goes_on_and_the_other_is_told(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Of the same file the later one; of another file the first. Nobody applies meanwhile.

    One that was stopped for long and wakes when all is over writes nothing any more.
    """
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    await pipeline.produce(log_of(events=1_500, customers=200))
    path = file(tmp_path, REBUILT)
    other = file(tmp_path, REBUILT.replace(">= 2", ">= 3"), "other.yaml")
    simple = file(tmp_path, TEXT.replace("    5: 30d", "    5: 29d"), "simple.yaml")
    with pipeline.worker(**TIGHT) as worker:
        await pipeline.wait_until_done(worker)
        zombie = rebuild(pipeline, path, **TIGHT)
        await replayed(pipeline, zombie)
        zombie.send_signal(signal.SIGSTOP)
        for command, file_ in (("rebuild", other), ("apply", simple)):
            told = pipeline.command(command, str(file_), *(("--confirm",) if command == "apply" else ()))
            assert told.returncode == 1 and "rebuilds definition 2 since" in told.stderr, told.stdout
        done = pipeline.command("rebuild", str(path), **TIGHT)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = [await pipeline.rows("customers-e2", p) for p in range(2)]
        zombie.send_signal(signal.SIGCONT)
        assert await ended(zombie) == 1
        assert "RebuildTaken" in said(pipeline), said(pipeline)[-1500:]
        assert [await pipeline.rows("customers-e2", p) for p in range(2)] == rows
        assert worker.end() == 0
    await assert_rebuilt(pipeline)


async def test_an_abandoned_rebuild_leaves_everything_as_it_was(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Applying goes again; the next rebuild has an epoch of its own."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    await pipeline.produce(log_of(events=1_500, customers=200))
    path = file(tmp_path, REBUILT)
    with pipeline.worker(**TIGHT) as worker:
        await pipeline.wait_until_done(worker)
        process = rebuild(pipeline, path, **TIGHT)
        await replayed(pipeline, process)
        process.send_signal(signal.SIGSTOP)
        given_up = pipeline.command("rebuild", "--abandon")
        assert given_up.returncode == 0 and "is given up" in given_up.stdout
        process.send_signal(signal.SIGCONT)
        assert await ended(process) == 1 and "abandoned" in said(pipeline)
        simple = file(tmp_path, TEXT.replace("    5: 30d", "    5: 29d"), "simple.yaml")
        assert pipeline.command("apply", str(simple), "--confirm").returncode == 0
        done = pipeline.command("rebuild", str(path), **TIGHT)
        assert done.returncode == 0, done.stdout + done.stderr
        assert worker.end() == 0
    assert [(v.number, v.epoch) for v in await read_versions(kafka, prefix)] == [(1, 1), (2, 1), (3, 3)]


async def test_a_log_that_lost_its_beginning_is_refused(kafka: str, prefix: str, tmp_path: Path) -> None:
    """What the windows need, or what customers ever did, is not in it any more; nothing is written."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    await pipeline.produce(log_of())
    path = file(tmp_path, REBUILT)
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            where = TopicPartition(pipeline.topic("events"), 0)
            await admin.delete_records({where: RecordsToDelete(before_offset=5)})
        finally:
            await admin.close()
        refused = pipeline.command("rebuild", str(path), "--accept-loss")
        assert refused.returncode == 1 and "events is kept whole only since" in refused.stderr
        assert worker.end() == 0
    assert (await read_held(kafka, prefix)).claim is None
