"""One customer explained: every value with the clauses behind it, what made it so, and what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from errors import KafkaUnavailable, RecordError
from streams import committed
from streams.applying import Pipeline
from streams.change_history import changes_by_seq
from streams.customer_card import Card, card_of, partition_of
from streams.customers.entities import settled
from streams.customers.facts import PENDING_MS, Strings
from streams.customers.revenue import Movement, mrr_minor
from streams.kafka.reading import reader
from streams.past import Forgotten, Past, forgotten
from streams.segments.clauses import instant
from streams.segments.evaluate import Evaluator
from streams.segments.explaining import Coming, Explainer, Explanation
from streams.segments.following import Stored
from streams.segments.versions import Versions
from streams.steps.engine import PartitionEngine

Change = Mapping[str, Any]

MOVEMENTS_MAX = 10
"""Movements of a customer's revenue that are shown, the latest."""


@dataclass(frozen=True, slots=True)
class Revenue:
    """What a customer's active subscriptions are worth a month, and how it came to that; minor units."""

    mrr_minor: int
    movements: tuple[Movement, ...]
    """The latest, oldest first."""
    more: int
    """Earlier ones that are known."""


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
    made_by: Mapping[str, Change | None]
    """The change that set each of those; None when it is not held any more."""
    coming: tuple[Coming, ...]
    revenue: Revenue | None
    """None when no subscription is known."""
    kept_since_ms: Mapping[str, int]
    """Since when facts are kept: of orders, of refunds, and of every series; 0 is the beginning."""
    notes: tuple[str, ...]


_explainers: WeakKeyDictionary[Evaluator, Explainer] = WeakKeyDictionary()
"""One per definition in use: it remembers how expressions are written."""


def explained_by(engine: PartitionEngine, customer_id: str, at_ms: int | None = None) -> Explained | None:
    """Explain one customer of this partition at its clock, or at another instant; None when unknown.

    At an earlier instant only facts up to then are looked at, at a later one those there are now, by
    the definition in force. `made_by` is left empty.
    """
    table, card = engine.table, card_of(engine, customer_id)
    if card is None:
        return None
    slot = int(table.slots.find(Strings.from_list([customer_id.encode()]))[0])
    judged_ms = card.as_of_ms
    now_ms = judged_ms if at_ms is None else at_ms
    explainer = _explainers.get(engine.evaluator)
    if explainer is None:
        explainer = _explainers[engine.evaluator] = Explainer(engine.evaluator)
    past = now_ms < judged_ms
    sight = Past(table, np.array([slot]), np.array([now_ms])) if past else table
    stored = Stored(judged_ms, table.value[slot], table.since_ms[slot])
    profile = table.profiles.get(slot)
    traits = {name: stamp[0] for name, stamp in profile.traits.items()} if profile else {}
    told = explainer.explain(sight, slot, now_ms, stored, traits)
    values = [
        None if code < 0 else table.values[d][code]
        for d, code in enumerate(stored.value[: len(told)].tolist())
    ]
    places = {
        each.dimension: d
        for d, (each, value) in enumerate(zip(told, values, strict=True))
        # 0: it never was anything else, so nothing made it so.
        if each.value == value and 0 < int(stored.since_ms[d]) <= now_ms
    }
    seqs = table.value_seq[slot]
    as_stored = all(each.value == value for each, value in zip(told, values, strict=True))
    lost = forgotten(table, slot, now_ms, engine.definition.longest_window_ms, engine.fold_line_ms)
    return Explained(
        card=card,
        at_ms=now_ms,
        version=engine.definition.version,
        explanations=told,
        since_ms={name: int(stored.since_ms[d]) for name, d in places.items()},
        # Of what nobody is told of there is no change.
        seqs={name: int(seqs[d]) for name, d in places.items() if not told[d].shadow},
        made_by={},
        coming=explainer.coming(sight, slot, now_ms, stored),
        revenue=_revenue(engine, slot, now_ms),
        kept_since_ms=dict(engine.complete_since_ms),
        notes=tuple(_notes(engine, slot, (now_ms, judged_ms), lost, as_stored)),
    )


def _revenue(engine: PartitionEngine, slot: int, at_ms: int) -> Revenue | None:
    """Return a customer's revenue and its movements up to an instant."""
    book = engine.table.books.get(slot)
    if book is None:
        return None
    known = book.known_at(at_ms)
    subscriptions, _ = settled(known.subscriptions, known.standing, at_ms)
    movements = book.movements(at_ms)
    if not subscriptions and not movements:
        return None
    shown = tuple(movements[-MOVEMENTS_MAX:])
    return Revenue(mrr_minor(subscriptions), shown, len(movements) - len(shown))


def _notes(
    engine: PartitionEngine, slot: int, instants: tuple[int, int], lost: Forgotten, as_stored: bool
) -> Iterator[str]:
    """Yield what a reader should know about how far this can be relied on.

    `instants` are the one explained, and the one the stored values are those of.
    """
    at_ms, judged_ms = instants
    table, version = engine.table, int(engine.table.evaluated_by[slot])
    if lost.facts_before_ms is not None:
        before = instant(lost.facts_before_ms)
        yield f"orders and events before {before} are kept in sum only: values then cannot be told exactly"
    if at_ms > judged_ms:
        yield "that is to come: it is what these facts come to if nothing else happens"
    elif at_ms < judged_ms:
        yield "that is past: what the definition in force makes of the facts up to then, late ones included"
        if lost.changes_before_ms is not None:
            yield (
                f"of subscriptions and tickets before {instant(lost.changes_before_ms)} only what they left"
                " is kept"
            )
        for name, set_ms in lost.traits_ms:
            yield f"{name} was set {instant(set_ms)}: what it was before is not kept, so it counts as not set"
    elif version not in (0, engine.definition.version):
        yield f"its stored values are those of definition {version}; it is being converted"
    elif not as_stored or table.due_ms[slot] == PENDING_MS:
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
    try:
        async with reader(bootstrap) as consumer:
            found = await changes_by_seq(
                consumer, prefix, explained.card.partition, set(explained.seqs.values())
            )
    except (KafkaUnavailable, RecordError) as error:
        return replace(explained, notes=(*explained.notes, f"the changes cannot be read: {error}"))
    return replace(explained, made_by={name: found.get(seq) for name, seq in explained.seqs.items()})
