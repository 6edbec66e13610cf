"""What an operator is shown of one customer: values, scores, figures and what comes next, as text."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime
from decimal import Decimal

import numpy as np

from clock import SystemClock
from streams.customers.facts import NEVER_MS, Strings
from streams.customers.hashing import partitions_of
from streams.customers.table import CustomerTable
from streams.kafka.reading import restore_partition
from streams.segments.currencies import EXPONENTS
from streams.segments.definition import DAY_MS, Definition
from streams.segments.evaluate import Evaluator, Outcome
from streams.steps.engine import PartitionEngine


async def customer_card(
    bootstrap: str, prefix: str, partitions: int, definition: Definition, customer_id: str
) -> str | None:
    """Return the card of a customer, None when nothing is known of it.

    It is as of the clock of its partition, from the committed rows of `customers`; reading
    them takes no part in the worker's group. Raises KafkaUnavailable, StateCorrupt,
    TopicMismatch or DefinitionMismatch as a worker would.
    """
    key = Strings.from_list([customer_id.encode()])
    partition = int(partitions_of(key, partitions)[0])
    evaluator = Evaluator(definition)
    engine = PartitionEngine(
        app=prefix,
        partition=partition,
        definition=definition,
        evaluator=evaluator,
        mode="event",
        wall=SystemClock(),
    )
    async with aclosing(restore_partition(bootstrap, prefix, partition)) as rows:
        async for row_key, value in rows:
            engine.restore_row(row_key, value)
    engine.finish_restore(partitions=partitions)
    slot = engine.table.slots.find(key)
    if slot[0] < 0:
        return None
    outcome = evaluator.evaluate(engine.table, slot, np.array([engine.clock_ms]))
    return _card(customer_id, engine, evaluator, int(slot[0]), outcome)


def _card(
    customer_id: str, engine: PartitionEngine, evaluator: Evaluator, slot: int, outcome: Outcome
) -> str:
    table, definition = engine.table, engine.definition
    lines = [
        f"customer    {customer_id}",
        f"as of       {_when(engine.clock_ms)} (partition {engine.partition})",
    ]
    for d, dimension in enumerate(evaluator.dimensions):
        code = int(table.value[slot, d])
        held = "not evaluated yet"
        if code >= 0:
            held = f"{evaluator.values[d][code]} since {_when(int(table.since_ms[slot, d]))}"
        lines.append(f"{dimension:<11} {held}")
    if outcome.scores[0, 0]:
        r, f, m = outcome.scores[0].tolist()
        lines.append(f"scores      R{r} F{f} M{m}")
    digits = EXPONENTS[definition.reporting_currency]
    net = Decimal(int(outcome.net_minor[0])).scaleb(-digits)
    days = definition.window_ms // DAY_MS
    due = _when(int(outcome.due_ms[0]))
    lines += [
        f"last order  {_when(int(outcome.last_purchase_ms[0]))}",
        f"orders      {int(outcome.orders[0])} in {days} days",
        f"net         {net:,.{digits}f} {definition.reporting_currency} in {days} days",
        f"next        {due}: the first instant at which time alone could change this",
    ]
    return "\n".join(lines + _traits(table, slot))


def _traits(table: CustomerTable, slot: int) -> list[str]:
    return [f"trait       {name} = {value!r}" for name, value in sorted(table.traits(slot).items())]


def _when(at_ms: int) -> str:
    if at_ms == NEVER_MS:
        return "never"
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
