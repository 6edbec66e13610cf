"""The rounds: every case once in each, those of one prefix side by side, outputs compared every time."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import agreement, retail, synthetic
from benchmarks.event_logs import EventLog, delete_everything, first, with_ticks, write
from benchmarks.faust_run import faust_run
from benchmarks.shoal_run import CHUNK_RECORDS, shoal_run
from benchmarks.synthetic import DAY_MS, HOUR_MS

STEP_CHUNKS = (13, 100, 1_000)
"""Records of a chunk in the experiment that tells what a step costs by itself."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    rounds: int
    events: int
    """Of the synthetic stream."""
    customers: int
    days: int
    prefix: int
    """Events both contenders read, at least; up to the Tick that follows."""
    step_events: int
    """Events of the log that is read in tiny chunks."""
    partitions: tuple[int, ...] = (1, 8)


FULL = Size(rounds=3, events=1_000_000, customers=100_000, days=90, prefix=50_000, step_events=20_000)
QUICK = Size(
    rounds=1, events=100_000, customers=10_000, days=90, prefix=5_000, step_events=3_000, partitions=(8,)
)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is measured once a round."""

    contender: str
    """shoal or faust."""
    stream: str
    """retail or synthetic."""
    extent: str
    """whole: the whole stream; prefix: the events both contenders read; steps: those read in tiny chunks."""
    mode: str
    """event or wall."""
    partitions: int
    chunk: int = CHUNK_RECORDS


class Bench:
    """Writes the logs, then runs the rounds; `say` is told what goes on."""

    def __init__(self, bootstrap: str, size: Size, say: Callable[[str], None]) -> None:
        self._bootstrap, self._size, self._say = bootstrap, size, say
        self._name = f"bench-{int(time.time())}"
        self._folder = Path(tempfile.mkdtemp(prefix="shoal-bench-"))
        self._logs: dict[tuple[str, str, str, int], EventLog] = {}
        self.runs: list[dict[str, Any]] = []
        self.agreements: list[dict[str, Any]] = []

    async def run(self) -> None:
        """Do all of it; what is done is in `runs` and `agreements` also when it fails in the middle."""
        self._say(f"logs of the workers in {self._folder}")
        try:
            await self._write_logs()
            for number in range(1, self._size.rounds + 1):
                for case in self._cases():
                    await self._measure(number, case)
        finally:
            # The cluster may be somebody else's.
            await delete_everything(self._bootstrap, self._name)

    # -- the logs

    async def _write_logs(self) -> None:
        size = self._size
        for stream, mode in itertools.product(("retail", "synthetic"), ("event", "wall")):
            await self._write(stream, mode, "whole", size.partitions, self._entries(stream, mode))
        # Written anew from the same generator: byte for byte the beginning of the whole.
        for stream, extent, events, count in (
            ("retail", "prefix", size.prefix, size.partitions[-1]),
            ("synthetic", "prefix", size.prefix, size.partitions[-1]),
            ("synthetic", "steps", size.step_events, 1),
        ):
            entries = first(self._entries(stream, "event"), events)
            await self._write(stream, "event", extent, (count,), entries)

    async def _write(
        self, stream: str, mode: str, extent: str, counts: tuple[int, ...], entries: Any
    ) -> None:
        name = f"{self._name}-{stream}-{mode}-{extent}"
        logs = await write(self._bootstrap, name, counts, entries, append_as_happened=mode == "wall")
        for count, log in logs.items():
            self._logs[stream, mode, extent, count] = log
            self._say(f"{log.prefix}: {log.events:,} events and {log.ticks:,} ticks")

    def _entries(self, stream: str, mode: str) -> Iterator[Any]:
        """In wall mode everything is moved so that it ends now, as live traffic would, without Ticks."""
        size = self._size
        now_ms = (int(time.time() * 1000) // HOUR_MS) * HOUR_MS
        if stream == "retail":
            shift_ms = now_ms - retail.LAST_MIDNIGHT_MS
            if mode == "wall":
                return iter(retail.arrivals(shift_ms=shift_ms))
            return with_ticks(retail.arrivals(), DAY_MS)
        shape = {"events": size.events, "customers": size.customers, "days": size.days}
        if mode == "wall":
            return synthetic.arrivals(**shape, start_ms=now_ms - size.days * DAY_MS)
        return with_ticks(synthetic.arrivals(**shape), HOUR_MS)

    # -- the cases

    def _cases(self) -> Iterator[Case]:
        for stream in ("retail", "synthetic"):
            for mode, count in itertools.product(("event", "wall"), self._size.partitions):
                yield Case("shoal", stream, "whole", mode, count)
            for contender in ("shoal", "faust"):
                yield Case(contender, stream, "prefix", "event", self._size.partitions[-1])
        for chunk in STEP_CHUNKS:
            yield Case("shoal", "synthetic", "steps", "event", 1, chunk)

    async def _measure(self, number: int, case: Case) -> None:
        log = self._logs[case.stream, case.mode, case.extent, case.partitions]
        app = f"{log.prefix}-faust-{number}"
        if case.contender == "faust":
            figures = await faust_run(self._bootstrap, log, app, self._folder)
        else:
            restarts = case.extent == "whole" and case.mode == "event"
            figures = await shoal_run(
                self._bootstrap, log, case.mode, self._folder, chunk=case.chunk, restarts=restarts
            )
        if figures.get("events_dead") or figures.get("events_too_old"):
            raise agreement.OutputsDiffer(f"{case} set events aside, or found them too old: {figures}")
        self.runs.append({"round": number, "case": asdict(case), "figures": figures})
        self._say(
            f"round {number} {' '.join(map(str, asdict(case).values()))}: "
            f"{figures['cpu_us_first_to_last']:.1f} CPU µs/event, {figures['events_per_s']:,.0f} events/s"
        )
        if case.contender == "faust":
            await self._compare(number, case, log, app)
        elif case.stream == "retail" and case.extent == "whole" and case.mode == "event":
            await self._compare_with_sql(number, case, log)

    async def _compare(self, number: int, case: Case, log: EventLog, app: str) -> None:
        """Hold what Faust said against what Shoal, which ran before it on the same log, said."""
        ours = await agreement.shoal_outputs(self._bootstrap, log)
        theirs = await agreement.faust_outputs(self._bootstrap, log, app)
        customers = agreement.require_equal("Shoal", ours.values, "Faust", theirs.values)
        agreement.require_equal("Shoal", ours.changes, "Faust", theirs.changes)
        await delete_everything(self._bootstrap, app)
        self._agreed(number, case, "faust", customers, ours.count)

    async def _compare_with_sql(self, number: int, case: Case, log: EventLog) -> None:
        ours = await agreement.shoal_outputs(self._bootstrap, log)
        sql = agreement.by_sql(log.last_ms)
        customers = agreement.require_equal("Shoal", ours.values, "SQL", sql)
        self._agreed(number, case, "sql", customers, ours.count)

    def _agreed(self, number: int, case: Case, with_: str, customers: int, changes: int) -> None:
        self.agreements.append(
            {
                "round": number,
                "stream": case.stream,
                "extent": case.extent,
                "with": with_,
                "customers": customers,
                "changes": changes,
            }
        )
        self._say(f"  {customers:,} customers and {changes:,} changes agree with {with_}")
