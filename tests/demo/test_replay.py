"""The replay puts every tick behind all events before it and before all others, on a real topic too."""

from __future__ import annotations

import asyncio

import pytest

from demo.purchases import Invoices, Line, Purchase, Refund
from demo.replay import DAY_MS, KafkaTicks, Sent, midnights, replay
from errors import KafkaUnavailable
from schemas import framing
from schemas.changes import read_as
from schemas.registry import committed
from shoal_sdk import Shoal
from streams.kafka.reading import committed_rows, reader
from streams.topics import ensure_topics

FINAL_MS = 1_323_475_200_000  # 2011-12-10T00:00Z
PARTITIONS = 2


class Journal:
    """Stands where the SDK and the ticks stand and writes down who was called in which order."""

    def __init__(self, undelivered: int = 0) -> None:
        self.calls: list[object] = []
        self.undelivered = undelivered

    def purchased(self, customer_id: str, **fields: object) -> None:
        """Note an order."""
        self.calls.append(fields["order_id"])

    def refunded(self, customer_id: str, **fields: object) -> None:
        """Note a refund."""
        self.calls.append(fields["refund_id"])

    def flush(self, timeout: float) -> int:
        """Note a flush."""
        self.calls.append("flush")
        return self.undelivered

    def write(self, at_ms: int) -> None:
        """Note a tick."""
        self.calls.append(at_ms)


def bought(at_ms: int, order_id: str) -> Purchase:
    """One order at a time."""
    return Purchase(at_ms, "7", order_id, 100, (Line("A", 1, 100),))


def test_ticks_come_between_the_events_they_divide() -> None:
    """A tick follows what was before it, never what was at it; every tick follows a flush."""
    journal = Journal()
    heard: list[tuple[int, Sent]] = []
    events = [bought(1, "a"), bought(9, "b"), Refund(10, "7", "c", 5), bought(25, "d"), bought(31, "e")]

    sent = replay(events, [10, 20, 30], journal, journal, lambda at_ms, so_far: heard.append((at_ms, so_far)))  # type: ignore[arg-type]  # the journal is no Shoal

    assert journal.calls == ["a", "b", "flush", 10, "c", "flush", 20, "d", "flush", 30, "e", "flush"]
    assert sent == Sent(purchases=4, refunds=1, ticks=3)
    assert heard == [(10, Sent(2, 0, 1)), (20, Sent(2, 1, 2)), (30, Sent(3, 1, 3))]


def test_nothing_follows_events_that_were_not_delivered() -> None:
    """When the SDK gives up, the tick is not written and the caller hears why."""
    journal = Journal(undelivered=3)

    with pytest.raises(KafkaUnavailable, match="3 events"):
        replay([bought(1, "a")], [10, 20], journal, journal)  # type: ignore[arg-type]  # the journal is no Shoal

    assert journal.calls == ["a", "flush"]


@pytest.mark.parametrize(
    ("first_ms", "last_ms", "days"),
    [(0, 2 * DAY_MS, [1, 2]), (1, 2 * DAY_MS - 1, [1]), (DAY_MS - 1, DAY_MS, [1]), (DAY_MS, DAY_MS, [])],
)
def test_midnights_come_after_the_first_and_up_to_the_last_instant(
    first_ms: int, last_ms: int, days: list[int]
) -> None:
    """The first instant itself is no tick, the last one is."""
    assert list(midnights(first_ms, last_ms)) == [day * DAY_MS for day in days]


@pytest.mark.kafka
async def test_a_replayed_topic_holds_every_event_between_its_ticks(kafka: str, prefix: str) -> None:
    """On Kafka every partition has every tick, in order, and each event of a slice lies in its own day."""
    await ensure_topics(kafka, prefix, PARTITIONS, events_retention_ms=-1)
    invoices = Invoices()
    chosen = frozenset({"12346", "12347", "13085", "17850"})
    async with KafkaTicks(kafka, f"{prefix}.events", PARTITIONS) as ticks:

        def send() -> Sent:
            with Shoal(kafka, app="test", prefix=prefix, on_full="wait") as shoal:
                days = midnights(invoices.first_ms, FINAL_MS)
                return replay(invoices.events(chosen), days, shoal, ticks)

        sent = await asyncio.to_thread(send)

    wanted = list(midnights(invoices.first_ms, FINAL_MS))
    events = 0
    async with reader(kafka) as consumer:
        for partition in range(PARTITIONS):
            ticks_seen, clock_ms, since_tick = [], 0, [0]
            async for key, value in committed_rows(consumer, f"{prefix}.events", partition):
                kind, at_ms = _read(value)
                if kind == "Tick":
                    assert key == b"%d" % partition
                    assert max(since_tick) < at_ms
                    ticks_seen.append(at_ms)
                    clock_ms, since_tick = at_ms, [0]
                else:
                    assert at_ms >= clock_ms
                    since_tick.append(at_ms)
                    events += 1
            assert ticks_seen == wanted
    assert events == sent.events == len(list(invoices.events(chosen)))


def _read(value: bytes | None) -> tuple[str, int]:
    """Return the type of a record and its time."""
    assert value is not None
    fingerprint, _ = framing.split(value)
    stored = committed().find(fingerprint)
    assert stored is not None
    record = read_as(stored.type, value)
    return stored.type, record["at"] if stored.type == "Tick" else record["occurred_at"]
