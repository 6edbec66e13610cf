"""Another segments.yaml under the same prefix: refused before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.synthetic import stream
from tests.pipeline.judging import assert_as_undisturbed
from tests.pipeline.running import ROOT, Pipeline

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]

WEEK_MS = 7 * 86_400_000
EDITS = {
    "same-version": [("    5: 30d", "    5: 29d")],
    "next-version": [("version: 1", "version: 2")],
}


def edited(folder: Path, name: str) -> Path:
    """A copy of segments.yaml with something changed."""
    text = (ROOT / "segments.yaml").read_text()
    for before, after in EDITS[name]:
        assert text.count(before) == 1
        text = text.replace(before, after)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


async def test_a_changed_definition_is_refused_and_nothing_written(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Same version or a higher one: with events waiting, exit 1 and why; no topic grows, no offset moves.

    Another one that holds the old file goes on as if it had not been.
    """
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    log = list(stream(events=400, customers=30, partitions=2, days=400, tick_ms=WEEK_MS))
    await pipeline.produce(log[:300])
    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    await pipeline.produce(log[300:])
    before = (await pipeline.written(), await pipeline.mirrored())

    for edit in EDITS:
        with pipeline.worker(definitions=edited(tmp_path, edit)) as worker:
            assert worker.wait() == 1
            assert "DefinitionMismatch" in worker.log and "built by definition 1" in worker.log
        assert (await pipeline.written(), await pipeline.mirrored()) == before

    with pipeline.worker() as worker:
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    assert await assert_as_undisturbed(pipeline) > 100


async def test_a_changed_definition_does_not_get_in_beside_a_running_worker(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """It takes partitions over, refuses, leaves; the one that was there takes them back and finishes."""
    pipeline = await Pipeline(kafka, prefix, tmp_path).create()
    log = list(stream(events=400, customers=30, partitions=2, days=400, tick_ms=WEEK_MS))
    await pipeline.produce(log[:300])
    with pipeline.worker(session_timeout_ms=2_000) as worker:
        await pipeline.wait_until_done(worker)
        changed = edited(tmp_path, "same-version")
        with pipeline.worker(definitions=changed, session_timeout_ms=2_000) as intruder:
            assert intruder.wait() == 1
            assert "DefinitionMismatch" in intruder.log
        await pipeline.produce(log[300:])
        await pipeline.wait_until_done(worker)
        assert worker.end() == 0
    assert await assert_as_undisturbed(pipeline) > 100
