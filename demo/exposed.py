"""Where the demo's worker could be watched, and ten lines of what Prometheus would have read there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
from rich.console import Console

SHOWN = (
    "shoal_events_total",
    "shoal_consumer_lag_records",
    "shoal_step_seconds_sum",
    "shoal_transactions_total",
    "shoal_due_customers",
    "shoal_changes_total",
    "shoal_segment_members",
    "shoal_customers",
    "shoal_state_bytes",
    "process_resident_memory_bytes",
)
"""The first line of each is shown."""

_ADDRESS = re.compile(r"metrics at (http://\S+/metrics)")


@dataclass(frozen=True, slots=True)
class Exposed:
    """What was there to be scraped while the worker ran."""

    address: str
    lines: Sequence[str]


async def scrape(log: str) -> Exposed | None:
    """Ask the worker at the address its log names; None if it names none, or nobody answers there."""
    found = _ADDRESS.search(log)
    if found is None:
        return None
    try:
        async with aiohttp.ClientSession() as session, session.get(found[1]) as answer:
            return Exposed(found[1], chosen(await answer.text()))
    except aiohttp.ClientError:
        return None


def chosen(text: str) -> list[str]:
    """Return the first line of each of the metrics shown, in their order."""
    lines = text.splitlines()
    firsts = (next((line for line in lines if re.match(rf"{name}[{{ ]", line)), None) for name in SHOWN)
    return [line for line in firsts if line is not None]


def print_exposed(console: Console, exposed: Exposed | None) -> None:
    """Print the address and the lines; the worker is gone by then, so it says "were"."""
    if exposed is None:
        console.print("the worker's metrics could not be read", style="red")
        return
    console.print(
        f"\nmetrics were at {exposed.address}, ten of their lines:", highlight=False, soft_wrap=True
    )
    for line in exposed.lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
