"""One customer explained: every value with the clauses behind it, what made it so, and what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from errors import KafkaUnavailable, RecordError
from streams import committed
from streams.applying import Pipeline
from streams.change_history import change_by_seq
from streams.customer_card import Card, card_of, partition_of
from streams.customers.facts import Strings
from streams.definitions import when
from streams.kafka.reading import reader
from streams.segments.currencies import EXPONENTS
from streams.segments.explaining import Clause, Coming, Explainer, Explanation
from streams.segments.versions import Versions
from streams.steps.as_of import TableAsOf
from streams.steps.engine import PartitionEngine

Change = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Explained:
    """What is known of one customer at `at_ms`, and why."""

    card: Card
    at_ms: int
    version: int
    """Of the definition that was asked."""
    explanations: tuple[Explanation, ...]
    since_ms: Mapping[str, int]
    """Since when each value has been held, where it is the one stored."""
    seqs: Mapping[str, int]
    """The number of the change that set each of those."""
    epoch: int
    made_by: Mapping[str, Change | None]
    """The change that set each of those; None when it is not held any more."""
    coming: tuple[Coming, ...]
    notes: tuple[str, ...]


def explained_by(engine: PartitionEngine, customer_id: str, at_ms: int | None = None) -> Explained | None:
    """Explain one customer of this partition at its clock, or at another instant; None when unknown.

    At an earlier instant only facts up to then are looked at, at a later one those there are now, by
    the definition in force. `made_by` is left empty.
    """
    table, card = engine.table, card_of(engine, customer_id)
    if card is None:
        return None
    slot = int(table.slots.find(Strings.from_list([customer_id.encode()]))[0])
    now_ms = engine.clock_ms if at_ms is None else at_ms
    explainer = Explainer(engine.evaluator)
    slots = np.array([slot])
    past = at_ms is not None and at_ms < engine.clock_ms
    sight = TableAsOf(table, slots, np.array([now_ms])) if past else table
    explanations = explainer.explain(sight, slot, now_ms)
    held = {
        dimension: (None if code < 0 else table.values[d][code], int(table.since_ms[slot, d]))
        for d, (dimension, code) in enumerate(zip(table.dimensions, table.value[slot].tolist(), strict=True))
    }
    stored = [each for each in explanations if held[each.dimension][0] == each.value]
    since = {
        each.dimension: held[each.dimension][1]
        for each in stored
        if each.value is not None and held[each.dimension][1] <= now_ms
    }
    return Explained(
        card=card,
        at_ms=now_ms,
        version=engine.definition.version,
        explanations=explanations,
        since_ms=since,
        seqs={name: int(table.value_seq[slot, table.dimensions.index(name)]) for name in since},
        epoch=engine.epoch,
        made_by={},
        coming=explainer.coming(sight, slot, now_ms),
        notes=tuple(_notes(engine, slot, now_ms, at_ms, len(stored) == len(explanations))),
    )


def _notes(
    engine: PartitionEngine, slot: int, now_ms: int, at_ms: int | None, as_stored: bool
) -> Iterator[str]:
    """Yield what a reader should know about how far this can be relied on."""
    needed_ms = now_ms - engine.definition.longest_window_ms
    if engine.table.folded_before_ms[slot] > needed_ms:
        yield "facts that long ago are not kept one by one: values then cannot be told exactly"
    if at_ms is not None and at_ms > engine.clock_ms:
        yield "that is to come: it is what these facts come to if nothing else happens"
    if at_ms is None and not as_stored:
        version = engine.table.evaluated_by[slot]
        if version not in (0, engine.definition.version):
            yield f"its stored values are those of definition {version}; it is being converted"
        else:
            yield "it has events that are not judged yet; its stored values follow at the next tick"


async def explanation(
    pipeline: Pipeline, versions: Versions, customer_id: str, at_ms: int | None = None
) -> Explained | None:
    """Explain one customer from what is committed, from outside any worker.

    Raises what restoring a partition does, KafkaUnavailable.
    """
    partition = partition_of(customer_id, pipeline.partitions)
    async with reader(pipeline.bootstrap) as consumer:
        engine = await committed.restored(consumer, pipeline.prefix, partition, pipeline.partitions, versions)
    found = explained_by(engine, customer_id, at_ms)
    return None if found is None else await with_changes(pipeline.bootstrap, pipeline.prefix, found)


async def with_changes(bootstrap: str, prefix: str, explained: Explained) -> Explained:
    """Return it with the change that made each value so, looked up by its number.

    A log that cannot be read leaves the changes out and says so.
    """
    made_by: dict[str, Change | None] = {}
    notes = explained.notes
    try:
        async with reader(bootstrap) as consumer:
            for dimension, seq in explained.seqs.items():
                made_by[dimension] = await change_by_seq(
                    consumer, prefix, explained.card.partition, explained.epoch, seq
                )
    except (KafkaUnavailable, RecordError) as error:
        notes = (*notes, f"the changes cannot be read: {error}")
    return replace(explained, made_by=made_by, notes=notes)


def as_text(explained: Explained) -> str:
    """Return it as lines for a terminal."""
    return "\n".join(_lines(explained))


def _lines(explained: Explained) -> Iterator[str]:
    card = explained.card
    yield f"customer {card.customer_id} at {when(explained.at_ms)}, by definition {explained.version}"
    yield from (f"note: {note}" for note in explained.notes)
    net = f"{card.net:,.{EXPONENTS[card.currency]}f} {card.currency}"
    yield f"{card.orders} orders and {net} in {card.days} days, as of {when(card.as_of_ms)}"
    for each in explained.explanations:
        since = explained.since_ms.get(each.dimension)
        yield f"{each.dimension}: {each.value or '(none)'}" + (
            "" if since is None else f" since {when(since)}"
        )
        if each.dimension in explained.made_by:
            yield f"  made so by {_cause(explained.made_by[each.dimension])}"
        for clause in each.clauses:
            yield from _of_clause(clause, 1)
        for coming in explained.coming:
            if coming.dimension == each.dimension:
                yield f"  next: {coming.after or '(none)'} at {when(coming.at_ms)}, if nothing else happens"


def _of_clause(clause: Clause, depth: int) -> Iterator[str]:
    until = "" if clause.until_ms is None else f", until {when(clause.until_ms)} at least"
    yield f"{'  ' * depth}{'yes' if clause.holds else 'no '} {clause.text}{until}"
    for part in clause.parts:
        yield from _of_clause(part, depth + 1)


def _cause(change: Change | None) -> str:
    if change is None:
        return "a change that is not kept any more"
    event = f" {change['cause_event_id']}" if change["cause_event_id"] else ""
    before = "" if change["from"] is None else f", from {change['from']}"
    return (
        f"{change['cause']}{event}{before}, by definition {change['definition_version']}"
        f" (change {change['epoch']}/{change['partition']}/{change['seq']})"
    )


def as_json(explained: Explained) -> dict[str, Any]:
    """Return it for a program: times in ISO 8601."""
    return {
        "customer_id": explained.card.customer_id,
        "at": _instant(explained.at_ms),
        "definition_version": explained.version,
        "orders": explained.card.orders,
        "net": str(explained.card.net),
        "currency": explained.card.currency,
        "window_days": explained.card.days,
        "notes": list(explained.notes),
        "dimensions": {
            each.dimension: {
                "value": each.value,
                "since": _instant(explained.since_ms.get(each.dimension)),
                "made_by": _change(explained.made_by.get(each.dimension)),
                "clauses": [_clause(clause) for clause in each.clauses],
                "next": next(
                    (
                        {"at": _instant(coming.at_ms), "value": coming.after}
                        for coming in explained.coming
                        if coming.dimension == each.dimension
                    ),
                    None,
                ),
            }
            for each in explained.explanations
        },
    }


def _clause(clause: Clause) -> dict[str, Any]:
    return {
        "text": clause.text,
        "holds": clause.holds,
        "until": _instant(clause.until_ms),
        "parts": [_clause(part) for part in clause.parts],
    }


def _change(change: Change | None) -> dict[str, Any] | None:
    if change is None:
        return None
    kept = ("event_id", "cause", "cause_event_id", "from", "definition_version")
    return {**{name: change[name] for name in kept}, "effective_at": _instant(change["effective_at"])}


def _instant(at_ms: int | None) -> str | None:
    return (
        None
        if at_ms is None
        else datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    )
