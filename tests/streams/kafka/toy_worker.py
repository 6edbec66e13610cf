"""A worker process with the toy engine: python -m tests.streams.kafka.toy_worker BOOTSTRAP PREFIX [MUTATION].

A mutation breaks one rule on purpose, to show that the checks of these tests can fail.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

from aiokafka import AIOKafkaProducer

from agents import update_customers
from errors import TransactionFailed
from streams.app import create_app
from streams.kafka.log import KafkaPartitionLog, LogNames
from streams.kafka.partition import Partition
from streams.kafka.running import configure_logging, run
from streams.kafka.seam import PartitionLog, Transaction
from tests.streams.kafka.toy_engine import PARTITION_ROW, ToyEngine


@dataclass(frozen=True)
class ToySettings:
    """What the app reads of the settings."""

    kafka: str
    prefix: str
    chunk_records_max: int = 2000
    session_timeout_ms: int = 6000
    worker_id: str = ""


class FailingLog(KafkaPartitionLog):
    """Fails every seventh transaction before it begins."""

    transactions = 0

    async def transact(self, transaction: Transaction) -> None:
        """Commit, or fail."""
        self.transactions += 1
        if self.transactions % 7 == 3:
            raise TransactionFailed("on purpose")
        await super().transact(transaction)


class OutsideLog(KafkaPartitionLog):
    """Writes the source offset on its own, after the transaction; sometimes fails in between."""

    transactions = 0

    async def transact(self, transaction: Transaction) -> None:
        """Commit without the partition row, then write it."""
        self.transactions += 1
        rows = [row for row in transaction.rows if row[0] != PARTITION_ROW]
        (row,) = (row for row in transaction.rows if row[0] == PARTITION_ROW)
        await super().transact(replace(transaction, rows=[*rows, (b"\x00other", b"1")]))
        if self.transactions % 7 == 3:
            raise TransactionFailed("on purpose")
        producer = AIOKafkaProducer(bootstrap_servers=self._names.bootstrap)
        await producer.start()
        topic = self._names.topic("customers")
        await producer.send_and_wait(topic, row[1], key=row[0], partition=self._names.partition)
        await producer.stop()


def explode_on_poison(offset: int, value: bytes) -> None:
    """Fail on the value the tests call poison, always."""
    if value == b"poison":
        raise ValueError(f"poison at {offset}")


def explode_once() -> Callable[[int, bytes], None]:
    """Fail the first time each value the tests call fragile is seen."""
    seen: set[int] = set()

    def explode(offset: int, value: bytes) -> None:
        if value == b"fragile" and offset not in seen:
            seen.add(offset)
            raise ValueError(f"fragile at {offset}")
        explode_on_poison(offset, value)

    return explode


async def trust(self: Partition) -> bool:
    """Keep the state of a partition whatever happened to it: a rule broken on purpose."""
    return getattr(self.engine, "restored", 0) > 0


async def main(bootstrap: str, prefix: str, mutation: str = "") -> int:
    """Run until told to stop."""
    logs: dict[str, Callable[[LogNames], PartitionLog]] = {"failing": FailingLog, "outside": OutsideLog}
    if mutation == "trusting":
        Partition._is_current = trust  # type: ignore[method-assign]  # The mutation.
        logs["trusting"] = FailingLog
    app = create_app(
        ToySettings(bootstrap, prefix),
        lambda number: ToyEngine(explode_once()),
        log_factory=logs.get(mutation, KafkaPartitionLog),
    )
    update_customers.register(app)
    return await run(app, report_s=2.0)


if __name__ == "__main__":
    configure_logging("INFO")
    sys.exit(asyncio.run(main(*sys.argv[1:])))
