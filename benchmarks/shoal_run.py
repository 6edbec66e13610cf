"""One run of `shoal worker` over a whole log, from no state to the last commit, and its restarts."""

from __future__ import annotations

import re
import sys
import urllib.request
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.event_logs import EventLog, forget_state, mark_when_read
from benchmarks.process_cpu import Mark, Measured, peak_mib
from demo import worker
from streams.app import group_id
from streams.topics import EVENTS, topic_name

Figures = dict[str, float]

CHUNK_RECORDS = 5_000
START_S_MAX = 120.0
LIVES = re.compile(r"partition \d+ starts at \d+")
RESTORED = re.compile(r", (\d+) rows restored in \d+ ms")
ADDRESS = re.compile(r"metrics at (http://\S+/metrics)")


async def shoal_run(
    bootstrap: str,
    log: EventLog,
    mode: str,
    folder: Path,
    *,
    chunk: int = CHUNK_RECORDS,
    restarts: bool = False,
) -> Figures:
    """Return what a worker spent on the whole log; the state it built stays in Kafka."""
    await forget_state(bootstrap, log)
    settings = _settings(bootstrap, log, mode, chunk)
    name = f"{log.prefix}-{mode}-{chunk}"
    with _worker(folder / f"{name}.log", settings) as process:
        first = process.mark_when(LIVES, 1, START_S_MAX)
        ready = process.mark_when(LIVES, log.partitions, START_S_MAX)
        topic = topic_name(log.prefix, EVENTS)
        last = await mark_when_read(bootstrap, group_id(log.prefix), topic, log.ends, process)
        memory_mib = peak_mib(process.pid)
        exposed = scraped(process.text)
        whole_s = process.stop()
        reported = worker.figures(process.text)
    figures = spent(log.events, first, last, whole_s, memory_mib) | stages(exposed, log.events)
    figures |= {"start_s": ready.wall_s, "start_cpu_s": ready.cpu_s, "ticks": log.ticks}
    if reported is not None:
        figures |= {"steps": reported.pieces, "step_ms": reported.piece_ms_mean}
        figures["troubles"] = reported.troubles
    if restarts:
        figures |= _restart(log, {**settings, "SHOAL_WORKER_ID": "bench"}, folder / f"{name}-restart.log")
    return figures


def spent(events: int, first: Mark, last: Mark, whole_s: float, memory_mib: float) -> Figures:
    """Return what every contender is measured by, whatever it is."""
    wall_s = last.wall_s - first.wall_s
    return {
        "events": events,
        "cpu_us_whole": whole_s * 1e6 / events,
        "cpu_us_first_to_last": (last.cpu_s - first.cpu_s) * 1e6 / events,
        "events_per_s": events / wall_s,
        "wall_s": wall_s,
        "peak_mib": memory_mib,
    }


def _restart(log: EventLog, settings: dict[str, str], path: Path) -> Figures:
    """Return what it costs to be ready again on the state that is there, after a kill -9.

    With a name, so that the group gives the partitions back at once and not after a session.
    """
    with _worker(path, settings) as process:
        process.mark_when(LIVES, log.partitions, START_S_MAX)
        process.kill()
    with _worker(path, settings) as process:
        ready = process.mark_when(LIVES, log.partitions, START_S_MAX)
        rows = sum(map(int, RESTORED.findall(process.text)))
        process.stop()
    return {"restart_s": ready.wall_s, "restart_cpu_s": ready.cpu_s, "restart_rows": rows}


def _worker(log: Path, settings: dict[str, str]) -> Measured:
    return Measured([sys.executable, "-m", "cli", "worker"], log, settings)


def _settings(bootstrap: str, log: EventLog, mode: str, chunk: int) -> dict[str, str]:
    return {
        "SHOAL_KAFKA": bootstrap,
        "SHOAL_PREFIX": log.prefix,
        "SHOAL_CLOCK": mode,
        "SHOAL_PARTITIONS": str(log.partitions),
        "SHOAL_CHUNK_RECORDS_MAX": str(chunk),
    }


def scraped(said: str) -> str:
    """Return the metrics of the worker whose log this is."""
    found = ADDRESS.search(said)
    assert found is not None, "a worker says where its metrics are before it does anything"
    with urllib.request.urlopen(found[1], timeout=30) as answer:  # noqa: S310  An http address of our own.
        return str(answer.read().decode())


def stages(exposition: str, events: int) -> dict[str, Any]:
    """Return the CPU of each stage in µs an event, transactions and what became of the events.

    The stage called commit is left out: it is a wait. What no stage names is in nobody's figure: it
    is the difference to the CPU of the process.
    """
    samples = [each for family in text_string_to_metric_families(exposition) for each in family.samples]

    def labelled(name: str, label: str) -> dict[str, float]:
        totals: dict[str, float] = {}
        for sample in samples:
            if sample.name == name:
                at = sample.labels[label]
                totals[at] = totals.get(at, 0.0) + sample.value
        return totals

    seconds = labelled("shoal_step_seconds_sum", "stage")
    figures = {f"stage_{name}_us": s * 1e6 / events for name, s in seconds.items() if name != "commit"}
    committed = labelled("shoal_transactions_total", "result").get("committed", 0.0)
    figures["transactions"] = committed
    figures["commit_wait_ms"] = seconds.get("commit", 0.0) * 1e3 / max(committed, 1.0)
    for result, count in labelled("shoal_events_total", "result").items():
        figures[f"events_{result}"] = count
    figures["changes"] = sum(labelled("shoal_changes_total", "cause").values())
    return figures
