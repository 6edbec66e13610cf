"""What a worker did: a log line since it last said so, no matter how many partitions, and the metrics."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping

import numpy as np

import metrics
from errors import PartitionFenced, TransactionFailed
from metrics import Metrics
from schemas import framing, registry
from streams.kafka.seam import DeadLetter, Tally, Transaction

log = logging.getLogger(__name__)

STAGES = {
    "decode": "decode",
    "plan": "apply",
    "apply": "apply",
    "evaluate": "evaluate",
    "changes": "write",
    "rows": "write",
}
"""What the engine calls its stages, as the metrics do."""


class Progress:
    """Counts over an interval, reported by `line`, which starts the next; and `metrics`, for ever."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self._restart()

    def _restart(self) -> None:
        self._since_s = time.monotonic()
        self._cpu_s = time.process_time()
        self._events = self._transactions = self._pieces = 0
        self._transaction_s = self._piece_s = 0.0

    def piece(self, seconds: float) -> None:
        """Count one piece applied by an engine."""
        self._pieces += 1
        self._piece_s += seconds

    def transaction(self, events: int, seconds: float) -> None:
        """Count one committed transaction in the log line."""
        self._transactions += 1
        self._events += events
        self._transaction_s += seconds

    def committed(self, transaction: Transaction, seconds: float) -> None:
        """Count one committed transaction, which took `seconds` to write."""
        self.transaction(transaction.events, seconds)
        try:
            self._publish(transaction, seconds)
        except Exception as error:
            # It is committed: a mistake in counting must not make the partition restore.
            log.exception("a committed transaction is missing in the metrics: %r", error)

    def aborted(self, error: TransactionFailed) -> None:
        """Count one transaction that did not commit, as far as this worker knows."""
        result = "fenced" if isinstance(error, PartitionFenced) else "aborted"
        self.metrics.add(metrics.TRANSACTIONS, 1, result)

    def rebalanced(self) -> None:
        """Count one assignment of partitions."""
        self.metrics.add(metrics.REBALANCES, 1)

    def restored(self, rows: int, seconds: float) -> None:
        """Count one partition brought to life."""
        self.metrics.add(metrics.RESTORE_ROWS, rows)
        self.metrics.observe(metrics.RESTORE, seconds)

    def _publish(self, transaction: Transaction, seconds: float) -> None:
        counts, tally = self.metrics, transaction.tally
        counts.add(metrics.TRANSACTIONS, 1, "committed")
        counts.observe(metrics.STEP_RECORDS, transaction.events)
        stages = {"commit": seconds}
        for stage, spent in tally.nanoseconds.items():
            stages[STAGES[stage]] = stages.get(STAGES[stage], 0.0) + spent / 1e9
        for stage, spent_s in stages.items():
            counts.observe(metrics.STEP, spent_s, stage)
        for labels, count in tally.events.items():
            counts.add(metrics.EVENTS, count, *labels)
        for change, count in tally.changes.items():
            counts.add(metrics.CHANGES, count, *change)
        for (type_name, error), count in Counter(map(_dead, transaction.dead_letters)).items():
            counts.add(metrics.DEAD_LETTERS, count, error)
            counts.add(metrics.EVENTS, count, type_name, "dead")
        self._publish_times(tally)

    def _publish_times(self, tally: Tally) -> None:
        if tally.age_ms:
            self.metrics.observe_column(metrics.EVENT_AGE, np.concatenate(tally.age_ms) / 1e3)
        now_ms = time.time_ns() // 1_000_000
        for cause, effective_ms in tally.effective_at_ms:
            self.metrics.observe_column(metrics.CHANGE_LATENCY, (now_ms - effective_ms) / 1e3, cause)

    def line(self, *, pending: int, stage_ms: Mapping[str, float]) -> str:
        """Return the report; `pending` is partitions with work not yet committed, `stage_ms` CPU by stage."""
        events, cpu_s = self._events, time.process_time() - self._cpu_s
        piece_ms = self._piece_s * 1e3 / max(self._pieces, 1)
        transaction_ms = self._transaction_s * 1e3 / max(self._transactions, 1)
        parts = [
            f"{events} events in {time.monotonic() - self._since_s:.1f} s",
            f"{cpu_s * 1e6 / events:.2f} CPU µs/event" if events else f"{cpu_s:.2f} CPU s",
            f"{self._pieces} pieces of {piece_ms:.2f} ms",
            f"{self._transactions} transactions of {transaction_ms:.1f} ms",
            f"{pending} partitions pending",
        ]
        parts += [f"{name} {spent:.0f} ms" for name, spent in stage_ms.items()]
        self._restart()
        return ", ".join(parts)


def _dead(letter: DeadLetter) -> tuple[str, str]:
    """Return (record type, error) of a dead letter; the type is what its fingerprint says."""
    value = letter.value or b""
    stored = None
    if value.startswith(framing.MAGIC):
        stored = registry.committed().find(value[len(framing.MAGIC) : framing.HEADER_BYTES])
    return stored.type if stored else "unknown", letter.error_class
