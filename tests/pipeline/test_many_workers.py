"""Several workers on one log: they join, leave, freeze and meet; what is wrong ends, the rest goes on."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import DeleteGroupsRequest

from benchmarks.synthetic import stream
from streams.app import group_id
from tests.pipeline.judging import assert_as_undisturbed
from tests.pipeline.running import Pipeline, Produced, Worker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

DAY_MS = 86_400_000
SMALL = {"chunk_records_max": 5, "session_timeout_ms": 2_000}
"""Many transactions, so that a move often meets one under way; the dead are soon missed."""

SERVES_OR_ENDS_S = 45.0
TURNS = 10
TRICKLE_S = 0.2
BURST = 300
"""Records; about a hundred transactions of SMALL, of which a freeze meets one under way."""
CONTROL_TRIES = 4
"""A broken rule shows only where a freeze meets a transaction, so a control may need another try."""


def replay(events: int) -> list[Produced]:
    """500 days of two partitions, with a Tick a day."""
    return list(stream(events=events, customers=120, partitions=2, days=500, tick_ms=DAY_MS))


class Load:
    """A log that is written bit by bit for as long as a test wants, and in bursts."""

    def __init__(self, pipeline: Pipeline, log: list[Produced], seconds: float) -> None:
        self._pipeline, self._log, self._at = pipeline, log, 0
        self._step = max(1, int((len(log) - 2 * BURST) * TRICKLE_S / seconds))
        self._writing = asyncio.Lock()

    async def _write(self, records: int) -> None:
        async with self._writing:
            start, self._at = self._at, min(self._at + records, len(self._log))
            await self._pipeline.produce(self._log[start : self._at])

    async def trickle(self) -> None:
        """Write a little now and then, never what the bursts need."""
        while True:
            await self._write(min(self._step, max(0, len(self._log) - 2 * BURST - self._at)))
            await asyncio.sleep(TRICKLE_S)

    async def freeze_amidst(self, worker: Worker) -> None:
        """Stop a worker while a burst is before it: some of it is done, the most is not."""
        before = sum((await self._pipeline.mirrored()).values())
        await self._write(BURST)
        await self._pipeline.wait_for(before + 1, worker)
        worker.send(signal.SIGSTOP)

    async def rest(self) -> None:
        """Write all that is left."""
        await self._write(len(self._log))


async def disturbed(pipeline: Pipeline, events: int, turns: int, altered: str = "") -> None:
    """One worker stays and is frozen past its session twice; another joins and leaves so many times.

    A frozen worker has work before it, and wakes only when the other has done that.
    """
    await pipeline.create()
    load = Load(pipeline, replay(events), seconds=6 + 4 * turns)
    trickle = asyncio.create_task(load.trickle())
    try:
        with pipeline.worker(altered, **SMALL) as first:
            await first.said("starts at", times=2)
            for turn in range(turns):
                with pipeline.worker(altered, **SMALL) as second:
                    await second.said("starts at")
                    if turn in (0, turns - 1):
                        await load.freeze_amidst(first)
                        await second.said("starts at", times=3)
                        await pipeline.wait_until_done(second)
                        first.send(signal.SIGCONT)
                        await first.said("starts at", times=first.log.count("starts at") + 1)
                    await asyncio.sleep(0.3)
                    if turn % 3 == 2:
                        second.kill()
                    else:
                        assert second.end() == 0, second.log
            await load.rest()
            first.check()
    finally:
        trickle.cancel()
        await asyncio.wait([trickle])
    with pipeline.worker(altered, **SMALL) as last:
        await last.said("starts at", times=2)
        await pipeline.wait_until_done(last)
        assert last.end() == 0


async def test_ten_joins_and_leaves_and_two_freezes_leave_no_trace(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Under load, politely and killed: changes and memberships are those of an undisturbed run."""
    pipeline = Pipeline(kafka, prefix, tmp_path)
    await disturbed(pipeline, events=4_000, turns=TURNS)
    assert await assert_as_undisturbed(pipeline) > 1_000


@pytest.mark.timeout(400)
@pytest.mark.parametrize("altered", ["trusting", "own-ids"])
async def test_the_judgement_notices_what_must_not_be(
    kafka: str, prefix: str, tmp_path: Path, altered: str
) -> None:
    """Controls: state trusted over a rebalance, or no fencing of former owners; either shows.

    In what is written, or already in a worker that cannot go on from it.
    """
    for attempt in range(CONTROL_TRIES):
        pipeline = Pipeline(kafka, f"{prefix}{attempt}", tmp_path)
        try:
            await disturbed(pipeline, events=1_500, turns=2, altered=altered)
            await assert_as_undisturbed(pipeline)
        except AssertionError:
            return
    pytest.fail(f"{CONTROL_TRIES} disturbed runs with {altered} looked undisturbed")


async def test_a_rebalance_in_the_middle_of_a_restore(kafka: str, prefix: str, tmp_path: Path) -> None:
    """A second worker joins while the first restores 20,000 customers; both serve, and nothing shows."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    log = list(stream(events=30_000, customers=20_000, partitions=2, days=30, tick_ms=DAY_MS))
    await pipeline.produce(log[:-200])
    with pipeline.worker(session_timeout_ms=2_000) as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    await pipeline.produce(log[-200:])
    with (
        pipeline.worker(session_timeout_ms=2_000) as first,
        pipeline.worker(session_timeout_ms=2_000) as second,
    ):
        await second.said("starts at")
        await pipeline.wait_until_done(first, second)
        assert second.end() == 0
        await first.said("starts at", times=2)
        assert first.end() == 0
    assert await assert_as_undisturbed(pipeline) > 1_000


async def delete_offsets(pipeline: Pipeline) -> None:
    """Remove the group's mirrored offsets, of a group nobody is in: the whole group."""
    group = group_id(pipeline.prefix)
    admin = AIOKafkaAdminClient(bootstrap_servers=pipeline.bootstrap)
    await admin.start()
    try:
        # The client knows the request, and offers no method for it.
        await admin._send_request(DeleteGroupsRequest([group]), await admin.find_coordinator(group))
    finally:
        await admin.close()


async def misplace_offsets(pipeline: Pipeline) -> None:
    """Set the mirrored offsets to 0, as only a transaction can while the group has members."""
    async with AIOKafkaProducer(
        bootstrap_servers=pipeline.bootstrap, transactional_id=f"{pipeline.prefix}-stranger"
    ) as producer:
        zero = {TopicPartition(pipeline.topic("events"), p): 0 for p in range(pipeline.partitions)}
        async with producer.transaction():
            await producer.send_offsets_to_transaction(zero, group_id(pipeline.prefix))


async def test_offsets_misplaced_while_running_change_nothing(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Nor do they move a worker that restarts before it has put them right."""
    pipeline, log = await Pipeline(kafka, prefix, tmp_path).create(), replay(1_000)
    await pipeline.produce(log[:400])
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        await misplace_offsets(pipeline)
        async with asyncio.timeout(20):
            # A transaction's offsets are seen a moment after its commit is answered.
            while await pipeline.mirrored() != dict.fromkeys(range(2), 0):  # noqa: ASYNC110  Kafka has no event for it.
                await asyncio.sleep(0.1)
        await pipeline.produce(log[400:600])
        await pipeline.wait_until_done(worker)
        await misplace_offsets(pipeline)
        assert worker.end() == 0
    await pipeline.produce(log[600:])
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    assert await assert_as_undisturbed(pipeline) > 100


async def test_deleted_group_offsets_change_nothing(kafka: str, prefix: str, tmp_path: Path) -> None:
    """The partition row says where to go on; the group's offsets are for others to look at."""
    pipeline, log = await Pipeline(kafka, prefix, tmp_path).create(), replay(1_000)
    await pipeline.produce(log[:600])
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    async with asyncio.timeout(20):
        while await pipeline.mirrored():
            # A group somebody has just left may be called busy for a moment.
            await delete_offsets(pipeline)
            await asyncio.sleep(0.2)
    await pipeline.produce(log[600:])
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    assert await assert_as_undisturbed(pipeline) > 100


async def test_a_named_worker_restarts_into_its_own_place(kafka: str, prefix: str, tmp_path: Path) -> None:
    """SHOAL_WORKER_ID: its return within the session moves nobody else's partitions."""
    pipeline, log = await Pipeline(kafka, prefix, tmp_path).create(), replay(1_000)
    await pipeline.produce(log[:300])
    named = {"session_timeout_ms": 10_000}
    with pipeline.worker(worker_id="b", **named) as stays:
        await stays.said("starts at", times=2)
        with pipeline.worker(worker_id="a", **named) as leaves:
            await leaves.said("starts at")
            await stays.said("starts at", times=3)
            before = stays.log.count("starts at")
            leaves.kill()
        await pipeline.produce(log[300:])
        with pipeline.worker(worker_id="a", **named) as returns:
            await returns.said("starts at")
            await pipeline.wait_until_done(stays, returns)
            assert stays.log.count("starts at") == before
            assert returns.end() == 0
        assert stays.end() == 0
    assert await assert_as_undisturbed(pipeline) > 100


async def test_of_two_workers_with_one_name_one_ends(kafka: str, prefix: str, tmp_path: Path) -> None:
    """The newer takes the place; the older says why and exits 1 within a bound, instead of idling."""
    pipeline, log = await Pipeline(kafka, prefix, tmp_path).create(), replay(300)
    with pipeline.worker(worker_id="a") as older:
        await older.said("starts at", times=2)
        with pipeline.worker(worker_id="a") as newer:
            await newer.said("starts at", times=2)
            assert older.wait(SERVES_OR_ENDS_S) == 1, older.log
            assert "SHOAL_WORKER_ID" in older.log
            await pipeline.produce(log)
            await pipeline.wait_until_done(newer)
            assert newer.end() == 0
    assert await assert_as_undisturbed(pipeline) > 10


async def test_a_worker_that_falls_out_of_its_group_ends(kafka: str, prefix: str, tmp_path: Path) -> None:
    """The client's own task has ended, and says so to nobody: exit 1 and why, instead of idling for ever."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    with pipeline.worker("misassigned") as worker:
        assert worker.wait(SERVES_OR_ENDS_S) == 1
        assert "MembershipLost" in worker.log and "misunderstood" in worker.log
