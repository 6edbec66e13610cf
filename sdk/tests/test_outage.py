"""A broker that goes and comes back: nothing accepted is lost, order is kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from deploy.local.kafka import LocalKafka
from shoal_sdk import Money, Shoal, session

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
