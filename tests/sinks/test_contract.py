"""The one suite every sink has to pass: delivery, repetition, holes, refusal, absence, resumption."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from deploy.local.redis import LocalRedis
from errors import SinkGap, SinkRejected, SinkUnavailable
from sinks.contract import BATCH_CHANGES_MAX, Batch, Watermark
from sinks.standing import Standing
from tests.sinks.making import MemoryStage, RedisStage, Stage, batch, begun, change, counted, member, seqs


@pytest.fixture(scope="module")
def server() -> Iterator[LocalRedis]:
    with LocalRedis() as running:
        yield running


@pytest.fixture(params=["memory", "redis"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    if request.param == "memory":
        yield MemoryStage()
        return
    staged = RedisStage(request.getfixturevalue("server"))
    yield staged
    asyncio.run(staged.sink.close())
    staged.close()


async def test_changes_become_values_lists_announcements_and_a_watermark(stage: Stage) -> None:
    """Two customers in two dimensions; who moves is in the new list only; offset and seq are kept."""
    sink = await begun(stage)
    first = batch(
        change(1, "ada", "new"), change(2, "ada", "lead", dimension="lifecycle"), change(3, "bob", "new")
    )
    assert await sink.deliver(first) == 3
    assert await sink.deliver(batch(change(4, "ada", "loyal", before="new"))) == 1
    wanted = {"ada": {"rfm": "loyal", "lifecycle": "lead"}, "bob": {"rfm": "new"}}
    assert stage.held() == stage.listed() == wanted
    assert await sink.watermark(3) == Watermark(1, 4, 40)
    assert stage.announced() == [("rfm", 1), ("lifecycle", 2), ("rfm", 3), ("rfm", 4)]
    await sink.close()


async def test_a_customer_who_left_everything_is_gone(stage: Stage) -> None:
    """An exit takes the value away, the last one the customer with it."""
    sink = await begun(stage)
    entered = batch(change(1, "ada", "new", expires_at=9), change(2, "ada", "vip", dimension="tier"))
    await sink.deliver(entered)
    await sink.deliver(batch(change(3, "ada", None, before="new", expires_at=9)))
    assert stage.held() == stage.listed() == {"ada": {"tier": "vip"}}
    await sink.deliver(batch(change(4, "ada", None, before="vip", dimension="tier")))
    assert stage.held() == stage.listed() == {}
    await sink.close()


async def test_nothing_of_an_erased_customer_is_held(stage: Stage) -> None:
    """Gone from values and lists with the exits; who comes back begins anew; repeats bring nobody back."""
    sink = await begun(stage)
    life = [change(1, "ada", "new", expires_at=9), change(2, "ada", "vip", dimension="tier", expires_at=9)]
    exits = [
        change(3, "ada", None, before="new", cause="erasure"),
        change(4, "ada", None, before="vip", dimension="tier", cause="erasure"),
    ]
    await sink.deliver(batch(*life, *exits))
    assert stage.held() == stage.listed() == {}
    assert not stage.mentions("ada")
    await sink.deliver(batch(*life, *exits))
    assert stage.held() == {} and not stage.mentions("ada")
    await sink.deliver(batch(change(5, "ada", "new")))
    assert stage.held() == stage.listed() == {"ada": {"rfm": "new"}}
    await sink.close()


async def test_a_rebuild_forgets_whom_the_memberships_do_not_know(stage: Stage) -> None:
    """An erasure whose exits the sink never read: the tombstone is all that says so."""
    sink = await begun(stage)
    await sink.deliver(
        batch(change(1, "ada", "new"), change(2, "ada", "vip", dimension="tier"), change(3, "bob", "new"))
    )
    assert await sink.rebuild(3, {"bob": member("bob", 3, rfm="new")}, Watermark(1, 5, 50)) == 1
    assert stage.held() == stage.listed() == {"bob": {"rfm": "new"}}
    assert not stage.mentions("ada") and stage.mentions("bob")
    await sink.close()


async def test_a_batch_delivered_again_does_nothing(stage: Stage) -> None:
    """Nor is it announced twice; an offset that was never confirmed stays."""
    sink = await begun(stage)
    once = batch(change(1, "ada", "new"), change(2, "ada", "loyal", before="new"))
    assert await sink.deliver(once) == 2
    assert await sink.deliver(Batch(3, once.changes, 999)) == 0
    assert stage.held() == stage.listed() == {"ada": {"rfm": "loyal"}}
    assert await sink.watermark(3) == Watermark(1, 2, 20)
    assert stage.announced() == seqs(1, 2)
    await sink.close()


async def test_an_overlapping_batch_adds_only_what_is_new(stage: Stage) -> None:
    """After a crash between delivery and confirmation the next batch begins before the watermark."""
    sink = await begun(stage)
    await sink.deliver(batch(change(1, "ada", "new"), change(2, "ada", "loyal")))
    overlapping = batch(change(1, "ada", "new"), change(2, "ada", "loyal"), change(3, "bob", "new"))
    assert await sink.deliver(overlapping) == 1
    assert stage.held() == {"ada": {"rfm": "loyal"}, "bob": {"rfm": "new"}}
    assert stage.announced() == seqs(1, 2, 3)
    await sink.close()


async def test_an_out_of_date_delivery_changes_nothing(stage: Stage) -> None:
    """A zombie that delivers what it held back for an hour, or for an epoch, is passed over."""
    sink = await begun(stage)
    await sink.deliver(batch(change(1, "ada", "new")))
    await sink.deliver(batch(change(2, "ada", "loyal"), change(3, "ada", "lost")))
    assert await sink.deliver(batch(change(2, "ada", "loyal"))) == 0
    await sink.deliver(batch(change(4, "ada", "champions", epoch=2)))
    assert await sink.deliver(batch(change(3, "ada", "lost"), change(4, "ada", "new"))) == 0
    assert stage.held() == stage.listed() == {"ada": {"rfm": "champions"}}
    assert await sink.watermark(3) == Watermark(2, 4, 40)
    await sink.close()


@pytest.mark.parametrize(("epoch", "seq"), [(1, 3), (2, 3), (2, 1)], ids=["same epoch", "next epoch", "anew"])
async def test_a_hole_is_found_and_nothing_of_the_batch_is_taken(stage: Stage, epoch: int, seq: int) -> None:
    """Change 2 is missing, numbers going on through epochs: the error says what is held and what came."""
    sink = await begun(stage)
    await sink.deliver(batch(change(1, "ada", "new")))
    with pytest.raises(SinkGap, match=f"epoch 1, seq 1, .* epoch {epoch}, seq {seq}"):
        await sink.deliver(batch(change(seq, "ada", "lost", epoch=epoch)))
    assert stage.held() == {"ada": {"rfm": "new"}}
    assert await sink.watermark(3) == Watermark(1, 1, 10)
    await sink.close()


async def test_a_partition_nobody_told_it_of_is_a_hole_too(stage: Stage) -> None:
    """An empty service may not begin in the middle, nor at the start: who says that it is the start?"""
    await stage.sink.open()
    assert await stage.sink.watermark(5) is None
    with pytest.raises(SinkGap):
        await stage.sink.deliver(batch(change(1, "ada", "new", partition=5), partition=5))
    assert stage.held(5) == {}
    await stage.sink.close()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (batch(), "expected 1 to"),
        (Batch(3, [change(n, "ada", "new") for n in range(1, BATCH_CHANGES_MAX + 2)], 0), "expected 1 to"),
        (batch(change(1, "ada", "new", partition=4)), "expected partition 3, got 4"),
        (batch(change(2, "ada", "new"), change(1, "ada", "new")), "expected the one after"),
        (batch(change(1, "ada", "new"), change(3, "ada", "new")), "expected the one after"),
        (batch(change(1, "ada", "new", dimension="seq")), "'seq' cannot be stored"),
        (batch(change(1, "ada", "new", dimension="a:b")), "'a:b' cannot be stored"),
        (batch(change(1, "ada", "")), "at least one character"),
    ],
)
async def test_a_batch_no_sink_can_take_is_rejected_whole(stage: Stage, wrong: Batch, said: str) -> None:
    """The error says why; it is not worth another try, and the next batch is taken."""
    sink = await begun(stage)
    with pytest.raises(SinkRejected, match=said) as caught:
        await sink.deliver(wrong)
    assert not caught.value.retryable
    assert stage.held() == {}
    assert await sink.deliver(batch(change(1, "ada", "new"))) == 1
    await sink.close()


async def test_a_service_that_is_away_can_be_tried_again(stage: Stage) -> None:
    """Whether it took the first delivery is not known; the second leaves each change applied once."""
    sink = await begun(stage)
    await sink.deliver(batch(change(1, "ada", "new")))
    stage.interrupt()
    try:
        for _ in range(2):
            with pytest.raises(SinkUnavailable) as caught:
                await sink.deliver(batch(change(2, "ada", "loyal"), change(3, "ada", "lost")))
            assert caught.value.retryable
        with pytest.raises(SinkUnavailable):
            await sink.watermark(3)
    finally:
        stage.restore()
    await sink.deliver(batch(change(2, "ada", "loyal"), change(3, "ada", "lost")))
    assert stage.held() == stage.listed() == {"ada": {"rfm": "lost"}}
    assert await sink.watermark(3) == Watermark(1, 3, 30)
    assert stage.announced() == seqs(1, 2, 3)
    await sink.close()


async def test_every_attempt_to_deliver_is_counted_by_what_became_of_it(stage: Stage) -> None:
    """Taken, old, with a hole before it, not to be taken at all, unanswered."""
    sink = await begun(stage)
    standing = Standing(sink.name)
    assert counted(standing) == {"ok": 0, "retry": 0, "rejected": 0, "suppressed": 0}
    assert await standing.deliver(sink, batch(change(1, "ada", "new"))) == 1
    assert await standing.deliver(sink, batch(change(1, "ada", "new"))) == 0
    assert counted(standing) == {"ok": 1, "retry": 0, "rejected": 0, "suppressed": 1}
    with pytest.raises(SinkGap):
        await standing.deliver(sink, batch(change(3, "ada", "lost")))
    assert counted(standing) == {"ok": 1, "retry": 1, "rejected": 0, "suppressed": 1}
    with pytest.raises(SinkRejected):
        await standing.deliver(sink, batch(change(2, "ada", "")))
    stage.interrupt()
    try:
        with pytest.raises(SinkUnavailable):
            await standing.deliver(sink, batch(change(2, "ada", "lost")))
    finally:
        stage.restore()
    assert counted(standing) == {"ok": 1, "retry": 2, "rejected": 1, "suppressed": 1}
    await sink.close()


async def test_another_process_resumes_where_this_one_ended(stage: Stage) -> None:
    """What was delivered outlives the connection; closing twice is closing once."""
    sink = await begun(stage)
    await sink.deliver(batch(change(1, "ada", "new")))
    await sink.close()
    await sink.close()
    again = stage.another()
    await again.open()
    assert await again.watermark(3) == Watermark(1, 1, 10)
    assert await again.deliver(batch(change(1, "ada", "new"), change(2, "ada", "loyal"))) == 1
    assert stage.held() == {"ada": {"rfm": "loyal"}}
    await again.close()


async def test_partitions_know_nothing_of_each_other(stage: Stage) -> None:
    """Each has its own watermark, and the same number in both is two changes."""
    sink = await begun(stage)
    await sink.rebuild(4, {}, Watermark(0, 0, 0))
    await sink.deliver(batch(change(1, "ada", "new")))
    await sink.deliver(batch(change(1, "bob", "lost", partition=4), partition=4))
    assert stage.held(3) == {"ada": {"rfm": "new"}} and stage.held(4) == {"bob": {"rfm": "lost"}}
    await sink.close()


async def test_a_rebuild_leaves_exactly_the_members(stage: Stage) -> None:
    """Who is no member is removed, who differs is put right, and nothing of it is announced."""
    old = member("ada", 1, rfm="lost", tier="vip"), member("bob", 2, rfm="new"), member("eve", 3, rfm="new")
    sink = await begun(stage, *old, watermark=Watermark(1, 3, 30))
    new = {"ada": member("ada", 9, rfm="new"), "bob": member("bob", 2, rfm="new")}
    assert await sink.rebuild(3, new, Watermark(1, 9, 90)) == 1
    assert stage.held() == stage.listed() == {"ada": {"rfm": "new"}, "bob": {"rfm": "new"}}
    assert await sink.watermark(3) == Watermark(1, 9, 90)
    assert stage.announced() == []
    await sink.close()


async def test_changes_a_rebuilt_member_reflects_are_passed_over(stage: Stage) -> None:
    """The changes after the watermark go on; a member who is ahead of them does not go back meanwhile."""
    members = member("ada", 7, rfm="lost", tier="vip"), member("bob", 2, rfm="new")
    sink = await begun(stage, *members, watermark=Watermark(1, 4, 40))
    assert await sink.deliver(batch(change(5, "ada", "loyal"), change(6, "bob", "loyal"))) == 1
    assert stage.held() == stage.listed() == {"ada": {"rfm": "lost", "tier": "vip"}, "bob": {"rfm": "loyal"}}
    assert await sink.deliver(batch(change(7, "ada", "lost"), change(8, "ada", "new"))) == 1
    assert stage.held() == stage.listed() == {"ada": {"rfm": "new", "tier": "vip"}, "bob": {"rfm": "loyal"}}
    assert stage.announced() == seqs(6, 8)
    await sink.close()


async def test_a_rebuild_cut_short_leaves_the_partition_unknown(stage: Stage) -> None:
    """Whatever was written before, nobody takes it for complete; the next rebuild begins anew."""
    sink = await begun(stage, member("ada", 1, rfm="new"), watermark=Watermark(1, 1, 10))
    members = {str(n): member(str(n), 2, rfm="new") for n in range(20_000)}
    rebuilding = asyncio.create_task(sink.rebuild(3, members, Watermark(1, 2, 20)))
    await asyncio.sleep(0.01)
    stage.interrupt()
    try:
        # The one that never waits was done within those milliseconds, and is asked again.
        with contextlib.suppress(SinkUnavailable):
            await rebuilding
        with pytest.raises(SinkUnavailable):
            await sink.rebuild(3, members, Watermark(1, 2, 20))
    finally:
        stage.restore()
    assert await sink.watermark(3) is None
    assert await sink.rebuild(3, members, Watermark(1, 2, 20)) in (0, 1)
    assert stage.held() == stage.listed() == {str(n): {"rfm": "new"} for n in range(20_000)}
    await sink.close()
