"""A whole worker against a real broker: what it promises, and that the checks notice when it does not."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from tests.streams.kafka.stage import Stage, Worker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]


def test_every_record_is_reflected_exactly_once(kafka: str, prefix: str) -> None:
    """State, changes, partition row and mirrored offset all agree with what was produced."""
    stage = Stage(kafka, prefix)
    stage.produce(20_000)
    with Worker(stage) as worker:
        stage.wait_until_committed()
        assert worker.end() == 0
    stage.check()


def test_a_worker_killed_again_and_again_gives_the_same_answer(kafka: str, prefix: str) -> None:
    """Five kill -9 in mid-stream leave no trace: every record once, sequence without gaps."""
    stage = Stage(kafka, prefix)
    stage.produce(10_000)
    for pause_s in (1.8, 2.2, 2.6, 3.0, 2.4):
        with Worker(stage) as worker:
            stage.produce(4_000)
            time.sleep(pause_s)
            worker.kill()
    with Worker(stage) as worker:
        stage.wait_until_committed()
        assert worker.end() == 0
    stage.check()


def test_sigterm_commits_what_is_applied_and_exits_0(kafka: str, prefix: str) -> None:
    """A worker told to stop in mid-stream ends well, and the next one goes on from there."""
    stage = Stage(kafka, prefix)
    stage.produce(60_000)
    with Worker(stage) as worker:
        while not asyncio.run(stage.committed()):
            time.sleep(0.1)
        assert worker.end() == 0
    with Worker(stage) as worker:
        stage.wait_until_committed()
        assert worker.end() == 0
    stage.check()


def test_failed_transactions_lose_and_double_nothing(kafka: str, prefix: str) -> None:
    """What was applied beyond the last commit is forgotten and applied again."""
    stage = Stage(kafka, prefix)
    with Worker(stage, "failing") as worker:
        for _ in range(12):
            stage.produce(2_000)
        stage.wait_until_committed()
        assert worker.end() == 0
    assert "on purpose" in worker.log
    stage.check()


def test_an_exception_in_apply_is_restored_from(kafka: str, prefix: str) -> None:
    """One that does not repeat costs a restore and nothing else: no dead letter."""
    stage = Stage(kafka, prefix)
    stage.produce(3_000)
    stage.produce(2, b"fragile")
    stage.produce(3_000)
    with Worker(stage) as worker:
        stage.wait_until_committed()
        assert worker.end() == 0
    stage.check()
    assert not stage.read("dead-letters", 0)


def test_a_record_that_cannot_be_applied_becomes_a_dead_letter(kafka: str, prefix: str) -> None:
    """The poison alone is set aside, as ApplyFailed; everything around it is applied."""
    stage = Stage(kafka, prefix, partitions=1)
    stage.produce(1_000)
    stage.produce(1, b"poison")
    stage.produce(1_000)
    stage.produce(1, b"poison")
    stage.produce(1_000)
    with Worker(stage) as worker:
        stage.wait_until_committed()
        assert worker.end() == 0
    stage.check(dead=(b"poison",))
    letters = stage.read("dead-letters", 0)
    assert [(headers["offset"], headers["error"]) for _, _, headers in letters] == [
        (b"1000", b"ApplyFailed"),
        (b"2001", b"ApplyFailed"),
    ]


def test_dead_letters_keep_the_original_and_say_where_it_was(kafka: str, prefix: str) -> None:
    """Key, bytes and six headers; bytes over 256 KiB are cut and flagged."""
    stage = Stage(kafka, prefix, partitions=1)
    huge = b"huge" + b"!" * 300_000
    stage.produce_exactly([(0, b"a", b"x"), (0, b"b", b"dead"), (0, b"c", huge)])
    with Worker(stage) as worker:
        stage.wait_until_committed()
        assert worker.end() == 0
    stage.check(dead=(b"dead", huge))
    (key, value, headers), (_, cut, flagged) = stage.read("dead-letters", 0)
    assert (key, value) == (b"b", b"dead")
    assert headers.pop("time").isdigit()
    assert headers == {
        "topic": f"{prefix}.events".encode(),
        "partition": b"0",
        "offset": b"1",
        "error": b"UndecodableValue",
        "message": b"asked for",
    }
    assert cut == huge[: 256 << 10] and flagged["truncated-from"] == b"%d" % len(huge)


def test_a_log_that_lost_unread_events_is_refused(kafka: str, prefix: str) -> None:
    """The stored offset lies before the log's beginning: an error, exit 1, nothing skipped."""
    stage = Stage(kafka, prefix, partitions=1)
    stage.produce(1_000)
    with Worker(stage) as worker:
        stage.wait_until_committed()
        assert worker.end() == 0
    stage.produce(1_000)

    async def cut() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        where = TopicPartition(f"{prefix}.events", 0)
        await admin.delete_records({where: RecordsToDelete(1_500)})
        await admin.close()

    asyncio.run(cut())
    with Worker(stage) as worker:
        assert worker.wait() == 1
    assert "LogTruncated" in worker.log and "holds offsets 1500 to 2000" in worker.log
    assert asyncio.run(stage.committed()) == {0: 1_000}


def test_a_second_worker_may_join_and_leave(kafka: str, prefix: str) -> None:
    """Partitions move there and back, once politely and once by a kill; nothing is lost or doubled."""
    stage = Stage(kafka, prefix, partitions=4)
    with Worker(stage) as first:
        for leave in ("politely", "killed"):
            with Worker(stage) as second:
                for _ in range(10):
                    stage.produce(1_000)
                    time.sleep(0.4)
                # On a crowded machine it takes longer to join than all of that.
                second.wait_until_said("starts at")
                stage.produce(1_000)
                if leave == "politely":
                    assert second.end() == 0
                second.kill()
        stage.produce(1_000)
        stage.wait_until_committed()
        assert first.end() == 0
    stage.check()


def test_the_check_notices_a_state_that_is_trusted_after_a_failure(kafka: str, prefix: str) -> None:
    """A control: keep the state of a failed partition, and records go missing."""
    stage = Stage(kafka, prefix, partitions=1)
    with Worker(stage, "trusting"):
        for _ in range(12):
            stage.produce(2_000)
        stage.wait_until_committed()
    with pytest.raises(AssertionError, match="changes"):
        stage.check()


def test_the_check_notices_an_offset_outside_the_transaction(kafka: str, prefix: str) -> None:
    """A control: write the partition row on its own, and records are applied twice."""
    stage = Stage(kafka, prefix, partitions=1)
    with Worker(stage, "outside"):
        for _ in range(12):
            stage.produce(2_000)
        time.sleep(6.0)
    with pytest.raises(AssertionError, match="changes"):
        stage.check()
    changes = [json.loads(value)["offset"] for _, value, _ in stage.read("segment-changes", 0)]
    assert len(changes) > len(set(changes))
