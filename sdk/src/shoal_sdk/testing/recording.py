"""Clients that keep what they are given: every check and every byte of the real one, and no Kafka."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from shoal_sdk.async_client import AsyncShoal
from shoal_sdk.client import BaseClient, Shoal
from shoal_sdk.counters import Refusal
from shoal_sdk.entry import Entry
from shoal_sdk.events import Sent
from shoal_sdk.options import Options
from shoal_sdk.outbox import Outbox
from shoal_sdk.receipts import AsyncReceipt, Drop, Receipt
from shoal_sdk.sender import Sender
from shoal_sdk.testing.events import Event, Events, decode
from shoal_sdk.testing.matching import fitting, listed, none_fits, too_many
from shoal_sdk.transport import Transport


class _Impatient(Outbox):
    """An outbox nobody waits for: what is not delivered now is not."""

    def wait_for(self, entry: Entry, timeout_s: float | None) -> bool:
        return super().wait_for(entry, 0.0)

    def watch(self, entry: Entry, tell: Callable[[], None]) -> bool:
        return False


class _Nowhere(Transport):
    """Takes events within the bounds and keeps them decoded; no thread, no disk, no network."""

    def __init__(self, options: Options, on_drop: Callable[[Drop], None] | None) -> None:
        self.sent: list[Event] = []
        self.is_away = False
        super().__init__(replace(options, disabled=True), on_drop, lambda: None)

    def offer(
        self, entry: Entry, *, wait: bool = False, tell: Callable[[], None] | None = None
    ) -> Refusal | None:
        value = entry.value
        # Events are kept in the order in which they were accepted, whichever thread they come from.
        with self._lock:
            refusal = super().offer(entry)
            if refusal is None:
                self.sent.append(decode(value))
                if not self.is_away:
                    self.deliver()
        return refusal

    def deliver(self) -> None:
        """Take everything accepted as delivered."""
        self.outbox.settle(self.outbox.take(), delivered=True)

    def flush(self, timeout_s: float | None) -> int:
        return super().flush(0.0)

    def _make(self) -> tuple[Sender, Outbox]:
        sender, _ = super()._make()
        return sender, _Impatient(self.options.max_events, self.options.max_bytes, sender.wake)

    def _start(self) -> None:
        self._started = True


class Recorder(BaseClient[Sent]):
    """What can be asked of a client that records, and asserted.

    It takes what the real client takes, all of it optional, and keeps its events in memory, as Kafka
    would hold them. Whatever is accepted counts as delivered at once, except under `kafka_away`; no
    call waits. Safe from any thread; a forked child's events are not seen by its parent.
    """

    def __init__(
        self,
        bootstrap: Any = "nowhere:9092",
        *,
        app: str = "app",
        on_drop: Callable[[Drop], None] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(bootstrap, app=app, **{**options, "disabled": True})
        self._options = replace(self._options, disabled=False, on_full="drop", spool=None)
        self._nowhere = _Nowhere(self._options, on_drop)
        self._transport = self._nowhere
        self._sent = self._nowhere.sent

    @contextmanager
    def kafka_away(self) -> Iterator[None]:
        """Let Kafka be away for a while: events are accepted within the bounds, receipts wait in vain.

        Nothing really waits: a receipt's `wait` says False and `flush` how many are undelivered at
        once. When it is over, all are delivered.
        """
        self._nowhere.is_away = True
        try:
            yield
        finally:
            self._nowhere.is_away = False
            self._nowhere.deliver()

    @property
    def events(self) -> Events:
        """Everything accepted so far, in the order of the calls; `events.purchased` are those of a type."""
        return Events(self._sent)

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {listed(self._sent)}"

    def of(self, customer_id: str) -> Events:
        """Return the events of one customer, in the order of the calls."""
        return self.events.of(customer_id)

    def clear(self) -> None:
        """Forget the events so far, to look at what comes next."""
        self._sent.clear()

    def assert_sent(self, event: str, /, *, times: int | None = None, **fields: Any) -> Event:
        """Assert that such an event was sent: at least once, or `times` times; return the first one.

        `event` is a type ("purchased") or the method that sends it; `fields` are those it must have,
        under their names in the call (`amount=Money(...)`) or in the schema (`amount_minor=...`). A
        ValueError if there is no such event or field.
        """
        __tracebackhide__ = True
        if times is not None and times < 1:
            raise ValueError(f"times={times}: expected at least 1; assert_not_sent says never")
        found = fitting(self.events, event, fields)
        if not found:
            raise AssertionError(none_fits(self.events, event, fields))
        if times is not None and len(found) != times:
            raise AssertionError(too_many(found, event, fields, times))
        return found[0]

    def assert_not_sent(self, event: str, /, **fields: Any) -> None:
        """Assert that no such event was sent; a ValueError if there is no such event or field."""
        __tracebackhide__ = True
        found = fitting(self.events, event, fields)
        if found:
            raise AssertionError(too_many(found, event, fields, 0))

    def assert_nothing_sent(self) -> None:
        """Assert that no event at all was sent."""
        __tracebackhide__ = True
        if self._sent:
            raise AssertionError(f"expected nothing; {listed(self.events)}")


class RecordingShoal(Recorder[Receipt], Shoal):
    """A Shoal that delivers nowhere: see Recorder for what it can be asked."""


class RecordingAsyncShoal(Recorder[Coroutine[Any, Any, AsyncReceipt]], AsyncShoal):
    """An AsyncShoal that delivers nowhere; what is recorded is asked without awaiting."""
