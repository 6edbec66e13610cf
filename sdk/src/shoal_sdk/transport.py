"""What a client keeps going behind its calls: buffer, spool, background thread; made anew after a fork."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path

from shoal_sdk.arguments import wait_s
from shoal_sdk.counters import Refusal
from shoal_sdk.entry import Entry
from shoal_sdk.options import Options
from shoal_sdk.outbox import Outbox
from shoal_sdk.receipts import Drop, DropReason
from shoal_sdk.sender import Sender
from shoal_sdk.session import Route
from shoal_sdk.spool import Spool
from shoal_sdk.writer import Offered, Writer

_LOG = logging.getLogger("shoal_sdk")

EXIT_S_MAX = 4.0
"""How long a process that ends waits for delivery; ending the thread takes up to a second more."""
STOP_S_MAX = 1.0
START_S_MAX = 1.0
"""How long an event waits for another thread to start delivery; then memory takes it as it is."""
SYNC_IDLE_S_MAX = 60.0
"""A process frozen between calls cannot see its connection die: after so long it takes a new one."""


class Transport:
    """Takes encoded events and delivers them. Safe from any thread, and in a forked child.

    The thread starts with the first event, so that a program which only imports an application and
    then forks has none. A forked child begins empty: what its parent accepted, the parent delivers.
    `on_fork` is called in the child.
    """

    def __init__(
        self, options: Options, on_drop: Callable[[Drop], None] | None, on_fork: Callable[[], None]
    ) -> None:
        self.options = options
        self._on_drop = on_drop
        self._on_fork = on_fork
        # Reentrant: a signal handler may track an event while the first one is being tracked.
        self._lock = threading.RLock()
        self._starting = self._started = self._threadless = self._delivering = self._has_spool = False
        self._sender, self.outbox = self._make()
        self._writer = self._make_writer()
        _watch_forks()
        _LIVE.add(self)
        if options.disabled:
            return
        if options.spool is not None:
            try:
                spool = self._open_spool(options.spool)
            except OSError as error:
                raise ValueError(f"spool={str(options.spool)!r}: of no use as a spool: {error}") from None
            if spool.leftovers:
                self._start()
        atexit.register(self.close, EXIT_S_MAX)

    def offer(
        self, entry: Entry, *, wait: bool = False, tell: Callable[[], None] | None = None
    ) -> Refusal | None:
        """Accept an event or say why not: see Outbox.offer. `on_drop` hears of refusals that count."""
        if not self._started:
            self._start()
        refusal = self.outbox.offer(entry, wait=wait, tell=tell)
        if refusal is not None and not (tell and refusal is Refusal.FULL):
            self._refuse(entry, refusal)
        return refusal

    def submit(self, entry: Entry, tell: Callable[[], None] | None = None) -> Offered:
        """As `offer`, for who must not wait for a disk: with a spool the writer's thread offers it."""
        if self.options.spool is None:
            return self.offer(entry, tell=tell)
        try:
            offered = self._writer.submit(entry, tell)
        except RuntimeError:
            # Closed, or the interpreter ends, or there are too many threads: so it is done here.
            return self.offer(entry, tell=tell)
        if offered is Refusal.FULL and tell is None:
            self.outbox.count_drop()
            self._refuse(entry, offered)
        return offered

    def unwatch_room(self, tell: Callable[[], None]) -> None:
        """Forget a `tell` of `offer` or `submit`; no error if it was called or forgotten before."""
        self._writer.unwatch_room(tell)
        self.outbox.unwatch_room(tell)

    def flush(self, timeout_s: float | None) -> int:
        """Send at once and wait: see Shoal.flush."""
        return self._await_settled(wait_s(timeout_s)) + self.outbox.take_failures()

    def _await_settled(self, timeout_s: float) -> int:
        deadline_s = time.monotonic() + timeout_s
        self._writer.wait(timeout_s)
        if self._threadless:
            self._start()
            self._deliver_here(max(0.0, deadline_s - time.monotonic()))
        return self.outbox.await_settled(max(0.0, deadline_s - time.monotonic()))

    def close(self, timeout_s: float | None) -> int:
        """Flush, end, give up what is left in memory: see Shoal.close."""
        timeout_s = wait_s(timeout_s)
        deadline_s = time.monotonic() + timeout_s
        self._writer.wait(timeout_s)
        if not self.outbox.close():
            return 0
        atexit.unregister(self.close)
        self._writer.end()
        if self._started or self._threadless:
            self._await_settled(max(0.0, deadline_s - time.monotonic()))
            self._sender.stop(STOP_S_MAX)
        rest = self.outbox.abandon()
        for entry in rest:
            self._dropped(entry, "closed")
        if rest:
            _LOG.error("closed with %d events undelivered: they are given up", len(rest))
        left = self.outbox.undelivered
        if left:
            _LOG.warning(
                "closed with %d events undelivered: they stay in %s for who starts next",
                left,
                self.options.spool,
            )
        # With what was given up are those Kafka refused, also while we ended.
        return self.outbox.take_failures() + left

    def renew(self) -> None:
        """In a forked child: leave the parent's events and connections alone and begin anew."""
        closed = self.outbox.is_closed
        self.outbox.forget()
        self._sender.forget()
        # Their finalisers belong to the parent, so here they never run.
        _INHERITED.append((self.outbox, self._sender, self._writer))
        self._lock = threading.RLock()
        self._starting = self._started = self._threadless = self._delivering = self._has_spool = False
        self._sender, self.outbox = self._make()
        self._writer = self._make_writer()
        if closed:
            self.outbox.close()
        self._on_fork()

    def _make(self) -> tuple[Sender, Outbox]:
        options = self.options
        security = options.security
        route = Route(
            options.bootstrap,
            options.topic,
            f"shoal-sdk-{options.app}",
            options.linger_s,
            idle_s_max=SYNC_IDLE_S_MAX if options.sync else None,
            client_options=dict if security is None else security.options,
            on_refused=self._refused,
        )
        sender = Sender(route)
        return sender, Outbox(options.max_events, options.max_bytes, sender.wake)

    def _make_writer(self) -> Writer:
        return Writer(
            lambda entry, tell: self.offer(entry, tell=tell), self.options.max_events, self.options.max_bytes
        )

    def _start(self) -> None:
        """Start the thread, at the first event of a process, or at a later one if none can be started."""
        # Bounded: who has the lock may log while it opens a spool, and a log handler may wait for us.
        if not self._lock.acquire(timeout=START_S_MAX):
            return
        try:
            troubles = self._try_start()
        finally:
            self._lock.release()
        for trouble in troubles:
            _LOG.error("%s. Events are kept in memory and would not survive the process", trouble)

    def _try_start(self) -> list[str]:
        """Start under the lock, and return what to say without it."""
        # True already for an event of a signal handler that interrupted us: it waits in memory.
        if self._starting or self._started or self._delivering or self.outbox.is_closed:
            return []
        self._starting = True
        troubles = []
        if not self._threadless:
            self._watch_end_of_child()
            if self.options.spool is not None and not self._has_spool:
                try:
                    self._open_spool(self.options.spool)
                except OSError as error:
                    troubles.append(f"the spool in {self.options.spool} cannot be opened: {error}")
        self._started = self._sender.start(self.outbox)
        # Over when the main thread is, while atexit's functions run: then no thread can be started on
        # some Pythons, which is no trouble, for whoever closes the client delivers.
        if not self._started and not self._threadless and threading.main_thread().is_alive():
            troubles.append("no thread can be started now, the next event tries again")
        self._threadless = not self._started
        self.outbox.attended(not self._threadless)
        self._starting = False
        return troubles

    def _deliver_here(self, timeout_s: float) -> None:
        """Deliver in the calling thread if there is no other, and nobody does already."""
        with self._lock:
            if not self._threadless or self._delivering:
                return
            self._delivering = True
        try:
            self._sender.deliver_here(self.outbox, timeout_s)
        finally:
            self._delivering = False

    def _open_spool(self, folder: str | os.PathLike[str]) -> Spool:
        options = self.options
        spool = Spool(
            Path(folder) / options.topic, max_bytes=options.spool_max_bytes, fsync=options.spool_fsync
        )
        self.outbox.use(spool)
        self._has_spool = True
        return spool

    def _watch_end_of_child(self) -> None:
        """Have a child of multiprocessing close us when it ends; it may skip the interpreter's exit."""
        processes = sys.modules.get("multiprocessing.process")
        if processes is not None and processes.parent_process() is not None:
            from multiprocessing.util import Finalize

            Finalize(None, self.close, args=(EXIT_S_MAX,), exitpriority=0)

    def _refused(self, entry: Entry) -> None:
        """Kafka will never take this event: count it and say so."""
        _LOG.error("Kafka refuses the %s event %s: it is given up", entry.event_type, entry.event_id)
        self.outbox.settle([entry], delivered=False)
        self._dropped(entry, "refused")

    def _refuse(self, entry: Entry, refusal: Refusal) -> None:
        """Tell the application of an event that was not accepted, unless the call raises it."""
        if not self.options.strict:
            self._dropped(entry, "full" if refusal is Refusal.FULL else "closed")

    def _dropped(self, entry: Entry, reason: DropReason) -> None:
        """Call `on_drop`; its errors are the application's, but not its caller's."""
        if self._on_drop is None:
            return
        try:
            self._on_drop(Drop(entry.event_type, entry.key.decode(), entry.event_id, reason))
        except Exception:  # noqa: BLE001  # Tracking must not fail the code path it sits in.
            _LOG.exception("on_drop failed")


_LIVE: weakref.WeakSet[Transport] = weakref.WeakSet()
_INHERITED: list[object] = []


@cache
def _watch_forks() -> None:
    """Have every transport made anew in forked children, from now on."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_renew_all)


def _renew_all() -> None:
    for transport in list(_LIVE):
        transport.renew()
