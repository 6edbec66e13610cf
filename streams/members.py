"""Who has a value at this moment, as committed memberships say."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from schemas.memberships import decode_membership
from streams.applying import Pipeline
from streams.kafka.reading import committed_rows, reader
from streams.topics import MEMBERSHIPS, topic_name


class Held(NamedTuple):
    """One customer's value in a dimension."""

    customer_id: str
    value: str
    since_ms: int


async def members(pipeline: Pipeline, dimension: str, value: str | None = None) -> AsyncGenerator[Held, None]:
    """Iterate over who has a value in a dimension, or this one, by partition and customer.

    One partition's members are in memory. Raises KafkaUnavailable, or a RecordError when a membership
    cannot be read.
    """
    topic = topic_name(pipeline.prefix, MEMBERSHIPS)
    async with reader(pipeline.bootstrap) as consumer:
        for partition in range(pipeline.partitions):
            found: dict[bytes, Held] = {}
            async with aclosing(committed_rows(consumer, topic, partition)) as rows:
                # The latest record of a customer is what it is now, earlier ones may be there still.
                async for key, record in rows:
                    found.pop(key, None)
                    held = None if record is None else _held(record, dimension, value)
                    if held is not None:
                        found[key] = held
            for key in sorted(found):
                yield found[key]


def _held(record: bytes, dimension: str, value: str | None) -> Held | None:
    """Return what a membership says of a dimension, None when it is nothing, or another value."""
    membership = decode_membership(record)
    for each in membership["values"]:
        if each["dimension"] == dimension and value in (None, each["value"]):
            return Held(membership["customer_id"], each["value"], each["since"])
    return None
