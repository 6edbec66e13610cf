"""The second act: one rule is edited while there are customers, planned, applied, and checked against SQL.

The commands are run as anybody would run them; what is printed is what they say, shortened.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError as ClientError
from rich.console import Console

from demo import worker
from demo.check import Difference, compare
from demo.oracle import FRESH_DAYS, Standing, standings
from demo.purchases import INVOICE_LINES
from demo.readback import pipeline_standings
from errors import KafkaUnavailable
from schemas.changes import decode_change
from streams.committed import partition_rows
from streams.kafka.reading import ends, reader, settle
from streams.segments.loading import DEFAULT_PATH
from streams.topics import MEMBERSHIPS, SEGMENT_CHANGES, topic_name

EDITED_FRESH_DAYS = 21
EDITED_VERSION = 2
EDIT = (f"    5: {FRESH_DAYS}d\n", f"    5: {EDITED_FRESH_DAYS}d\n")
"""A last order counts as fresh for three weeks, no longer for thirty days."""

CONVERSION_S_MAX = 60.0
POLL_S = 0.1
POLL_MS = 100
SHOWN_COLUMNS = 110
PLAN_LINES_SHOWN = 14
EXPLAIN_LINES_SHOWN = 18
MOVES_SHOWN = 4
DIFFERENCES_SHOWN_MAX = 10

Moves = dict[str, list[tuple[str, str]]]
"""Customer to every (value before, value after) in the RFM dimension, in the order of the changes."""


@dataclass(frozen=True, slots=True)
class Edited:
    """What became of the edit."""

    moves: Moves
    expected: Mapping[str, tuple[str, str]]
    """Who SQL says has another value by the edited rule than by the one before."""
    differences: Sequence[Difference]
    """Everybody who is not what SQL says of the edited rule, afterwards."""
    customers: int
    seconds: float
    """From the edit to the last check."""

    @property
    def wrong(self) -> list[str]:
        """Who moved and should not have, or otherwise, or twice, or not at all."""
        return sorted(
            customer
            for customer in self.moves.keys() | self.expected.keys()
            if self.moves.get(customer) != [self.expected.get(customer)]
        )

    @property
    def good(self) -> bool:
        """Whether exactly those moved who had to, once each, and everybody ended where SQL says."""
        return bool(self.moves) and not self.wrong and not self.differences

    @property
    def verdicts(self) -> tuple[str, str]:
        """The two lines that count: the changes, and where they lead."""
        return (
            f"{len(self.moves):,} customers moved by the edit, {len(self.expected):,} had to by SQL:"
            f" {len(self.wrong):,} wrong, missing or doubled; {self.seconds:.1f} s in all",
            f"{self.customers:,} customers checked against SQL again: {len(self.differences):,} differ",
        )


async def edit_a_rule(
    console: Console,
    bootstrap: str,
    settings: Mapping[str, str],
    logs: Path,
    before: Mapping[str, Standing],
    at_ms: int,
) -> Edited:
    """Edit, plan, apply, follow the leavers, explain one; everybody stands at `at_ms`, as in `before`.

    Raises WorkerEnded when a command or the worker fails, KafkaUnavailable when Kafka does.
    """
    began_s = time.monotonic()
    prefix, partitions = settings["SHOAL_PREFIX"], int(settings["SHOAL_PARTITIONS"])
    edited = logs / f"{prefix}-edited.yaml"
    text = DEFAULT_PATH.read_text()
    if text.count(EDIT[0]) != 1:
        raise AssertionError(f"{DEFAULT_PATH} holds {EDIT[0]!r} {text.count(EDIT[0])} times, expected once")
    edited.write_text(text.replace(*EDIT))
    wanted = standings(INVOICE_LINES, at_ms, EDITED_FRESH_DAYS)
    expected = moved_by(before, wanted)
    async with (
        worker.running(logs / f"{prefix}-edited.log", settings) as running,
        reader(bootstrap) as consumer,
    ):
        _say(console, "diff segments.yaml edited.yaml", [f"< {EDIT[0].strip()}", f"> {EDIT[1].strip()}"])
        where = topic_name(prefix, SEGMENT_CHANGES)
        starts = await ends(consumer, where, range(partitions))
        planned = await worker.said(settings, "plan", str(edited))
        _say(
            console, "shoal plan edited.yaml", planned[:PLAN_LINES_SHOWN], cut=len(planned) > PLAN_LINES_SHOWN
        )
        applied = await worker.said(
            settings, "apply", str(edited), "--confirm", "--comment", "fresh for 3 weeks"
        )
        _say(console, "shoal apply edited.yaml --confirm", applied[-1:])
        await _converted(bootstrap, prefix, partitions, running)
        moves = await _moves(consumer, where, starts)
        for line in _counted(moves):
            console.print(line, highlight=False)
        example = _example(moves)
        if example is not None:
            explained = await worker.said(settings, "explain", example)
            shown = explained[:EXPLAIN_LINES_SHOWN]
            _say(console, f"shoal explain {example}", shown, cut=len(explained) > len(shown))
        after = await pipeline_standings(bootstrap, prefix, partitions, at_ms)
    return Edited(moves, expected, compare(wanted, after), len(after), time.monotonic() - began_s)


def print_edited(console: Console, edited: Edited) -> None:
    """Print the verdict, and who is not as they should be."""
    for customer in edited.wrong[:DIFFERENCES_SHOWN_MAX]:
        was = f"{edited.moves.get(customer)}, SQL says {edited.expected.get(customer)}"
        console.print(f"customer {customer} moved {was}", style="red", highlight=False, soft_wrap=True)
    for difference in edited.differences[:DIFFERENCES_SHOWN_MAX]:
        console.print(str(difference), style="red", highlight=False, soft_wrap=True)
    console.print()
    for line in edited.verdicts:
        console.print(line, style="bold green" if edited.good else "red", highlight=False, soft_wrap=True)


def moved_by(before: Mapping[str, Standing], after: Mapping[str, Standing]) -> dict[str, tuple[str, str]]:
    """Return who has another value, by customer."""
    pairs = ((customer, before[customer].rfm, standing.rfm) for customer, standing in after.items())
    return {customer: (was, becomes) for customer, was, becomes in pairs if was != becomes}


async def _converted(bootstrap: str, prefix: str, partitions: int, running: worker.Worker) -> None:
    """Return once every partition has converted all its customers, and what came of it can be read."""
    deadline_s = time.monotonic() + CONVERSION_S_MAX
    while True:
        running.check()
        rows = await partition_rows(bootstrap, prefix, partitions)
        done = [
            row for row in rows.values() if row.definition_version == EDITED_VERSION and not row.converting
        ]
        if len(done) == partitions:
            told = [topic_name(prefix, name) for name in (SEGMENT_CHANGES, MEMBERSHIPS)]
            return await settle(bootstrap, told, partitions)
        if time.monotonic() > deadline_s:
            raise KafkaUnavailable(f"no conversion within {CONVERSION_S_MAX:.0f} s; see {running.log}")
        await asyncio.sleep(POLL_S)


async def _moves(consumer: AIOKafkaConsumer, topic: str, starts: Mapping[int, int]) -> Moves:
    """Return the RFM changes written since `starts`, whatever their cause."""
    moves: Moves = {}
    stops = await ends(consumer, topic, starts)
    for partition, start in starts.items():
        where = TopicPartition(topic, partition)
        consumer.assign([where])
        consumer.seek(where, start)
        try:
            while await consumer.position(where) < stops[partition]:
                for record in (await consumer.getmany(where, timeout_ms=POLL_MS)).get(where, ()):
                    change = decode_change(record.value)
                    if change["dimension"] == "rfm":
                        pair = change["from"], change["to"]
                        moves.setdefault(change["customer_id"], []).append(pair)
        except (ClientError, OSError) as error:
            raise KafkaUnavailable(f"reading {topic}-{partition}: {error!r}") from error
    return moves


def _counted(moves: Moves) -> Iterator[str]:
    """Say who left what for what, most first."""
    pairs = Counter(pair for each in moves.values() for pair in each)
    for (was, becomes), count in pairs.most_common(MOVES_SHOWN):
        yield f"{count:>7,} left {was} for {becomes}"


def _example(moves: Moves) -> str | None:
    """Choose one who is not a champion any more, if there is one: the first by id."""
    leavers = sorted(customer for customer, pairs in moves.items() if pairs[0][0] == "champions")
    return min(leavers or sorted(moves), default=None)


def _say(console: Console, command: str, lines: Sequence[str], *, cut: bool = False) -> None:
    """Print a command and what it said, each line shortened to a terminal's width."""
    console.print(f"\n$ {command}", highlight=False, style="bold")
    for line in [*lines, *(["..."] if cut else [])]:
        short = line if len(line) <= SHOWN_COLUMNS else f"{line[: SHOWN_COLUMNS - 4]} ..."
        console.print(short, markup=False, highlight=False, soft_wrap=True)
