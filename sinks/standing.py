"""How a sink's process stands: what became of its deliveries, what waits, whether it is ready."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import metrics
from clock import Clock, SystemClock
from errors import ShoalError, SinkGap
from metrics import Metrics
from sinks.contract import Batch, Sink


class Standing:
    """Kept by the loop that delivers, read when somebody asks over HTTP. For one thread."""

    def __init__(self, sink: str, clock: Clock | None = None) -> None:
        self._sink, self._clock = sink, clock or SystemClock()
        self._counts = Metrics("sink")
        for result in metrics.DELIVERED.values or ():
            # So that the first of its kind is seen by `rate`.
            self._counts.add(metrics.SINK_DELIVERIES, 0, sink, result)
        self._unread: dict[int, int] = {}
        self._waiting: tuple[str, float] | None = None
        self.kafka_away = False
        self.assigned: frozenset[int] | None = None
        """The partitions the group gave this process; None before it gave any, and while it shares anew."""
        self.resumed: Collection[int] = ()
        """The partitions known to go on where the sink stands."""

    def fetched(self, oldest_ms: dict[int, int]) -> None:
        """Note the whole of what was read: partition to when its oldest change was written, UTC ms.

        A partition keeps its entry until the next reading, which shows whether more was waiting.
        """
        self._unread = dict(oldest_ms)

    def reached(self, partition: int, oldest_ms: int) -> None:
        """Note that of a partition all before a change written at this time is delivered."""
        if partition in self._unread:
            self._unread[partition] = oldest_ms

    def forget(self, partition: int) -> None:
        """Drop what waited: it is somebody else's, or will be read again."""
        self._unread.pop(partition, None)

    def waits(self, who: str | None) -> None:
        """Note for whom the loop waits since it first failed; None: it goes on."""
        if who is None:
            self._waiting = None
        elif self._waiting is None:
            self._waiting = who, time.monotonic()

    @contextmanager
    def request(self) -> Iterator[None]:
        """Time one call of the sink, whether it succeeds or not."""
        began_s = time.monotonic()
        try:
            yield
        finally:
            self._counts.observe(metrics.SINK_REQUEST, time.monotonic() - began_s, self._sink)

    async def deliver(self, sink: Sink, batch: Batch) -> int:
        """Deliver a batch once, counted by what became of it; returns and raises as the sink does.

        A hole counts as a retry: the same changes come again once the partition is resumed.
        """
        result = "retry"
        try:
            applied = await sink.deliver(batch)
            result = "ok" if applied else "suppressed"
        except ShoalError as error:
            result = "retry" if error.retryable or isinstance(error, SinkGap) else "rejected"
            raise
        finally:
            self._counts.add(metrics.SINK_DELIVERIES, 1, self._sink, result)
        return applied

    @property
    def oldest_s(self) -> float:
        """How old the oldest change is that is not delivered; 0 if none is known."""
        ages = [0.0 if self._waiting is None else time.monotonic() - self._waiting[1]]
        ages += [(self._clock.now_ms() - at_ms) / 1e3 for at_ms in self._unread.values()]
        return max(ages)

    def exposition(self) -> bytes:
        """Return all metrics of the process."""
        return self._counts.exposition([(metrics.SINK_OLDEST, self.oldest_s, (self._sink,))])

    def problems_of_life(self) -> list[str]:
        """Return nothing: an answer proves that the loop turns, and what is away is waited for."""
        return []

    def problems_of_readiness(self) -> list[str]:
        """Return why changes do not reach the sink; nothing if it is ready."""
        problems = []
        if self._waiting is not None:
            who, since_s = self._waiting
            problems.append(f"{who} has been away for {time.monotonic() - since_s:.0f} s")
        if self.kafka_away:
            problems.append("Kafka does not answer")
        if self.assigned is None:
            problems.append("the group has not given this process its partitions")
        behind = sorted((self.assigned or frozenset()) - set(self.resumed))
        return problems + [f"partition {partition} is being resumed" for partition in behind]
