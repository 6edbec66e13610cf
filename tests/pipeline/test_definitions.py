"""Definitions on a real broker: the topic is the truth, applying converts what is there, one applier wins."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.synthetic import stream
from clock import FrozenClock
from errors import ApplyConflict
from schemas.events import encode_event, encode_tick
from streams.applying import Pipeline as Operated
from streams.applying import make_plan
from streams.customers.partition_row import Converting, Resent
from streams.definitions import DefinitionFeed, in_force, publish, read_versions
from streams.segments.loading import load
from tests.pipeline.judging import assert_as_undisturbed, undisturbed
from tests.pipeline.running import DONE_S_MAX, POLL_S, ROOT, Pipeline, Produced, Worker
from tests.streams.segments.edits import TEXT, edited, version
from tests.streams.steps.test_conversion import assert_chained, held

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

DAY = 86_400_000
WEEK_MS = 7 * DAY
EDIT = TEXT.replace("    5: 30d", "    5: 45d").replace("    champions: ", "    stars: ")


def log_of(events: int = 400, customers: int = 30) -> list[tuple[int, bytes | None, bytes | None]]:
    """Two years of some customers, with Ticks."""
    return list(stream(events=events, customers=customers, partitions=2, days=400, tick_ms=WEEK_MS))


def file(folder: Path, text: str, name: str = "edited.yaml") -> Path:
    """A file with this text."""
    path = folder / name
    path.write_text(text)
    return path


async def converted(pipeline: Pipeline, number: int, *workers: Worker, waiting: bool = False) -> None:
    """Return when every partition says that its customers are what this version says.

    With `waiting`, apart from those whose facts no Tick has judged.
    """
    async with asyncio.timeout(DONE_S_MAX):
        while True:
            rows = [await pipeline.partition_row(p) for p in range(pipeline.partitions)]
            if all(
                row.definition_version == number
                and (row.converting is None or (waiting and _is_through(row.converting)))
                for row in rows
            ):
                await pipeline.settle()
                return
            for worker in workers:
                worker.check()
            await asyncio.sleep(POLL_S)


def _is_through(converting: Converting) -> bool:
    """Whether everybody had its turn, and nothing is left that is no more."""
    return converting.cursor == 1 << 64 and not converting.kinds


async def test_the_topic_wins_over_a_workers_file(kafka: str, prefix: str, tmp_path: Path) -> None:
    """The first worker's file becomes version 1; another file is said in one line, and changes nothing."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    log = log_of()
    await pipeline.produce(log[:300])
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
        assert "SHOAL_DEFINITIONS" not in worker.log
    await pipeline.produce(log[300:])
    with pipeline.worker(definitions=file(tmp_path, EDIT)) as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
        said = [line for line in worker.log.splitlines() if "SHOAL_DEFINITIONS is not what runs" in line]
        assert len(said) == 1 and " WARNING " in said[0] and "shoal apply" in said[0]
    assert await assert_as_undisturbed(pipeline) > 100
    versions = await read_versions(kafka, prefix)
    assert [(v.number, v.yaml) for v in versions] == [(1, (ROOT / "segments.yaml").read_text())]
    assert pipeline.command("history", "--show", "1").stdout == versions[0].yaml


async def test_what_a_plan_says_is_what_applying_then_does(kafka: str, prefix: str, tmp_path: Path) -> None:
    """To the customer, with log and clock still; more than 5 % move, so it wants to be confirmed.

    The answer is the commands' too. Applying it again says that nothing is to be done, a rollback is a
    new version that brings everybody back, and the worker never stops.
    """
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    await pipeline.produce(log_of())
    path = file(tmp_path, EDIT)
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        counts = [len(await pipeline.changes(p)) for p in range(2)]
        before = {p: await pipeline.memberships(p) for p in range(2)}
        operated = Operated(kafka, prefix, 2)
        plan = await make_plan(operated, await read_versions(kafka, prefix), load(EDIT, "x"), EDIT)
        shown = pipeline.command("plan", str(path), "--json")
        assert shown.returncode == 0, shown.stderr
        told = json.loads(shown.stdout)
        refused = pipeline.command("apply", str(path))
        assert refused.returncode == 1 and "--confirm" in refused.stderr
        assert [v.number for v in await read_versions(kafka, prefix)] == [1]

        done = pipeline.command("apply", str(path), "--confirm", "--comment", "stars", "--by", "mia")
        assert done.returncode == 0 and "definition 2 is applied" in done.stdout
        await converted(pipeline, 2, worker)
        changes = [c for p in range(2) for c in (await pipeline.changes(p))[counts[p] :]]
        assert {c["cause"] for c in changes} == {"rule_changed"}
        emitted = sorted((c["dimension"], c["customer_id"], c["from"], c["to"]) for c in changes)
        planned = [(m.dimension, m.customer_id, m.before, m.after) for m in plan.moves]
        assert planned == emitted and len(emitted) > 5
        stars = told["dimensions"]["rfm"]["values"]["stars"]
        entered = {c["customer_id"] for c in changes if c["to"] == "stars"}
        assert stars["entering"] == len(entered) and set(stars["entering_samples"]) <= entered
        assert told["dimensions"]["rfm"]["customers_moving"] == len(emitted)

        again = pipeline.command("apply", str(path), "--confirm")
        assert again.returncode == 0 and "says the same already" in again.stdout
        back = pipeline.command("rollback", "1", "--confirm")
        assert back.returncode == 0, back.stderr
        await converted(pipeline, 3, worker)
        after = {p: await pipeline.memberships(p) for p in range(2)}
        assert _values(after) == _values(before)
        history = pipeline.command("history").stdout.splitlines()
        assert len(history) == 3 and "mia" in history[1] and "stars" in history[1]
        assert "back to 1" in history[2] and "in force on 2 of 2 partitions" in history[2]
        assert worker.end() == 0


def _values(memberships: dict[int, dict[str, dict[str, object]]]) -> dict[str, set[tuple[str, str]]]:
    return {
        customer: {(v["dimension"], v["value"]) for v in record["values"]}  # type: ignore[index,union-attr]  # JSON.
        for part in memberships.values()
        for customer, record in part.items()
    }


async def test_a_sweep_that_lost_its_worker_is_finished_before_an_edit_counts(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Killed at a Tick some customers were judged at, while somebody edits: all move once, by time alone."""
    customers, start = 300, 1_700_000_000_000
    pipeline = await Pipeline(kafka, prefix, tmp_path, partitions=1).create()
    bought = [
        encode_event(
            "Purchased",
            {
                "customer_id": f"c{i:03}",
                "event_id": f"e{i}",
                "order_id": f"o{i}",
                "occurred_at": start,
                "amount_minor": 9_000,
                "currency": "GBP",
            },
        )
        for i in range(customers)
    ]
    log: list[Produced] = [(0, b"c%03d" % i, value) for i, value in enumerate(bought)]
    await pipeline.produce([*log, (0, b"0", encode_tick(start + 29 * DAY))])
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    await pipeline.produce([(0, b"0", encode_tick(start + 31 * DAY))])
    with pipeline.worker(transaction_rows_max=1, session_timeout_ms=2_000) as worker:
        while (row := await pipeline.partition_row(0)).sweeping_ms <= row.clock_ms:
            worker.check()
        worker.kill()
    row = await pipeline.partition_row(0)
    assert (row.clock_ms, row.sweeping_ms) == (start + 29 * DAY, start + 31 * DAY), "killed in the middle"
    text = TEXT.replace("    5: 1000", "    5: 1001")
    await publish(kafka, prefix, version(2, text), base=1)
    with pipeline.worker() as worker:
        await converted(pipeline, 2, worker)
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    changes = (await pipeline.changes(0))[2 * customers :]
    moves = [(c["customer_id"], c["dimension"], c["cause"], c["effective_at"]) for c in changes]
    assert sorted(moves) == [
        (f"c{i:03}", dimension, "time_elapsed", start + 30 * DAY)
        for i in range(customers)
        for dimension in ("lifecycle", "rfm")
    ]
    assert {c["definition_version"] for c in changes} == {1}


async def test_of_several_who_apply_at_once_one_wins_and_the_others_are_told(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Each on top of version 1: one becomes version 2, the others hear whose it is; no more is written."""
    await Pipeline(kafka, prefix, tmp_path).create()
    clock = FrozenClock(1_700_000_000_000)
    await in_force(kafka, prefix, 2, clock, (load(TEXT, "x"), TEXT), "worker")
    rng = random.Random(7)
    texts = [edited(rng) for _ in range(5)]

    async def apply(number: int) -> object:
        mine = version(1, texts[number])
        try:
            return await publish(kafka, prefix, mine, base=1)
        except ApplyConflict as error:
            return str(error)

    results = await asyncio.gather(*map(apply, range(5)))
    told = [result for result in results if isinstance(result, str)]
    versions = await read_versions(kafka, prefix)
    assert [v.number for v in versions] == [1, 2]
    assert [result for result in results if not isinstance(result, str)] == [versions[1]]
    assert len(told) == 4 and all("was first: definition 2" in each for each in told)
    feed = DefinitionFeed(kafka, prefix)
    try:
        seen = [v for _ in range(20) for v in await feed.news()]
    finally:
        await feed.close()
    assert seen == versions


async def test_members_are_sent_again_on_request(kafka: str, prefix: str, tmp_path: Path) -> None:
    """Once by each partition, by whoever owns it; another worker, later, does not do it again."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    await pipeline.produce(log_of())
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        asked = pipeline.command("resend")
        assert asked.returncode == 0, asked.stderr
        run_id = asked.stdout.split()[-1]
        async with asyncio.timeout(DONE_S_MAX):
            while [(await pipeline.partition_row(p)).resent for p in range(2)] != [
                Resent(run_id, 1 << 64)
            ] * 2:
                worker.check()
                await asyncio.sleep(POLL_S)
        await pipeline.settle()
        assert worker.end() == 0
    ends = await pipeline.ends("segment-changes")
    with pipeline.worker() as worker:
        await worker.said("Worker ready")
        assert worker.end() == 0
    assert await pipeline.ends("segment-changes") == ends
    for partition in range(2):
        changes = await pipeline.changes(partition)
        again = [c for c in changes if c["run_id"] == run_id]
        assert {(c["origin"], c["change"]) for c in again} == {("reconcile", "entered")}
        sent = sorted((c["customer_id"], c["dimension"], c["to"]) for c in again)
        members = _values({0: await pipeline.memberships(partition)})
        assert sent == sorted((customer, *held) for customer, mine in members.items() for held in mine)
    assert [v.number for v in await read_versions(kafka, prefix)] == [1]


async def test_edits_with_kills_and_live_events_end_as_a_fresh_computation(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Six edits in a row, workers killed while they convert, events all the while.

    At the end everybody is what one run under the last version alone says; seq has no gap, every
    change begins where the last ended, and no exit comes twice.
    """
    rng = random.Random(11)
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    log = log_of(events=3_000, customers=400)
    bounds = {"transaction_rows_max": 20, "session_timeout_ms": 2_000}
    await pipeline.produce(log[:2_000])
    texts = [edited(rng) for _ in range(6)]
    with pipeline.worker(**bounds) as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    for number, text in enumerate(texts, 2):
        with pipeline.worker(**bounds) as worker:
            await worker.said("Worker ready")
            await publish(kafka, prefix, version(1, text), base=number - 1)
            await pipeline.produce(log[2_000 + 100 * (number - 2) : 2_000 + 100 * (number - 1)])
            if number % 2:
                await worker.said(f"definition {number}, applied")
                worker.kill()
            else:
                await converted(pipeline, number, worker, waiting=True)
                worker.kill()
    await pipeline.produce(log[2_600:])
    with pipeline.worker(**bounds) as worker:
        await pipeline.wait_until_done(worker)
        await converted(pipeline, 7, worker)
        assert worker.end() == 0
    causes = Counter[str]()
    for partition in range(2):
        records = [(r.timestamp, r.key, r.value) for r in await pipeline.records("events", partition)]
        fresh = undisturbed(records, partition, 2, load(texts[-1], "x"))
        changes = await pipeline.changes(partition)
        causes.update(c["cause"] for c in changes)
        assert assert_chained(changes) == held(fresh)
        assert _values({0: await pipeline.memberships(partition)}) == {
            customer: set(values.items()) for customer, values in held(fresh).items()
        }
    assert causes["rule_changed"] > 100 and causes["event"] > 100
