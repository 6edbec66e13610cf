"""Whether contenders agree: everybody's final values, and the sequence of changes of every customer."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.event_logs import EventLog
from demo.oracle import standings
from demo.purchases import INVOICE_LINES
from errors import ShoalError
from schemas.changes import decode_change
from schemas.memberships import decode_membership
from streams.kafka.reading import committed_rows, reader
from streams.topics import MEMBERSHIPS, SEGMENT_CHANGES, topic_name

Values = dict[str, dict[str, str]]
"""Customer to dimension to value."""

Sequences = dict[str, list[tuple[str, str | None, str | None]]]
"""Customer to (dimension, from, to) of each change in order."""


class OutputsDiffer(ShoalError):
    """Two contenders came to different results, so their figures say nothing."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a contender made of a log."""

    values: Values
    changes: Sequences

    @property
    def count(self) -> int:
        """How many changes there were."""
        return sum(map(len, self.changes.values()))


async def shoal_outputs(bootstrap: str, log: EventLog) -> Outputs:
    """Read what Shoal's subscribers would."""

    def values_of(value: bytes) -> dict[str, str]:
        return {held["dimension"]: held["value"] for held in decode_membership(value)["values"]}

    return await _outputs(
        bootstrap,
        log.partitions,
        (topic_name(log.prefix, MEMBERSHIPS), lambda key: key.decode(), values_of),
        (topic_name(log.prefix, SEGMENT_CHANGES), decode_change),
    )


async def faust_outputs(bootstrap: str, log: EventLog, app: str) -> Outputs:
    """Read the changes Faust sent, and the changelog of its table of memberships."""
    # Faust's keys of a table are JSON.
    return await _outputs(
        bootstrap,
        log.partitions,
        (f"{app}-memberships-changelog", lambda key: str(json.loads(key)), json.loads),
        (f"{app}-changes", json.loads),
    )


async def _outputs(
    bootstrap: str,
    partitions: int,
    memberships: tuple[str, Callable[[bytes], str], Callable[[bytes], dict[str, str]]],
    changes: tuple[str, Callable[[bytes], Mapping[str, Any]]],
) -> Outputs:
    values: Values = {}
    sequences: Sequences = defaultdict(list)
    async with reader(bootstrap) as consumer:
        for partition in range(partitions):
            topic, key_of, values_of = memberships
            async for key, value in committed_rows(consumer, topic, partition):
                if value is not None:
                    values[key_of(key)] = values_of(value)
            async for _, value in committed_rows(consumer, changes[0], partition):
                assert value is not None, "a change is never a tombstone"
                change = changes[1](value)
                told = change["dimension"], change["from"], change["to"]
                sequences[change["customer_id"]].append(told)
    return Outputs(values, dict(sequences))


def by_sql(at_ms: int) -> Values:
    """Return what SQL says of every customer of Online Retail II."""
    found = standings(INVOICE_LINES, at_ms)
    return {who: {"rfm": each.rfm, "lifecycle": each.lifecycle} for who, each in found.items()}


def require_equal(left: str, ours: Mapping[str, Any], right: str, theirs: Mapping[str, Any]) -> int:
    """Return how many customers agree; OutputsDiffer, with the first of them, if any does not."""
    wrong = sorted(who for who in ours.keys() | theirs.keys() if ours.get(who) != theirs.get(who))
    if wrong:
        who = wrong[0]
        raise OutputsDiffer(
            f"{len(wrong)} customers differ; of {who} {left} says {ours.get(who)}, {right} {theirs.get(who)}"
        )
    return len(ours)
