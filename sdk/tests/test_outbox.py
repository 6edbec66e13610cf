"""The buffer between callers and the sender: bounds, counters, flush."""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_sdk import Shoal
from shoal_sdk.counters import Counters, Refusal
from shoal_sdk.entry import OVERHEAD_BYTES, Entry
from shoal_sdk.outbox import Outbox
from shoal_sdk.spool import Spool


def entry(size: int = 0) -> Entry:
    """Return an event whose value is `size` bytes."""
    return Entry(b"", b"x" * size, "purchased", "e")


def outbox(max_events: int = 10, max_bytes: int = 1 << 20) -> tuple[Outbox, list[bool]]:
    """Return an outbox and the list of its wake-ups."""
    wakes: list[bool] = []
    return Outbox(max_events, max_bytes, wakes.append), wakes


def test_the_newest_event_is_refused_when_there_are_too_many() -> None:
    """The bound on events holds from acceptance to delivery, not only in the queue."""
    box, _ = outbox(max_events=2)
    first = entry()
    assert box.offer(first, wait=False) is None
    assert box.offer(entry(), wait=False) is None
    assert box.take()[0] is first
    assert box.offer(entry(), wait=False) is Refusal.FULL
    box.settle([first], delivered=True)
    assert box.offer(entry(), wait=False) is None
    assert box.counters == Counters(accepted=3, delivered=1, dropped=1, failed=0)


def test_the_newest_event_is_refused_when_there_are_too_many_bytes() -> None:
    """Bytes count key, value and what an event costs beside them."""
    box, _ = outbox(max_bytes=2 * (100 + OVERHEAD_BYTES))
    first = entry(100)
    assert box.offer(first, wait=False) is None
    assert box.offer(entry(101), wait=False) is Refusal.FULL
    assert box.offer(entry(100), wait=False) is None
    box.take()
    assert box.offer(entry(0), wait=False) is Refusal.FULL
    box.settle([first], delivered=True)
    assert box.offer(entry(100), wait=False) is None


def test_a_settled_event_lets_its_payload_go() -> None:
    """A receipt somebody keeps must not keep the bytes the bounds no longer count."""
    box, _ = outbox()
    one = entry(100)
    box.offer(one, wait=False)
    box.settle([one], delivered=True)
    assert one.value == b""


def test_settling_twice_counts_once() -> None:
    """An event given up at close may still be acknowledged afterwards."""
    box, _ = outbox()
    one = entry()
    box.offer(one, wait=False)
    assert box.abandon() == [one]
    box.settle([one], delivered=True)
    assert box.counters == Counters(accepted=1, delivered=0, dropped=0, failed=1)
    assert box.waiting == 0


def test_only_the_first_event_and_a_half_full_buffer_wake_the_sender() -> None:
    """Waking costs a system call, so most events must not."""
    box, wakes = outbox(max_events=10)
    for _ in range(9):
        box.offer(entry(), wait=False)
    assert wakes == [False, True]
    box.take()
    box.offer(entry(), wait=False)
    assert wakes == [False, True, True]


def test_flush_counts_what_waits_and_what_was_given_up_since_the_last() -> None:
    """Nothing undelivered goes unreported, and nothing is reported as given up twice."""
    box, _ = outbox()
    kept, lost = entry(), entry()
    box.offer(kept, wait=False)
    box.offer(lost, wait=False)
    box.settle([lost], delivered=False)
    assert box.flush(0.0) == 2
    assert box.flush(0.0) == 1
    box.settle([kept], delivered=True)
    assert box.flush(0.0) == 0


def test_flush_does_not_wait_for_later_events() -> None:
    """Or a busy application would never see its flush return."""
    box, _ = outbox()
    early, late = entry(), entry()
    box.offer(early, wait=False)
    answers: list[int] = []
    woken = threading.Event()
    box._wake = lambda urgent: woken.set()
    flusher = threading.Thread(target=lambda: answers.append(box.flush(20.0)))
    flusher.start()
    assert woken.wait(20)
    box.offer(late, wait=False)
    box.settle([early], delivered=True)
    flusher.join(20)
    assert answers == [0]
    assert box.waiting == 1


def test_closing_frees_who_waits_for_room() -> None:
    """They are refused, as everybody after them."""
    box, wakes = outbox(max_events=1)
    box.offer(entry(), wait=False)
    answers: list[Refusal | None] = []
    blocked = threading.Thread(target=lambda: answers.append(box.offer(entry(), wait=True)))
    blocked.start()
    while len(wakes) < 2:  # The first event fills it; then comes the wait for room.
        threading.Event().wait(0.001)
    assert box.close()
    blocked.join(20)
    assert answers == [Refusal.CLOSED]
    assert box.offer(entry(), wait=True) is Refusal.CLOSED
    assert not box.close()


STEPS = st.sampled_from(["offer", "take", "settle", "fail", "flush"])


@given(st.lists(st.tuples(STEPS, st.integers(0, 400))))
def test_every_event_is_in_exactly_one_state(steps: list[tuple[str, int]]) -> None:
    """Whatever happens in whatever order: the bounds hold and the counters add up."""
    box, _ = outbox(max_events=5, max_bytes=1500)
    taken: list[Entry] = []
    offered = 0
    for what, number in steps:
        if what == "offer":
            offered += 1
            box.offer(entry(number), wait=False)
        elif what == "take":
            taken += box.take()
        elif what == "flush":
            box.flush(0.0)
        else:
            some, taken = taken[: number % 3], taken[number % 3 :]
            box.settle(some, delivered=what == "settle")
        count = box.counters
        assert count.accepted + count.dropped == offered
        assert box.waiting == count.accepted - count.delivered - count.failed <= 5
        assert sum(one.cost_bytes for one in box._held) == box._held_bytes <= 1500
        assert sum(box._marks._waiting.values()) == box.waiting


def test_what_the_disk_takes_meanwhile_goes_before_what_it_refuses(tmp_path: Path) -> None:
    """Also when both come after the sender has looked at the disk and before it takes what is in memory."""

    class Meddling(Spool):
        """The disk takes one event and refuses the next just after it was first seen empty."""

        meddled = False

        @property
        def has_unread(self) -> bool:
            seen = super().has_unread
            if not self.meddled:
                self.meddled = True
                assert box.offer(first) is None
                self.append = lambda entry: False  # type: ignore[method-assign]  # It fails from here on.
                assert box.offer(second) is None
            return seen

    box, _ = outbox()
    first, second = entry(1), entry(2)
    box.use(Meddling(tmp_path / "t", max_bytes=1 << 20, fsync=False))
    assert box.take() == [first]
    assert box.take() == [second]
    assert box.counters == Counters(2, 0, 0, 0, spooled=1)
    box.abandon()


def test_an_event_the_disk_refuses_is_counted_once(tmp_path: Path) -> None:
    """It was counted while it was written, so that has to be undone; without room in memory it is a drop."""
    box, _ = outbox(max_events=1)
    spool = Spool(tmp_path / "t", max_bytes=1 << 20, fsync=False)
    box.use(spool)
    spool.append = lambda entry: False  # type: ignore[method-assign]  # No disk fails on demand.
    assert box.offer(entry()) is None
    assert box.offer(entry()) is Refusal.FULL
    assert box.counters == Counters(accepted=1, delivered=0, dropped=1, failed=0)
    assert (box.waiting, box.flush(0.0), box._marks.unread) == (1, 1, 0)
    box.abandon()


def test_close_counts_what_kafka_refused() -> None:
    """An event given up before the close, or while it waits, is not delivered either."""
    client = Shoal("127.0.0.1:9", app="shop")
    for number in range(3):
        client.identify("c1", {"n": number})
    refused = next(iter(client._transport.outbox._held))
    client._transport._refused(refused)
    assert client.close(0.0) == 3
    assert client.counters == Counters(accepted=3, delivered=0, dropped=0, failed=3)


def test_close_counts_once_what_a_flush_has_told() -> None:
    """As two flushes do."""
    client = Shoal("127.0.0.1:9", app="shop")
    for number in range(2):
        client.identify("c1", {"n": number})
    client._transport._refused(next(iter(client._transport.outbox._held)))
    assert client.flush(0.0) == 2
    assert client.close(0.0) == 1


def test_a_thread_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A crowded machine has threads again later; until then nobody waits, and the log says it once."""
    client = Shoal("127.0.0.1:9", app="shop", max_events=2, on_full="wait")

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        accepted = [client.identify("c1", {"n": number}).accepted for number in range(3)]
    assert accepted == [True, True, False]
    assert [record.message for record in caplog.records if "no thread" in record.message] == [
        "no thread can be started now, the next event tries again. Events are kept in memory and would not"
        " survive the process"
    ]
    # In a thread of its own: with somebody to deliver, who finds no room waits for it.
    blocked = threading.Thread(target=client.identify, args=("c1", {}), daemon=True)
    blocked.start()
    for _ in range(2000):
        if client._transport._started:
            break
        threading.Event().wait(0.01)
    assert [thread for thread in threading.enumerate() if thread.name == "shoal-sdk"]
    assert client.close(0.0) == 2
    blocked.join(20)


def test_what_start_says_is_said_without_its_lock(tmp_path: Path) -> None:
    """A log handler that tracks, or waits for somebody who does, must not wait for ever."""
    client = Shoal("127.0.0.1:9", app="shop", spool=tmp_path)
    transport = client._transport
    transport.renew()  # As in a forked child, which opens its spool at its first event.
    free: list[bool] = []

    class Asking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            def ask() -> None:
                free.append(transport._lock.acquire(blocking=False))
                if free[-1]:
                    transport._lock.release()

            if "cannot be opened" in record.getMessage():
                asker = threading.Thread(target=ask)
                asker.start()
                asker.join()

    def fail(folder: object) -> Spool:
        raise OSError("read-only file system")

    transport._open_spool = fail  # type: ignore[method-assign,assignment]  # No disk fails on demand.
    handler = Asking()
    logging.getLogger("shoal_sdk").addHandler(handler)
    try:
        client.identify("c1", {})
    finally:
        logging.getLogger("shoal_sdk").removeHandler(handler)
    assert free == [True]
    client.close(0.0)


# Python 3.12 does not tell of single byte codes when that is asked for within the frame.
STEP = "line" if sys.version_info[:2] == (3, 12) else "opcode"


def test_a_signal_handler_may_track_at_any_moment() -> None:
    """After whichever byte code it interrupts: nothing is lost, nothing wedges, the sender is woken."""
    for moment in range(1000):
        box, wakes = outbox()
        taken: list[Entry] = []
        first, second = entry(), entry()
        countdown = moment

        def trace(frame: FrameType, what: str, _: object) -> Any:
            nonlocal countdown
            if not frame.f_code.co_filename.endswith(("outbox.py", "marks.py")):
                return None
            frame.f_trace_opcodes = True
            if what == STEP:
                countdown -= 1
                if countdown == -1:
                    sys.settrace(None)
                    assert box.offer(second) is None  # noqa: B023  # It is called in this round only.
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            box.offer(first)
            woken = len(wakes)
            taken += box.take()
        finally:
            sys.settrace(before)
        if countdown >= 0:
            break
        taken += box.take()
        assert woken
        assert set(taken) == {first, second} and len(taken) == 2
        box.settle(taken, delivered=True)
        assert box.waiting == 0
        assert box.flush(0.0) == 0
    # It must have interrupted all of both calls, and have come to their end.
    assert (30 if STEP == "line" else 50) < moment < 999


def test_a_file_without_a_whole_event_does_not_keep_a_flush_waiting(tmp_path: Path) -> None:
    """There is nothing in it to be settled, so the flush is woken when it was read."""
    before = Spool(tmp_path, max_bytes=1 << 20, fsync=False)
    assert before.append(entry(10))
    before.forget()
    path = next(tmp_path.glob("*.log"))
    os.truncate(path, path.stat().st_size - 1)
    box, wakes = outbox()
    box.use(Spool(tmp_path, max_bytes=1 << 20, fsync=False))
    flusher = threading.Thread(target=box.flush, args=(100.0,), daemon=True)
    flusher.start()
    while not wakes:
        threading.Event().wait(0.001)
    assert box.take() == []
    flusher.join(20)
    assert not flusher.is_alive()
    box.abandon()
