"""`python -m benchmarks`: two streams through real Kafka, what the worker spent on them, and Faust beside it.

`run` (the default) measures, writes a JSON of every round and rewrites the pages from it; `report`
rewrites them from a JSON that is there. The logs are written first, so that what is measured is a
worker alone, from outside: user and system time of all its threads, beside the broker on the same
machine.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import importlib.util
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import provenance
from benchmarks.plot import draw
from benchmarks.process_cpu import ROOT
from benchmarks.report import PLOT, RESULTS, rewrite, sections
from benchmarks.rounds import FULL, QUICK, Bench
from deploy.local.cluster import kafka_for

QUICK_RESULTS = Path("var/bench/quick.json")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("command", nargs="?", choices=("run", "report"), default="run")
    parser.add_argument("--rounds", type=int, help="how often everything is measured (3)")
    parser.add_argument(
        "--quick", action="store_true", help="one round of small logs: a trial, nothing is rewritten"
    )
    parser.add_argument("--events", type=int, help="of the synthetic stream (1,000,000)")
    parser.add_argument("--prefix", type=int, help="events that Faust reads, too, at least (50,000)")
    parser.add_argument("--without-report", action="store_true", help="leave the pages as they are")
    parser.add_argument(
        "--json", type=Path, help=f"({RESULTS.relative_to(ROOT)}; with --quick {QUICK_RESULTS})"
    )
    return parser.parse_args()


def _sdk_figures(bootstrap: str, rounds: int) -> Any:
    """What benchmarks.sdk measures, in a process of its own; None where there is no such module."""
    if importlib.util.find_spec("benchmarks.sdk") is None:
        return None
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
        path = Path(folder) / "sdk.json"
        command = [sys.executable, "-m", "benchmarks.sdk", str(rounds), "--json", str(path)]
        subprocess.run(command, cwd=ROOT, env={**os.environ, "SHOAL_KAFKA": bootstrap}, check=True)
        return json.loads(path.read_text())


def _measure(options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Measure; the JSON is written after every round's runs, so that a failure costs what is left."""
    given = {name: getattr(options, name) for name in ("rounds", "events", "prefix")}
    size = dataclasses.replace(
        QUICK if options.quick else FULL, **{name: value for name, value in given.items() if value}
    )
    found: dict[str, Any] = {"provenance": provenance(), "size": dataclasses.asdict(size)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with kafka_for() as bootstrap:
        bench = Bench(bootstrap, size, lambda line: print(line, flush=True))
        try:
            asyncio.run(bench.run())
            if not options.quick:
                found["sdk"] = _sdk_figures(bootstrap, size.rounds)
        finally:
            found["provenance"]["load_at_end"] = list(os.getloadavg())
            found |= {"runs": bench.runs, "agreements": bench.agreements}
            path.write_text(json.dumps(found, indent=1) + "\n")
            print(f"figures in {path}")
    return found


def main() -> None:
    """Parse the command line and do as it says."""
    options = _options()
    # Kafka's client says at every topic just made that it has no leader yet.
    logging.basicConfig(level=logging.CRITICAL)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    path = options.json or (QUICK_RESULTS if options.quick else RESULTS)
    found = json.loads(path.read_text()) if options.command == "report" else _measure(options, path)
    # A trial's figures are shown, never published.
    if options.quick or options.without_report:
        print("\n\n".join(sections(found).values()))
        return
    rewrite(found)
    draw(found, PLOT)


if __name__ == "__main__":
    sys.exit(main())
