"""What a call leaves with its caller: what became of its event, now and later."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

from shoal_sdk.arguments import wait_s
from shoal_sdk.entry import Entry
from shoal_sdk.outbox import Outbox

DropReason = Literal["full", "closed", "refused"]


@dataclass(frozen=True, slots=True)
class Drop:
    """An event that will not be delivered, and why.

    `reason` is "full" (no room), "closed" (the client was closed before, or before Kafka took it),
    or "refused" (Kafka never takes it).
    """

    event_type: str
    customer_id: str
    event_id: str
    reason: DropReason


class _Told:
    """What both kinds of receipt can say without waiting."""

    __slots__ = ("_entry", "_outbox", "event_id")

    def __init__(self, event_id: str, outbox: Outbox, entry: Entry | None) -> None:
        self.event_id = event_id
        self._outbox = outbox
        self._entry = entry

    @property
    def accepted(self) -> bool:
        """Whether the event is on its way, or was."""
        return self._entry is not None

    @property
    def delivered(self) -> bool:
        """Whether Kafka has confirmed the event so far."""
        return self._entry is not None and self._entry.delivered

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}(event_id={self.event_id!r}, accepted={self.accepted}, delivered={self.delivered})"


class Receipt(_Told):
    """What became of one call. Dropping it costs nothing; waiting for it is optional."""

    __slots__ = ()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait up to `timeout` seconds (None: until settled) and return whether Kafka has the event.

        False at once for an event that was not accepted, for one a closed client left in its spool,
        in a callback of the client, and in a forked child for what its parent sent.
        """
        return self._entry is not None and self._outbox.wait_for(self._entry, timeout)


class AsyncReceipt(_Told):
    """What became of one call; `await receipt` is `await receipt.wait()`."""

    __slots__ = ()

    async def wait(self, timeout: float | None = None) -> bool:
        """As Receipt.wait, without blocking the event loop."""
        entry = self._entry
        if entry is None:
            return False
        loop = asyncio.get_running_loop()
        settled = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # The loop was closed: nobody waits any more.
                loop.call_soon_threadsafe(settled.set)

        if self._outbox.watch(entry, tell):
            try:
                await asyncio.wait_for(settled.wait(), wait_s(timeout))
            except asyncio.TimeoutError:
                pass
            finally:
                self._outbox.unwatch(entry, tell)
        return entry.delivered

    def __await__(self) -> Generator[object, None, bool]:
        return self.wait().__await__()
