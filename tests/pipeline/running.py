"""A whole pipeline on a real broker: topics, a log, worker processes, and what anybody may read of it."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)
from aiokafka.structs import ConsumerRecord

from schemas.changes import decode_change
from schemas.markers import Marker, read_marker
from schemas.memberships import decode_membership
from streams.app import group_id
from streams.customers.facts import Strings
from streams.customers.hashing import partitions_of
from streams.customers.partition_row import PARTITION_ROW_KEY, PartitionRow
from streams.kafka.reading import committed_rows, extent, reader, settle
from streams.topics import ensure_topics, topic_name

ROOT = Path(__file__).parents[2]
DONE_S_MAX = 60.0
POLL_S = 0.02
OUTPUTS = ("customers", "segment-changes", "memberships", "dead-letters")

NOT_YET = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
"""What a broker says of groups before the first one ever joined."""

Produced = tuple[int, bytes | None, bytes | None]
"""(partition, key, value)."""
Offsets = dict[int, int]
"""Partition to offset."""


def home(customer: str | bytes, partitions: int) -> int:
    """The partition a customer belongs in."""
    key = customer.encode() if isinstance(customer, str) else customer
    return int(partitions_of(Strings.from_list([key]), partitions)[0])


class Pipeline:
    """One prefix on one broker; every read is from outside the worker, of what is committed."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path, partitions: int = 2) -> None:
        self.bootstrap, self.prefix, self.folder, self.partitions = bootstrap, prefix, folder, partitions
        self._numbers = itertools.count(1)

    async def create(self) -> Pipeline:
        """Make the topics."""
        await ensure_topics(self.bootstrap, self.prefix, self.partitions)
        return self

    def topic(self, name: str) -> str:
        """The full name of a topic."""
        return topic_name(self.prefix, name)

    def environment(self, **settings: object) -> dict[str, str]:
        """This process's environment with exactly this pipeline's SHOAL_ settings."""
        others = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
        mine = {
            "kafka": self.bootstrap,
            "prefix": self.prefix,
            "partitions": self.partitions,
            "clock": "event",
            "definitions": ROOT / "segments.yaml",
            **settings,
        }
        shoal = {f"SHOAL_{name.upper()}": str(value) for name, value in mine.items()}
        return {**others, **shoal, "PYTHONPATH": str(ROOT)}

    def worker(self, altered: str = "", **settings: object) -> Worker:
        """A worker process, started when the block is entered; `altered`: see altered_worker.py."""
        log = self.folder / f"{self.prefix}-worker-{next(self._numbers)}.log"
        environment = self.environment(**settings)
        if altered:
            environment["SHOAL_TEST_ALTERED"] = altered
            environment["SHOAL_TEST_SKEW"] = str(self.folder / "skew")
        return Worker(log, environment)

    def command(self, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        """Run `shoal` with these arguments to its end."""
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            cwd=self.folder,
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=DONE_S_MAX,
        )

    # -- writing

    async def produce(self, records: Iterable[Produced]) -> None:
        """Append to `events`, in order within each partition."""
        async with AIOKafkaProducer(
            bootstrap_servers=self.bootstrap, enable_idempotence=True, linger_ms=5, max_request_size=2 << 20
        ) as producer:
            for partition, key, value in records:
                await producer.send(self.topic("events"), key=key, value=value, partition=partition)

    # -- reading

    async def records(self, name: str, partition: int) -> list[ConsumerRecord]:
        """Every committed record of a partition, whole."""
        where = TopicPartition(self.topic(name), partition)
        read: list[ConsumerRecord] = []
        async with AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, isolation_level="read_committed", group_id=None
        ) as consumer:
            end = (await consumer.end_offsets([where]))[where]
            consumer.assign([where])
            consumer.seek(where, 0)
            while await consumer.position(where) < end:
                read += (await consumer.getmany(where, timeout_ms=50)).get(where, [])
        return read

    async def rows(self, name: str, partition: int) -> list[tuple[bytes, bytes | None]]:
        """Every committed (key, value) of a partition."""
        async with (
            reader(self.bootstrap) as consumer,
            aclosing(committed_rows(consumer, self.topic(name), partition)) as rows,
        ):
            return [row async for row in rows]

    async def changes(self, partition: int) -> list[dict[str, Any]]:
        """Every change of a partition, in order; its key is its customer's."""
        changes = []
        for key, value in await self.rows("segment-changes", partition):
            if value is None:
                continue  # A marker of a rebuild.
            changes.append(decode_change(value))
            assert key == changes[-1]["customer_id"].encode()
        return changes

    async def memberships(self, partition: int) -> dict[str, dict[str, Any]]:
        """What a new subscriber holds after reading a partition: the latest record of each key."""
        latest = dict(await self.rows("memberships", partition))
        return {key.decode(): decode_membership(value) for key, value in latest.items() if value is not None}

    async def markers(self, partition: int) -> list[Marker]:
        """Every marker among the changes of a partition."""
        records = await self.records("segment-changes", partition)
        markers = [read_marker(record.headers) for record in records if record.value is None]
        return [marker for marker in markers if marker is not None]

    async def partition_row(self, partition: int, epoch: int = 1) -> PartitionRow:
        """The partition row of an epoch as of the last commit."""
        name = "customers" if epoch == 1 else f"customers-e{epoch}"
        row = dict(await self.rows(name, partition))[PARTITION_ROW_KEY]
        assert row is not None
        return PartitionRow.decode(row)

    async def ends(self, name: str) -> Offsets:
        """Where each partition of a topic ends, uncommitted records and markers included."""
        async with reader(self.bootstrap, "read_uncommitted") as consumer:
            return {p: (await extent(consumer, self.topic(name), p)).end for p in range(self.partitions)}

    async def written(self) -> dict[str, Offsets]:
        """Where everything a worker writes ends."""
        return {name: await self.ends(name) for name in OUTPUTS}

    async def mirrored(self) -> Offsets:
        """The group's offset of every partition that has one."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            return await self._mirrored(admin)
        finally:
            await admin.close()

    async def _mirrored(self, admin: AIOKafkaAdminClient) -> Offsets:
        try:
            offsets = await admin.list_consumer_group_offsets(group_id(self.prefix))
        except NOT_YET:
            return {}
        return {where.partition: at.offset for where, at in offsets.items()}

    async def wait_for(self, records: int, *workers: Worker) -> int:
        """Return how many records of the log are committed as soon as it is at least `records`.

        Fails when one of `workers` has ended, or after DONE_S_MAX.
        """
        deadline_s = time.monotonic() + DONE_S_MAX
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            while (done := sum((await self._mirrored(admin)).values())) < records:
                for worker in workers:
                    worker.check()
                assert time.monotonic() < deadline_s, f"{done} of {records} within {DONE_S_MAX:g} s"
                await asyncio.sleep(POLL_S)
        finally:
            await admin.close()
        return done

    async def wait_until_done(self, *workers: Worker) -> None:
        """Return when everything in the log is committed, and whoever reads what is committed sees it."""
        await self.wait_for(sum((await self.ends("events")).values()), *workers)
        await self.settle()

    async def settle(self) -> None:
        """Return when whatever is committed of what was written by now can be read, in every topic."""
        async with reader(self.bootstrap) as consumer:
            mine = [name for name in await consumer.topics() if name.startswith(self.topic("customers"))]
        await settle(self.bootstrap, {*mine, *map(self.topic, OUTPUTS)}, self.partitions)


class Worker:
    """`shoal worker` as a process of its own; killed, if it still runs, when the block ends."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        self._path, self._environment = log, environment

    def __enter__(self) -> Worker:
        with self._path.open("wb") as sink:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self._module()],
                cwd=self._path.parent,
                env=self._environment,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        return self

    def _module(self) -> tuple[str, ...]:
        if "SHOAL_TEST_ALTERED" in self._environment:
            return ("tests.pipeline.altered_worker",)
        return "cli", "worker"

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.send(signal.SIGKILL)
        self._process.wait(DONE_S_MAX)

    @property
    def log(self) -> str:
        """What it said so far."""
        return self._path.read_text(errors="replace")

    def check(self) -> None:
        """Fail if it has ended."""
        assert self._process.poll() is None, self.log

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL a worker that runs, and wait."""
        self.check()
        assert self.end(signal.SIGKILL) == -signal.SIGKILL

    def end(self, number: signal.Signals = signal.SIGTERM, seconds_max: float = DONE_S_MAX) -> int:
        """Send a signal, wait for the end, return the exit status."""
        self.send(number)
        return self.wait(seconds_max)

    def wait(self, seconds_max: float = DONE_S_MAX) -> int:
        """Wait for the end, return the exit status; an error of the test if it does not come."""
        return self._process.wait(seconds_max)

    async def said(self, phrase: str, times: int = 1) -> None:
        """Return when its log holds `phrase`."""
        deadline_s = time.monotonic() + DONE_S_MAX
        while self.log.count(phrase) < times:
            self.check()
            assert time.monotonic() < deadline_s, f"not said within {DONE_S_MAX:g} s: {phrase}\n{self.log}"
            await asyncio.sleep(POLL_S)
