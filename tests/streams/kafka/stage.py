"""What the tests on a real broker need: topics, records, worker processes, and the check of the result."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import TracebackType

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    NotCoordinatorForGroupError,
)

from streams.app import group_id
from streams.kafka.reading import settle
from streams.topics import ensure_topics
from tests.streams.kafka.toy_engine import PARTITION_ROW

ROOT = Path(__file__).parents[3]
DONE_S_MAX = 60.0
Produced = dict[int, list[tuple[bytes, bytes]]]

NOT_YET = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
"""What a broker says of groups before the first one ever joined."""


class Stage:
    """One prefix on one broker, with what was produced to it, per partition and in order."""

    def __init__(self, bootstrap: str, prefix: str, partitions: int = 2) -> None:
        self.bootstrap, self.prefix, self.partitions = bootstrap, prefix, partitions
        self.produced: Produced = {p: [] for p in range(partitions)}
        asyncio.run(ensure_topics(bootstrap, prefix, partitions))

    def produce(self, count: int, value: bytes = b"x" * 60) -> None:
        """Write `count` records over 500 keys to every partition in turn."""
        keyed = [(b"k%d" % (n * 7919 % 500), value) for n in range(count)]
        self.produce_exactly([(n % self.partitions, key, value) for n, (key, value) in enumerate(keyed)])

    def produce_exactly(self, records: list[tuple[int, bytes, bytes]]) -> None:
        """Write (partition, key, value) in order."""
        asyncio.run(self._produce(records))

    async def _produce(self, records: list[tuple[int, bytes, bytes]]) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5) as producer:
            for partition, key, value in records:
                await producer.send(f"{self.prefix}.events", key=key, value=value, partition=partition)
                self.produced[partition].append((key, value))

    def wait_until_committed(self) -> None:
        """Return when the group's offset is the end of every partition, and what came of it can be read."""
        deadline_s = time.monotonic() + DONE_S_MAX
        while (at := asyncio.run(self.committed())) != {p: len(self.produced[p]) for p in self.produced}:
            assert time.monotonic() < deadline_s, f"committed {at} within {DONE_S_MAX} s"
            time.sleep(0.3)
        outputs = [f"{self.prefix}.{name}" for name in ("customers", "segment-changes", "dead-letters")]
        asyncio.run(settle(self.bootstrap, outputs, self.partitions))

    async def committed(self) -> dict[int, int]:
        """The group's offset of every partition that has one."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            offsets = await admin.list_consumer_group_offsets(group_id(self.prefix))
        except NOT_YET:
            return {}
        finally:
            await admin.close()
        return {tp.partition: at.offset for tp, at in offsets.items() if tp.topic == f"{self.prefix}.events"}

    async def _read(self, topic: str, partition: int) -> list[tuple[bytes, bytes, dict[str, bytes]]]:
        where = TopicPartition(f"{self.prefix}.{topic}", partition)
        read: list[tuple[bytes, bytes, dict[str, bytes]]] = []
        async with AIOKafkaConsumer(
            bootstrap_servers=self.bootstrap, isolation_level="read_committed", group_id=None
        ) as consumer:
            end = (await consumer.end_offsets([where]))[where]
            consumer.assign([where])
            consumer.seek(where, 0)
            while await consumer.position(where) < end:
                got = await consumer.getmany(where, timeout_ms=50)
                read += [(r.key, r.value, dict(r.headers)) for r in got.get(where, [])]
        return read

    def read(self, topic: str, partition: int) -> list[tuple[bytes, bytes, dict[str, bytes]]]:
        """Every committed record as (key, value, headers)."""
        return asyncio.run(self._read(topic, partition))

    def check(self, *, dead: tuple[bytes, ...] = ()) -> None:
        """Assert that every record is reflected exactly once, in order, everywhere; `dead` values are not."""
        committed = asyncio.run(self.committed())
        for partition, records in self.produced.items():
            alive = [(at, key) for at, (key, value) in enumerate(records) if value not in dead]
            counts: Counter[bytes] = Counter()
            expected = []
            for seq, (at, key) in enumerate(alive, 1):
                counts[key] += 1
                expected.append((key, {"seq": seq, "count": counts[key], "offset": at}))
            changes = [(key, json.loads(value)) for key, value, _ in self.read("segment-changes", partition)]
            assert changes == expected, f"partition {partition}: {len(changes)} of {len(expected)} changes"
            rows = {key: value for key, value, _ in self.read("customers", partition)}
            row = json.loads(rows.pop(PARTITION_ROW))
            assert {key: int(value) for key, value in rows.items()} == counts
            assert row == {"seq": len(alive), "offset": len(records), "live": True}
            assert committed.get(partition, 0) == len(records)


class Worker:
    """A worker process; killed, if it still runs, when the block ends."""

    def __init__(self, stage: Stage, mutation: str = "") -> None:
        self._command = [sys.executable, "-m", "tests.streams.kafka.toy_worker"]
        self._command += [stage.bootstrap, stage.prefix, mutation]
        self.log = ""

    def __enter__(self) -> Worker:
        # A file, for a pipe nobody reads would stop the worker when it is full.
        self._stderr = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, stderr=self._stderr, env={**os.environ, "PYTHONPATH": "."}
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._stderr.close()

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.end(signal.SIGKILL)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, keep the log; return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.wait()
        return self.process.returncode

    def wait_until_said(self, text: str) -> None:
        """Return when the log of the running worker holds a text."""
        deadline_s = time.monotonic() + DONE_S_MAX
        # Not by seeking: the worker writes where this file stands.
        while text.encode() not in os.pread(self._stderr.fileno(), 1 << 20, 0):
            assert self.process.poll() is None, "the worker has ended"
            assert time.monotonic() < deadline_s, f"{text!r} not said within {DONE_S_MAX} s"
            time.sleep(0.05)

    def wait(self) -> int:
        """Wait for the end; return the exit status."""
        status = self.process.wait(DONE_S_MAX)
        self._stderr.seek(0)
        self.log = self._stderr.read()
        return status
