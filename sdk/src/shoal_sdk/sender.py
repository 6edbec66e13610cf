"""The background thread: delivers what is in the outbox to Kafka, one session after another.

One event loop per connection. When Kafka refuses or stalls, the whole loop is thrown away with
everything the client left in it, and the next one begins with the events nobody acknowledged. So an
event can be written twice, under one event id, but never lost and never overtaken by a later one of
its customer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from shoal_sdk.outbox import Entry, Outbox
from shoal_sdk.quiet import ClientLogFilter
from shoal_sdk.session import Route, Session

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
    """Delivers to one topic, from a daemon thread, until stopped. `wake` and `stop` are for any thread.

    `on_refused` is called in the sender's thread with each event Kafka refuses for what it is.
    """

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        topic: str,
        *,
        client_id: str,
        linger_s: float,
        on_refused: Callable[[Entry], None],
    ) -> None:
        self._route = Route(
            bootstrap,
            topic,
            client_id,
            linger_s,
            on_refused=on_refused,
            on_away=self._warn_away,
            on_delivered=self._note_back,
        )
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._session: Session | None = None
        self._away = False

    def start(self, outbox: Outbox) -> None:
        """Begin to deliver what is in `outbox`."""
        self._thread = threading.Thread(target=self._work, args=(outbox,), name="shoal-sdk", daemon=True)
        self._thread.start()

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
        if self._thread is None or self.is_current_thread():
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def is_current_thread(self) -> bool:
        """Whether the caller runs in the sender's thread, which must not wait for itself."""
        return threading.current_thread() is self._thread

    def _work(self, outbox: Outbox) -> None:
        quiet = ClientLogFilter()
        backlog: list[Entry] = []
        pause_s = RETRY_S_MIN
        try:
            while not self._stopping.is_set():
                self._session = session = Session(self._route, outbox, backlog)
                try:
                    with asyncio.Runner(loop_factory=_Loop) as runner:
                        runner.run(session.run(self._stopping.is_set))
                except Exception as error:  # noqa: BLE001  # Nothing but stop() may end the thread.
                    self._warn_away(error)
                backlog = session.undelivered()
                pause_s = RETRY_S_MIN if session.connected else min(pause_s * 2, RETRY_S_MAX)
                # Not all applications that lost the same broker should come back in one moment.
                self._stopping.wait(pause_s * random.uniform(0.5, 1.0))
        finally:
            quiet.remove()

    def _warn_away(self, reason: object) -> None:
        """Say, once per outage, that Kafka does not take events."""
        if not self._away and not self._stopping.is_set():
            self._away = True
            _LOG.warning(
                "Kafka (%s, topic %s) does not take events: %r. They are kept within bounds and retried.",
                self._route.bootstrap,
                self._route.topic,
                reason,
            )

    def _note_back(self) -> None:
        """Say that an outage is over."""
        if self._away:
            self._away = False
            _LOG.info("Kafka (%s, topic %s) takes events again", self._route.bootstrap, self._route.topic)
