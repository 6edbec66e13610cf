"""What the SDK costs its caller: `python -m benchmarks.sdk [ROUNDS] [--json FILE]`, with Kafka up and gone.

Flat out: as many calls as one thread can make into a buffer that holds them all, then the rest of
the delivery; CPU is that of the whole process, background thread included, until Kafka has the
last event. Paced: calls at a steady rate, as an application makes them; the time each takes is the
caller's alone. Gone means an address where nobody listens, with the default buffer filling up and
then dropping. Every round measures all cases once, in turn; medians over the rounds are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from demo.topics import fresh_topics
from deploy.local.cluster import kafka_for
from shoal_sdk import Item, Money, Shoal

PARTITIONS = 8
FLAT_OUT_CALLS = 50_000
PACED_CALLS = 20_000
PACED_PER_SECOND = 2_000
NOBODY = "127.0.0.1:9"
PRICE = Money(1999, "EUR")
ITEMS = tuple(Item(f"sku-{number}", 1, PRICE, category="fish") for number in range(3))


def call(client: Shoal, number: int) -> None:
    """Make the call an order means: three lines, one of 10,000 customers."""
    client.purchased(f"customer-{number % 10_000}", order_id=str(number), amount=PRICE, items=ITEMS)


def percentile(sorted_values: list[int], share: float) -> int:
    """Return the value that `share` of all do not exceed."""
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


def latencies_us(times_ns: Iterable[int]) -> dict[str, float]:
    """Return what of the calls' times people ask for, in microseconds."""
    ordered = sorted(times_ns)
    shares = {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999}
    return {name: percentile(ordered, share) / 1000 for name, share in shares.items()} | {
        "max_us": ordered[-1] / 1000
    }


def flat_out(bootstrap: str, prefix: str, spool: str | None) -> dict[str, float]:
    """Return calls per second of one thread, and CPU per event until the last is delivered or given up."""
    client = Shoal(
        bootstrap, app="bench", prefix=prefix, spool=spool, max_events=1_000_000, max_bytes=1 << 30
    )
    gc.collect()
    cpu_s, start_s = time.process_time(), time.perf_counter()
    for number in range(FLAT_OUT_CALLS):
        call(client, number)
    called_s = time.perf_counter() - start_s
    client.flush(60.0 if bootstrap != NOBODY else 0.0)
    spent_s = time.process_time() - cpu_s
    client.close(0.0)
    return {
        "calls_per_second": FLAT_OUT_CALLS / called_s,
        "cpu_us_per_event": spent_s / FLAT_OUT_CALLS * 1e6,
    }


def paced(bootstrap: str, prefix: str, spool: str | None) -> dict[str, float]:
    """Return how long a call keeps its caller, at a steady rate."""
    client = Shoal(bootstrap, app="bench", prefix=prefix, spool=spool)
    times_ns = []
    gc.collect()
    begin_s = time.perf_counter()
    for number in range(PACED_CALLS):
        ahead_s = begin_s + number / PACED_PER_SECOND - time.perf_counter()
        if ahead_s > 0:
            time.sleep(ahead_s)
        before_ns = time.perf_counter_ns()
        call(client, number)
        times_ns.append(time.perf_counter_ns() - before_ns)
    dropped = client.counters.dropped
    client.close(20.0 if bootstrap != NOBODY else 0.0)
    return latencies_us(times_ns) | {"dropped": float(dropped)}


def measure(bootstrap: str, prefix: str, rounds: int) -> dict[str, Any]:
    """Return per case the median of each figure over the rounds, and all rounds, as JSON holds them."""
    cases: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for kafka, address in (("up", bootstrap), ("gone", NOBODY)):
            for buffer in ("memory", "spool"):
                with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
                    spool = folder if buffer == "spool" else None
                    figures = flat_out(address, prefix, spool)
                with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
                    figures |= paced(address, prefix, folder if buffer == "spool" else None)
                cases.setdefault(f"{kafka}, {buffer}", []).append(figures)
    return {
        "command": " ".join(["python", "-m", "benchmarks.sdk", *sys.argv[1:]]),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "paced_per_second": PACED_PER_SECOND,
        "cases": {
            case: {
                "median": {name: statistics.median(each[name] for each in found) for name in found[0]},
                "rounds": found,
            }
            for case, found in cases.items()
        },
    }


async def _measure_with_topics(bootstrap: str, rounds: int) -> dict[str, Any]:
    """Measure on topics of our own."""
    prefix = f"bench{uuid.uuid4().hex[:8]}"
    async with fresh_topics(bootstrap, prefix, PARTITIONS):
        return await asyncio.to_thread(measure, bootstrap, prefix, rounds)


def table(results: dict[str, Any]) -> str:
    """Return the medians as people read them."""
    heads = ["calls_per_second", "cpu_us_per_event", "p50_us", "p99_us", "p999_us", "max_us", "dropped"]
    lines = [f"{'Kafka, buffer':16}" + "".join(f"{head:>18}" for head in heads)]
    for case, figures in results["cases"].items():
        median = figures["median"]
        lines.append(f"{case:16}" + "".join(f"{median[head]:18,.1f}" for head in heads))
    return "\n".join(lines)


def main() -> None:
    """Measure, print a table, and write the figures down if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", nargs="?", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # What is given up when Kafka is gone is the point here, not an error to read about.
    logging.getLogger("shoal_sdk").setLevel(logging.CRITICAL)
    with kafka_for() as bootstrap:
        results = asyncio.run(_measure_with_topics(bootstrap, options.rounds))
    print(table(results))
    print(f"load average {results['load_average']:.1f} on {results['processors']} processors")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
