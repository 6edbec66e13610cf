"""The background thread: delivers what is in the outbox to Kafka, one session after another.

One event loop per connection. When Kafka refuses or stalls, the whole loop is thrown away with
everything the client left in it, and the next one begins with the events nobody acknowledged. So an
event can be written twice, under one event id, but never lost and never overtaken by a later one of
its customer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import selectors
import socket
import threading
import time
from typing import Any

from shoal_sdk.entry import Entry
from shoal_sdk.outbox import Outbox
from shoal_sdk.quiet import ClientLogFilter
from shoal_sdk.session import Progress, Route, Session

_LOG = logging.getLogger("shoal_sdk")

RETRY_S_MIN = 0.1
RETRY_S_MAX = 5.0


class _Loop(asyncio.SelectorEventLoop):
    """Looks names up in the sender's own thread.

    The default uses a pool whose threads cannot be started at interpreter exit, when the last
    events are sent, and which would hold the exit up while a name server does not answer.
    """

    async def getaddrinfo(
        self, host: Any, port: Any, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        return socket.getaddrinfo(host, port, family, type, proto, flags)


class Sender:
    """Delivers by one route, from a daemon thread, until stopped. `wake` and `stop` are for any thread."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._progress = Progress(self._warn_away, self._note_back)
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._session: Session | None = None
        self._selector: selectors.BaseSelector | None = None
        self._quiet: ClientLogFilter | None = None
        self._away = False

    def start(self, outbox: Outbox) -> bool:
        """Begin to deliver what is in `outbox`; False if no thread can be started now."""
        thread = threading.Thread(target=self._work, args=(outbox,), name="shoal-sdk", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def deliver_here(self, outbox: Outbox, timeout_s: float) -> None:
        """Deliver in the calling thread until nothing waits or the time is over; for want of a thread."""
        self._work(outbox, time.monotonic() + timeout_s)

    def wake(self, urgent: bool) -> None:
        """Send what is in the outbox: at once, or after the linger. Never blocks."""
        session = self._session
        if session is not None:
            session.call(session.drain if urgent else session.linger)

    def stop(self, timeout_s: float) -> bool:
        """End the thread, delivered or not; True if it ended within `timeout_s`."""
        self._stopping.set()
        session = self._session
        if session is not None:
            session.call(session.end)
        if self._thread is None or threading.current_thread() is self._thread:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def forget(self) -> None:
        """In a forked child: let go of the parent's connections without a word to Kafka.

        The child has copies of the parent's sockets, and shares its epoll: to take a socket out of
        that would take it out of the parent's. So the epoll goes first, and the child's copies of the
        sockets become /dev/null, whatever their owners' finalisers may yet do to them.
        """
        if self._quiet is not None:
            # Thread numbers are used again: a thread of the child may have that of our lost one.
            self._quiet.remove()
        selector, self._selector = self._selector, None
        if selector is None:
            return
        # None at all if the fork came between making and using it.
        sockets = [key.fd for key in (selector.get_map() or {}).values()]
        selector.close()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in sockets:
            with contextlib.suppress(OSError):
                os.dup2(nowhere, fd, inheritable=False)
        os.close(nowhere)

    def _work(self, outbox: Outbox, until_s: float | None = None) -> None:
        self._quiet = quiet = ClientLogFilter()
        backlog: list[Entry] = []
        pause_s = RETRY_S_MIN
        try:
            while not self._is_over(outbox, until_s):
                self._session = session = Session(self._route, self._progress, outbox, backlog, until_s)
                quiet.complaint = ""
                try:
                    self._run(session)
                except Exception as error:  # noqa: BLE001  # Nothing but stop() may end the thread.
                    self._warn_away(error)
                backlog = session.undelivered()
                pause_s = RETRY_S_MIN if session.connected else min(pause_s * 2, RETRY_S_MAX)
                # Not all applications that lost the same broker should come back in one moment.
                self._stopping.wait(pause_s * random.uniform(0.5, 1.0))
        finally:
            quiet.remove()

    def _is_over(self, outbox: Outbox, until_s: float | None) -> bool:
        if until_s is not None and (not outbox.waiting or time.monotonic() >= until_s):
            return True
        return self._stopping.is_set()

    def _run(self, session: Session) -> None:
        """Run a session in a loop of its own, and throw away what it leaves there."""
        self._selector = selectors.DefaultSelector()
        loop = _Loop(self._selector)
        try:
            loop.run_until_complete(session.run(self._stopping.is_set))
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            self._selector = None
            loop.close()

    def _warn_away(self, reason: object) -> None:
        """Say, once per outage, that Kafka does not take events."""
        if not self._away and not self._stopping.is_set():
            self._away = True
            complaint = self._quiet.complaint if self._quiet is not None else ""
            _LOG.warning(
                "Kafka (%s, topic %s) does not take events: %r%s. They are kept within bounds and retried.",
                self._route.bootstrap,
                self._route.topic,
                reason,
                f" ({complaint})" if complaint else "",
            )

    def _note_back(self) -> None:
        """Say that an outage is over."""
        if self._away:
            self._away = False
            _LOG.info("Kafka (%s, topic %s) takes events again", self._route.bootstrap, self._route.topic)
