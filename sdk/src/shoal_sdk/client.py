"""The client an application holds: checks, encodes, hands over; never waits, never fails its caller."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from shoal_sdk.counters import Counters, Refusal
from shoal_sdk.encoding import EventType, encode, schema_of
from shoal_sdk.entry import Entry
from shoal_sdk.environment import arguments_in, in_variables
from shoal_sdk.errors import BufferFull, ClientClosed, SettingsError
from shoal_sdk.events import Events, Sent
from shoal_sdk.options import OnFull, Options
from shoal_sdk.outbox import Outbox
from shoal_sdk.receipts import Drop, Receipt
from shoal_sdk.security import Security
from shoal_sdk.transport import Transport

RECORD_BYTES_MAX = 1 << 20
"""What brokers take by default, key and framing included."""
FRAMING_BYTES = 128

_Client = TypeVar("_Client", bound="BaseClient[Any]")


class BaseClient(Events[Sent]):
    """What Shoal and AsyncShoal share: arguments, encoding, counters."""

    def __init__(
        self,
        bootstrap: str | Sequence[str],
        *,
        app: str,
        prefix: str = "shoal",
        security: Security | None = None,
        max_events: int = 10_000,
        max_bytes: int = 32 << 20,
        linger_s: float = 0.05,
        spool: str | os.PathLike[str] | None = None,
        spool_max_bytes: int = 256 << 20,
        spool_fsync: bool = False,
        sync: bool = False,
        sync_timeout_s: float = 5.0,
        strict: bool = False,
        disabled: bool = False,
        on_full: OnFull = "drop",
        on_drop: Callable[[Drop], None] | None = None,
    ) -> None:
        options = Options(
            bootstrap=bootstrap,
            app=app,
            prefix=prefix,
            security=security,
            max_events=max_events,
            max_bytes=max_bytes,
            linger_s=linger_s,
            spool=spool,
            spool_max_bytes=spool_max_bytes,
            spool_fsync=spool_fsync,
            sync=sync,
            sync_timeout_s=sync_timeout_s,
            strict=strict,
            disabled=disabled,
            on_full=on_full,
        )
        super().__init__(app)
        for event_type in EventType:
            schema_of(event_type)
        self._options = options
        self._transport = Transport(options, on_drop, self._ids.renew)

    @classmethod
    def from_env(
        cls: type[_Client],
        env: Mapping[str, str] = os.environ,
        *,
        on_drop: Callable[[Drop], None] | None = None,
    ) -> _Client:
        """Return a client set up by the variables SHOAL_SDK_*; an empty one counts as not set.

        Raises SettingsError with every problem at once: values out of bounds, what is missing, and
        names nobody reads, with the name probably meant. No message shows a secret.
        """
        arguments = arguments_in(env)
        try:
            return cls(**arguments, on_drop=on_drop)
        except ValueError as error:
            # What only the whole client can find out: a folder of no use, an id of too many bytes.
            raise SettingsError([in_variables(str(error))]) from None

    @property
    def counters(self) -> Counters:
        """Numbers of events accepted, delivered, dropped, failed, spooled and replayed so far."""
        return self._transport.outbox.counters

    @property
    def waiting(self) -> int:
        """Events accepted, neither delivered nor given up yet."""
        return self._transport.outbox.waiting

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._options!r})"

    def _entry(self, event_type: EventType, record: Mapping[str, Any]) -> Entry:
        """Encode; a ValueError if the record is too large."""
        try:
            value = encode(event_type, record)
        except UnicodeEncodeError as error:
            name = event_type.name.lower()
            raise ValueError(f"{name}: a text holds half a surrogate pair: {error}") from None
        entry = Entry(record["customer_id"].encode(), value, event_type.name.lower(), record["event_id"])
        size = len(entry.key) + len(value) + FRAMING_BYTES
        max_bytes = self._options.max_bytes
        if size > RECORD_BYTES_MAX or entry.cost_bytes > max_bytes:
            largest = min(RECORD_BYTES_MAX, max_bytes)
            raise ValueError(
                f"{entry.event_type}: {size} bytes, at most {largest}; send fewer items or shorter texts"
            )
        return entry

    def _check(self, refusal: Refusal | None) -> bool:
        """Return whether an event was accepted; raise what a strict client raises if it was not."""
        if refusal is not None and self._options.strict:
            raise _as_error(refusal, self._transport.outbox)
        return refusal is None


class Shoal(BaseClient[Receipt]):
    """Sends tracking events of one application to the topic `<prefix>.events`, in the background.

    Safe from any thread, and in forked children, which begin with nothing of their parent's. A signal
    handler may track events, and delivers them, but the counters may be off by what it interrupted; let
    it neither flush nor close, but have the program do so. Wrong
    arguments are a ValueError; anything else that goes wrong drops the event, counts it and calls
    `on_drop`, or with `strict=True` raises BufferFull or ClientClosed. Between acceptance and delivery
    at most `max_events` events and `max_bytes` bytes are held in memory. With `on_full="wait"` a call
    blocks while there is no room.

    With a `spool`, a folder, an event is accepted once it is written there, up to `spool_max_bytes`:
    it survives the process, and with `spool_fsync=True` the machine. With `sync=True` a call returns
    when Kafka has the event, or after `sync_timeout_s`; its receipt says which. `disabled=True` checks
    arguments and sends nothing.
    """

    def flush(self, timeout: float | None = 5.0) -> int:
        """Send at once and wait up to `timeout` seconds; return how many events are not delivered.

        None waits for ever. Of the events accepted before the call: those still waiting, which stay
        buffered, and those given up since the last flush. A file of an earlier process in the spool that
        was not read to its end counts as one more.
        """
        return self._transport.flush(timeout)

    def close(self, timeout: float | None = 5.0) -> int:
        """Flush, then end the background thread; return how many events were not delivered: see flush.

        Those in the spool stay there for who starts next; those in memory are given up: counted as
        failed, `on_drop` is called for each. A second call does nothing and returns 0. Takes up to a
        second longer than `timeout`, and half a second more while a disk hangs.
        """
        return self._transport.close(timeout)

    def __enter__(self: _Client) -> _Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, event_type: EventType, record: Mapping[str, Any]) -> Receipt:
        """Encode and hand over; a ValueError if the record is too large."""
        entry = self._entry(event_type, record)
        transport = self._transport
        if self._options.disabled:
            return Receipt(entry.event_id, transport.outbox, None)
        accepted = self._check(transport.offer(entry, wait=self._options.on_full == "wait"))
        receipt = Receipt(entry.event_id, transport.outbox, entry if accepted else None)
        if self._options.sync:
            receipt.wait(self._options.sync_timeout_s)
        return receipt


def _as_error(refusal: Refusal, outbox: Outbox) -> BufferFull | ClientClosed:
    """Return what a strict client raises."""
    if refusal is Refusal.CLOSED:
        return ClientClosed("the client is closed")
    bounds = f"{outbox.max_events} events and {outbox.max_bytes} bytes"
    return BufferFull(f"{outbox.waiting} events wait for Kafka, at most {bounds}")
