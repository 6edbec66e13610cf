"""The spool against a real Kafka: what a killed process accepted is delivered by the next."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from shoal_sdk import Counters, Drop, Money, Shoal

pytestmark = pytest.mark.kafka

Start = Callable[..., subprocess.Popen[str]]
Orders = Callable[[str, str], list[tuple[str, str]]]

NOBODY = "127.0.0.1:9"
EUR = Money(1, "EUR")

SELL = """
import sys
from shoal_sdk import *
client = Shoal(sys.argv[1], app="shop", prefix=sys.argv[2], spool=sys.argv[3], max_events=50, linger_s=0.01)
for number in range(int(sys.argv[4]), int(sys.argv[5])):
    assert client.purchased(f"c{number % 7}", order_id=str(number), amount=Money(1, "EUR")).accepted
    print(number, flush=True)
sys.stdin.readline()
"""


def firsts(orders: list[tuple[str, str]]) -> dict[str, list[int]]:
    """Return each customer's orders in the order in which each first arrived."""
    seen: defaultdict[str, dict[int, None]] = defaultdict(dict)
    for customer, order in orders:
        seen[customer].setdefault(int(order))
    return {customer: list(each) for customer, each in seen.items()}


def kill_after(process: subprocess.Popen[str], count: int) -> int:
    """Kill a seller once it has told that many events accepted; return how many it told in all."""
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(count)]
    process.kill()
    told += process.stdout.readlines()
    return len([line for line in told if line.endswith("\n")])


def test_a_killed_process_loses_nothing_it_accepted(
    kafka: str, prefix: str, tmp_path: Path, start_script: Start, orders_in: Orders
) -> None:
    """Killed while it delivers, then its heir while Kafka is away, then a third delivers, all in order.

    What was under way at a kill may arrive twice, under one event id.
    """
    accepted = kill_after(start_script(SELL, kafka, prefix, str(tmp_path), "0", "100000"), 2000)
    second = start_script(SELL, NOBODY, prefix, str(tmp_path), "200000", "200500")
    assert kill_after(second, 500) == 500
    with Shoal(kafka, app="shop", prefix=prefix, spool=tmp_path) as third:
        for number in range(300000, 300100):
            third.purchased(f"c{number % 7}", order_id=str(number), amount=EUR)
        assert third.flush(60) == 0
        counters = third.counters
        assert counters.replayed >= 500
        assert counters == Counters(
            100, 100 + counters.replayed, 0, 0, spooled=100, replayed=counters.replayed
        )
    found = firsts(orders_in(kafka, prefix))
    assert all(orders == sorted(orders) for orders in found.values())
    numbers = {order for orders in found.values() for order in orders}
    assert numbers >= {*range(accepted), *range(200000, 200500), *range(300000, 300100)}
    assert list(tmp_path.glob("*/*")) == []


def test_an_exit_while_kafka_is_away_keeps_the_spool(
    kafka: str, prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, orders_in: Orders
) -> None:
    """Nothing is given up: close says how many were not delivered, and the next client delivers them once."""
    drops: list[Drop] = []
    client = Shoal(NOBODY, app="shop", prefix=prefix, spool=tmp_path, max_events=3, on_drop=drops.append)
    receipts = [client.purchased("c1", order_id=str(number), amount=EUR) for number in range(10)]
    assert client.flush(0.1) == 10
    assert client.close(0.1) == 10
    assert not receipts[0].wait(), "a receipt of a closed client is waited for"
    assert client.flush(60) == 10, "a closed client is waited for"
    assert client.counters == Counters(10, 0, 0, 0, spooled=10)
    assert drops == []
    assert "stay in" in caplog.text
    heir = Shoal(kafka, app="shop", prefix=prefix, spool=tmp_path)
    assert heir.close(30) == 0, "closing waits for what was taken over"
    assert heir.counters == Counters(0, 10, 0, 0, replayed=10)
    assert orders_in(kafka, prefix) == [("c1", str(number)) for number in range(10)]


def test_receipts_learn_of_the_delivery_from_disk(kafka: str, prefix: str, tmp_path: Path) -> None:
    """Though the events were read back long after the calls."""
    with Shoal(kafka, app="shop", prefix=prefix, spool=tmp_path, max_events=5, spool_fsync=True) as client:
        receipts = [client.purchased("c1", order_id=str(number), amount=EUR) for number in range(200)]
        assert receipts[-1].wait(30)
        assert all(receipt.wait(30) and receipt.delivered for receipt in receipts)


def test_clients_of_other_topics_leave_a_spool_alone(kafka: str, prefix: str, tmp_path: Path) -> None:
    """Their events would land in the wrong topic."""
    Shoal(NOBODY, app="shop", prefix=prefix, spool=tmp_path).close()
    one = Shoal(NOBODY, app="shop", prefix=prefix, spool=tmp_path)
    one.purchased("c1", order_id="1", amount=EUR)
    assert one.close(0.0) == 1
    other = Shoal(NOBODY, app="shop", prefix=f"{prefix}-other", spool=tmp_path)
    assert other.flush(0.0) == 0
    other.close(0.0)
    heir = Shoal(kafka, app="shop", prefix=prefix, spool=tmp_path)
    assert heir.flush(30) == 0
    assert heir.close() == 0
    assert heir.counters.replayed == 1


def test_a_spool_that_cannot_be_had_is_a_wrong_argument(tmp_path: Path) -> None:
    """Said when the client is made, not when the first event is lost."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="spool='.*file': of no use as a spool"):
        Shoal(NOBODY, app="shop", spool=tmp_path / "file")
