"""A worker process with one rule broken on purpose, or a clock of its own: SHOAL_TEST_ALTERED says which.

trusting: a partition's state is kept over a rebalance whatever others wrote meanwhile;
own-ids: transactions carry the process's own id, so that nobody fences a former owner;
poisoned: a chunk in which a value says "poison" cannot be applied, until that record is set aside;
misassigned: what the group assigns cannot be understood;
skewed: the wall clock is off by the milliseconds in the file SHOAL_TEST_SKEW, as they stand there.
"""

from __future__ import annotations

import os
from pathlib import Path

import cli
from clock import SystemClock
from streams.kafka.assignor import ReturningAssignor
from streams.kafka.log import LogNames
from streams.kafka.partition import Partition
from streams.kafka.seam import Chunk
from streams.steps.engine import PartitionEngine
from streams.steps.work import Work


async def trust(self: Partition) -> bool:
    """Keep whatever there is."""
    return self.position > 0


def own_id(self: LogNames) -> str:
    """Differ from process to process."""
    return f"{self.group}-{self.topic('events')}-{self.partition}-{os.getpid()}"


read_on = PartitionEngine.begin


def fail_on_poison(self: PartitionEngine, chunk: Chunk) -> Work:
    """Fail on what is not known to be poison yet."""
    for record in chunk.records:
        if b"poison" in (record.value or b"") and record.offset not in self._aside:
            raise ValueError(f"poison at {record.offset}")
    return read_on(self, chunk)


def misunderstand(self: ReturningAssignor, assignment: object) -> None:
    """Fail."""
    raise AssertionError("misunderstood")


right_time = SystemClock.now_ms


def wrong_time(self: SystemClock) -> int:
    """Be off by what the file says."""
    return right_time(self) + int(Path(os.environ["SHOAL_TEST_SKEW"]).read_text())


def alter(what: str) -> None:
    """Break the rule."""
    if what == "trusting":
        Partition._is_current = trust  # type: ignore[method-assign]  # The mutation.
    elif what == "own-ids":
        LogNames.transactional_id = property(own_id)  # type: ignore[assignment]  # The mutation.
    elif what == "poisoned":
        PartitionEngine.begin = fail_on_poison  # type: ignore[method-assign]  # The mutation.
    elif what == "misassigned":
        ReturningAssignor.on_assignment = misunderstand  # type: ignore[method-assign]  # The mutation.
    elif what == "skewed":
        SystemClock.now_ms = wrong_time  # type: ignore[method-assign]  # The mutation.
    else:
        raise ValueError(f"SHOAL_TEST_ALTERED={what!r}")


if __name__ == "__main__":
    alter(os.environ["SHOAL_TEST_ALTERED"])
    cli.main(["worker"])
