"""Calls that return when Kafka has the event, for functions that are frozen once they have answered."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable

import pytest

from shoal_sdk import Money, Shoal

pytestmark = pytest.mark.kafka

EUR = Money(1, "EUR")

FUNCTION = """
import sys
from shoal_sdk import *
client = Shoal(sys.argv[1], app="shop", prefix=sys.argv[2], sync=True, sync_timeout_s=30, linger_s=60)
for line in sys.stdin:
    print(client.purchased("c1", order_id=line.strip(), amount=Money(1, "EUR")).delivered, flush=True)
"""


def test_a_process_frozen_between_calls_loses_nothing(
    kafka: str,
    prefix: str,
    start_script: Callable[..., subprocess.Popen[str]],
    orders_in: Callable[[str, str], list[tuple[str, str]]],
) -> None:
    """When a call has returned the event is there: the process may be stopped, or never run again."""
    process = start_script(FUNCTION, kafka, prefix)
    assert process.stdin is not None and process.stdout is not None
    for number in range(5):
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        assert process.stdout.readline() == "True\n"
        process.send_signal(signal.SIGSTOP)
        assert len(orders_in(kafka, prefix)) == number + 1
        process.send_signal(signal.SIGCONT)
    process.kill()
    assert orders_in(kafka, prefix) == [("c1", str(number)) for number in range(5)]


def test_a_connection_long_unused_is_replaced(
    kafka: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have died while the process was frozen, and would be noticed only after a timeout."""
    with Shoal(kafka, app="shop", prefix=prefix, sync=True, sync_timeout_s=30) as client:
        sessions = []
        for number in range(4):
            assert client.purchased("c1", order_id=str(number), amount=EUR).delivered
            session = client._transport._sender._session
            assert session is not None
            sessions.append(session)
            if number > 0:
                session._used_at_s = float("-inf")
        assert sessions[0] is sessions[1]
        assert len(set(sessions)) == 3
    assert caplog.records == []


def test_without_kafka_the_receipt_says_so() -> None:
    """The event stays accepted and is tried again; the call returns after its timeout."""
    client = Shoal("127.0.0.1:9", app="shop", sync=True, sync_timeout_s=0.05)
    receipt = client.purchased("c1", order_id="1", amount=EUR)
    assert receipt.accepted and not receipt.delivered
    assert repr(receipt).endswith("accepted=True, delivered=False)")
    assert client.waiting == 1
    assert client.close(0.0) == 1


def test_a_callback_may_call_a_sync_client(kafka: str, make_topic: Callable[..., str]) -> None:
    """In the sender's own thread nothing waits: it would wait for itself."""
    prefix = make_topic(kafka, **{"max.message.bytes": "2000"})
    seen: list[bool] = []

    def on_drop(_: object) -> None:
        seen.append(client.purchased("c1", order_id="2", amount=EUR).delivered)

    client = Shoal(kafka, app="shop", prefix=prefix, sync=True, sync_timeout_s=20, on_drop=on_drop)
    assert not client.purchased("c1", order_id="1", amount=EUR, coupon="x" * 5000).delivered
    assert client.flush(20) == 1
    assert seen == [False]
    assert client.close(20) == 0
    assert client.counters.delivered == 1
