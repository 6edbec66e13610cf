"""The buffer between callers and the sender: bounds, counters, flush."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from shoal_sdk.entry import OVERHEAD_BYTES, Entry
from shoal_sdk.outbox import Counters, Outbox, Refusal


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
        assert sum(box._waiting_by_mark.values()) == box.waiting
