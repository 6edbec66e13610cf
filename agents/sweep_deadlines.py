"""Lets time pass for customers nothing happens to: every second, idle partitions meet the wall clock."""

from __future__ import annotations

from contextlib import AsyncExitStack

from aiokafka import AIOKafkaConsumer

from clock import Clock
from errors import ClockSkew, KafkaUnavailable, TopicMismatch
from streams.app import ShoalApp
from streams.kafka import reading
from streams.kafka.broker_clock import BrokerClock

TICK_S = 1.0


def register(app: ShoalApp, clock: Clock, broker: BrokerClock) -> None:
    """Add the timer to `app`; for wall time only, for in event mode Ticks in the log say what time it is."""
    sweeper = _Sweeper(app, clock, broker)
    app.timer(TICK_S, name="sweep_deadlines")(sweeper.tick)
    app.on_before_shutdown.connect(sweeper.close, weak=False)


class _Sweeper:
    def __init__(self, app: ShoalApp, clock: Clock, broker: BrokerClock) -> None:
        self._app, self._clock, self._broker = app, clock, broker
        # Not the main consumer, whose requests queue behind its long poll. Uncommitted, for a
        # record of an open transaction may have been appended before the time read.
        self._stack = AsyncExitStack()
        self._consumer: AIOKafkaConsumer | None = None

    async def tick(self) -> None:
        """Sweep every partition that has applied all that was in its log when the time was read.

        A wall time the broker does not agree with is not used, and ends the worker.
        """
        now_ms = self._clock.now_ms()
        try:
            await self._broker.vouch(now_ms)
            idle = [partition for partition in self._app.owner.partitions.values() if partition.is_idle]
            if not idle:
                return
            numbers = [partition.number for partition in idle]
            ends = await reading.ends(await self._reader(), self._app.events_topic, numbers)
        except KafkaUnavailable:
            # The next tick tries again; deadlines wait, which is all that is lost.
            await self.close()
            return
        except (ClockSkew, TopicMismatch) as error:
            self._app.give_up(error)
            return
        for partition in idle:
            if partition.is_idle and partition.position >= ends[partition.number]:
                partition.sweep(now_ms)

    async def close(self, *_: object, **__: object) -> None:
        """Let go of the connections; the next tick opens others."""
        self._consumer = None
        await self._stack.aclose()
        await self._broker.close()

    async def _reader(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            opened = reading.reader(self._app.bootstrap, "read_uncommitted")
            self._consumer = await self._stack.enter_async_context(opened)
        return self._consumer
