"""The client for coroutines: the same calls awaited, and nothing that keeps the event loop waiting."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from shoal_sdk import AsyncShoal, BufferFull, Counters, Drop, Money, Shoal
from shoal_sdk.counters import Refusal
from shoal_sdk.entry import Entry
from shoal_sdk.segment import Segment
from shoal_sdk.writer import Tell

pytestmark = pytest.mark.kafka

Orders = Callable[[str, str], list[tuple[str, str]]]

NOBODY = "127.0.0.1:9"
EUR = Money(1, "EUR")


async def in_thread(orders_in: Orders, kafka: str, prefix: str) -> list[tuple[str, str]]:
    """Read everything back; the reader has an event loop of its own."""
    return await asyncio.to_thread(orders_in, kafka, prefix)


def test_both_clients_have_the_same_calls() -> None:
    """With the same arguments, by construction; and what one can be asked, the other can."""

    def public(client: type) -> set[str]:
        return {name for name in dir(client) if not name.startswith("_")}

    assert public(Shoal) == public(AsyncShoal)
    assert inspect.signature(Shoal.__init__) == inspect.signature(AsyncShoal.__init__)


@pytest.mark.parametrize("spooled", [False, True])
async def test_awaited_calls_arrive_in_order(
    kafka: str, prefix: str, orders_in: Orders, tmp_path: Path, spooled: bool
) -> None:
    """A receipt is had on acceptance; awaiting it waits for delivery."""
    async with AsyncShoal(kafka, app="shop", prefix=prefix, spool=tmp_path if spooled else None) as client:
        receipts = [await client.purchased("c1", order_id=str(number), amount=EUR) for number in range(50)]
        assert all(receipt.accepted for receipt in receipts)
        assert await receipts[-1]
        assert await receipts[0].wait(20)
        assert await client.flush(20) == 0
        assert client.counters == Counters(50, 50, 0, 0, spooled=50 if spooled else 0)
    found = await in_thread(orders_in, kafka, prefix)
    assert found == [("c1", str(number)) for number in range(50)]


@pytest.mark.parametrize("spooled", [False, True])
async def test_a_call_not_awaited_is_made_all_the_same(
    kafka: str, prefix: str, tmp_path: Path, spooled: bool
) -> None:
    """A forgotten await must not lose an event; Python warns about it."""
    async with AsyncShoal(kafka, app="shop", prefix=prefix, spool=tmp_path if spooled else None) as client:
        calls = [client.purchased("c1", order_id=str(number), amount=EUR) for number in range(10)]
        for call in calls:
            call.close()
        assert await client.flush(20) == 0
        assert client.counters.delivered == 10
        client.purchased("c1", order_id="last", amount=EUR).close()
    assert client.counters.delivered == 11


@pytest.mark.parametrize("spooled", [False, True])
async def test_waiting_for_room_leaves_the_loop_free(
    kafka: str, prefix: str, orders_in: Orders, tmp_path: Path, spooled: bool
) -> None:
    """More tasks than the buffer holds: all get their turn, in the order of their calls, nothing is lost."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with AsyncShoal(
        kafka,
        app="shop",
        prefix=prefix,
        max_events=5,
        on_full="wait",
        spool=tmp_path if spooled else None,
    ) as client:
        counting = asyncio.create_task(count_turns())
        calls = [client.purchased("c1", order_id=str(number), amount=EUR) for number in range(200)]
        receipts = await asyncio.gather(*calls)
        counting.cancel()
        assert all([await receipt for receipt in receipts])
    assert turns > 10
    assert await in_thread(orders_in, kafka, prefix) == [("c1", str(number)) for number in range(200)]


async def test_without_kafka_calls_return_and_drop(caplog: pytest.LogCaptureFixture) -> None:
    """As Shoal does: the newest is dropped, or with strict raised; a wait ends with its timeout."""
    drops: list[Drop] = []
    client = AsyncShoal(NOBODY, app="shop", max_events=1, on_drop=drops.append)
    kept = await client.purchased("c1", order_id="1", amount=EUR)
    dropped = await client.purchased("c1", order_id="2", amount=EUR)
    assert (kept.accepted, dropped.accepted) == (True, False)
    assert not await dropped
    assert not await kept.wait(0.01)
    waiting = asyncio.create_task(kept.wait())
    assert await client.flush(0.01) == 1
    assert await client.close(0.0) == 1
    assert not await waiting, "a close ends the wait for what it gives up"
    assert [drop.reason for drop in drops] == ["full", "closed"]
    strict = AsyncShoal(NOBODY, app="shop", max_events=1, strict=True)
    await strict.purchased("c1", order_id="1", amount=EUR)
    with pytest.raises(BufferFull):
        await strict.purchased("c1", order_id="2", amount=EUR)
    await strict.close(0.0)


async def test_who_waits_for_room_is_freed_by_close() -> None:
    """And refused, as everybody after them."""
    client = AsyncShoal(NOBODY, app="shop", max_events=1, on_full="wait")
    await client.purchased("c1", order_id="1", amount=EUR)
    waiting = asyncio.create_task(client.purchased("c1", order_id="2", amount=EUR))
    while not client._transport.outbox._room_watchers:  # noqa: ASYNC110  # Its outbox has no event to wait for.
        await asyncio.sleep(0.001)
    await client.close(0.0)
    assert not (await waiting).accepted
    assert client.counters.dropped == 1


async def test_wrong_arguments_are_said_by_the_call() -> None:
    """Before anything is awaited."""
    async with AsyncShoal(NOBODY, app="shop", disabled=True) as client:
        with pytest.raises(ValueError, match="customer_id=''"):
            client.identify("", {})
        assert not (await client.identify("c1", {})).accepted


async def test_sync_awaits_delivery(kafka: str, prefix: str) -> None:
    """For functions that are frozen once they have answered."""
    async with AsyncShoal(
        kafka, app="shop", prefix=prefix, sync=True, linger_s=60, sync_timeout_s=20
    ) as client:
        assert (await client.purchased("c1", order_id="1", amount=EUR)).delivered


def test_several_loops_may_share_a_client(kafka: str, prefix: str, orders_in: Orders) -> None:
    """One after another and at the same time, in threads."""
    client = AsyncShoal(kafka, app="shop", prefix=prefix, max_events=5, on_full="wait")

    async def work(customer: str) -> None:
        calls = [client.purchased(customer, order_id=str(number), amount=EUR) for number in range(50)]
        receipts = await asyncio.gather(*calls)
        assert await receipts[-1]

    threads = [threading.Thread(target=asyncio.run, args=(work(f"c{number}"),)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(work("c3"))
    assert asyncio.run(client.close(20)) == 0
    expected = Counter((f"c{loop}", str(number)) for loop in range(4) for number in range(50))
    assert Counter(orders_in(kafka, prefix)) == expected


def written_orders(spool: Path) -> list[int]:
    """Return how many bytes each event has that waits in a spool."""
    found: list[Entry] = []
    for path in sorted(spool.glob("*/*.log")):
        segment = Segment.adopt(path)
        found += segment.read(1000, 1 << 30)
        segment.close()
    return [len(entry.value) for entry in found]


def test_calls_made_outside_a_loop_are_spooled_once(tmp_path: Path) -> None:
    """As `asyncio.run(client.purchased(...))` makes them: the call is older than the loop."""
    client = AsyncShoal(NOBODY, app="shop", spool=tmp_path)
    for number in range(3):
        assert asyncio.run(client.purchased("c1", order_id=str(number), amount=EUR)).accepted
    assert client.counters == Counters(3, 0, 0, 0, spooled=3)
    assert asyncio.run(client.close(0.0)) == 3
    sizes = written_orders(tmp_path)
    assert len(sizes) == 3 and all(sizes)


async def test_without_a_thread_for_the_disk_events_are_spooled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call writes itself, and what could not be handed over is not written later as well."""
    client = AsyncShoal(NOBODY, app="shop", spool=tmp_path)
    await client.identify("c1", {})
    client._transport._writer = client._transport._make_writer()
    start = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "shoal-sdk-spool":
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        assert (await client.identify("c1", {})).accepted
    assert (await client.identify("c1", {})).accepted
    assert client.counters == Counters(3, 0, 0, 0, spooled=3)
    assert await client.close(0.0) == 3
    assert len(written_orders(tmp_path)) == 3


@pytest.mark.parametrize("on_full", ["drop", "wait"])
async def test_what_waits_for_the_disk_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_full: Literal["drop", "wait"]
) -> None:
    """A disk slower than the loop fills no memory: the newest are dropped, counted and told, or wait."""
    may_write = threading.Event()
    write = Segment.append

    def slowly(self: Segment, record: bytes, entry: Entry, *, fsync: bool) -> None:
        assert may_write.wait(20)
        write(self, record, entry, fsync=fsync)

    monkeypatch.setattr(Segment, "append", slowly)
    drops: list[Drop] = []
    client = AsyncShoal(
        NOBODY, app="shop", spool=tmp_path, max_events=3, on_full=on_full, on_drop=drops.append
    )
    calls = [asyncio.ensure_future(client.identify("c1", {"n": number})) for number in range(10)]
    await asyncio.sleep(0)
    assert len(client._transport._writer._queue) <= 3
    may_write.set()
    receipts = await asyncio.gather(*calls)
    accepted = [receipt.accepted for receipt in receipts]
    assert accepted == ([True] * 3 + [False] * 7 if on_full == "drop" else [True] * 10)
    assert client.counters.dropped == len(drops) == accepted.count(False)
    await client.close(0.0)


@pytest.mark.parametrize("spooled", [False, True])
async def test_who_gives_up_waiting_for_room_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spooled: bool
) -> None:
    """A service that tries with a timeout while Kafka is away does so for hours."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Segment, "append", fail)
    client = AsyncShoal(NOBODY, app="shop", max_events=1, on_full="wait", spool=tmp_path if spooled else None)
    await client.identify("c1", {})
    for _ in range(5):
        waiting = asyncio.create_task(client.identify("c1", {}))
        while not client._transport.outbox._room_watchers:  # noqa: ASYNC110  # As above.
            await asyncio.sleep(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not client._transport.outbox._room_watchers
    await client.close(0.0)


async def test_who_gives_up_while_the_disk_is_slow_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer comes when nobody asks any more, and asks to be told of room; so does who waits behind."""
    may_answer = threading.Event()
    client = AsyncShoal(NOBODY, app="shop", max_events=1, on_full="wait", spool=tmp_path)
    outbox, writer = client._transport.outbox, client._transport._writer
    offer = writer._offer

    def slowly(entry: Entry, tell: Tell | None) -> Refusal | None:
        assert may_answer.wait(20)
        return offer(entry, tell)

    monkeypatch.setattr(writer, "_offer", slowly)
    monkeypatch.setattr(client._transport.outbox, "_accept", lambda entry: Refusal.FULL)
    monkeypatch.setattr(client._transport.outbox, "_has_room", lambda cost_bytes: False)
    calls = [asyncio.create_task(client.identify("c1", {})) for _ in range(2)]
    while not writer._queue:  # noqa: ASYNC110  # As above.
        await asyncio.sleep(0.001)
    calls[0].cancel()
    while not writer._room_watchers:  # noqa: ASYNC110  # As above.
        await asyncio.sleep(0.001)
    calls[1].cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert not writer._room_watchers
    may_answer.set()
    await asyncio.to_thread(writer.wait, 20)
    assert not outbox._room_watchers
    await client.close(0.0)


async def test_a_disk_that_hangs_does_not_hold_up_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it does, counters are read, receipts waited for, room is waited for and a flush times out."""
    may_write, writing = threading.Event(), threading.Event()
    write = Segment.append

    def slowly(self: Segment, record: bytes, entry: Entry, *, fsync: bool) -> None:
        writing.set()
        assert may_write.wait(20)
        write(self, record, entry, fsync=fsync)

    client = AsyncShoal(NOBODY, app="shop", spool=tmp_path)
    receipt = await client.identify("c1", {})
    monkeypatch.setattr(Segment, "append", slowly)
    call = asyncio.ensure_future(client.identify("c1", {}))
    assert await asyncio.to_thread(writing.wait, 20)
    answers = threading.Thread(target=lambda: (client.counters, client._transport.outbox.flush(0.0)))
    answers.start()
    answers.join(10)
    assert not answers.is_alive()
    assert (client.counters.dropped, client.waiting) == (0, 2)
    assert not await receipt.wait(0.01)
    may_write.set()
    assert (await call).accepted
    assert client.counters == Counters(2, 0, 0, 0, spooled=2)
    await client.close(0.0)
