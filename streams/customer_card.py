"""What an operator is shown of one customer: values, scores, figures and what comes next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from streams import committed
from streams.applying import Pipeline
from streams.customers.facts import NEVER_MS, Strings, TraitValue
from streams.customers.hashing import partitions_of
from streams.kafka.reading import reader
from streams.segments.currencies import EXPONENTS
from streams.segments.definition import DAY_MS
from streams.segments.versions import Versions
from streams.steps.engine import PartitionEngine


@dataclass(frozen=True, slots=True)
class Card:
    """One customer as of the clock of its partition; times in UTC ms, NEVER_MS for never."""

    customer_id: str
    account_id: str | None
    as_of_ms: int
    partition: int
    values: Mapping[str, tuple[str, int] | None]
    """Dimension to (value, since), None before the first evaluation, and for who is out of a segment."""
    segments: frozenset[str]
    """The dimensions that are custom segments."""
    scores: tuple[int, int, int] | None
    last_order_ms: int
    orders: int
    net: Decimal
    currency: str
    days: int
    """The window of `orders` and `net`."""
    next_ms: int
    """The first instant at which time alone could change any of this."""
    traits: Mapping[str, TraitValue]


async def customer_card(pipeline: Pipeline, versions: Versions, customer_id: str) -> str | None:
    """Return the card of a customer as text, None when nothing is known of it.

    It is as of the clock of its partition, from the committed rows of `customers`; reading
    them takes no part in the worker's group. Raises KafkaUnavailable, StateCorrupt,
    TopicMismatch or DefinitionMismatch as a worker would.
    """
    partition = partition_of(customer_id, pipeline.partitions)
    async with reader(pipeline.bootstrap) as consumer:
        engine = await committed.restored(consumer, pipeline.prefix, partition, pipeline.partitions, versions)
    card = card_of(engine, customer_id)
    return None if card is None else as_text(card)


def partition_of(customer_id: str, partitions: int) -> int:
    """Return the partition a customer belongs to."""
    return int(partitions_of(Strings.from_list([customer_id.encode()]), partitions)[0])


def card_of(engine: PartitionEngine, customer_id: str) -> Card | None:
    """Return the card of a customer of this partition, None when nothing is known of it."""
    table, definition = engine.table, engine.definition
    slots = table.slots.find(Strings.from_list([customer_id.encode()]))
    slot = int(slots[0])
    if slot < 0:
        return None
    now_ms = engine.judged_ms(slot)
    outcome = engine.evaluator.evaluate(table, slots, np.array([now_ms]))
    values: dict[str, tuple[str, int] | None] = {}
    counted = dict(zip(engine.evaluator.dimensions, engine.evaluator.counted.tolist(), strict=True))
    for d, dimension in enumerate(table.dimensions):
        if not counted[dimension]:
            continue
        code = int(table.value[slot, d])
        held = None if code < 0 else (table.values[d][code], int(table.since_ms[slot, d]))
        values[dimension] = held
    r, f, m = outcome.scores[0].tolist()
    return Card(
        customer_id=customer_id,
        account_id=table.account_id(slot),
        as_of_ms=now_ms,
        partition=engine.partition,
        values=values,
        segments=frozenset(
            name
            for name, kind in zip(engine.evaluator.dimensions, engine.evaluator.kinds, strict=True)
            if kind == "custom"
        ),
        scores=(r, f, m) if r else None,
        last_order_ms=int(outcome.last_purchase_ms[0]),
        orders=int(outcome.orders[0]),
        net=Decimal(int(outcome.net_minor[0])).scaleb(-EXPONENTS[definition.reporting_currency]),
        currency=definition.reporting_currency,
        days=definition.window_ms // DAY_MS,
        next_ms=_next_ms(int(table.due_ms[slot]), int(outcome.due_ms[0]), now_ms),
        traits=table.traits(slot),
    )


def _next_ms(stored_ms: int, due_ms: int, now_ms: int) -> int:
    """Return the earlier of when a rule turns by time alone and of when a delay that runs is over."""
    return min(due_ms, stored_ms) if stored_ms > now_ms else due_ms


def as_text(card: Card) -> str:
    """Return the card as lines for a terminal."""
    lines = [
        f"customer    {card.customer_id}",
        f"as of       {_when(card.as_of_ms)} (partition {card.partition})",
    ]
    for dimension, held in card.values.items():
        out = "out" if dimension in card.segments else "not evaluated yet"
        said = out if held is None else f"{held[0]} since {_when(held[1])}"
        lines.append(f"{dimension:<11} {said}")
    if card.scores is not None:
        r, f, m = card.scores
        lines.append(f"scores      R{r} F{f} M{m}")
    digits = EXPONENTS[card.currency]
    lines += [
        f"last order  {_when(card.last_order_ms)}",
        f"orders      {card.orders} in {card.days} days",
        f"net         {card.net:,.{digits}f} {card.currency} in {card.days} days",
        f"next        {_when(card.next_ms)}: the first instant at which time alone could change this",
    ]
    return "\n".join(
        lines + [f"trait       {name} = {value!r}" for name, value in sorted(card.traits.items())]
    )


def as_json(card: Card) -> dict[str, Any]:
    """Return the card for a program: times in ISO 8601 or null, money as text in major units."""
    return {
        "customer_id": card.customer_id,
        "account_id": card.account_id,
        "as_of": _instant(card.as_of_ms),
        "partition": card.partition,
        "values": {
            dimension: None if held is None else {"value": held[0], "since": _instant(held[1])}
            for dimension, held in card.values.items()
        },
        "scores": None if card.scores is None else dict(zip("rfm", card.scores, strict=True)),
        "last_order_at": _instant(card.last_order_ms),
        "orders": card.orders,
        "net": f"{card.net:.{EXPONENTS[card.currency]}f}",
        "currency": card.currency,
        "window_days": card.days,
        "next_at": _instant(card.next_ms),
        "traits": {name: _plain(value) for name, value in sorted(card.traits.items())},
    }


def _plain(value: TraitValue) -> Any:
    """A trait as JSON has it; an instant is a tuple of one number, a set one of texts."""
    if isinstance(value, tuple):
        return _instant(value[0]) if value and isinstance(value[0], int) else list(value)
    return value


def _instant(at_ms: int) -> str | None:
    if at_ms == NEVER_MS:
        return None
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


def _when(at_ms: int) -> str:
    if at_ms == NEVER_MS:
        return "never"
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
