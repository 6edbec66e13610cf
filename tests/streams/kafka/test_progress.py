"""What a worker publishes of its transactions: of committed ones, once."""

from __future__ import annotations

import asyncio
from collections import Counter

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from errors import PartitionFenced, TransactionFailed
from schemas.events import encode_event
from streams.kafka import owner as owner_module
from streams.kafka.owner import Owner
from streams.kafka.progress import STAGES, Progress
from streams.kafka.seam import Chunk, DeadLetter, Tally, Transaction
from tests.simulation import SimulatedRecord
from tests.streams.kafka.memory_log import MemoryLog
from tests.streams.kafka.toy_engine import ToyEngine


class Heard(MemoryLog):
    """Says when something was committed."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = asyncio.Event()

    async def transact(self, transaction: Transaction) -> None:
        """Commit or fail."""
        await super().transact(transaction)
        self.heard.set()


def series(progress: Progress) -> dict[str, float]:
    """Every series that is not 0, as text."""
    families = text_string_to_metric_families(progress.metrics.exposition().decode())
    samples = [sample for family in families for sample in family.samples if sample.value]
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for sample in samples
        if sample.name.startswith("shoal_")
    }


def test_a_committed_transaction_is_published_by_type_error_cause_and_stage() -> None:
    """Dead letters count under the type their fingerprint names, and as `unknown` where it names none."""
    value = encode_event("SignedUp", {"event_id": "s", "customer_id": "c", "occurred_at": 0})
    dead = [
        DeadLetter(1, b"x", value, "WrongKey", ""),
        DeadLetter(2, b"x", b"?", "UndecodableValue", ""),
        DeadLetter(3, b"x", None, "NullValue", ""),
    ]
    tally = Tally(
        events=Counter({("Purchased", "applied"): 5}),
        changes=Counter({("rfm", "moved", "refund", "live"): 2}),
        age_ms=[np.array([1500, 20])],
        effective_at_ms=[("refund", np.array([0, 0]))],
        nanoseconds=Counter(dict.fromkeys(STAGES, 1_000_000)),
    )
    progress = Progress()
    progress.committed(Transaction(9, [], [], [], dead, 8, tally), 0.5)
    found = series(progress)
    assert found["shoal_events_total applied Purchased"] == 5
    assert found["shoal_events_total dead SignedUp"] == 1
    assert found["shoal_events_total dead unknown"] == 2
    assert found["shoal_dead_letters_total WrongKey"] == 1
    assert found["shoal_changes_total refund moved rfm live"] == 2
    assert found["shoal_transactions_total committed"] == 1
    assert found["shoal_step_records_sum"] == 8
    assert found["shoal_event_age_seconds_count"] == 2
    assert found["shoal_event_age_seconds_sum"] == pytest.approx(1.52)
    assert found["shoal_change_latency_seconds_count refund"] == 2
    stages = {stage: found[f"shoal_step_seconds_sum {stage}"] for stage in ("apply", "commit", "write")}
    assert stages == pytest.approx({"apply": 0.002, "commit": 0.5, "write": 0.002})


def test_a_transaction_that_did_not_commit_is_counted_as_what_stopped_it() -> None:
    """Fenced by a newer owner, or aborted by anything else."""
    progress = Progress()
    progress.aborted(TransactionFailed("on purpose"))
    progress.aborted(PartitionFenced("on purpose"))
    assert series(progress) == {"shoal_transactions_total aborted": 1, "shoal_transactions_total fenced": 1}


def test_a_mistake_in_counting_does_not_undo_a_commit(caplog: pytest.LogCaptureFixture) -> None:
    """What is committed is committed; the mistake is logged."""
    progress = Progress()
    progress.committed(Transaction(1, [], [], [], [DeadLetter(0, None, b"", "NoSuchError", "")], 1), 0.1)
    assert "NoSuchError" in caplog.text
    progress.committed(Transaction(2, [], [], [], [], 1), 0.1)
    assert series(progress)["shoal_transactions_total committed"] == 2


async def test_what_is_applied_again_after_an_abort_is_published_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second life applies the same records; only its commit is counted, and both restores are."""
    monkeypatch.setattr(owner_module, "BACKOFF_S_MAX", 0.0)
    log = Heard()
    log.failing = {1}

    async def seek(partition: int, offset: int, generation: int) -> bool:
        records = [SimulatedRecord(n, 0, b"k", b"v" if n else b"dead") for n in range(offset, 6)]
        asyncio.get_running_loop().call_soon(owner.deliver, partition, Chunk(offset, records, 6, generation))
        return True

    async def rejoin() -> None:
        return

    owner = Owner(
        engine_for=lambda number: ToyEngine(),
        log_for=lambda number: log,
        seek=seek,
        rejoin=rejoin,
        give_up=lambda error: log.heard.set(),
    )
    await owner.open([0])
    async with asyncio.timeout(10):
        await log.heard.wait()
    await owner.close()
    found = series(owner.progress)
    assert found["shoal_transactions_total aborted"] == found["shoal_transactions_total committed"] == 1
    assert found["shoal_step_records_sum"] == 6 and found["shoal_dead_letters_total UndecodableValue"] == 1
    assert found["shoal_restore_seconds_count"] == 2 and found["shoal_rebalances_total"] == 1
