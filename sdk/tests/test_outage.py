"""A broker that goes and comes back: nothing accepted is lost, order is kept."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import RequestTimedOutError

from deploy.local.kafka import LocalKafka
from shoal_sdk import Counters, Drop, Money, Shoal, session
from shoal_sdk.partitioning import partition_of

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker of our own to kill: the shared one is other tests' too."""
    kafka = LocalKafka(tmp_path_factory.mktemp("outage"))
    kafka.start()
    yield kafka
    kafka.kill()


@pytest.mark.parametrize("stall_s", [30.0, 0.5])
def test_an_outage_loses_nothing(
    stall_s: float,
    broker: LocalKafka,
    make_topic: Callable[..., str],
    read_all: Callable[[str, str], list[ConsumerRecord]],
    decode: Callable[[bytes], tuple[str, dict[str, Any]]],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Events before, during and after a kill all arrive, the first of each id in order.

    Once with the client library bringing the connection back, once with new sessions of ours.
    """
    with caplog.at_level(logging.INFO):
        prefix = make_topic(broker.bootstrap)
        client = Shoal(broker.bootstrap, app="shop", prefix=prefix)
        # The first batch to a new topic may take longer than the patience set here.
        client.signed_up("c0")
        assert client.flush(20) == 0
        monkeypatch.setattr(session, "WARN_AFTER_S", 0.2)
        monkeypatch.setattr(session, "STALL_S_MAX", stall_s)
        for number in range(300):
            client.purchased(f"c{number % 7}", order_id=str(number), amount=Money(number, "EUR"))
            if number == 100:
                assert client.flush(20) == 0
                broker.kill()
            if number == 200:
                assert client.flush(1.0) == 100
                broker.start()
        assert client.flush(60) == 0
        client.purchased("c0", order_id="last", amount=Money(300, "EUR"))
        assert client.close(20) == 0
        records = read_all(broker.bootstrap, prefix)
    firsts: dict[str, list[int]] = {}
    for record in records:
        seen = firsts.setdefault(record.key.decode(), [])
        amount = decode(record.value)[1].get("amount_minor", -1)
        if amount not in seen:
            seen.append(amount)
    assert all(amounts == sorted(amounts) for amounts in firsts.values())
    assert sorted(amount for amounts in firsts.values() for amount in amounts) == list(range(-1, 301))
    said = [record.levelname for record in caplog.records if record.name == "shoal_sdk"]
    assert said == ["WARNING", "INFO"]


Orders = Callable[[str, str], list[tuple[str, str]]]

OUTAGE_S = 30.0


def firsts_of(orders: list[tuple[str, str]], client: str) -> dict[str, list[int]]:
    """Return the orders of one client's customers in the order in which each first arrived."""
    seen: dict[str, dict[int, None]] = {}
    for customer, order in orders:
        if customer.startswith(client):
            seen.setdefault(customer, {}).setdefault(int(order))
    return {customer: list(numbers) for customer, numbers in seen.items()}


def test_half_a_minute_without_kafka(
    broker: LocalKafka, make_topic: Callable[..., str], tmp_path: Path, orders_in: Orders
) -> None:
    """A broker that hangs, longer than a connection is waited for and with more events than memory holds.

    Without a spool the newest are dropped, each counted and reported; with one, nothing is lost.
    """
    broker.start()
    prefix = make_topic(broker.bootstrap)
    drops: list[Drop] = []
    plain = Shoal(broker.bootstrap, app="shop", prefix=prefix, max_events=200, on_drop=drops.append)
    spooled = Shoal(broker.bootstrap, app="shop", prefix=prefix, max_events=50, spool=tmp_path)
    accepted: list[int] = []

    def buy(numbers: range) -> None:
        for number in numbers:
            if plain.purchased(f"plain{number % 7}", order_id=str(number), amount=Money(1, "EUR")).accepted:
                accepted.append(number)
            name = f"spooled{number % 7}"
            assert spooled.purchased(name, order_id=str(number), amount=Money(1, "EUR")).accepted

    buy(range(100))
    assert plain.flush(30) == spooled.flush(30) == 0
    assert broker.pid is not None
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        for part in range(30):
            buy(range(100 + part * 30, 130 + part * 30))
            threading.Event().wait(OUTAGE_S / 30)  # The outage itself, not a wait for something.
    finally:
        os.kill(broker.pid, signal.SIGCONT)
    assert plain.flush(60) == spooled.flush(60) == 0
    buy(range(1000, 1100))
    assert plain.close(30) == spooled.close(30) == 0
    assert len(accepted) == 100 + 200 + 100
    assert plain.counters == Counters(accepted=400, delivered=400, dropped=700, failed=0)
    assert [drop.reason for drop in drops] == ["full"] * 700
    assert spooled.counters == Counters(1100, 1100, 0, 0, spooled=1100)
    orders = orders_in(broker.bootstrap, prefix)
    for client, numbers in (("plain", accepted), ("spooled", range(1100))):
        found = firsts_of(orders, client)
        assert found == {f"{client}{c}": [n for n in numbers if n % 7 == c] for c in range(7)}
    assert list(tmp_path.glob("*/*")) == []


def test_an_acknowledgement_that_is_lost_on_the_way(
    kafka: str, prefix: str, monkeypatch: pytest.MonkeyPatch, orders_in: Orders
) -> None:
    """One partition's batch was written but not confirmed, others were: it goes out again, in order."""
    send_batch = AIOKafkaProducer.send_batch
    lost: list[int] = []

    async def lose_first(producer: Any, batch: Any, topic: str, *, partition: int) -> Any:
        answer = await send_batch(producer, batch, topic, partition=partition)
        if partition == partition_of(b"c0", 4) and len(lost) < 3:
            lost.append(partition)
            await asyncio.wait({answer})
            answer = asyncio.get_running_loop().create_future()
            answer.set_exception(RequestTimedOutError())
        return answer

    monkeypatch.setattr(AIOKafkaProducer, "send_batch", lose_first)
    client = Shoal(kafka, app="shop", prefix=prefix, max_events=40, on_full="wait")
    for number in range(400):
        client.purchased(f"c{number % 5}", order_id=str(number), amount=Money(1, "EUR"))
    assert client.close(30) == 0
    assert len(lost) == 3
    assert client.counters == Counters(400, 400, 0, 0)
    orders = orders_in(kafka, prefix)
    assert len(orders) > 400, "what was not confirmed went out again"
    assert firsts_of(orders, "c") == {f"c{c}": list(range(c, 400, 5)) for c in range(5)}
