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

from shoal_sdk.arguments import wait_s
from shoal_sdk.counters import Counters, Refusal
from shoal_sdk.entry import Entry
from shoal_sdk.marks import Marks
from shoal_sdk.spool import Spool

APPEND_S_MAX = 0.5
"""How long a close waits for an event that is being written to a slow disk."""


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
        # Held while an event is written to disk, and taken before the other lock, never after it: who
        # only asks or waits, event loops above all, never waits for a disk.
        self._append_lock = threading.RLock()
        self._queue: deque[Entry] = deque()
        # Everything in memory that is not settled, in order; the queue is its unsent part.
        self._held: dict[Entry, None] = {}
        self._held_bytes = 0
        self._queue_bytes = 0
        # An event that is being written is counted before: the sender may read it before we come back.
        self._marks = Marks()
        self._landing = False
        self._left_on_disk = False
        self._taker: int | None = None
        self._attended = True
        self._woken = self._urged = False
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
        self._room_watchers: dict[Callable[[], None], None] = {}

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
        cost_bytes = entry.cost_bytes
        while (refusal := self._accept(entry)) is Refusal.FULL:
            with self._lock:
                if self._closed or self._has_room(cost_bytes):
                    continue
                if tell is not None:
                    self._room_watchers[tell] = None
                elif not wait or self._must_not_wait():
                    self._dropped += 1
                    return refusal
                self._wake(True)
                if tell is not None:
                    return refusal
                self._changed.wait()
        return refusal

    def count_drop(self) -> None:
        """Count an event that was refused before it came here."""
        with self._lock:
            self._dropped += 1

    def take(self) -> list[Entry]:
        """Return the next events in order, as many as memory has room for; counted until settled."""
        self._taker = threading.get_ident()
        while True:
            with self._lock:
                self._woken = self._urged = False
                # What is queued is younger than what is on disk: were it in its way, both would wait.
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
                # Looked at again: the disk may have taken an event since, and then failed the next.
                if self._spool is None or not self._spool.has_unread:
                    # Swapped, not cleared: what a finaliser appends meanwhile is in one of them.
                    taken = self._queue
                    self._queue = deque()
                    self._queue_bytes = 0
                    return list(taken)

    def attended(self, yes: bool) -> None:
        """Say whether there is a thread that takes; while there is none, nobody waits."""
        self._attended = yes
        self._taker = None

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
        return self.await_settled(timeout_s) + self.take_failures()

    def await_settled(self, timeout_s: float) -> int:
        """Wait as `flush` and return how many are still waiting then."""
        deadline = time.monotonic() + (0.0 if self._must_not_wait() else timeout_s)
        with self._lock:
            mark = self._marks.next()
            self._wake(True)
            while (left := self.undelivered - self.waiting + self._marks.up_to(mark)) and (
                rest := deadline - time.monotonic()
            ) > 0:
                if self._ended:
                    break
                self._changed.wait(rest)
        return left

    def take_failures(self) -> int:
        """Return how many events were given up since this was last asked."""
        with self._lock:
            failed, self._failed_unreported = self._failed_unreported, 0
        return failed

    def wait_for(self, entry: Entry, timeout_s: float | None) -> bool:
        """Wait until `entry` is settled, or never will be; True if it was delivered."""
        with self._lock:
            if not entry.settled and not self._ended:
                self._wake(True)
                timeout_s = 0.0 if self._must_not_wait() else wait_s(timeout_s)
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

    def unwatch_room(self, tell: Callable[[], None]) -> None:
        """Forget a `tell` of `offer`; no error if it was called or forgotten before."""
        with self._lock:
            self._room_watchers.pop(tell, None)

    def close(self) -> bool:
        """Refuse events from now on and wake who waits for room; False if it was closed before."""
        with self._lock:
            was_closed, self._closed = self._closed, True
            self._changed.notify_all()
            told = list(self._room_watchers)
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
        self._close_spool()
        _call_all(told)
        return rest

    def _close_spool(self) -> None:
        """Close the spool, unless an event is being written: then its files go with the process."""
        if self._spool is None or not self._append_lock.acquire(timeout=APPEND_S_MAX):
            return
        try:
            # Still landing although we have the lock: we are a signal handler that interrupted it.
            if not self._landing:
                self._spool.close()
        finally:
            self._append_lock.release()

    def forget(self) -> None:
        """In a forked child: this is the parent's; whoever asks here for an event is not kept waiting."""
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._append_lock = threading.RLock()
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
        return len(self._held) + self._marks.unread

    @property
    def undelivered(self) -> int:
        """Events waiting; a file of an earlier process that was not read to its end counts as one more."""
        return self.waiting + (0 if self._spool is None else self._spool.leftovers)

    @property
    def counters(self) -> Counters:
        """All counters at one moment."""
        with self._lock:
            return Counters(
                self._accepted, self._delivered, self._dropped, self._failed, self._spooled, self._replayed
            )

    def _accept(self, entry: Entry) -> Refusal | None:
        """Write the event to disk, or queue it in memory; FULL, not counted yet, without room in either."""
        if self._spool is None or self._closed:
            return self._accept_in_memory(entry)
        # One at a time: what comes after an event the disk did not take must find that one in the queue.
        with self._append_lock:
            return None if self._accept_on_disk(entry, self._spool) else self._accept_in_memory(entry)

    def _accept_in_memory(self, entry: Entry) -> Refusal | None:
        with self._lock:
            if self._closed:
                self._dropped += 1
                return Refusal.CLOSED
            if not self._has_room(entry.cost_bytes):
                return Refusal.FULL
            self._queue.append(entry)
            self._queue_bytes += entry.cost_bytes
            self._hold(entry)
            entry.mark = self._marks.add()
            self._accepted += 1
            urge = self._urgency()
        if urge is not None:
            self._wake(urge)
        return None

    def _accept_on_disk(self, entry: Entry, spool: Spool) -> bool:
        """Write an event to disk; counted while that lasts, and no longer if the disk does not take it."""
        with self._lock:
            # Landing although we have the lock: we are a signal handler that interrupted the write.
            if self._closed or self._queue or self._landing:
                return False
            self._landing = True
            self._accepted += 1
            self._spooled += 1
            entry.mark = self._marks.add()
            self._marks.add_unread(entry.mark)
        # An exception of a signal handler's leaves open whether it is on disk: it is counted as if it were.
        appended = True
        try:
            appended = spool.append(entry)
        finally:
            with self._lock:
                self._landing = False
                if not appended:
                    self._accepted -= 1
                    self._spooled -= 1
                    self._marks.remove_last_unread()
                    self._changed.notify_all()
                urge = self._urgency() if appended else None
            if urge is not None:
                self._wake(urge)
        return appended

    def _urgency(self) -> bool | None:
        """Return whether the sender has to be woken for an event just accepted, and urgently; None if not."""
        urge = not self._urged and self._is_half_full()
        self._urged |= urge
        woken, self._woken = self._woken, True
        return urge if urge or not woken else None

    def _hold(self, entry: Entry) -> None:
        self._held[entry] = None
        self._held_bytes += entry.cost_bytes

    def _hold_read(self, found: Sequence[Entry]) -> None:
        """Count what was read back from disk as held; what earlier processes left, as replayed."""
        assert self._spool is not None
        with self._lock:
            for entry in found:
                assert entry.place is not None
                if entry.place[0].ours:
                    entry.mark = self._marks.first_unread()
                else:
                    entry.mark = self._marks.add_old()
                    self._replayed += 1
                self._hold(entry)
            lost = self._marks.unread - self._landing
            if lost > 0 and not self._spool.has_unread:
                # The disk has lost what it took, or does not give it now: we will never read these.
                self._failed += lost
                self._failed_unreported += lost
                for _ in range(lost):
                    self._marks.remove_first_unread()
            # A file of an earlier process may be read to its end, with or without an event in it.
            self._changed.notify_all()

    def _must_not_wait(self) -> bool:
        return not self._attended or threading.get_ident() == self._taker

    def _has_room(self, cost: int) -> bool:
        return len(self._held) < self.max_events and self._held_bytes + cost <= self.max_bytes

    def _is_half_full(self) -> bool:
        return self.waiting * 2 >= self.max_events or self._held_bytes * 2 >= self.max_bytes

    def _settle(self, entry: Entry, delivered: bool) -> None:
        self._held.pop(entry, None)
        self._held_bytes -= entry.cost_bytes
        self._marks.remove(entry.mark)
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
