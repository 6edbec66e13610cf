"""The client for asyncio: the same calls, awaited; nothing it does keeps the event loop waiting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from functools import cached_property, partial
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from shoal_sdk.client import BaseClient
from shoal_sdk.counters import Refusal
from shoal_sdk.encoding import EventType
from shoal_sdk.entry import Entry
from shoal_sdk.receipts import AsyncReceipt
from shoal_sdk.writer import Offered, Tell

_Client = TypeVar("_Client", bound="AsyncShoal")


class AsyncShoal(BaseClient[Coroutine[Any, Any, AsyncReceipt]]):
    """Shoal for coroutines, with the same arguments; delivers from the same kind of background thread.

    `await client.purchased(...)` gives the receipt once the event is accepted: with `on_full="wait"`
    when there is room, with `sync=True` when Kafka has it or the timeout is over. `await receipt`
    waits for delivery. The event is on its way from the call on, awaited or not, unless the client
    waits for room. With a spool the disk is written by a thread of its own, for which as many events
    and bytes may wait as are held in memory; when there are more, there is no room. Any event loop may
    use it, several at once too.
    """

    async def flush(self, timeout: float | None = 5.0) -> int:  # The same arguments as Shoal.flush.
        """Send at once and wait up to `timeout` seconds; return how many events are not delivered."""
        return await asyncio.to_thread(self._transport.flush, timeout)

    async def close(self, timeout: float | None = 5.0) -> int:  # The same arguments as Shoal.close.
        """Flush, then end the background thread; return how many events are undelivered: see Shoal.close."""
        return await asyncio.to_thread(self._transport.close, timeout)

    async def __aenter__(self: _Client) -> _Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _send(self, event_type: EventType, record: Mapping[str, Any]) -> Coroutine[Any, Any, AsyncReceipt]:
        """Encode and hand over now; what is returned tells what became of it."""
        entry = self._entry(event_type, record)
        if self._options.disabled:
            return self._unsent(entry)
        if self._options.on_full == "wait":
            return self._wait_and_tell(entry)
        return self._tell(entry, self._transport.submit(entry))

    async def _unsent(self, entry: Entry) -> AsyncReceipt:
        return AsyncReceipt(entry.event_id, self._transport.outbox, None)

    async def _wait_and_tell(self, entry: Entry) -> AsyncReceipt:
        return await self._tell(entry, await self._offer_in_turn(entry))

    async def _tell(self, entry: Entry, offered: Offered) -> AsyncReceipt:
        outbox = self._transport.outbox
        accepted = self._check(await _answer(offered))
        receipt = AsyncReceipt(entry.event_id, outbox, entry if accepted else None)
        if self._options.sync:
            await receipt.wait(self._options.sync_timeout_s)
        return receipt

    async def _offer_in_turn(self, entry: Entry) -> Refusal | None:
        """Offer an event until there is room; in each loop one waits for that, the others for their turn."""
        loop = asyncio.get_running_loop()
        async with self._turns.setdefault(loop, asyncio.Lock()):
            while True:
                room = asyncio.Event()
                tell = partial(_set_soon, loop, room)
                offered = self._transport.submit(entry, tell)
                try:
                    refusal = await _answer(offered)
                    if refusal is not Refusal.FULL:
                        return refusal
                    await room.wait()
                finally:
                    self._forget_room(offered, tell)

    def _forget_room(self, offered: Offered, tell: Tell) -> None:
        """Have nobody told of room who was told or waits no longer: a caller may give up and come again."""
        if isinstance(offered, Future):
            # Only the answer to an offer that is still made would have it told.
            offered.add_done_callback(lambda _: self._transport.outbox.unwatch_room(tell))
        else:
            self._transport.unwatch_room(tell)

    @cached_property
    def _turns(self) -> WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]:
        return WeakKeyDictionary()


async def _answer(offered: Offered) -> Refusal | None:
    """Wait for what becomes of an event, in the loop that asks; the call may be older than the loop."""
    if isinstance(offered, Future):
        # Shielded: who no longer waits for the answer has still made the call.
        return await asyncio.shield(asyncio.wrap_future(offered))
    return offered


def _set_soon(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # The loop was closed: nobody waits any more.
        loop.call_soon_threadsafe(event.set)
