"""A worker's own name: a second worker of the same name takes its place, and the first must end.

Kafka would let two static members of one name put each other out of the group for ever, since
the client's heartbeats do not carry the name. Transactions settle it: whoever began last with a
transactional id is the only one who may write under it.
"""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaProducer
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced
from aiokafka.errors import KafkaError as ClientError

from errors import KafkaUnavailable, NameTaken
from streams.kafka import reading

REQUEST_TIMEOUT_S = 10.0


class WorkerName:
    """The claim to a name within one consumer group. Not for use by two tasks at once."""

    def __init__(self, bootstrap: str, prefix: str, group: str, name: str) -> None:
        self._bootstrap, self._topic, self.name = bootstrap, f"{prefix}.clock", name
        self._transactional_id = f"{group}-named-{name}"
        self._producer: AIOKafkaProducer | None = None

    async def claim(self) -> None:
        """Take the name, from whoever has it. Raises KafkaUnavailable."""
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            transactional_id=self._transactional_id,
            request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
        )
        try:
            await asyncio.wait_for(producer.start(), REQUEST_TIMEOUT_S)
        except BaseException as error:
            await reading.close_quietly(producer.stop(), "a producer that did not start")
            if isinstance(error, ClientError | TimeoutError | OSError):
                raise KafkaUnavailable(f"claiming the name {self.name}: {error!r}") from error
            raise
        self._producer = producer

    async def hold(self) -> None:
        """Make sure that the name is still this worker's. Raises NameTaken, KafkaUnavailable."""
        producer = self._producer
        assert producer is not None, "claimed first"
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S), producer.transaction():
                await producer.send_and_wait(self._topic, b"", partition=0)
        except (ProducerFenced, InvalidProducerEpoch) as error:
            raise NameTaken(
                f"SHOAL_WORKER_ID={self.name}: another worker has started under this name;"
                " give each worker of a group its own"
            ) from error
        except (ClientError, TimeoutError, OSError) as error:
            raise KafkaUnavailable(f"holding the name {self.name}: {error!r}") from error

    async def close(self) -> None:
        """Let go of the connection; the name stays claimed until somebody else claims it."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await reading.close_quietly(producer.stop(), "the name's producer")
