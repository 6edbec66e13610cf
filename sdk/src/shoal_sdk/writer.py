"""The thread that writes an event loop's events to the spool: in order, and no more of them than fit."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Union

from shoal_sdk.counters import Refusal
from shoal_sdk.entry import Entry

Tell = Callable[[], None]
Offered = Union[Refusal, None, "Future[Refusal | None]"]
"""What became of an event, or will."""


class Writer:
    """Makes offers that may wait for the disk, one after another, in a daemon thread of its own.

    At most `max_events` events of `max_bytes` bytes wait for their turn. The thread starts with the
    first, and ends once `end` was called and every offer is made. Safe from any thread.
    """

    def __init__(
        self, offer: Callable[[Entry, Tell | None], Refusal | None], max_events: int, max_bytes: int
    ) -> None:
        self._offer = offer
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._changed = threading.Condition()
        # What is being offered stays in front until its answer is known.
        self._queue: deque[tuple[Entry, int, Tell | None, Future[Refusal | None]]] = deque()
        self._queue_bytes = 0
        self._submitted = 0
        self._answered = 0
        self._thread: threading.Thread | None = None
        self._ended = False
        self._room_watchers: dict[Tell, None] = {}

    def submit(self, entry: Entry, tell: Tell | None) -> Offered:
        """Return what the offer will answer, or FULL; a RuntimeError if there is no thread to make it.

        After FULL `tell` is called when it is worth trying again. After a RuntimeError nothing of the
        event is left here.
        """
        cost_bytes = entry.cost_bytes
        with self._changed:
            if self._ended:
                raise RuntimeError("the writer has ended")
            if not self._has_room(cost_bytes):
                if tell is not None:
                    self._room_watchers[tell] = None
                return Refusal.FULL
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="shoal-sdk-spool", daemon=True)
                # Set before it runs: a signal handler that interrupts the start must not start a second.
                self._thread = thread
                try:
                    thread.start()
                except RuntimeError:
                    self._thread = None
                    raise
            answer: Future[Refusal | None] = Future()
            self._queue.append((entry, cost_bytes, tell, answer))
            self._queue_bytes += cost_bytes
            self._submitted += 1
            self._changed.notify_all()
        return answer

    def unwatch_room(self, tell: Tell) -> None:
        """Forget a `tell` of `submit`; no error if it was called or forgotten before."""
        with self._changed:
            self._room_watchers.pop(tell, None)

    def wait(self, timeout_s: float) -> None:
        """Wait until everything submitted so far is answered; not at all in the writer's own thread."""
        if self._thread is None or threading.current_thread() is self._thread:
            return
        with self._changed:
            submitted = self._submitted
            self._changed.wait_for(lambda: self._answered >= submitted, timeout_s)

    def end(self) -> None:
        """Take nothing any more, and let the thread end when all is answered."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _has_room(self, cost_bytes: int) -> bool:
        return len(self._queue) < self._max_events and self._queue_bytes + cost_bytes <= self._max_bytes

    def _work(self) -> None:
        while (first := self._first()) is not None:
            entry, cost_bytes, tell, answer = first
            answer.set_running_or_notify_cancel()
            try:
                refusal = self._offer(entry, tell)
            except BaseException as error:  # noqa: BLE001  # It is for who awaits the answer.
                answer.set_exception(error)
            else:
                answer.set_result(refusal)
            with self._changed:
                self._queue.popleft()
                self._queue_bytes -= cost_bytes
                self._answered += 1
                told = list(self._room_watchers)
                self._room_watchers.clear()
                self._changed.notify_all()
            for each in told:
                each()

    def _first(self) -> tuple[Entry, int, Tell | None, Future[Refusal | None]] | None:
        """Wait for the next event; None when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ended)
            return self._queue[0] if self._queue else None
