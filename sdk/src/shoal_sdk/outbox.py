"""What was accepted and is not delivered yet: bounded, counted, shared by callers and the sender.

No Kafka here. Every event is in exactly one state: waiting (accepted, not settled), delivered or
failed; accepted = waiting + delivered + failed at any moment.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

OVERHEAD_BYTES = 256
"""What one waiting event costs beside its key and value: Python objects, record framing."""


class Refusal(Enum):
    """Why an event was not accepted."""

    FULL = "full"
    CLOSED = "closed"


class Entry:
    """One accepted event on its way; the payload is let go once the event is settled."""

    __slots__ = ("alone", "delivered", "event_id", "event_type", "key", "mark", "settled", "value")

    def __init__(self, key: bytes, value: bytes, event_type: str, event_id: str) -> None:
        self.key = key
        self.value = value
        self.event_type = event_type
        self.event_id = event_id
        self.mark = 0
        self.alone = False
        """Sent in a batch of its own, because a batch it was in was refused."""
        self.settled = False
        self.delivered = False

    @property
    def cost_bytes(self) -> int:
        """What the event counts against `max_bytes`."""
        return len(self.key) + len(self.value) + OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Counters:
    """Numbers of events since the client was made; accepted - delivered - failed are waiting."""

    accepted: int
    delivered: int
    dropped: int
    failed: int


class Outbox:
    """At most `max_events` events and `max_bytes` bytes between acceptance and delivery.

    Safe from any thread. `wake(urgent)` is called outside the lock when the sender has something
    to do: at the first event of an empty queue, and urgently, once, when half of a bound is used.
    """

    def __init__(self, max_events: int, max_bytes: int, wake: Callable[[bool], None]) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self._wake = wake
        # Reentrant: a signal handler or finaliser that tracks an event may interrupt a caller in here.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._queue: deque[Entry] = deque()
        # Everything accepted and not settled, in order of acceptance; the queue is its unsent part.
        self._held: dict[Entry, None] = {}
        self._held_bytes = 0
        # A flush waits for the events accepted before it. Events carry the mark of their time; a
        # flush starts a new mark and waits until those up to its own are gone. Never more marks
        # than waiting events and running flushes.
        self._mark = 0
        self._waiting_by_mark: dict[int, int] = {}
        self._urged = False
        self._closed = False
        self._accepted = 0
        self._delivered = 0
        self._dropped = 0
        self._failed = 0
        self._failed_unreported = 0

    def offer(self, entry: Entry, *, wait: bool) -> Refusal | None:
        """Accept `entry`, or say why not; with `wait`, block until there is room or it is closed."""
        cost = entry.cost_bytes
        with self._lock:
            while not self._closed and not self._has_room(cost):
                if not wait:
                    self._dropped += 1
                    return Refusal.FULL
                self._wake(True)
                self._changed.wait()
            if self._closed:
                self._dropped += 1
                return Refusal.CLOSED
            entry.mark = self._mark
            self._queue.append(entry)
            self._held[entry] = None
            self._held_bytes += cost
            self._waiting_by_mark[entry.mark] = self._waiting_by_mark.get(entry.mark, 0) + 1
            self._accepted += 1
            first = len(self._queue) == 1
            urge = not self._urged and self._is_half_full()
            self._urged |= urge
        if first or urge:
            self._wake(urge)
        return None

    def take(self) -> list[Entry]:
        """Return the queued events in order; they stay counted until settled."""
        with self._lock:
            taken = list(self._queue)
            self._queue.clear()
            self._urged = False
        return taken

    def settle(self, entries: Sequence[Entry], *, delivered: bool) -> None:
        """Mark events as delivered or given up, and let their payloads go; settled ones are left alone."""
        with self._lock:
            for entry in entries:
                if not entry.settled:
                    self._settle(entry, delivered)
            self._changed.notify_all()

    def flush(self, timeout_s: float) -> int:
        """Wait until all events accepted so far are settled; return how many were not delivered.

        That is those still waiting, and those given up since the last flush returned.
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            mark = self._mark
            self._mark += 1
            self._wake(True)
            while (left := self._waiting_up_to(mark)) and (rest := deadline - time.monotonic()) > 0:
                self._changed.wait(rest)
            failed, self._failed_unreported = self._failed_unreported, 0
        return left + failed

    def wait_for(self, entry: Entry, timeout_s: float | None) -> bool:
        """Wait until `entry` is settled; True if it was delivered."""
        with self._lock:
            if not entry.settled:
                self._wake(True)
                self._changed.wait_for(lambda: entry.settled, timeout_s)
            return entry.delivered

    def close(self) -> bool:
        """Refuse events from now on and wake who waits for room; False if it was closed before."""
        with self._lock:
            was_closed, self._closed = self._closed, True
            self._changed.notify_all()
        return not was_closed

    def abandon(self) -> list[Entry]:
        """Give up everything that still waits, in order, and return it."""
        with self._lock:
            rest = list(self._held)
            self._queue.clear()
            self.settle(rest, delivered=False)
        return rest

    @property
    def waiting(self) -> int:
        """Events accepted and not settled."""
        return len(self._held)

    @property
    def counters(self) -> Counters:
        """All counters at one moment."""
        with self._lock:
            return Counters(self._accepted, self._delivered, self._dropped, self._failed)

    def _has_room(self, cost: int) -> bool:
        return len(self._held) < self.max_events and self._held_bytes + cost <= self.max_bytes

    def _is_half_full(self) -> bool:
        return len(self._held) * 2 >= self.max_events or self._held_bytes * 2 >= self.max_bytes

    def _waiting_up_to(self, mark: int) -> int:
        return sum(count for at, count in self._waiting_by_mark.items() if at <= mark)

    def _settle(self, entry: Entry, delivered: bool) -> None:
        del self._held[entry]
        self._held_bytes -= entry.cost_bytes
        left = self._waiting_by_mark[entry.mark] - 1
        if left:
            self._waiting_by_mark[entry.mark] = left
        else:
            del self._waiting_by_mark[entry.mark]
        entry.settled = True
        entry.delivered = delivered
        entry.value = b""
        if delivered:
            self._delivered += 1
        else:
            self._failed += 1
            self._failed_unreported += 1
