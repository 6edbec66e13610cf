"""What is read of a worker when somebody asks: its gauges, whether it lives, whether it is ready."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import metrics
from clock import Clock
from metrics import Reading
from streams.app import ShoalApp
from streams.customers.facts import PENDING_MS
from streams.customers.table import CustomerTable
from streams.kafka.broker_clock import BrokerClock
from streams.kafka.partition import Partition
from streams.segments.definition import Definition
from streams.segments.settling import RULE_SUFFIX, SHADOW_SUFFIX
from streams.steps.engine import PartitionEngine

DEAD_S_MAX = 120.0
"""A partition neither running, nor getting on with its restore, nor waiting for the restore of others,
for longer than this is dead; longer than a rebalance may take."""


def problems_of_life(app: ShoalApp, dead_s_max: float = DEAD_S_MAX) -> list[str]:
    """Return why the process should be started anew; nothing if it lives."""
    problems = [] if app.fatal is None else [f"the worker gave up: {type(app.fatal).__name__}"]
    now_s = time.monotonic()
    for number, partition in sorted(app.owner.partitions.items()):
        quiet_s = now_s - partition.sign_s
        if partition.state not in ("running", "waiting") and quiet_s > dead_s_max:
            problems.append(f"partition {number} has been {partition.state} for {quiet_s:.0f} s")
    return problems


def problems_of_readiness(app: ShoalApp) -> list[str]:
    """Return why not every partition this worker should serve is served; nothing if it is ready."""
    problems = problems_of_life(app)
    if not app.owner.assigned:
        problems.append("the group has not given this worker its partitions")
    for number, partition in sorted(app.owner.partitions.items()):
        if not partition.running:
            problems.append(f"partition {number} is {partition.state}")
    return problems


def readings(
    app: ShoalApp, definition: Definition, clock: Clock, broker: BrokerClock | None = None
) -> Iterator[Reading]:
    """Yield the gauges of this worker; a few passes over one column per partition."""
    yield metrics.DEFINITION, 1.0, (str(definition.version), definition.hash[:12])
    if broker is not None and broker.last is not None:
        yield metrics.CLOCK_OFFSET, broker.last.offset_ms / 1e3, ()
    parts: dict[str, int] = dict.fromkeys(metrics.PART.values or (), 0)
    for number, partition in sorted(app.owner.partitions.items()):
        yield from _of_partition(partition, app.owner.ends.get(number))
        engine = partition.engine
        # A partition that is being restored has no state worth telling.
        if partition.running and isinstance(engine, PartitionEngine):
            now_ms = clock.now_ms() if engine.mode == "wall" else engine.clock_ms
            yield from _of_customers(engine.table, str(number), now_ms)
            yield metrics.REFUSED, float(engine.refusal is not None), (str(number),)
            yield metrics.EPOCH, engine.epoch, (str(number),)
            # In an epoch that is to be left nobody is judged by the newest version.
            behind = engine.table.customers if engine.leaves else engine.unconverted
            yield metrics.UNCONVERTED, behind, (str(number),)
            for part, size in engine.table.state_bytes().items():
                parts[part] += size
    for part, size in parts.items():
        yield metrics.STATE_BYTES, size, (part,)


def _of_partition(partition: Partition, end: int | None) -> Iterator[Reading]:
    label = str(partition.number)
    for state in metrics.STATE.values or ():
        yield metrics.PARTITION_STATE, float(partition.state == state), (label, state)
    if partition.committed_at_s is not None:
        yield metrics.LAST_COMMIT, partition.committed_at_s, (label,)
    # Before it is restored a partition's position says nothing.
    if partition.running and end is not None:
        yield metrics.LAG, max(0, end - partition.position), (label,)


def _of_customers(table: CustomerTable, label: str, now_ms: int) -> Iterator[Reading]:
    count = table.count
    due_ms = table.due_ms[:count]
    come_ms = due_ms[due_ms <= now_ms]
    overdue_ms = come_ms[come_ms > PENDING_MS]
    lag_ms = now_ms - int(overdue_ms.min()) if len(overdue_ms) else 0
    yield metrics.DUE, len(come_ms), (label,)
    yield metrics.TIMER_LAG, lag_ms / 1e3, (label,)
    yield metrics.CUSTOMERS, table.customers, (label,)
    yield metrics.FACTS, table.entries.rows, (label,)
    counts = table.held.members(count, table.values)
    members = Counter[tuple[str, str]]()
    for dimension, values, held in zip(table.dimensions, table.values, counts, strict=True):
        if not dimension.endswith(RULE_SUFFIX):
            # While a shadow goes live both are there, and each customer is in one of them.
            name = dimension.removesuffix(SHADOW_SUFFIX)
            members.update({(name, value): int(count) for value, count in zip(values, held, strict=True)})
    for (name, value), count in members.items():
        yield metrics.MEMBERS, count, (name, value, label)
