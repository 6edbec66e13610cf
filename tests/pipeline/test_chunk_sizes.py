"""How much is fetched at once never shows in what is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.synthetic import stream
from tests.pipeline.judging import as_folded, comparable, folded
from tests.pipeline.running import Pipeline, Produced

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

WEEK_MS = 7 * 86_400_000
SIZES = (1, 77, 5_000)


async def replayed(pipeline: Pipeline, log: list[Produced], chunk_records_max: int) -> None:
    """One run from the beginning of the log to its end."""
    await pipeline.create()
    await pipeline.produce(log)
    with pipeline.worker(chunk_records_max=chunk_records_max) as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0


async def test_chunk_sizes_do_not_show(kafka: str, prefix: str, tmp_path: Path) -> None:
    """1, 77 and 5,000 records at once: the same changes, numbered alike, and the same memberships."""
    log = list(stream(events=260, customers=25, partitions=2, days=500, tick_ms=WEEK_MS))
    pipelines = [Pipeline(kafka, f"{prefix}-{size}", tmp_path) for size in SIZES]
    for pipeline, size in zip(pipelines, SIZES, strict=True):
        await replayed(pipeline, log, size)
    for partition in range(2):
        outcomes = [comparable(await pipeline.changes(partition)) for pipeline in pipelines]
        assert len(outcomes[0]) > 100
        assert outcomes[0] == outcomes[1] == outcomes[2]
        held = [await pipeline.memberships(partition) for pipeline in pipelines]
        assert held[0] == held[1] == held[2]
        assert as_folded(held[0]) == folded(outcomes[0])
