"""Clients that keep what they are given: every check and every byte of the real one, and no Kafka."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import update_wrapper
from typing import Any, Concatenate, ParamSpec, TypeVar

from shoal_sdk.client import Receipt, Shoal, _as_error
from shoal_sdk.encoding import EventType, encode
from shoal_sdk.outbox import Counters, Entry, Refusal
from shoal_sdk.testing.events import Event, Events, decode
from shoal_sdk.testing.matching import fitting, listed, none_fits, too_many


class Recorder:
    """What can be asked of a client that records, and asserted."""

    _sent: list[Event]

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


class RecordingShoal(Recorder, Shoal):
    """A Shoal that keeps its events in memory, as Kafka would hold them, and delivers them nowhere.

    Takes what Shoal takes, all of it optional. Whatever is accepted counts as delivered at once,
    except under `kafka_away`. Safe from any thread; a forked child records for itself.
    """

    def __init__(self, bootstrap: Any = "nowhere:9092", *, app: str = "app", **options: Any) -> None:
        super().__init__(bootstrap, app=app, **{**options, "disabled": True})
        self._sent = []
        self._is_away = False
        # Events are kept in the order in which they were accepted, whichever thread they come from.
        self._accepting = threading.RLock()

    @contextmanager
    def kafka_away(self) -> Iterator[None]:
        """Let Kafka be away for a while: events are accepted within the bounds, receipts wait in vain.

        Nothing really waits: `Receipt.wait` says False and `flush` how many are undelivered at once.
        When it is over, all are delivered.
        """
        self._is_away = True
        try:
            yield
        finally:
            self._is_away = False
            self._deliver()

    def flush(self, timeout: float = 5.0) -> int:
        return super().flush(0.0)

    def close(self, timeout: float = 5.0) -> int:
        return self._give_up_rest() if self._outbox.close() else 0

    def _send(self, event_type: EventType, record: Mapping[str, Any]) -> Receipt:
        super()._send(event_type, record)  # Disabled, so it checks all that the real one checks, and no more.
        value = encode(event_type, record)
        entry = Entry(record["customer_id"].encode(), value, event_type.name.lower(), record["event_id"])
        with self._accepting:
            refusal = self._outbox.offer(entry, wait=False)
            if refusal is None:
                self._sent.append(decode(value))
                if not self._is_away:
                    self._deliver()
                return Receipt(entry.event_id, self, entry)
        if self._strict:
            raise _as_error(refusal, self._outbox)
        self._dropped(entry, "full" if refusal is Refusal.FULL else "closed")
        return Receipt(entry.event_id, self, None)

    def _deliver(self) -> None:
        self._outbox.settle(self._outbox.take(), delivered=True)

    def _wait_for(self, entry: Entry, timeout: float | None) -> bool:
        return super()._wait_for(entry, 0.0)


_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _awaited(
    method: Callable[Concatenate[RecordingShoal, _Arguments], _Result],
) -> Callable[Concatenate[RecordingAsyncShoal, _Arguments], Coroutine[Any, Any, _Result]]:
    """Return the method of the recording client as a coroutine of its twin, with the same arguments."""

    async def call(
        self: RecordingAsyncShoal, /, *arguments: _Arguments.args, **named: _Arguments.kwargs
    ) -> _Result:
        return method(self._recording, *arguments, **named)

    update_wrapper(call, method)
    return call


class RecordingAsyncShoal(Recorder):
    """The awaitable twin: the same methods as coroutines; what is recorded is asked without awaiting."""

    def __init__(self, bootstrap: Any = "nowhere:9092", *, app: str = "app", **options: Any) -> None:
        self._recording = RecordingShoal(bootstrap, app=app, **options)
        self._sent = self._recording._sent

    signed_up = _awaited(RecordingShoal.signed_up)
    identify = _awaited(RecordingShoal.identify)
    purchased = _awaited(RecordingShoal.purchased)
    refunded = _awaited(RecordingShoal.refunded)
    flush = _awaited(RecordingShoal.flush)
    close = _awaited(RecordingShoal.close)

    def kafka_away(self) -> AbstractContextManager[None]:
        """Let Kafka be away for a while, as RecordingShoal.kafka_away does."""
        return self._recording.kafka_away()

    @property
    def counters(self) -> Counters:
        """As of Shoal."""
        return self._recording.counters

    @property
    def waiting(self) -> int:
        """As of Shoal."""
        return self._recording.waiting

    async def __aenter__(self) -> RecordingAsyncShoal:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()
