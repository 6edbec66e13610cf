"""A partition's Kafka in memory, behind the same seam: what is committed is in `rows` and `committed`."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator

from errors import LogTruncated, TransactionFailed
from streams.kafka.seam import Chunk, Row, Transaction


class MemoryLog:
    """Fails the transactions whose number (from 1) is in `failing`, before anything is committed."""

    def __init__(self, *, first: int = 0, end: int = 1 << 60) -> None:
        self.first, self.end = first, end
        self.changelogs: dict[int, list[Row]] = defaultdict(list)
        self.chunks: list[Chunk] = []
        self.shut: list[int] = []
        self.committed: list[Transaction] = []
        self.failing: set[int] = set()
        self.fences = self.tried = 0
        self.others_wrote = False
        self.answers = asyncio.Event()
        """Transactions wait while it is not set."""
        self.answers.set()

    async def fence(self) -> None:
        """Count."""
        self.fences += 1

    async def untouched(self) -> bool:
        """Whether the test did not say otherwise."""
        return not self.others_wrote

    async def restore(self, epoch: int = 1) -> AsyncGenerator[Row, None]:
        """The rows committed so far to an epoch's changelog."""
        for row in self.changelogs[epoch]:
            yield row

    @property
    def rows(self) -> list[Row]:
        """The rows of the first epoch."""
        return self.changelogs[1]

    async def latest(self, epoch: int, key: bytes) -> bytes | None:
        """The latest row under a key."""
        return dict(self.changelogs[epoch]).get(key)

    async def shut_out(self, epoch: int) -> None:
        """Note it."""
        self.shut.append(epoch)

    async def replay(self, start: int, end: int) -> AsyncGenerator[Chunk, None]:
        """The chunks a test laid down."""
        for chunk in self.chunks:
            if start <= chunk.start_offset and chunk.end_offset <= end:
                yield chunk

    async def partitions(self) -> int:
        """Always four."""
        return 4

    async def first_offset(self, stored: int | None) -> int:
        """`stored` if the log holds it."""
        if stored is not None and not self.first <= stored <= self.end:
            raise LogTruncated(f"{stored}")
        return self.first if stored is None else stored

    async def transact(self, transaction: Transaction) -> None:
        """Commit or fail."""
        self.tried += 1
        await self.answers.wait()
        if self.tried in self.failing:
            raise TransactionFailed("on purpose")
        self.changelogs[transaction.epoch] += transaction.rows
        self.committed.append(transaction)

    async def close(self) -> None:
        """Nothing to let go of."""
