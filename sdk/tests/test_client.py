"""The client against a real Kafka: what arrives, where, in which order, and what it says about it."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from aiokafka.partitioner import murmur2

from shoal_sdk import BufferFull, Campaign, ClientClosed, Context, Counters, Drop, Item, Money, Shoal

Read = Callable[[str, str], list[ConsumerRecord]]
Decode = Callable[[bytes], tuple[str, dict[str, Any]]]

pytestmark = pytest.mark.kafka

EUR = Money.of("12.50", "EUR")
AT = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=timezone.utc)
AT_SENT = AT.replace(microsecond=123000)
NOBODY = "127.0.0.1:9"
"""A port no broker listens on."""
TRAITS: dict[str, Any] = {
    "plan": "pro",
    "seats": 3,
    "score": 0.5,
    "vip": True,
    "since": AT,
    "apps": {"b", "a"},
    "old": None,
}


def send_all_four(client: Shoal) -> None:
    """Send each event with every field it has, for one customer."""
    campaign = Campaign(source="ads", medium="cpc", name="spring", term="fish", content="b")
    context = Context(channel="web", campaign=campaign, country="DE", timezone="Europe/Berlin")
    common: dict[str, Any] = {"occurred_at": AT, "context": context, "account_id": "acme"}
    client.signed_up("zoë", source="a friend", traits=TRAITS, event_id="e1", **common)
    client.identify("zoë", {"plan": "max"}, event_id="e2", **common)
    client.purchased(
        "zoë",
        order_id="o1",
        amount=EUR,
        shipping=Money(100, "EUR"),
        tax=50,
        discount=0,
        coupon="SPRING",
        perks=["gift"],
        payment_method="card",
        trigger="mail",
        event_id="e3",
        **common,
        items=[Item("s1", 2, 300, name="Herring", category="fish", line_id="1"), Item("s2", -1, EUR)],
    )
    client.refunded(
        "zoë",
        refund_id="r1",
        order_id="o1",
        amount=EUR,
        kind="return",
        reason="late",
        event_id="e4",
        **common,
    )


def test_what_is_read_equals_what_was_sent(kafka: str, prefix: str, read_all: Read, decode: Decode) -> None:
    """All four events with every field, through Kafka and the schema their fingerprint names."""
    with Shoal(kafka, app="shop", prefix=prefix) as client:
        send_all_four(client)
        assert client.flush() == 0
        assert client.counters == Counters(accepted=4, delivered=4, dropped=0, failed=0)
    records = read_all(kafka, prefix)
    assert {record.key for record in records} == {"zoë".encode()}
    names, values = zip(*(decode(record.value) for record in records), strict=True)
    assert names == tuple(
        f"shoal.events.{name}" for name in ("SignedUp", "ProfileUpdated", "Purchased", "Refunded")
    )
    fields = dict.fromkeys(Context.__slots__)
    sent_context = fields | {"channel": "web", "country": "DE", "timezone": "Europe/Berlin"}
    sent_context["campaign"] = {
        "source": "ads",
        "medium": "cpc",
        "name": "spring",
        "term": "fish",
        "content": "b",
    }
    shared = {"customer_id": "zoë", "account_id": "acme", "occurred_at": AT_SENT, "context": sent_context}
    sent_traits = TRAITS | {"since": {"at": AT_SENT}, "apps": ["a", "b"]}
    assert values[0] == shared | {"event_id": "e1", "source": "a friend", "traits": sent_traits}
    assert values[1] == shared | {"event_id": "e2", "traits": {"plan": "max"}}
    lines = [
        {
            "line_id": "1",
            "sku": "s1",
            "name": "Herring",
            "category": "fish",
            "quantity": 2,
            "unit_price_minor": 300,
        },
        {
            "line_id": None,
            "sku": "s2",
            "name": None,
            "category": None,
            "quantity": -1,
            "unit_price_minor": 1250,
        },
    ]
    assert values[2] == shared | {
        "event_id": "e3",
        "order_id": "o1",
        "amount_minor": 1250,
        "currency": "EUR",
        "shipping_minor": 100,
        "tax_minor": 50,
        "discount_minor": 0,
        "coupon": "SPRING",
        "perks": ["gift"],
        "payment_method": "card",
        "trigger": "mail",
        "items": lines,
    }
    assert values[3] == shared | {
        "event_id": "e4",
        "refund_id": "r1",
        "order_id": "o1",
        "kind": "return",
        "amount_minor": 1250,
        "currency": "EUR",
        "reason": "late",
    }


def test_ten_threads_lose_nothing(kafka: str, prefix: str, read_all: Read, decode: Decode) -> None:
    """10 times 10,000 calls: all arrive once, in order per customer, where the Java client would put them."""
    client = Shoal(kafka, app="shop", prefix=prefix, on_full="wait")

    def work(thread: int) -> None:
        for number in range(10_000):
            client.purchased(f"c{thread}-{number % 50}", order_id=str(number), amount=Money(number, "EUR"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush(60) == 0
    assert client.close() == 0
    assert client.counters == Counters(accepted=100_000, delivered=100_000, dropped=0, failed=0)
    amounts = defaultdict(list)
    partitions = defaultdict(set)
    for record in read_all(kafka, prefix):
        partitions[record.key].add(record.partition)
        amounts[record.key.decode()].append(decode(record.value)[1]["amount_minor"])
    assert amounts == {f"c{t}-{c}": list(range(c, 10_000, 50)) for t in range(10) for c in range(50)}
    assert partitions == {key: {(murmur2(key) & 0x7FFFFFFF) % 4} for key in partitions}


def test_a_retry_is_no_second_event(kafka: str, prefix: str) -> None:
    """Orders, refunds and sign-ups have the id of their natural key; profile updates each their own."""
    with Shoal(kafka, app="shop", prefix=prefix) as client:

        def ids() -> list[str]:
            return [
                client.signed_up("c1").event_id,
                client.purchased("c1", order_id="1", amount=EUR).event_id,
                client.refunded("c1", refund_id="1", amount=EUR).event_id,
            ]

        assert ids() == ids()
        assert len(set(ids())) == 3
        assert client.identify("c1", {}).event_id < client.identify("c1", {}).event_id


def test_a_receipt_waits_for_its_event(kafka: str, prefix: str) -> None:
    """Long before the linger ends, for waiting sends at once."""
    with Shoal(kafka, app="shop", prefix=prefix, linger_s=60) as client:
        receipt = client.purchased("c1", order_id="1", amount=EUR)
        assert receipt.accepted
        assert receipt.wait(20)
        assert client.counters.delivered == 1


def test_events_leave_without_a_flush(kafka: str, prefix: str) -> None:
    """After the linger, by themselves."""
    with Shoal(kafka, app="shop", prefix=prefix) as client:
        client.purchased("c1", order_id="1", amount=EUR)
        assert client.flush() == 0  # The connection stands now.
        entry = client.purchased("c1", order_id="2", amount=EUR)._entry
        for _ in range(2000):
            if entry is None or entry.settled:
                break
            threading.Event().wait(0.01)
        assert client.counters.delivered == 2


def test_the_largest_record_is_taken(kafka: str, prefix: str) -> None:
    """What passes the check at 1 MiB also passes a broker's default."""
    with Shoal(kafka, app="shop", prefix=prefix) as client:
        size = (1 << 20) + 1
        receipt = None
        while receipt is None:
            size -= 1 if size <= 1 << 20 and size > (1 << 20) - 600 else 200
            try:
                receipt = client.purchased("c", order_id="1", amount=EUR, coupon="x" * size)
            except ValueError:
                continue
        assert receipt.wait(20)


def test_an_event_kafka_refuses_does_not_hold_up_the_others(
    kafka: str,
    make_topic: Callable[..., str],
    read_all: Read,
    decode: Decode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is found among those sent with it, given up, counted and reported; the rest arrive in order."""
    prefix = make_topic(kafka, **{"max.message.bytes": "2000"})
    drops: list[Drop] = []
    with Shoal(kafka, app="shop", prefix=prefix, on_drop=drops.append) as client:
        for number in range(4):
            client.purchased(
                "c1", order_id=str(number), amount=EUR, coupon="x" * (5000 if number == 1 else 1)
            )
        assert client.flush(30) == 1
        assert client.counters == Counters(accepted=4, delivered=3, dropped=0, failed=1)
    assert [(drop.event_type, drop.customer_id, drop.reason) for drop in drops] == [
        ("purchased", "c1", "refused")
    ]
    orders = [decode(record.value)[1]["order_id"] for record in read_all(kafka, prefix)]
    assert orders == ["0", "2", "3"]


def test_on_full_wait_loses_nothing(kafka: str, prefix: str, read_all: Read) -> None:
    """A batch job larger than the buffer blocks instead of dropping."""
    with Shoal(kafka, app="shop", prefix=prefix, max_events=10, on_full="wait") as client:
        for number in range(300):
            assert client.purchased("c1", order_id=str(number), amount=EUR).accepted
        assert client.flush(30) == 0
    assert len(read_all(kafka, prefix)) == 300


def test_without_kafka_events_are_kept_and_the_newest_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """The caller sees neither an error nor a wait; the log says so once and the client library not at all."""
    drops: list[Drop] = []
    with caplog.at_level(logging.INFO):
        client = Shoal(NOBODY, app="shop", max_events=3, on_drop=drops.append)
        receipts = [client.purchased("c1", order_id=str(number), amount=EUR) for number in range(5)]
        assert [receipt.accepted for receipt in receipts] == [True] * 3 + [False] * 2
        assert [(drop.event_id, drop.reason) for drop in drops] == [
            (one.event_id, "full") for one in receipts[3:]
        ]
        assert not receipts[4].wait()
        assert client.flush(0.5) == 3
        assert client.waiting == 3
        assert client.counters == Counters(accepted=3, delivered=0, dropped=2, failed=0)
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.name for record in warnings] == ["shoal_sdk"]
        assert client.close(0.1) == 3
    assert [drop.reason for drop in drops] == ["full"] * 2 + ["closed"] * 3
    assert client.counters.failed == 3


MAY_WAIT = {"acquire", "connect", "epoll", "fsync", "join", "open", "poll", "pread", "read", "recv"}
MAY_WAIT |= {"select", "sleep", "wait", "write"}  # Functions that can keep a thread waiting.


@pytest.mark.parametrize("spooled", [False, True])
def test_a_call_waits_for_nothing_while_kafka_is_away(tmp_path: Path, spooled: bool) -> None:
    """Neither for room nor for a connection; with a spool it makes one system call, for the record."""
    called: Counter[str] = Counter()

    def note(_: object, event: str, function: object) -> None:
        in_memory = isinstance(getattr(function, "__self__", None), (bytes, io.BytesIO))
        if event == "c_call" and not in_memory:
            called[getattr(function, "__name__", "")] += 1

    client = Shoal(NOBODY, app="shop", max_events=100, spool=tmp_path if spooled else None)
    client.purchased("c1", order_id="first", amount=EUR)  # It starts the thread and makes the file.
    sys.setprofile(note)
    try:
        for number in range(200):
            client.purchased("c1", order_id=str(number), amount=EUR)
    finally:
        sys.setprofile(None)
    assert called["time_ns"] == 200, "the calls were not seen"
    client.close(0.0)
    assert not called.keys() & MAY_WAIT
    assert called["pwrite"] == (200 if spooled else 0)
    assert client.waiting == (201 if spooled else 0)


def test_flush_returns_within_its_timeout_without_kafka() -> None:
    """And close within its own and a second more, with the thread gone."""
    client = Shoal(NOBODY, app="shop")
    client.purchased("c1", order_id="1", amount=EUR)
    assert client.flush(0.0) == 1
    assert client.flush(0.2) == 1
    assert client.close(0.0) == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "shoal-sdk"]


def test_close_twice_is_close_once(kafka: str, prefix: str) -> None:
    """Afterwards events are dropped, counted, and nothing raises."""
    drops: list[Drop] = []
    client = Shoal(kafka, app="shop", prefix=prefix, on_drop=drops.append)
    receipt = client.purchased("c1", order_id="1", amount=EUR)
    assert client.close() == 0
    assert client.close() == 0
    assert receipt.wait()
    assert not client.purchased("c1", order_id="2", amount=EUR).accepted
    assert client.flush() == 0
    assert [drop.reason for drop in drops] == ["closed"]
    assert client.counters == Counters(accepted=1, delivered=1, dropped=1, failed=0)


def test_strict_raises_instead_of_dropping() -> None:
    """For tests and jobs that would rather fail; on_drop is not called as well."""
    drops: list[Drop] = []
    client = Shoal(NOBODY, app="shop", max_events=1, strict=True, on_drop=drops.append)
    client.purchased("c1", order_id="1", amount=EUR)
    with pytest.raises(BufferFull, match="1 events wait for Kafka, at most 1 events"):
        client.purchased("c1", order_id="2", amount=EUR)
    assert drops == []
    client.close(0.0)
    with pytest.raises(ClientClosed):
        client.purchased("c1", order_id="3", amount=EUR)


def test_an_error_in_on_drop_stays_out_of_the_callers_path(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged with its traceback."""

    def fail(_: Drop) -> None:
        raise RuntimeError("the application's own mistake")

    client = Shoal(NOBODY, app="shop", max_events=1, on_drop=fail)
    for number in range(2):
        client.purchased("c1", order_id=str(number), amount=EUR)
    assert "on_drop failed" in caplog.text
    client.close(0.0)


def test_a_callback_in_the_senders_thread_cannot_lock_it_up(
    kafka: str, make_topic: Callable[..., str]
) -> None:
    """Flush, wait and a full buffer return at once there, even with on_full="wait"."""
    prefix = make_topic(kafka, **{"max.message.bytes": "2000"})
    seen: list[Any] = []
    back = threading.Event()

    def on_drop(drop: Drop) -> None:
        if drop.reason == "refused":
            waiting = client.purchased("c1", order_id="9", amount=EUR)
            seen.append(waiting.wait(60))
            seen.append(client.flush(60))
            seen.append(client.purchased("c1", order_id="10", amount=EUR).accepted)
            back.set()

    client = Shoal(kafka, app="shop", prefix=prefix, max_events=1, on_full="wait", on_drop=on_drop)
    client.purchased("c1", order_id="1", amount=EUR, coupon="x" * 5000)
    assert back.wait(20)
    assert seen[0] is False
    assert seen[1] >= 1
    assert seen[2] is False
    assert client.close(30) == 0


def test_a_clock_set_back_holds_nothing_up(kafka: str, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids go on growing, events go on leaving after the linger, and a flush ends."""
    with Shoal(kafka, app="shop", prefix=prefix) as client:
        first = client.identify("c1", {})
        assert first.wait(20)
        monkeypatch.setattr("time.time_ns", lambda: 1_000_000_000)
        monkeypatch.setattr("time.time", lambda: 1.0)
        second = client.identify("c1", {})
        for _ in range(2000):
            if second.delivered:
                break
            threading.Event().wait(0.01)
        third = client.identify("c1", {})
        assert second.delivered and client.flush(20) == 0
        assert first.event_id < second.event_id < third.event_id


def test_an_event_tracked_while_the_process_ends_arrives(
    kafka: str, prefix: str, run_script: Any, read_all: Read
) -> None:
    """Also the first one, when Python may start no threads any more, and waiting for it does not hang."""
    code = (
        "import atexit, sys; from shoal_sdk import *\n"
        "c = Shoal(sys.argv[1], app='shop', prefix=sys.argv[2])\n"
        "def last():\n"
        "    r = c.purchased('c1', order_id='1', amount=Money(1, 'EUR')); r.wait()\n"
        "    c.purchased('c1', order_id='2', amount=Money(1, 'EUR'))\n"
        "atexit.register(last)"
    )
    done = run_script(code, kafka, prefix)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read_all(kafka, prefix)) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_process_that_just_ends_delivers(kafka: str, prefix: str, read_all: Read, host: str) -> None:
    """Without flush or close, and when the host's name is first looked up during exit."""
    code = (
        "import sys; from shoal_sdk import *; c = Shoal(sys.argv[1], app='shop', prefix=sys.argv[2])\n"
        "for n in range(100): c.purchased('c1', order_id=str(n), amount=Money(1, 'EUR'))"
    )
    where = f"{host}:{kafka.rsplit(':', 1)[1]}"
    env = os.environ | {"PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-W", "error", "-c", code, where, prefix]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read_all(kafka, prefix)) == 100
