"""What a rebuild begins with, and where it goes on: nothing between the two, whatever is visible when."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable
from typing import Any

import fastavro
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from errors import SinkRejected
from schemas import framing
from schemas.registry import committed
from sinks.contract import Member, Watermark
from sinks.delivery import Delivery
from sinks.memory import MemorySink
from sinks.snapshot import Source, take_snapshot
from streams.topics import ensure_topics
from tests.sinks.making import change

pytestmark = pytest.mark.kafka

STOP_S_MAX = 30.0


def framed(type_name: str, fields: dict[str, Any]) -> bytes:
    """A record as the worker would write it."""
    stored = committed().latest(type_name)
    body = io.BytesIO()
    fastavro.schemaless_writer(body, stored.parsed, fields)
    return framing.frame(stored.fingerprint, body.getvalue())


def change_record(
    seq: int, customer: str, to: str | None, *, epoch: int = 1
) -> tuple[str, bytes, bytes | None]:
    """A change in partition 0: (topic, key, value)."""
    fields = change(seq, customer, to, partition=0, epoch=epoch)
    whole = {
        **fields,
        "emitted_at": 0,
        "dimension_kind": "exclusive",
        "definition_version": 1,
        "origin": "live",
    }
    return "segment-changes", customer.encode(), framed("SegmentChange", whole)


def member_record(seq: int, customer: str, value: str | None) -> tuple[str, bytes, bytes | None]:
    """A membership in partition 0, or a tombstone: (topic, key, value)."""
    held = {
        "dimension": "rfm",
        "dimension_kind": "exclusive",
        "value": value,
        "since": 0,
        "expires_at": 7,
        "seq": seq,
    }
    fields = {"customer_id": customer, "epoch": 1, "partition": 0, "seq": seq, "definition_version": 1}
    whole = None if value is None else framed("Membership", {**fields, "values": [held]})
    return "memberships", customer.encode(), whole


class Log:
    """A pipeline's topics, one partition each, written by hand."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._bootstrap, self._prefix = bootstrap, prefix
        self.source = Source(bootstrap, f"{prefix}.segment-changes", f"{prefix}.memberships", 1)

    async def write(self, *records: tuple[str, bytes | None, bytes | None]) -> None:
        """Append, in order, in one transaction, so that a marker follows."""
        await ensure_topics(self._bootstrap, self._prefix, 1)
        async with (
            AIOKafkaProducer(bootstrap_servers=self._bootstrap, transactional_id=self._prefix) as producer,
            producer.transaction(),
        ):
            for topic, key, value in records:
                await producer.send_and_wait(f"{self._prefix}.{topic}", value, key=key, partition=0)

    async def forget_changes(self, before: int) -> None:
        """Let the changes before this offset be too old to be kept."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        try:
            where = TopicPartition(self.source.changes, 0)
            await admin.delete_records({where: RecordsToDelete(before_offset=before)})
        finally:
            await admin.close()

    async def deliver(self, sink: MemorySink) -> int:
        """Deliver what is there; return how many changes were new."""
        delivery = Delivery(self.source, sink, group=f"{self._prefix}-sink")
        await asyncio.wait_for(delivery.run(asyncio.Event(), once=True), STOP_S_MAX)
        return delivery.delivered


@pytest.fixture
def log(kafka: str, prefix: str) -> Log:
    return Log(kafka, prefix)


def values(members: Iterable[Member]) -> dict[str, str]:
    return {each.customer_id: each.values["rfm"] for each in members}


async def test_changes_visible_before_their_memberships_are_not_skipped(log: Log) -> None:
    """Of a transaction only the changes can be seen yet: what goes on begins at or before them."""
    await log.write(change_record(1, "ada", "new"), member_record(1, "ada", "new"))
    await log.write(change_record(2, "bob", "new"), change_record(3, "ada", "lost"))
    snapshot = await take_snapshot(log.source, 0)
    assert values(snapshot.members.values()) == {"ada": "new"}
    assert snapshot.watermark.at == (1, 1) and snapshot.watermark.offset <= 2
    sink = MemorySink()
    assert await log.deliver(sink) == 2
    assert values(sink.members[0].values()) == {"ada": "lost", "bob": "new"}


async def test_memberships_visible_before_their_changes_are_not_undone(log: Log) -> None:
    """A member may be ahead: changes it reflects already come later and are passed over."""
    await log.write(change_record(1, "ada", "new"), member_record(1, "ada", "new"))
    await log.write(member_record(3, "ada", "lost"))
    sink = MemorySink()
    assert await log.deliver(sink) == 0
    await log.write(
        change_record(2, "ada", "loyal"), change_record(3, "ada", "lost"), change_record(4, "bob", "new")
    )
    assert await log.deliver(sink) == 1
    assert values(sink.members[0].values()) == {"ada": "lost", "bob": "new"}
    assert [each["seq"] for each in sink.announced] == [4]


async def test_the_place_to_go_on_is_found_far_behind_the_end(log: Log) -> None:
    """Looking back ever further stops at the latest change the members reflect, not at the beginning."""
    await log.write(
        *(change_record(n, "ada", f"v{n}") for n in range(1, 301)), member_record(300, "ada", "v300")
    )
    await log.write(*(change_record(n, "ada", f"v{n}") for n in range(301, 401)))
    snapshot = await take_snapshot(log.source, 0)
    assert snapshot.watermark.at == (1, 300)
    sink = MemorySink()
    assert await log.deliver(sink) == 100
    assert values(sink.members[0].values()) == {"ada": "v400"}


async def test_nothing_is_a_snapshot_too(log: Log) -> None:
    """Of topics nothing was written to: the first change ever is what comes next."""
    await log.write()
    sink = MemorySink()
    assert await log.deliver(sink) == 0
    assert sink.watermarks == {0: Watermark(0, 0, 0)}
    await log.write(change_record(1, "ada", "new"))
    assert await log.deliver(sink) == 1


async def test_changes_too_old_to_be_kept_are_in_the_members(log: Log) -> None:
    """No change is left: the members say where they stand, and the next change joins up."""
    await log.write(
        change_record(1, "ada", "new"),
        change_record(2, "bob", "new"),
        member_record(1, "ada", "new"),
        member_record(2, "bob", "new"),
    )
    await log.forget_changes(3)
    sink = MemorySink()
    assert await log.deliver(sink) == 0
    assert sink.watermarks == {0: Watermark(1, 2, 3)}
    await log.write(change_record(3, "bob", "lost"))
    assert await log.deliver(sink) == 1
    assert values(sink.members[0].values()) == {"ada": "new", "bob": "lost"}


async def test_a_sink_that_was_away_for_too_long_is_rebuilt(log: Log) -> None:
    """The changes after its watermark are no longer kept; who was erased meanwhile is removed."""
    await log.write(
        change_record(1, "ada", "new"), change_record(2, "eve", "new"), member_record(1, "ada", "new")
    )
    sink = MemorySink()
    await log.deliver(sink)
    assert values(sink.members[0].values()) == {"ada": "new", "eve": "new"}
    await log.write(
        change_record(3, "eve", None),
        change_record(4, "ada", "lost"),
        member_record(3, "eve", None),
        member_record(4, "ada", "lost"),
    )
    await log.forget_changes(6)
    await log.deliver(sink)
    assert values(sink.members[0].values()) == {"ada": "lost"}


async def test_a_hole_in_the_log_is_rebuilt_not_waited_for(log: Log) -> None:
    """Going back to the watermark finds the same hole; the memberships have what is missing."""
    await log.write(change_record(1, "ada", "new"), member_record(1, "ada", "new"))
    sink = MemorySink()
    await log.deliver(sink)
    await log.write(
        change_record(3, "bob", "lost"), member_record(2, "ada", "lost"), member_record(3, "bob", "lost")
    )
    await log.deliver(sink)
    assert values(sink.members[0].values()) == {"ada": "lost", "bob": "lost"}
    assert sink.watermarks[0].at == (1, 3)


async def test_a_sink_whose_offset_the_log_never_reached_is_rebuilt(log: Log) -> None:
    """The topics were made anew under the same name: numbers begin again, and would all look old."""
    await log.write(change_record(1, "ada", "new"), member_record(1, "ada", "new"))
    sink = MemorySink()
    await sink.open()
    await sink.rebuild(0, {"old": Member("old", 1, 90, None, {"rfm": "lost"})}, Watermark(1, 90, 1_000))
    await log.deliver(sink)
    assert values(sink.members[0].values()) == {"ada": "new"}


async def test_a_record_that_cannot_be_read_stops_the_sink_and_is_named(log: Log) -> None:
    """Passing over it would leave a hole nobody sees."""
    await log.write(change_record(1, "ada", "new"), ("segment-changes", b"bob", b"\xc3\x01nonsense"))
    with pytest.raises(SinkRejected, match=r"segment-changes-0 at 1: UnknownFingerprint"):
        await log.deliver(MemorySink())


async def test_a_sink_goes_on_through_a_rebuild(log: Log) -> None:
    """Markers are no changes, wherever they stand; numbers go on in the next epoch, and so does a sink."""

    marker = ("segment-changes", b"", None)
    await log.write(change_record(1, "ada", "new"), member_record(1, "ada", "new"))
    sink = MemorySink()
    await log.deliver(sink)
    await log.write(
        marker, change_record(2, "ada", "loyal", epoch=2), change_record(3, "bob", "new", epoch=2), marker
    )
    assert await log.deliver(sink) == 2
    assert sink.watermarks[0].at == (2, 3)
    await log.write(marker)
    assert await log.deliver(sink) == 0
    snapshot = await take_snapshot(log.source, 0)
    assert snapshot.watermark.at == (1, 1)
    assert values(sink.members[0].values()) == {"ada": "loyal", "bob": "new"}
