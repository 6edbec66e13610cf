"""When a worker lives and when it is ready, judged over partitions in memory."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from errors import StateCorrupt
from metrics import MEMBERS
from streams.kafka.owner import Owner
from streams.kafka.seam import Row
from streams.readings import _of_customers, problems_of_life, problems_of_readiness
from streams.steps.room import Bounds
from tests.streams.kafka.memory_log import MemoryLog
from tests.streams.kafka.toy_engine import ToyEngine
from tests.streams.segments.edits import TEXT, version
from tests.streams.steps.test_conversion import BOUGHT
from tests.streams.steps.test_epochs import partition_of

ROOT = Path(__file__).parents[2]


class Slow(MemoryLog):
    """Ends its restore when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.begun = asyncio.Event()

    async def restore(self, epoch: int = 1) -> AsyncGenerator[Row, None]:
        """Wait, then nothing."""
        self.begun.set()
        await self.go_on.wait()
        for row in self.rows:
            yield row


@asynccontextmanager
async def worker(log: MemoryLog) -> AsyncIterator[Any]:
    """What the judgement is made of: an owner of partitions that all have this log, and no fatal error."""

    async def seek(partition: int, offset: int, generation: int) -> bool:
        return True

    async def rejoin() -> None:
        return

    app = SimpleNamespace(fatal=None)
    app.owner = Owner(
        engine_for=lambda number: ToyEngine(),
        log_for=lambda number: log,
        seek=seek,
        rejoin=rejoin,
        give_up=lambda error: setattr(app, "fatal", error),
    )
    try:
        yield app
    finally:
        await app.owner.close()


async def test_a_worker_without_an_assignment_lives_and_is_not_ready() -> None:
    """Before the group gave it its partitions there is nothing to be ready with."""
    async with worker(MemoryLog()) as app:
        assert problems_of_life(app) == []
        assert problems_of_readiness(app) == ["the group has not given this worker its partitions"]


async def test_a_worker_that_was_given_no_partition_is_ready() -> None:
    """One worker more than there are partitions stands by."""
    async with worker(MemoryLog()) as app:
        await app.owner.open([])
        assert problems_of_readiness(app) == []


async def test_a_worker_is_ready_once_every_partition_is_restored() -> None:
    """While one restores it is named; after that nothing is; in a rebalance it is not ready again."""
    log = Slow()
    async with worker(log) as app:
        opening = asyncio.create_task(app.owner.open([3]))
        await log.begun.wait()
        assert "partition 3 is restoring" in problems_of_readiness(app)
        assert problems_of_life(app) == []
        log.go_on.set()
        assert await opening
        assert problems_of_readiness(app) == []
        await app.owner.settle()
        assert problems_of_readiness(app) == [
            "the group has not given this worker its partitions",
            "partition 3 is settled",
        ]


async def test_a_partition_dead_beyond_the_bound_ends_life() -> None:
    """A restore without a row for longer than the bound is as good as dead; within it, it is not."""
    log = Slow()
    async with worker(log) as app:
        opening = asyncio.create_task(app.owner.open([3]))
        await log.begun.wait()
        app.owner.partitions[3].sign_s -= 121.0
        (problem,) = problems_of_life(app)
        assert problem.startswith("partition 3 has been restoring for")
        assert problems_of_life(app, dead_s_max=1000.0) == []
        log.go_on.set()
        await opening
        assert problems_of_life(app) == []


async def test_a_partition_that_waits_for_the_restore_of_others_is_not_dead() -> None:
    """Only some are restored at once; the others wait, however long, and those at work are judged."""
    log = Slow()
    async with worker(log) as app:
        opening = asyncio.create_task(app.owner.open(range(6)))
        await log.begun.wait()
        waiting = [p for p in app.owner.partitions.values() if p.state == "waiting"]
        for partition in waiting:
            partition.sign_s -= 1000.0
        assert waiting and problems_of_life(app) == []
        log.go_on.set()
        await opening


async def test_a_worker_that_gave_up_neither_lives_nor_is_ready() -> None:
    """An error nobody can repair by waiting shows at once."""
    async with worker(MemoryLog()) as app:
        await app.owner.open([0])
        app.fatal = StateCorrupt("on purpose")
        assert problems_of_life(app) == ["the worker gave up: StateCorrupt"]
        assert problems_of_readiness(app) == ["the worker gave up: StateCorrupt"]


SENSORS = """
import asyncio
from streams.app import create_app
from tests.streams.kafka.toy_engine import ToyEngine
from tests.streams.segments.edits import TEXT, version
from tests.streams.steps.test_conversion import BOUGHT
from tests.streams.steps.test_epochs import partition_of
from tests.streams.kafka.toy_worker import ToySettings

async def main():
    app = create_app(ToySettings("127.0.0.1:1", "sensors"), lambda number: ToyEngine())
    print(len(list(app.on_init_dependencies())) > 3, list(app.sensors))

asyncio.run(main())
"""


def test_fausts_own_sensors_are_off() -> None:
    """Nothing keeps books per event: the application starts its services without a single sensor."""
    # In a process of its own, for Faust makes event loops nobody closes before it is started.
    command = [sys.executable, "-c", SENSORS]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.returncode) == ("True []\n", 0), ended.stderr


def test_a_shadow_that_goes_live_has_one_number_of_members() -> None:
    """Half converted, customers are under the old name or the new; the label is one, and so is the sample."""
    declared = "\nsegments:\n  buyers: {when: orders(ever) >= 1, state: STATE}\n"
    partition = partition_of(BOUGHT, TEXT + declared.replace("STATE", "shadow"), bounds=Bounds(rows_max=3))
    partition.run(itertools.repeat(50))
    assert partition.versions is not None
    partition.versions.add(version(2, TEXT + declared.replace("STATE", "live")))
    partition.convert(slices=2)
    assert partition.engine.converting
    readings = _of_customers(partition.engine.table, "0", 0)
    told = [labels for metric, _, labels in readings if metric is MEMBERS]
    assert ("buyers", "buyers", "0") in told and len(told) == len(set(told))
