"""What the outcome of any run is judged by: an undisturbed run without Kafka, and the changes themselves."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

from schemas.memberships import decode_membership
from streams.segments.definition import Definition
from streams.segments.loading import default_definition
from tests.pipeline.running import Pipeline
from tests.simulation import SimulatedPartition, SimulatedRecord, stable

Change = dict[str, Any]


def comparable(changes: Iterable[Change]) -> list[Change]:
    """The changes without when they were emitted, and without which pipeline's they are."""
    return [{**each, "event_id": each["event_id"].split("/", 1)[1]} for each in stable(list(changes))]


def undisturbed(
    records: Iterable[tuple[int, bytes | None, bytes | None]],
    partition: int,
    partitions: int,
    definition: Definition | None = None,
) -> SimulatedPartition:
    """A partition that read (timestamp, key, value) records in one go, without Kafka."""
    simulated = SimulatedPartition(
        definition or default_definition(), partition=partition, partitions=partitions
    )
    simulated.log += [
        SimulatedRecord(offset, timestamp, key, value)
        for offset, (timestamp, key, value) in enumerate(records)
    ]
    simulated.run(itertools.repeat(5000))
    return simulated


def assert_chained(changes: Sequence[Change], prefix: str, partition: int) -> None:
    """Seq counts from 1; every change of a customer's value starts where and when the one before ended.

    Only who is erased leaves a value for none, and whoever comes then begins anew.
    """
    assert [change["seq"] for change in changes] == list(range(1, len(changes) + 1))
    assert [c["event_id"] for c in changes] == [f"{prefix}/1/{partition}/{c['seq']}" for c in changes]
    last: dict[tuple[str, str], Change] = {}
    for change in changes:
        before = last.get((change["customer_id"], change["dimension"]))
        if before is None:
            assert (change["change"], change["from"], change["previous_since"]) == ("entered", None, None)
        else:
            erased = change["cause"] == "erasure"
            assert (change["change"], change["to"] is None) == ("exited" if erased else "moved", erased)
            assert change["from"] != change["to"]
            assert (change["from"], change["previous_since"]) == (before["to"], before["effective_at"])
            assert change["effective_at"] >= before["effective_at"]
        last[change["customer_id"], change["dimension"]] = change
        if change["to"] is None:
            del last[change["customer_id"], change["dimension"]]


def folded(changes: Iterable[Change]) -> dict[str, dict[str, Any]]:
    """The memberships a reader who followed every change from the first holds."""
    held: dict[str, dict[str, Any]] = {}
    for change in changes:
        mine = held.setdefault(change["customer_id"], {"values": {}})
        mine["seq"], mine["expires_at"] = change["seq"], change["expires_at"]
        mine["account_id"] = change["account_id"]
        mine["values"][change["dimension"]] = (change["to"], change["effective_at"], change["seq"])
        if change["to"] is None:
            del mine["values"][change["dimension"]]
        if not mine["values"]:
            del held[change["customer_id"]]
    return held


def as_folded(memberships: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Memberships as `folded` writes them."""
    held = {}
    for customer, record in memberships.items():
        assert record["customer_id"] == customer
        (expires_at,) = {each["expires_at"] for each in record["values"]}
        held[customer] = {
            "seq": record["seq"],
            "account_id": record["account_id"],
            "expires_at": expires_at,
            "values": {v["dimension"]: (v["value"], v["since"], v["seq"]) for v in record["values"]},
        }
    return held


async def assert_as_undisturbed(pipeline: Pipeline) -> int:
    """Assert that nothing of a run's adventures shows in what it wrote; return how many changes there are.

    Changes and memberships are those of an undisturbed run over the very log; seq has no gap;
    changes chain and fold to the memberships; mirrored offset, partition row and log end agree.
    """
    await pipeline.settle()
    ends, mirrored, total = await pipeline.ends("events"), await pipeline.mirrored(), 0
    assert mirrored == ends
    for partition in range(pipeline.partitions):
        log = await pipeline.records("events", partition)
        assert [record.offset for record in log] == list(range(ends[partition]))
        wanted = undisturbed(((r.timestamp, r.key, r.value) for r in log), partition, pipeline.partitions)
        changes = await pipeline.changes(partition)
        assert [c["seq"] for c in changes] == [c["seq"] for c in wanted.changes]
        assert comparable(changes) == comparable(wanted.changes)
        assert_chained(changes, pipeline.prefix, partition)
        memberships = await pipeline.memberships(partition)
        assert memberships == {
            key.decode(): decode_membership(value) for key, value in wanted.memberships.items()
        }
        assert as_folded(memberships) == folded(changes)
        row = await pipeline.partition_row(partition)
        assert row.source_offset == ends[partition]
        assert (row.seq, row.clock_ms) == (len(changes), wanted.engine.clock_ms)
        assert len(await pipeline.rows("dead-letters", partition)) == len(wanted.dead_letters)
        total += len(changes)
    return total
