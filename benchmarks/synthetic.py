"""A synthetic stream: purchases, refunds, sign-ups and profile updates of customers who differ in zeal."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator, Mapping
from typing import Any

import fastavro
import numpy as np
from aiokafka import AIOKafkaProducer

from schemas import framing
from schemas.events import encode_tick
from schemas.registry import committed
from streams.customers.facts import Strings
from streams.customers.hashing import partitions_of

DAY_MS = 86_400_000
HOUR_MS = 3_600_000
START_MS = 1_700_006_400_000
ZIPF_EXPONENT = 0.8
BATCH_RECORDS = 2_000

Keyed = tuple[int, bytes, bytes]
"""(partition, key, value)."""

Stamped = tuple[int, bytes, bytes]
"""(when it reaches the log, key, value); ms UTC."""


def stream(
    *, events: int, customers: int, partitions: int, days: int, tick_ms: int = HOUR_MS
) -> Iterator[Keyed]:
    """Yield `events` events in event-time order with a Tick to every partition each `tick_ms`.

    What the events are says `arrivals`. The same arguments give the same bytes.
    """
    ids = _ids(customers)
    home = dict(zip(ids, partitions_of(Strings.from_list(ids), partitions).tolist(), strict=True))
    next_tick = START_MS + tick_ms
    for at, key, value in arrivals(events=events, customers=customers, days=days):
        while at >= next_tick:
            yield from _ticks(next_tick, partitions)
            next_tick += tick_ms
        yield home[key], key, value
    yield from _ticks(START_MS + days * DAY_MS, partitions)


def arrivals(*, events: int, customers: int, days: int, start_ms: int = START_MS) -> Iterator[Stamped]:
    """Yield `events` events, and those that come twice, in the order in which they reach the log.

    84 % purchases of one to three lines, 6 % refunds (two thirds linked), 5 % sign-ups and 5 %
    profile updates; 1 % arrive up to a day late and 0.5 % twice. The same arguments give the
    same bytes.
    """
    rng, draws = random.Random(7), np.random.default_rng(7)
    weights = np.arange(1, customers + 1) ** -ZIPF_EXPONENT
    who = draws.permutation(customers)[draws.choice(customers, events, p=weights / weights.sum())]
    times = np.sort(draws.integers(0, days * DAY_MS, events)) + start_ms
    ids = _ids(customers)
    encode = Encoder()
    orders: list[tuple[int, str, int]] = []
    for i, (customer, at) in enumerate(zip(who.tolist(), times.tolist(), strict=True)):
        type_name, customer, fields = _event(rng, i, customer, at, orders)
        key = ids[customer]
        value = encode(type_name, {"customer_id": key.decode(), **fields})
        yield at, key, value
        if rng.random() < 0.005:
            yield at, key, value


def _ids(customers: int) -> list[bytes]:
    return [f"customer-{i:06}".encode() for i in range(customers)]


def _ticks(at_ms: int, partitions: int) -> Iterator[Keyed]:
    value = encode_tick(at_ms)
    return ((p, b"%d" % p, value) for p in range(partitions))


def _event(
    rng: random.Random, i: int, customer: int, at: int, orders: list[tuple[int, str, int]]
) -> tuple[str, int, dict[str, Any]]:
    """One event; a linked refund is for one of the latest thousand orders, whoever placed it."""
    fields: dict[str, Any] = {"event_id": f"event-{i}", "occurred_at": at}
    if rng.random() < 0.01:
        fields["occurred_at"] = at - rng.randrange(DAY_MS)
    draw = rng.random()
    if draw < 0.84:
        lines = [
            {
                "sku": f"sku-{rng.randrange(500)}",
                "quantity": rng.randrange(1, 5),
                "unit_price_minor": rng.randrange(9_000),
            }
            for _ in range(rng.randrange(1, 4))
        ]
        amount = sum(line["quantity"] * line["unit_price_minor"] for line in lines)
        orders.append((customer, f"order-{i}", amount))
        del orders[:-1000]
        return "Purchased", customer, {
            **fields, "order_id": f"order-{i}", "amount_minor": amount, "currency": "GBP", "items": lines,
        }  # fmt: skip
    if draw < 0.90:
        order_id, amount = None, rng.randrange(5_000)
        if orders and rng.random() < 0.67:
            customer, order_id, paid = rng.choice(orders)
            amount = rng.randrange(paid + 1)
        return "Refunded", customer, {
            **fields, "refund_id": f"refund-{i}", "order_id": order_id, "kind": "refund",
            "amount_minor": amount, "currency": "GBP",
        }  # fmt: skip
    if draw < 0.95:
        return "SignedUp", customer, {**fields, "source": "friend"}
    return (
        "ProfileUpdated",
        customer,
        {**fields, "traits": {"plan": rng.choice(("free", "pro")), "seats": i % 9}},
    )


class Encoder:
    """Framed Avro with the parsed schemas at hand: a million events in seconds."""

    def __init__(self, *types: str) -> None:
        """Take the types it encodes; purchases, refunds, sign-ups and profiles unless others are named."""
        types = types or ("Purchased", "Refunded", "SignedUp", "ProfileUpdated")
        self._stored = {name: committed().latest(name) for name in types}

    def __call__(self, type_name: str, fields: Mapping[str, Any]) -> bytes:
        stored = self._stored[type_name]
        body = io.BytesIO()
        fastavro.schemaless_writer(body, stored.parsed, dict(fields))
        return framing.frame(stored.fingerprint, body.getvalue())


async def produce(bootstrap: str, topic: str, records: Iterator[Keyed]) -> int:
    """Write the records, in order within each partition; return how many were events, not Ticks."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_batch_size=900_000
    )
    await producer.start()
    batches: dict[int, Any] = {}
    events = 0
    try:
        for partition, key, value in records:
            events += len(key) > 4
            batch = batches.setdefault(partition, producer.create_batch())
            if (
                batch.record_count() >= BATCH_RECORDS
                or batch.append(key=key, value=value, timestamp=None) is None
            ):
                await (await producer.send_batch(batch, topic, partition=partition))
                batches[partition] = batch = producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        for partition, batch in batches.items():
            await (await producer.send_batch(batch, topic, partition=partition))
    finally:
        await producer.stop()
    return events
