"""Every place where Shoal reaches into aiokafka's private parts, each with its reason.

Written against aiokafka 0.14; a new version is checked here and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import aiokafka.producer.sender as sender_module
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

Headers = list[tuple[str, bytes]]

ADD_PARTITIONS_BACKOFF_S = 0.001
FETCH_WAIT_MS = 100


def quicken_transactions() -> None:
    """Shorten the wait after CONCURRENT_TRANSACTIONS when a transaction follows another closely.

    The broker finishes a commit shortly after it answered it; aiokafka then sleeps 20 ms, most of
    a small step's latency. The constant is read at each use, so setting it is enough.
    """
    sender_module.BACKOFF_OVERRIDE = ADD_PARTITIONS_BACKOFF_S


def shorten_long_poll(consumer: AIOKafkaConsumer) -> None:
    """Make a fetch that finds nothing return after FETCH_WAIT_MS; Faust hard-codes 1,500.

    One fetch per broker is in flight; a partition whose records were still being handed over when
    it left is not in it, so its next records wait for the whole of it.
    """
    consumer._fetch_max_wait_ms = FETCH_WAIT_MS


def pause(consumer: AIOKafkaConsumer, partitions: Iterable[TopicPartition]) -> None:
    """Stop fetching `partitions`; they stay assigned."""
    consumer.pause(*partitions)


def generation(consumer: AIOKafkaConsumer) -> int:
    """Return the group generation the consumer is a member of."""
    return int(consumer._coordinator.generation)


def coordination_error(consumer: AIOKafkaConsumer) -> BaseException | None:
    """Return what ended the consumer's membership of its group; aiokafka tells only who calls its API.

    Without that task nothing is ever assigned again, and the worker would stay, doing nothing.
    """
    task = consumer._coordinator._coordination_task
    return task.exception() if task.done() and not task.cancelled() else None


def rejoin(consumer: AIOKafkaConsumer) -> None:
    """Ask for a rebalance; there is no public way to."""
    consumer._coordinator.request_rejoin()


def seek(consumer: AIOKafkaConsumer, partition: TopicPartition, offset: int) -> bool:
    """Seek and discard what was prefetched; False if the partition is not assigned.

    The public `seek` raises for an unassigned partition, which a rebalance makes a normal case.
    """
    subscription = consumer._subscription.subscription
    assignment = None if subscription is None else subscription.assignment
    if assignment is None or partition not in assignment.tps:
        return False
    consumer._fetcher.seek_to(partition, offset)
    return True


def positions(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """Return the fetch position of every assigned partition that has one.

    The public `position` awaits, and then the positions before and after a drain would not
    belong together.
    """
    assignment = consumer._subscription.subscription.assignment
    if assignment is None:
        return {}
    states = ((partition, assignment.state_value(partition)) for partition in assignment.tps)
    return {tp: state._position for tp, state in states if state is not None and state._position is not None}


async def wait_for_assignment(consumer: AIOKafkaConsumer) -> None:
    """Return once no reassignment is under way, so that the next drain does not suspend."""
    subscription = consumer._subscription
    if subscription.reassignment_in_progress:
        await subscription.wait_for_assignment()


def is_closed(consumer: AIOKafkaConsumer) -> bool:
    """Whether the consumer or its fetcher was closed."""
    return bool(consumer._closed or consumer._fetcher._closed)


async def drain(consumer: AIOKafkaConsumer, partition: TopicPartition, records_max: int) -> list[Any]:
    """Return what is prefetched of `partition`; does not suspend when no reassignment is under way.

    One partition at a time, or `records_max` would be spent on the first that has records. The
    records are those the C parser makes. aiokafka copies each into a ConsumerRecord, which costs
    more than parsing it and adds nothing but topic and sizes.
    """
    fetched_last = consumer._fetcher._records.get(partition)
    unpacking = getattr(fetched_last, "_partition_records", None)
    if unpacking is not None:
        unpacking._consumer_record = _as_parsed
    fetched: Mapping[TopicPartition, list[Any]] = await consumer._fetcher.fetched_records(
        {partition}, timeout=0, max_records=records_max
    )
    return fetched.get(partition, [])


def _as_parsed(partition: TopicPartition, record: Any) -> Any:
    return record


def polling(consumer: AIOKafkaConsumer) -> AbstractContextManager[None]:
    """Count the time within as polling: a member that never polls is put out of the group."""
    context: AbstractContextManager[None] = consumer._subscription.fetch_context()
    return context


def fetch_waiter(consumer: AIOKafkaConsumer) -> Any:
    """Return a future that is done when something was fetched."""
    return consumer._fetcher._create_fetch_waiter()


def append_all(
    batch: Any,
    rows: Sequence[tuple[bytes | None, bytes | None]],
    headers: Iterable[Headers],
    timestamp_ms: int,
) -> int:
    """Append (key, value) pairs to a producer's batch and close it; return how many it had room for.

    Straight to the C builder: the public `append` asks for the time, makes keyword arguments and
    looks for serializers once a record, which is two thirds of its price.
    """
    append = batch._builder.append
    appended = len(rows)
    for offset, ((key, value), its_headers) in enumerate(zip(rows, headers, strict=False)):
        if append(offset, timestamp_ms, key, value, its_headers) is None:
            appended = offset
            break
    batch._relative_offset = appended
    batch.close()
    return appended


def seen(done: asyncio.Future[Any]) -> None:
    """Retrieve a future's exception, so that asyncio does not report it."""
    if not done.cancelled():
        done.exception()


def connections(producer: AIOKafkaProducer) -> tuple[Any, ...]:
    """Return the producer's open connections."""
    return tuple(producer.client._conns.values())


def any_lost(before: tuple[Any, ...]) -> bool:
    """Whether one of the connections `before` was lost since.

    aiokafka resends on a new connection without a new epoch (it predates KIP-890), so the request
    sent on the lost one may still arrive and end a later transaction of the same epoch early.
    """
    return any(not connection.connected() for connection in before)
