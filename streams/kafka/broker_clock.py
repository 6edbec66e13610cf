"""Whether this machine's wall time is the broker's: a wrong clock ends memberships too soon or too late.

The broker says what time it is when it stamps a record on arrival. Records of `events` could
tell, but an idle partition, where the wall clock alone decides, has none; the partitions' own
transactions go to topics that keep their writers' times, and are rare where nothing happens. So
each worker writes an empty record of its own now and then, to a topic that is for nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError as ClientError

from clock import Clock
from errors import ClockSkew, KafkaUnavailable, TopicMismatch
from streams.kafka import reading

log = logging.getLogger(__name__)

SKEW_MS_MAX = 30_000
"""Wall time further than this from the broker's is refused."""

CHECK_S = 10.0
JUMP_MS = 1_000
"""A wall clock that differs by more from what the process's stopwatch says is compared at once."""
REQUEST_TIMEOUT_S = 10.0
_APPEND_TIME = 1


@dataclass(frozen=True, slots=True)
class Reading:
    """The broker's time, the wall time around it, and the process's own stopwatch then."""

    broker_ms: int
    before_ms: int
    after_ms: int
    taken_s: float

    @property
    def offset_ms(self) -> int:
        """How far the wall time is surely ahead (negative: behind); a slow answer is no skew."""
        if self.before_ms > self.broker_ms:
            return self.before_ms - self.broker_ms
        return min(0, self.after_ms - self.broker_ms)


class BrokerClock:
    """Compares the wall clock with the broker's; holds one connection. Not for use by two tasks at once."""

    def __init__(self, bootstrap: str, prefix: str, clock: Clock) -> None:
        self._bootstrap, self._topic, self._clock = bootstrap, f"{prefix}.clock", clock
        self._producer: AIOKafkaProducer | None = None
        self.last: Reading | None = None

    async def check(self) -> Reading:
        """Compare now. Raises ClockSkew, KafkaUnavailable; TopicMismatch for writers' times in the topic."""
        before_ms = self._clock.now_ms()
        try:
            producer = await self._connected()
            stamped = await producer.send_and_wait(self._topic, b"", partition=0)
        except (ClientError, TimeoutError, OSError) as error:
            await self.close()
            raise KafkaUnavailable(f"{self._topic}: the broker's time is not known: {error!r}") from error
        if stamped.timestamp_type != _APPEND_TIME:
            raise TopicMismatch(f"{self._topic}: message.timestamp.type must be LogAppendTime")
        reading_ = Reading(stamped.timestamp, before_ms, self._clock.now_ms(), time.monotonic())
        self.last = reading_
        if abs(reading_.offset_ms) > SKEW_MS_MAX:
            raise ClockSkew(
                f"wall time is {_shown(reading_.after_ms)}, the broker's {_shown(reading_.broker_ms)}:"
                f" {abs(reading_.offset_ms) / 1000:.1f} s {'ahead' if reading_.offset_ms > 0 else 'behind'},"
                f" at most {SKEW_MS_MAX // 1000} s is allowed; set this machine's clock, or the broker's"
            )
        return reading_

    async def vouch(self, now_ms: int) -> None:
        """Make sure that `now_ms`, a wall time just read, is the broker's; raises as `check` does.

        A comparison every CHECK_S; in between the process's stopwatch, which nobody can set,
        says what the time must be, and a wall clock that disagrees is compared at once.
        """
        last = self.last
        if last is not None:
            passed_s = time.monotonic() - last.taken_s
            off_ms = abs(now_ms - last.after_ms - passed_s * 1000)
            if passed_s < CHECK_S and off_ms <= JUMP_MS:
                return
        await self.check()

    async def close(self) -> None:
        """Let go of the connection; the next check opens another."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await reading.close_quietly(producer.stop(), "the clock's producer")

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap, request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000)
            )
            try:
                await asyncio.wait_for(producer.start(), REQUEST_TIMEOUT_S)
            except BaseException:
                await reading.close_quietly(producer.stop(), "a producer that did not start")
                raise
            self._producer = producer
        return self._producer


def _shown(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
