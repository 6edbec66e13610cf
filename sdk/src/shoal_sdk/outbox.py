"""What was accepted and is not delivered yet: bounded, counted, shared by callers and the sender.

No Kafka here. Every event is in exactly one state: waiting (accepted, not settled), delivered or
failed; accepted + replayed = waiting + delivered + failed at any moment.

With a spool the queue lies on disk: an event is accepted once it is written there, and memory holds
what the sender has read back and not settled. When the disk does not take an event, it is queued in
memory as without a spool, and so are all after it until that queue is empty: what is in memory is
always younger than what is on disk.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from shoal_sdk.entry import Entry
from shoal_sdk.spool import Spool


class Refusal(Enum):
    """Why an event was not accepted."""

    FULL = "full"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Counters:
    """Numbers of events since the client was made, or since its process was forked.

    accepted + replayed - delivered - failed are waiting.
    """

    accepted: int
    delivered: int
    dropped: int
    """Never accepted."""
    failed: int
    """Accepted and given up."""
    spooled: int = 0
    """Of those accepted: written to disk before the call returned."""
    replayed: int = 0
    """Accepted by an earlier process, and taken over from its spool."""


class Outbox:
    """At most `max_events` events and `max_bytes` bytes in memory between acceptance and delivery.

    Safe from any thread; `take` and `settle` are for one at a time. `wake(urgent)` is called when the
    sender has something to do: at the first event of an empty queue, and urgently, once, when half of
    a bound is used. While the disk of a spool takes no events, as many again may be held of those it
    took before, and one more.
    """

    def __init__(self, max_events: int, max_bytes: int, wake: Callable[[bool], None]) -> None:
        self.max_events = max_events
        self.max_bytes = max_bytes
        self._wake = wake
        self._spool: Spool | None = None
        # Reentrant: a signal handler or finaliser that tracks an event may interrupt a caller in here.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._queue: deque[Entry] = deque()
        # Everything in memory that is not settled, in order; the queue is its unsent part.
        self._held: dict[Entry, None] = {}
        self._held_bytes = 0
        self._queue_bytes = 0
        # Accepted onto the disk and not read back yet: how many, and how many of each mark in order.
        self._unread = 0
        self._unread_marks: deque[list[int]] = deque()
        # A flush waits for the events accepted before it. Events carry the mark of their time; a
        # flush starts a new mark and waits until those up to its own are gone. Never more marks
        # than waiting events and running flushes.
        self._mark = 0
        self._waiting_by_mark: dict[int, int] = {}
        self._left_on_disk = False
        self._taker: int | None = None
        self._urged = False
        self._closed = False
        self._ended = False
        self._accepted = 0
        self._delivered = 0
        self._dropped = 0
        self._failed = 0
        self._spooled = 0
        self._replayed = 0
        self._failed_unreported = 0
        self._watchers: dict[Entry, list[Callable[[], None]]] = {}
        self._room_watchers: list[Callable[[], None]] = []

    def offer(
        self, entry: Entry, *, wait: bool = False, tell: Callable[[], None] | None = None
    ) -> Refusal | None:
        """Accept `entry`, or say why not; with `wait`, block until there is room or it is closed.

        With `tell`, a full outbox counts no drop, but calls `tell` when it is worth trying again.
        """
        refusal = self._offer(entry, wait, tell)
        if self._spool is not None:
            # Not under the lock, which somebody may want who holds a lock of the log's.
            self._spool.report()
        return refusal

    def _offer(self, entry: Entry, wait: bool, tell: Callable[[], None] | None) -> Refusal | None:
        with self._lock:
            while not self._closed and not self._accept(entry):
                if tell is not None:
                    self._room_watchers.append(tell)
                    self._wake(True)
                    return Refusal.FULL
                if not wait or self._is_taker():
                    self._dropped += 1
                    return Refusal.FULL
                self._wake(True)
                self._changed.wait()
            if self._closed:
                self._dropped += 1
                return Refusal.CLOSED
            self._accepted += 1
            first = len(self._queue) + self._unread == 1
            urge = not self._urged and self._is_half_full()
            self._urged |= urge
        if first or urge:
            self._wake(urge)
        return None

    def count_drop(self) -> None:
        """Count an event that was refused before it came here."""
        with self._lock:
            self._dropped += 1

    def take(self) -> list[Entry]:
        """Return the next events in order, as many as memory has room for; counted until settled."""
        self.attend()
        with self._lock:
            self._urged = False
            # What is queued is younger than what is on disk and must not be in its way, or both would wait.
            events = self.max_events - (len(self._held) - len(self._queue))
            size = self.max_bytes - (self._held_bytes - self._queue_bytes)
        if self._spool is not None and self._spool.has_unread:
            # Outside the lock: nobody who calls waits for the disk to be read.
            found = self._spool.read(events, size) if events > 0 and size > 0 else []
            self._hold_read(found)
            self._left_on_disk = self._spool.has_unread
            if found or self._left_on_disk:
                return found
        with self._lock:
            taken = list(self._queue)
            self._queue.clear()
            self._queue_bytes = 0
        return taken

    def attend(self) -> None:
        """Say that the calling thread is the one that takes."""
        self._taker = threading.get_ident()

    def use(self, spool: Spool) -> None:
        """From now on accept events onto disk."""
        self._spool = spool

    @property
    def has_more(self) -> bool:
        """Whether the last `take` left events on disk, to be taken when some are settled."""
        return self._left_on_disk

    def settle(self, entries: Sequence[Entry], *, delivered: bool) -> None:
        """Mark events as delivered or given up, and let their payloads go; settled ones are left alone."""
        with self._lock:
            for entry in entries:
                if not entry.settled:
                    self._settle(entry, delivered)
            told = [tell for entry in entries for tell in self._watchers.pop(entry, ())]
            told += self._room_watchers
            self._room_watchers.clear()
            self._changed.notify_all()
        if self._spool is not None:
            self._spool.settle(entries)
        _call_all(told)

    def flush(self, timeout_s: float) -> int:
        """Wait until all events accepted so far are settled; return how many were not delivered.

        That is those still waiting, and those given up since the last flush returned. Events earlier
        processes left are waited for too; a file of theirs that was not read yet counts as one.
        """
        deadline = time.monotonic() + (0.0 if self._is_taker() else timeout_s)
        with self._lock:
            mark = self._mark
            self._mark += 1
            self._wake(True)
            while (left := self._waiting_up_to(mark)) and (rest := deadline - time.monotonic()) > 0:
                if self._ended:
                    break
                self._changed.wait(rest)
            failed, self._failed_unreported = self._failed_unreported, 0
        return left + failed

    def wait_for(self, entry: Entry, timeout_s: float | None) -> bool:
        """Wait until `entry` is settled, or never will be; True if it was delivered."""
        with self._lock:
            if not entry.settled and not self._ended:
                self._wake(True)
                timeout_s = 0.0 if self._is_taker() else timeout_s
                self._changed.wait_for(lambda: entry.settled or self._ended, timeout_s)
            return entry.delivered

    def watch(self, entry: Entry, tell: Callable[[], None]) -> bool:
        """Have `tell` called, in any thread, when wait_for would return; False if it would at once."""
        with self._lock:
            if entry.settled or self._ended:
                return False
            self._wake(True)
            self._watchers.setdefault(entry, []).append(tell)
            return True

    def unwatch(self, entry: Entry, tell: Callable[[], None]) -> None:
        """Undo `watch`; no error if it was called or undone before."""
        with self._lock:
            left = [each for each in self._watchers.pop(entry, ()) if each is not tell]
            if left:
                self._watchers[entry] = left

    def close(self) -> bool:
        """Refuse events from now on and wake who waits for room; False if it was closed before."""
        with self._lock:
            was_closed, self._closed = self._closed, True
            self._changed.notify_all()
            told = self._room_watchers.copy()
            self._room_watchers.clear()
        _call_all(told)
        return not was_closed

    def abandon(self) -> list[Entry]:
        """End: give up what waits in memory alone, in order, and return it; what is on disk stays there."""
        with self._lock:
            self._ended = True
            rest = [entry for entry in self._held if entry.place is None]
            self._queue.clear()
            self._queue_bytes = 0
            self.settle(rest, delivered=False)
            self._changed.notify_all()
            told = [tell for tells in self._watchers.values() for tell in tells]
            self._watchers.clear()
        if self._spool is not None:
            self._spool.close()
        _call_all(told)
        return rest

    def forget(self) -> None:
        """In a forked child: this is the parent's; whoever asks here for an event is not kept waiting."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._closed = self._ended = True
        if self._spool is not None:
            self._spool.forget()

    @property
    def is_closed(self) -> bool:
        """Whether events are refused for good."""
        return self._closed

    @property
    def waiting(self) -> int:
        """Events accepted and not settled."""
        return len(self._held) + self._unread

    @property
    def counters(self) -> Counters:
        """All counters at one moment."""
        with self._lock:
            return Counters(
                self._accepted, self._delivered, self._dropped, self._failed, self._spooled, self._replayed
            )

    def _accept(self, entry: Entry) -> bool:
        """Write the event to disk, or queue it in memory; False if there is room in neither."""
        entry.mark = self._mark
        if self._spool is not None and not self._queue and self._spool.append(entry):
            self._spooled += 1
            self._unread += 1
            if not self._unread_marks or self._unread_marks[-1][0] != entry.mark:
                self._unread_marks.append([entry.mark, 0])
            self._unread_marks[-1][1] += 1
        elif self._has_room(entry.cost_bytes):
            self._queue.append(entry)
            self._queue_bytes += entry.cost_bytes
            self._hold(entry)
        else:
            return False
        self._waiting_by_mark[entry.mark] = self._waiting_by_mark.get(entry.mark, 0) + 1
        return True

    def _hold(self, entry: Entry) -> None:
        self._held[entry] = None
        self._held_bytes += entry.cost_bytes

    def _hold_read(self, found: Iterable[Entry]) -> None:
        """Count what was read back from disk as held; what earlier processes left, as replayed."""
        assert self._spool is not None
        with self._lock:
            for entry in found:
                assert entry.place is not None
                if entry.place[0].ours:
                    entry.mark = self._next_unread_mark()
                else:
                    entry.mark = 0  # Older than whatever a flush may wait for.
                    self._waiting_by_mark[0] = self._waiting_by_mark.get(0, 0) + 1
                    self._replayed += 1
                self._hold(entry)
            if self._unread and not self._spool.has_unread:
                # The disk has lost what it took: these will never be read.
                self._failed += self._unread
                self._failed_unreported += self._unread
                while self._unread:
                    self._no_longer_waiting(self._next_unread_mark())
                self._changed.notify_all()

    def _next_unread_mark(self) -> int:
        run = self._unread_marks[0]
        run[1] -= 1
        if not run[1]:
            self._unread_marks.popleft()
        self._unread -= 1
        return run[0]

    def _is_taker(self) -> bool:
        return threading.get_ident() == self._taker

    def _has_room(self, cost: int) -> bool:
        return len(self._held) < self.max_events and self._held_bytes + cost <= self.max_bytes

    def _is_half_full(self) -> bool:
        return self.waiting * 2 >= self.max_events or self._held_bytes * 2 >= self.max_bytes

    def _waiting_up_to(self, mark: int) -> int:
        unread_files = 0 if self._spool is None else self._spool.leftovers
        return unread_files + sum(count for at, count in self._waiting_by_mark.items() if at <= mark)

    def _no_longer_waiting(self, mark: int) -> None:
        left = self._waiting_by_mark[mark] - 1
        if left:
            self._waiting_by_mark[mark] = left
        else:
            del self._waiting_by_mark[mark]

    def _settle(self, entry: Entry, delivered: bool) -> None:
        del self._held[entry]
        self._held_bytes -= entry.cost_bytes
        self._no_longer_waiting(entry.mark)
        entry.settled = True
        entry.delivered = delivered
        entry.value = b""
        if delivered:
            self._delivered += 1
        else:
            self._failed += 1
            self._failed_unreported += 1


def _call_all(callbacks: Iterable[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()
