"""Looks at where the log ends, every few seconds, so that how far the worker is behind can be told."""

from __future__ import annotations

from contextlib import AsyncExitStack

from aiokafka import AIOKafkaConsumer

from errors import KafkaUnavailable
from streams.app import ShoalApp
from streams.kafka import reading

LOOK_S = 5.0


def register(app: ShoalApp) -> None:
    """Add the timer to `app`."""
    gauge = _Gauge(app)
    app.timer(LOOK_S, name="measure_lag")(gauge.look)
    app.on_before_shutdown.connect(gauge.close, weak=False)


class _Gauge:
    def __init__(self, app: ShoalApp) -> None:
        self._app = app
        # Not the main consumer, which knows the end only of what it may fetch just now.
        self._stack = AsyncExitStack()
        self._consumer: AIOKafkaConsumer | None = None

    async def look(self) -> None:
        """Ask for the ends of all partitions this worker owns, in one request per broker."""
        owner = self._app.owner
        if not owner.partitions:
            owner.ends = {}
            return
        try:
            owner.ends = await reading.ends(
                await self._reader(), self._app.events_topic, list(owner.partitions)
            )
        except KafkaUnavailable:
            # What was seen last stands until there is an answer.
            await self.close()

    async def close(self, *_: object, **__: object) -> None:
        """Let go of the connection; the next look opens another."""
        self._consumer = None
        await self._stack.aclose()

    async def _reader(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            opened = reading.reader(self._app.bootstrap, "read_uncommitted")
            self._consumer = await self._stack.enter_async_context(opened)
        return self._consumer
