"""A million events that waited: `python -m benchmarks.backlog [EVENTS]`, the engine alone, on the wall clock.

Says what it cost, and fails when a transaction went beyond its bounds; too slow for `make test`,
which does the same with fewer (tests/streams/steps/test_bounds.py).
"""

from __future__ import annotations

import resource
import sys
import time

from benchmarks.synthetic import START_MS, stream
from clock import FrozenClock
from streams.kafka.seam import Chunk, Transaction
from streams.segments.evaluate import Evaluator
from streams.segments.loading import default_definition
from streams.steps.engine import PartitionEngine
from streams.steps.room import Bounds
from tests.simulation import SimulatedRecord

DAYS = 90
CHUNK_RECORDS = 5_000


def size(transaction: Transaction) -> int:
    """Bytes of all keys and values."""
    pairs = [*transaction.rows, *transaction.changes, *transaction.memberships]
    return sum(len(key) + len(value or b"") for key, value in pairs)


def main(events: int) -> None:
    """Work off a backlog of one partition."""
    definition, bounds = default_definition(), Bounds()
    engine = PartitionEngine(
        app="backlog", partition=0, definition=definition, evaluator=Evaluator(definition), mode="wall",
        wall=FrozenClock(START_MS), bounds=bounds,
    )  # fmt: skip
    engine.finish_restore(partitions=1)
    engine.start_at(0)
    step_ms = DAYS * 86_400_000 / events
    source = stream(events=events, customers=events // 10, partitions=1, days=DAYS, tick_ms=10**12)
    chunk: list[SimulatedRecord] = []
    sizes: list[int] = []
    rows, spent_s, offset = 0, 0.0, 0

    def work_off() -> None:
        nonlocal rows, spent_s
        began_s = time.process_time()
        work = engine.begin(Chunk(chunk[0].offset, chunk, chunk[-1].offset + 1, 0))
        while not work.done or engine.has_pending():
            if work.done or not engine.advance(work):
                transaction = engine.take()
                sizes.append(size(transaction))
                rows = max(rows, sum(key[0] == 1 and key[-4:] == bytes(4) for key, _ in transaction.rows))
        spent_s += time.process_time() - began_s

    for _, key, value in source:
        chunk.append(SimulatedRecord(offset, int(START_MS + offset * step_ms) + 1, key, value))
        offset += 1
        if len(chunk) == CHUNK_RECORDS:
            work_off()
            chunk = []
    if chunk:
        work_off()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{offset} records, {len(sizes)} transactions, at most {max(sizes)} bytes and {rows} customers")
    print(f"{1e6 * spent_s / offset:.2f} CPU µs/event, {peak_mib:.0f} MiB resident at most")
    assert max(sizes) <= bounds.bytes_max and rows <= bounds.rows_max


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
