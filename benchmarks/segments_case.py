"""One definition and one log through engines without Kafka, partition by partition: what an event costs.

Run by its path with another tree of this project as the working directory and on PYTHONPATH, it measures
that one: that is how before and after are put side by side. It prints one line of JSON.
"""

from __future__ import annotations

import json
import pickle
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clock import FrozenClock
from streams.kafka.seam import Chunk, Transaction
from streams.segments.evaluate import Evaluator
from streams.segments.loading import load
from streams.segments.versions import Version, Versions
from streams.steps.engine import PartitionEngine

CHUNK_RECORDS = 5_000
APPENDED_MS = 4_000_000_000_000
TICK_KEY_BYTES_MAX = 4
"""Keys this short are those of Ticks."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the log."""

    offset: int
    timestamp: int
    key: bytes
    value: bytes


class Spent:
    """What some of the records came to."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.counts: Counter[str] = Counter()
        self.stages_ms: Counter[str] = Counter()

    def add(self, transaction: Transaction) -> None:
        """Count what a transaction writes."""
        for name, rows in (
            ("row", transaction.rows),
            ("change", transaction.changes),
            ("membership", transaction.memberships),
        ):
            self.counts[f"{name}s"] += len(rows)
            self.counts[f"{name}_bytes"] += sum(len(key) + len(value or b"") for key, value in rows)
        self.counts["transactions"] += 1

    def figures(self) -> dict[str, float]:
        """Return µs an event, by stage too, and bytes by record."""
        counts, events = self.counts, max(1, self.counts["events"])
        of_stages = {f"{stage}_us": ms * 1e3 / events for stage, ms in sorted(self.stages_ms.items())}
        return {
            "events": events,
            "steps": counts["steps"],
            "cpu_us": self.cpu_s * 1e6 / events,
            "cpu_ms_a_step": self.cpu_s * 1e3 / max(1, counts["steps"]),
            **of_stages,
            "changes": counts["changes"] / events,
            "rows": counts["rows"] / events,
            "row_bytes_an_event": counts["row_bytes"] / events,
            "bytes_a_row": counts["row_bytes"] / max(1, counts["rows"]),
            "bytes_a_change": counts["change_bytes"] / max(1, counts["changes"]),
            "bytes_a_membership": counts["membership_bytes"] / max(1, counts["memberships"]),
        }


class Case:
    """Engines of all partitions of one log, one after another."""

    def __init__(self, definition: str, edited: str, folder: Path, rows: bool) -> None:
        """With `rows`, find out what the changelog holds of each customer; it costs memory, not CPU."""
        self._definition, self._folder, self._rows = load(definition, "segments.yaml"), folder, rows
        self._edited = edited
        self.parts = {name: Spent() for name in ("build", "steady", "small", "convert")}
        self._slices_ms: list[float] = []
        self._state: Counter[str] = Counter()

    def run(self) -> dict[str, Any]:
        """Return the figures."""
        began = time.process_time()
        evaluator = Evaluator(self._definition)
        compiling_ms = (time.process_time() - began) * 1e3
        for path in sorted(self._folder.glob("*.log")):
            log = pickle.loads(path.read_bytes())  # noqa: S301  # written a moment ago by segments.py
            self._partition(evaluator, int(path.stem), log)
        customers = self._state["customers"]
        return {
            "compiling_ms": compiling_ms,
            "customers": customers,
            "memberships": self._state["memberships"] / customers,
            "state_bytes": {
                name.removeprefix("bytes_"): count / customers
                for name, count in sorted(self._state.items())
                if name.startswith("bytes_")
            },
            "changelog_bytes": self._state["changelog"] / customers,
            "conversion": self._conversion(),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "parts": {name: spent.figures() for name, spent in self.parts.items()},
        }

    def _partition(self, evaluator: Evaluator, partition: int, log: Sequence[tuple[bytes, bytes]]) -> None:
        records = [Record(i, APPENDED_MS, key, value) for i, (key, value) in enumerate(log)]
        versions = Versions(only=evaluator)
        engine = PartitionEngine(
            app="bench", partition=partition, definition=self._definition, evaluator=evaluator, mode="event",
            wall=FrozenClock(0), versions=versions,
        )  # fmt: skip
        engine.finish_restore(partitions=int((self._folder / "partitions").read_text()))
        engine.start_at(0)
        held: dict[bytes, int] = {}
        for part, start, end in pieces(log):
            spent = self.parts[part]
            self._chunk(engine, records[start:end], start, spent, held if self._rows else None)
            spent.counts["events"] += sum(len(key) > TICK_KEY_BYTES_MAX for key, _ in log[start:end])
            spent.counts["steps"] += 1
        number = self._definition.version + 1
        edited = load(self._edited, "segments.yaml")
        self._convert(engine, versions, Version(number, self._edited, edited.hash, 0, "bench"))
        table = engine.table
        self._state["customers"] += table.count
        self._state["memberships"] += members(engine)
        self._state["changelog"] += sum(held.values())
        self._state.update({f"bytes_{name}": count for name, count in table.state_bytes().items()})

    def _convert(self, engine: PartitionEngine, versions: Versions, version: Version) -> None:
        """Let everybody be converted to another version, and note what each slice takes, and how long."""
        spent, count = self.parts["convert"], engine.table.count
        versions.add(version)
        engine.stage_ms()
        while engine.converting:
            began = time.process_time()
            engine.convert()
            converted = time.process_time()
            transaction = engine.take()
            spent.cpu_s += time.process_time() - began
            self._slices_ms.append((converted - began) * 1e3)
            spent.counts["steps"] += 1
            spent.add(transaction)
        assert engine.refusal is None and not engine.unconverted, "everybody is converted"
        spent.counts["events"] += count
        spent.stages_ms.update(engine.stage_ms())

    def _conversion(self) -> dict[str, float]:
        p50, p99, most = np.percentile(self._slices_ms, (50, 99, 100)).tolist()
        slices = len(self._slices_ms)
        return {
            "cpu_s": self.parts["convert"].cpu_s,
            "slices": slices,
            "p50_ms": p50,
            "p99_ms": p99,
            "max_ms": most,
        }

    def _chunk(
        self,
        engine: PartitionEngine,
        records: Sequence[Record],
        start: int,
        spent: Spent,
        held: dict[bytes, int] | None,
    ) -> None:
        taken: list[Transaction] = []
        began = time.process_time()
        work = engine.begin(Chunk(start, records, start + len(records), 0))
        while not work.done:
            if not engine.advance(work):
                taken.append(engine.take())
        taken.append(engine.take())
        spent.cpu_s += time.process_time() - began
        spent.stages_ms.update(engine.stage_ms())
        for transaction in taken:
            spent.add(transaction)
            if held is not None:
                held |= {key: len(key) + len(value or b"") for key, value in transaction.rows}


def pieces(log: Sequence[tuple[bytes, bytes]]) -> Iterator[tuple[str, int, int]]:
    """Yield (part, start, end): the last tenth apart, its second half in steps of one Tick each."""
    steady, small = len(log) * 18 // 20, len(log) * 19 // 20
    for part, first, last in (("build", 0, steady), ("steady", steady, small)):
        for start in range(first, last, CHUNK_RECORDS):
            yield part, start, min(last, start + CHUNK_RECORDS)
    start = small
    for at in range(small, len(log)):
        if len(log[at][0]) <= TICK_KEY_BYTES_MAX:
            yield "small", start, at + 1
            start = at + 1


def members(engine: PartitionEngine) -> int:
    """Return how many memberships in custom segments there are."""
    table, core = engine.table, 2
    slices = range(0, table.count, 10_000)
    everybody = np.arange(table.count)
    return sum(int((table.value[everybody[at : at + 10_000]][:, core:] >= 0).sum()) for at in slices)


if __name__ == "__main__":
    text, edited, folder, rows = sys.argv[1:]
    case = Case(Path(text).read_text(), Path(edited).read_text(), Path(folder), rows == "rows")
    print(json.dumps(case.run()))
