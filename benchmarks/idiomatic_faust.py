"""The same job as a good Faust user would write it by Faust's own guide: an agent, tables, topics.

`python -m benchmarks.idiomatic_faust worker`, configured by BENCH_ variables. It is at-least-once,
Faust's default, where Shoal's is exactly-once. What is in its favour: values are decoded to dicts,
not to Records; Faust's fast paths in Cython are on; who is due is found in a heap, not by a scan;
it may have 10,000 messages under way and wait 100 ms for a batch, which no live traffic should;
changes carry neither the cause nor the exact instant, nor a seq; nothing is ever folded or checked.
"""

from __future__ import annotations

import heapq
import io
import os
from collections import defaultdict
from typing import Any

import fastavro
import faust
from faust.serializers.codecs import Codec
from faust.transport.producer import ProducerBuffer

from benchmarks.plain_rfm import Rules, State, apply, new_customer
from schemas import framing
from schemas.registry import committed

PARTITIONS = int(os.environ.get("BENCH_PARTITIONS", "8"))


class SingleObjectAvro(Codec):
    """Framed Avro to (type, dict), by the fingerprint; the fastest way fastavro has for one record."""

    def __init__(self) -> None:
        super().__init__()
        self._stored: dict[bytes, tuple[str, Any]] = {}

    def _loads(self, s: bytes) -> tuple[str, dict[str, Any]]:
        fingerprint = s[2:10]
        found = self._stored.get(fingerprint)
        if found is None:
            stored = committed().find(fingerprint)
            assert stored is not None, "the benchmark writes stored types only"
            found = self._stored[fingerprint] = stored.type, stored.parsed
        name, schema = found
        return name, fastavro.schemaless_reader(io.BytesIO(s[framing.HEADER_BYTES :]), schema)  # type: ignore[call-arg]  # The reader's schema is optional.


# At module level, as Faust's guide has it; nothing starts until `app.main()`.
app = faust.App(
    os.environ.get("BENCH_APP", "idiomatic-faust"),
    broker=f"kafka://{os.environ.get('BENCH_KAFKA', '127.0.0.1:9092')}",
    store="memory://",
    topic_partitions=PARTITIONS,
    topic_replication_factor=1,
    topic_disable_leader=True,
    web_enabled=False,
    cython_optimizations=True,
    # Room for batches, on the way in and out: without the linger an event costs a third more. The
    # rest of the defaults suit the job.
    stream_buffer_maxsize=16_384,
    producer_linger=0.1,
    producer_max_batch_size=1 << 20,
    stream_recovery_delay=0.0,
    # So that its end is seen early: every 2.8 s by default.
    broker_commit_interval=0.5,
)
events = app.topic(
    os.environ.get("BENCH_EVENTS", "shoal.events"), key_serializer="raw", value_serializer=SingleObjectAvro()
)
changes = app.topic(f"{app.conf.id}-changes", partitions=PARTITIONS)
customers = app.Table("customers", default=new_customer, partitions=PARTITIONS)
memberships = app.Table("memberships", default=dict, partitions=PARTITIONS)
rules = Rules()
# No setting: it stops at 100 messages under way, and warns of it several times a second.
ProducerBuffer.max_messages = 10_000

# By partition: whose facts are new, and (deadline, customer) of the others. A deadline that is not the
# customer's latest is stale and passed over.
touched: dict[int, set[str]] = defaultdict(set)
deadlines: dict[int, list[tuple[int, str]]] = defaultdict(list)
due_at: dict[str, int] = {}


@app.agent(events)
async def update_customers(stream: Any) -> None:
    """Keep every customer, and let time pass where a Tick says so."""
    async for event in stream.events():
        partition = event.message.partition
        type_name, fields = event.value
        if type_name == "Tick":
            await let_time_pass(partition, fields["at"])
            continue
        customer_id = fields["customer_id"]
        state = customers[customer_id]
        apply(state, type_name, fields)
        # What Faust's tables need to write the changelog.
        customers[customer_id] = state
        touched[partition].add(customer_id)


async def let_time_pass(partition: int, now: int) -> None:
    """Evaluate who was touched or is due, and tell what changed."""
    who, heap = touched.pop(partition, set()), deadlines[partition]
    while heap and heap[0][0] <= now:
        due, customer_id = heapq.heappop(heap)
        if due_at.get(customer_id) == due:
            who.add(customer_id)
    for customer_id in sorted(who):
        await tell(partition, customer_id, customers[customer_id], now)


async def tell(partition: int, customer_id: str, state: State, now: int) -> None:
    """Evaluate one customer; send each change, keep the values and the next deadline."""
    rfm, lifecycle, scores, due = rules.evaluate(state, now)
    due_at[customer_id] = due
    heapq.heappush(deadlines[partition], (due, customer_id))
    changed = False
    for dimension, value in (("rfm", rfm), ("lifecycle", lifecycle)):
        before = state[dimension]
        if before != value:
            changed = True
            state[dimension] = value
            change = {
                "customer_id": customer_id,
                "dimension": dimension,
                "from": before,
                "to": value,
                "at": now,
                "scores": scores,
            }
            await changes.send(key=customer_id, value=change)
    if changed:
        customers[customer_id] = state
        memberships[customer_id] = {"rfm": rfm, "lifecycle": lifecycle}


if __name__ == "__main__":
    app.main()
