"""What the pipeline says of every customer, read back the way anybody else would have to.

Measures and scores come from state restored out of the `customers` changelog, as a worker would restore it;
segments come from the `memberships` topic, as a subscriber would read it.
"""

from __future__ import annotations

import numpy as np
from aiokafka import AIOKafkaConsumer

from demo.oracle import Standing
from errors import StateCorrupt
from schemas.memberships import decode_membership
from streams.committed import restored
from streams.customers.facts import NEVER_MS
from streams.definitions import read_versions
from streams.kafka.reading import committed_rows, reader
from streams.segments.versions import Versions
from streams.steps.engine import PartitionEngine
from streams.topics import MEMBERSHIPS, topic_name

NO_MEMBERSHIP = "(none)"


async def pipeline_standings(bootstrap: str, prefix: str, partitions: int, at_ms: int) -> dict[str, Standing]:
    """Return every customer of the pipeline at `at_ms`, the clock all its partitions must stand at.

    By the definition in force. A customer only one of the two topics knows is in the result too, so that
    a comparison finds it. Raises StateCorrupt when a partition stands elsewhere in time, KafkaUnavailable
    when reading fails.
    """
    found: dict[str, Standing] = {}
    versions = Versions(await read_versions(bootstrap, prefix))
    async with reader(bootstrap) as consumer:
        for partition in range(partitions):
            engine = await restored(consumer, prefix, partition, partitions, versions)
            if engine.clock_ms != at_ms:
                raise StateCorrupt(f"partition {partition} stands at {engine.clock_ms}, expected {at_ms}")
            members = await _memberships(consumer, prefix, partition)
            found |= _standings(engine, members, at_ms)
    return found


async def _memberships(consumer: AIOKafkaConsumer, prefix: str, partition: int) -> dict[str, dict[str, str]]:
    """Return customer to dimension to value, the latest of each."""
    rows = committed_rows(consumer, topic_name(prefix, MEMBERSHIPS), partition)
    latest = {key: value async for key, value in rows}
    records = (decode_membership(value) for value in latest.values() if value is not None)
    return {
        record["customer_id"]: {held["dimension"]: held["value"] for held in record["values"]}
        for record in records
    }


def _standings(
    engine: PartitionEngine, members: dict[str, dict[str, str]], at_ms: int
) -> dict[str, Standing]:
    """Join the measures at `at_ms`, the scores the last step stored, and the memberships."""
    table = engine.table
    slots = np.arange(len(table.slots))
    outcome = engine.evaluator.evaluate(table, slots, np.full(len(slots), at_ms))
    ids = [customer_id.decode() for customer_id in table.slots.ids_of(slots)]
    found = {
        customer_id: Standing(
            recency_ms=None if last_ms == NEVER_MS else at_ms - last_ms,
            orders=orders,
            net_minor=net_minor,
            # As stored, not as evaluated: a deadline that was missed shows here.
            scores=(r, f, m),
            rfm=members.get(customer_id, {}).get("rfm", NO_MEMBERSHIP),
            lifecycle=members.get(customer_id, {}).get("lifecycle", NO_MEMBERSHIP),
        )
        for customer_id, last_ms, orders, net_minor, (r, f, m) in zip(
            ids,
            outcome.last_purchase_ms.tolist(),
            outcome.orders.tolist(),
            outcome.net_minor.tolist(),
            table.scores[slots].tolist(),
            strict=True,
        )
    }
    stateless = members.keys() - found.keys()
    return found | {
        customer_id: Standing(None, 0, 0, (0, 0, 0), NO_MEMBERSHIP, NO_MEMBERSHIP)
        for customer_id in stateless
    }
