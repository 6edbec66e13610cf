"""Lets time pass for customers nothing happens to: every second, idle partitions meet the wall clock."""

from __future__ import annotations

from contextlib import AsyncExitStack

from aiokafka import AIOKafkaConsumer

from clock import Clock
from errors import KafkaUnavailable
from streams.app import ShoalApp
from streams.kafka import reading

TICK_S = 1.0


def register(app: ShoalApp, clock: Clock) -> None:
    """Add the timer to `app`; for wall time only, for in event mode Ticks in the log say what time it is."""
    sweeper = _Sweeper(app, clock)
    app.timer(TICK_S, name="sweep_deadlines")(sweeper.tick)
    app.on_before_shutdown.connect(sweeper.close, weak=False)


class _Sweeper:
    def __init__(self, app: ShoalApp, clock: Clock) -> None:
        self._app, self._clock = app, clock
        # Not the main consumer, whose requests queue behind its long poll. Uncommitted, for a
        # record of an open transaction may have been appended before the time read.
        self._stack = AsyncExitStack()
        self._consumer: AIOKafkaConsumer | None = None

    async def tick(self) -> None:
        """Sweep every partition that has applied all that was in its log when the time was read."""
        idle = [partition for partition in self._app.owner.partitions.values() if partition.is_idle]
        if not idle:
            return
        now_ms = self._clock.now_ms()
        try:
            consumer = await self._reader()
            ends = {p.number: await reading.extent(consumer, self._app.events_topic, p.number) for p in idle}
        except KafkaUnavailable:
            # The next tick tries again; deadlines wait, which is all that is lost.
            await self.close()
            return
        for partition in idle:
            if partition.is_idle and partition.position >= ends[partition.number].end:
                await partition.sweep(now_ms)

    async def close(self, *_: object, **__: object) -> None:
        """Let go of the connection; the next tick opens another."""
        self._consumer = None
        await self._stack.aclose()

    async def _reader(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            opened = reading.reader(self._app.bootstrap, "read_uncommitted")
            self._consumer = await self._stack.enter_async_context(opened)
        return self._consumer
