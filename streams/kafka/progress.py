"""What a worker did since it last said so: one log line, no matter how many partitions."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Progress:
    """Counts over an interval; `line` reports and starts the next interval."""

    def __init__(self) -> None:
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
        """Count one committed transaction."""
        self._transactions += 1
        self._events += events
        self._transaction_s += seconds

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
