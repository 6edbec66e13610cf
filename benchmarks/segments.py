"""What many segments cost: `python -m benchmarks.segments`, definitions with 0, 20 and 200 custom segments.

Engines without Kafka, eight partitions one after another, a million customers together. Every case of
every round runs in a process of its own, the cases of a round right after each other. With
`--tree before=PATH` the same is measured of another tree of this project, beside this one.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import segments_case
from benchmarks.machine import provenance
from benchmarks.many_segments import definition_text, edited_text, log
from benchmarks.process_cpu import ROOT
from benchmarks.segments_report import sections

RESULTS = ROOT / "benchmarks/results/segments.json"
DAYS = 90


def written(folder: Path, customers: int, events: int, partitions: int, measured: int) -> None:
    """Write the logs of the first partitions into a folder."""
    by_partition: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
    for partition, key, value in log(customers=customers, events=events, partitions=partitions, days=DAYS):
        if partition < measured:
            by_partition[partition].append((key, value))
    for partition, records in by_partition.items():
        (folder / f"{partition}.log").write_bytes(pickle.dumps(records))
    (folder / "partitions").write_text(str(partitions))


def measured(tree: Path, definition: Path, folder: Path) -> dict[str, Any]:
    """Run one case with the code of `tree`; return its figures."""
    edited = definition.with_suffix(".edited")
    command = [sys.executable, segments_case.__file__, str(definition), str(edited), str(folder), "rows"]
    env = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{tree}, {definition.name}: {done.stderr[-3000:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main(arguments: Sequence[str]) -> None:
    """Measure, write the JSON, print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.segments", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--customers", type=int, default=1_000_000)
    parser.add_argument("--partitions", type=int, default=8, help="run one after another")
    parser.add_argument("--measured", type=int, help="so many of the partitions (all)")
    parser.add_argument("--events", type=int, help="(2.25 for each customer)")
    parser.add_argument("--segments", type=int, nargs="+", default=[0, 20, 200])
    parser.add_argument("--tree", action="append", default=[], metavar="NAME=PATH", help="measured beside")
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    events = options.events or options.customers * 9 // 4
    count = options.measured or options.partitions
    trees = {**dict(each.split("=", 1) for each in options.tree), "now": str(ROOT)}
    found: dict[str, Any] = {"provenance": provenance(), "runs": []}
    found["provenance"]["command"] = "python -m benchmarks.segments " + " ".join(arguments)
    found["size"] = {
        "customers": options.customers,
        "events": events,
        "partitions": options.partitions,
        "measured": count,
        "days": DAYS,
    }
    with tempfile.TemporaryDirectory(prefix="shoal-segments-") as name:
        folder = Path(name)
        written(folder, options.customers, events, options.partitions, count)
        for number in range(1, options.rounds + 1):
            for segments in options.segments:
                definition = folder / f"{segments}.yaml"
                definition.write_text(definition_text(segments), "utf-8")
                definition.with_suffix(".edited").write_text(edited_text(segments), "utf-8")
                for tree, path in trees.items():
                    figures = measured(Path(path), definition, folder)
                    case = {"segments": segments, "tree": tree}
                    found["runs"].append({"round": number, "case": case, "figures": figures})
                    print(number, case, json.dumps(figures), flush=True)
                    found["provenance"]["load_at_end"] = list(os.getloadavg())
                    options.json.parent.mkdir(parents=True, exist_ok=True)
                    options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(*sections(found).values(), sep="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
