"""A partition's Kafka in memory, behind the same seam: what is committed is in `rows` and `committed`."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from errors import LogTruncated, TransactionFailed
from streams.kafka.seam import Row, Transaction


class MemoryLog:
    """Fails the transactions whose number (from 1) is in `failing`, before anything is committed."""

    def __init__(self, *, first: int = 0, end: int = 1 << 60) -> None:
        self.first, self.end = first, end
        self.rows: list[Row] = []
        self.committed: list[Transaction] = []
        self.failing: set[int] = set()
        self.fences = self.tried = 0
        self.others_wrote = False

    async def fence(self) -> None:
        """Count."""
        self.fences += 1

    async def untouched(self) -> bool:
        """Whether the test did not say otherwise."""
        return not self.others_wrote

    async def restore(self) -> AsyncGenerator[Row, None]:
        """The rows committed so far."""
        for row in self.rows:
            yield row

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
        if self.tried in self.failing:
            raise TransactionFailed("on purpose")
        self.rows += transaction.rows
        self.committed.append(transaction)

    async def close(self) -> None:
        """Nothing to let go of."""
