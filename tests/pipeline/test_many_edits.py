"""A hundred edits of the rules in a row on a live pipeline, its worker killed again and again."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from clock import SystemClock
from errors import FactsMissing
from schemas.events import encode_event, encode_tick
from streams import committed
from streams.applying import Pipeline as Operated
from streams.applying import apply, make_plan
from streams.definitions import read_versions
from streams.kafka.reading import reader
from streams.planning import Plan
from streams.segments.versions import Version, Versions
from tests.pipeline.judging import Change, undisturbed
from tests.pipeline.rule_edits import Draft
from tests.pipeline.running import DONE_S_MAX, POLL_S, Pipeline, Produced, Worker, home
from tests.streams.segments.described import DAY
from tests.streams.steps.test_conversion import deadlines, held
from tests.streams.steps.told import START, stories

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(600)]

PARTITIONS, CUSTOMERS, DAYS = 2, 100, 280
EDITS, ROUNDS = 100, 10
PLANNED = 8
"""Every eighth edit is planned, as the command does it: state and all read back from Kafka."""
LOST = 'spend(30d where category == "books") > 1'
REST_MS = 40 * DAY
"""After the last event, so that every delay is over."""


def log_of(rng: random.Random) -> list[Produced]:
    """What some customers do in 280 days, with a Tick every other day."""
    names = [f"customer-{number:03}" for number in range(CUSTOMERS)]
    tick_ms = 2 * DAY
    told = stories(rng, names, 24, days=DAYS, tick_ms=tick_ms)
    log: list[Produced] = []
    for now in range(START + tick_ms, START + DAYS * DAY + 8 * DAY, tick_ms):
        while told and told[0][0] <= now:
            _, type_name, customer, fields = told.pop(0)
            value = encode_event(type_name, {"customer_id": customer, **fields})
            log.append((home(customer, PARTITIONS), customer.encode(), value))
        log += ticks(now)
    assert not told
    return log


def ticks(now: int) -> list[Produced]:
    """A Tick to every partition."""
    return [(number, b"%d" % number, encode_tick(now)) for number in range(PARTITIONS)]


class Operator:
    """Somebody who edits the rules all the time; what was applied, and what was said of it."""

    def __init__(self, pipeline: Pipeline, rng: random.Random, draft: Draft) -> None:
        self.pipeline, self.rng, self.draft = pipeline, rng, draft
        self.operated = Operated(pipeline.bootstrap, pipeline.prefix, pipeline.partitions)
        self.applied = [(draft, 1)]
        """What each version said; a rollback names the version it brings back, others their own."""

    @property
    def number(self) -> int:
        """The newest version."""
        return len(self.applied)

    async def edit(self) -> None:
        """Apply another random edit, or an earlier version again, as far as what it needs is kept."""
        while True:
            number = self.rng.randrange(1, self.number + 1)
            back = self.rng.random() < 0.1
            drawn = self.applied[number - 1][0] if back else self.draft.edited(self.rng)
            if drawn.series <= self.draft.series and drawn.definition.hash != self.draft.definition.hash:
                break
        await self.apply(drawn, number if back else None, planned=self.number % PLANNED == 0)

    async def apply(self, draft: Draft, restores: int | None = None, *, planned: bool = True) -> None:
        """Apply on top of what there is, planned before or not."""
        text, definition = draft.text(), draft.definition
        plan = Plan(self.number, definition, {})
        if planned:
            applied = await read_versions(self.pipeline.bootstrap, self.pipeline.prefix)
            plan = await make_plan(self.operated, applied, definition, text)
        version = Version(0, text, definition.hash, 0, "mia", "", restores)
        done = await apply(self.operated, plan, version, confirmed=True, clock=SystemClock())
        self.draft = draft
        self.applied.append((draft, restores or done.number))
        assert done.number == self.number

    async def converted(self, worker: Worker, *, waiting: bool = True) -> None:
        """Return when both partitions are through with the newest version.

        With `waiting`, apart from customers whose facts no Tick has judged.
        """
        async with asyncio.timeout(DONE_S_MAX):
            while not all(
                row.definition_version == self.number
                and (row.converting is None or (waiting and row.converting.cursor == 1 << 64))
                for row in (await self.rows()).values()
            ):
                worker.check()
                await asyncio.sleep(POLL_S)

    async def rows(self) -> dict[int, committed.PartitionRow]:
        """The partition rows."""
        return await committed.partition_rows(self.pipeline.bootstrap, self.pipeline.prefix, PARTITIONS)


async def test_a_hundred_edits_with_kills_end_as_a_fresh_computation(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Memberships, deadlines and shadows are a fresh computation's; every change follows from the last.

    Events keep coming, the worker is killed eleven times, mostly while it converts, and several
    edits are made before it comes back. A series nobody reads any more is gone: asking for it is refused.
    """
    rng = random.Random(20)
    first = Draft.first()
    file = tmp_path / "first.yaml"
    file.write_text(first.text())
    pipeline = await Pipeline(kafka, prefix, tmp_path, PARTITIONS).create()
    operator, log = Operator(pipeline, rng, first), log_of(rng)
    half, size = len(log) // 2, len(log) // EDITS // 2 + 1
    await pipeline.produce(log[:half])
    portions = iter([log[at : at + size] for at in range(half, len(log), size)])
    bounds = {"session_timeout_ms": 2_000, "definitions": file}
    with pipeline.worker(**bounds) as worker:
        await pipeline.wait_until_done(worker)
        worker.kill()
    met = 0
    for turn in range(ROUNDS):
        with pipeline.worker(**bounds, transaction_rows_max=rng.choice((3, 6))) as worker:
            await worker.said("Worker ready")
            for _ in range(rng.choice((3, 4, 5))):
                await operator.edit()
                await pipeline.produce(next(portions, []))
                if rng.random() < 0.3:
                    await operator.converted(worker)
            await worker.said(f"definition {operator.number}, applied")
            # A moment later: the kill is to meet anything at all, not something certain.
            await asyncio.sleep(rng.choice((0, 0, 0.1, 0.3)))
            worker.kill()
        met += any(row.converting is not None for row in (await operator.rows()).values())
        while operator.number <= EDITS * (turn + 1) / (ROUNDS + 1):
            await operator.edit()
            await pipeline.produce(next(portions, []))
    with pipeline.worker(**bounds) as worker:
        while operator.number < EDITS:
            await operator.edit()
        for portion in portions:
            await pipeline.produce(portion)
        lost = operator.draft.settled().without(LOST)
        await operator.apply(lost)
        await pipeline.produce(ticks(START + DAYS * DAY + 8 * DAY + REST_MS))
        await pipeline.wait_until_done(worker)
        await operator.converted(worker, waiting=False)
        with pytest.raises(FactsMissing, match=r"(?s)partition 0: .*books.*partition 1: .*rebuild"):
            await operator.apply(lost.asking(LOST))
        assert worker.end() == 0
    assert len(operator.applied) == operator.number > EDITS
    causes = await judge(operator)
    assert met >= 2, "the kills met hardly any conversion"
    assert causes["rule_changed"] > 1_000 and causes["event"] > 300 and causes["time_elapsed"] > 100


async def judge(operator: Operator) -> Counter[str]:
    """Compare every partition with a fresh computation; return how many changes had which cause."""
    pipeline, causes = operator.pipeline, Counter[str]()
    await pipeline.settle()
    versions = Versions(await read_versions(pipeline.bootstrap, pipeline.prefix))
    for number in range(PARTITIONS):
        records = [(r.timestamp, r.key, r.value) for r in await pipeline.records("events", number)]
        fresh = undisturbed(records, number, PARTITIONS, operator.draft.definition)
        async with reader(pipeline.bootstrap) as consumer:
            fresh_engine = fresh.engine
            fresh.engine = await committed.restored(consumer, pipeline.prefix, number, PARTITIONS, versions)
            state, due = held(fresh), deadlines(fresh)
            fresh.engine = fresh_engine
        assert state == held(fresh)
        assert due == deadlines(fresh)
        changes = await pipeline.changes(number)
        members = await pipeline.memberships(number)
        assert {
            customer: {v["dimension"]: (v["value"], v["since"], v["seq"]) for v in record["values"]}
            for customer, record in members.items()
        } == followed(changes, f"{pipeline.prefix}/1/{number}")
        assert {
            customer: {v["dimension"]: v["value"] for v in record["values"]}
            for customer, record in members.items()
        } == fresh.values()
        causes.update(change["cause"] for change in changes)
    return causes


def followed(changes: list[Change], name: str) -> dict[str, dict[str, tuple[str, int, int]]]:
    """What changes add up to: (value, since, seq) by customer and dimension.

    Numbers have no gap; each change begins where and not before the last one ended, so nobody leaves
    twice, nor without having been there, nor comes back before leaving; an edit moves a customer in a
    dimension once at most.
    """
    assert [change["seq"] for change in changes] == list(range(1, len(changes) + 1))
    assert [change["event_id"] for change in changes] == [f"{name}/{c['seq']}" for c in changes]
    values: dict[str, dict[str, tuple[str, int, int]]] = {}
    latest_ms: dict[tuple[str, str], int] = {}
    by_rule = set()
    versions = [change["definition_version"] for change in changes]
    assert versions == sorted(versions)
    for change in changes:
        customer, dimension = change["customer_id"], change["dimension"]
        mine = values.setdefault(customer, {})
        before = mine.pop(dimension, None)
        assert change["from"] == (before[0] if before else None) and change["from"] != change["to"]
        kinds = {(False, True): "entered", (True, True): "moved", (True, False): "exited"}
        assert change["change"] == kinds[change["from"] is not None, change["to"] is not None]
        at = change["effective_at"]
        assert latest_ms.get((customer, dimension), at) <= at
        latest_ms[customer, dimension] = at
        if before:
            assert change["previous_since"] == before[1]
        if change["to"] is not None:
            mine[dimension] = (change["to"], at, change["seq"])
        if change["cause"] == "rule_changed":
            once = (customer, dimension, change["definition_version"])
            assert change["definition_version"] > 1 and once not in by_rule
            by_rule.add(once)
    return {customer: mine for customer, mine in values.items() if mine}
