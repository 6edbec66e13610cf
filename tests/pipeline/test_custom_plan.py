"""Segments of one's own on a real broker: a plan is what applying does, and bad files change nothing."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from commands.definitions import apply_command
from schemas.events import encode_event, encode_tick
from streams.applying import Pipeline as Operated
from streams.applying import make_plan
from streams.definitions import read_versions
from streams.segments.loading import load
from tests.commands.bad_files import BAD_FILES
from tests.pipeline.running import Pipeline, Produced, home
from tests.pipeline.test_definitions import converted
from tests.streams import edited_sections
from tests.streams.segments.custom import with_sections
from tests.streams.steps.streams_of_events import Entry

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

PARTITIONS = 2


def produced(log: list[Entry]) -> list[Produced]:
    """A log as records: a Tick in every partition, events where their customers belong."""
    records: list[Produced] = []
    for kind, customer, fields in log:
        if kind == "Tick":
            records += [(p, str(p).encode(), encode_tick(fields["at"])) for p in range(PARTITIONS)]
        else:
            value = encode_event(kind, {"customer_id": customer, **fields})
            records.append((home(customer, PARTITIONS), customer.encode(), value))
    return records


def file(folder: Path, name: str, text: str) -> Path:
    """A file with this text."""
    path = folder / name
    path.write_text(text)
    return path


async def test_a_plan_of_ones_own_segments_is_what_applying_does_and_bad_files_change_nothing(
    kafka: str, prefix: str, tmp_path: Path
) -> None:
    """Series, traits, subscriptions, tickets, delays, shadows: two edits, each planned and applied with
    clock and log still, to the customer. Between them no bad file and none that needs facts nobody kept
    becomes a version or moves anybody; the worker runs on."""
    rng = random.Random(4)
    pipeline = await Pipeline(kafka, prefix, tmp_path, PARTITIONS).create()
    await pipeline.produce(produced(edited_sections.log_of(rng, 300, customers=40)))
    first = file(tmp_path, "first.yaml", edited_sections.file(rng))
    operated, moved = Operated(kafka, prefix, PARTITIONS), 0
    with pipeline.worker(definitions=first) as worker:
        await pipeline.wait_until_done(worker)
        for number in (2, 3):
            text = edited_sections.file(rng)
            path = file(tmp_path, f"edited{number}.yaml", text)
            counts = [len(await pipeline.changes(p)) for p in range(PARTITIONS)]
            plan = await make_plan(operated, await read_versions(kafka, prefix), load(text, "x"), text)
            done = await asyncio.to_thread(pipeline.command, "apply", str(path), "--confirm")
            assert done.returncode == 0, done.stdout + done.stderr
            await converted(pipeline, number, worker)
            changes = [c for p in range(PARTITIONS) for c in (await pipeline.changes(p))[counts[p] :]]
            assert {c["cause"] for c in changes} <= {"rule_changed"}
            emitted = sorted(
                (c["dimension"], c["customer_id"], c["from"] or "", c["to"] or "") for c in changes
            )
            planned = [(m.dimension, m.customer_id, m.before or "", m.after or "") for m in plan.moves]
            assert sorted(planned) == emitted
            moved += len(emitted)
        assert moved > 20
        await bad_files_change_nothing(pipeline, tmp_path)
        await members_are_listed(pipeline)
        told = pipeline.command("explain", "c1", "--json")
        assert told.returncode == 0, told.stderr
        dimensions = json.loads(told.stdout)["dimensions"]
        assert {"rfm", "lifecycle", "worth", "base", "keeps"} <= dimensions.keys()
        assert dimensions["base"]["clauses"][0]["text"] == "spend(365d) >= 200"
        assert worker.end() == 0


async def members_are_listed(pipeline: Pipeline) -> None:
    """Who has a value, in all partitions, and who has this one."""
    held = [
        (customer, each["value"])
        for p in range(PARTITIONS)
        for customer, membership in sorted((await pipeline.memberships(p)).items())
        for each in membership["values"]
        if each["dimension"] == "rfm"
    ]
    listed = pipeline.command("members", "rfm").stdout.splitlines()
    assert [tuple(line.split()[:2]) for line in listed[:-1]] == held
    assert len(held) > 20 and listed[-1] == f"{len(held)} members"
    value = held[0][1]
    some = pipeline.command("members", "rfm", value).stdout.splitlines()
    assert [line.split()[0] for line in some[:-1]] == [who for who, each in held if each == value]


async def bad_files_change_nothing(pipeline: Pipeline, folder: Path) -> None:
    """Refused by `shoal apply`, each; versions, rows and changes are what they were."""
    before = [version.number for version in await read_versions(pipeline.bootstrap, pipeline.prefix)]
    ends = await pipeline.ends("segment-changes")
    environment = pipeline.environment()
    for bad in BAD_FILES:
        path = file(folder, "bad.yaml", bad.text)
        done = await asyncio.to_thread(
            CliRunner().invoke, apply_command, [str(path), "--confirm"], env=environment
        )
        assert done.exit_code == 2, bad.name
        assert any(bad.is_told_by(line, "bad.yaml") for line in done.stderr.splitlines()), done.stderr
    shown = pipeline.command("apply", str(path), "--confirm")
    assert shown.returncode == 2 and "bad.yaml:55:3: " in shown.stderr and shown.stdout == ""
    needy = "segments:\n  s: {when: 'count(\"never asked\", 5d) > 0'}\n"
    path = file(folder, "needy.yaml", with_sections(needy))
    refused = pipeline.command("apply", str(path), "--confirm")
    assert refused.returncode == 1
    assert 'the series activity "never asked", which is not kept so far' in refused.stderr
    assert "run `shoal rebuild FILE`" in refused.stderr
    after = [version.number for version in await read_versions(pipeline.bootstrap, pipeline.prefix)]
    rows = [await pipeline.partition_row(p) for p in range(PARTITIONS)]
    assert after == before and {row.definition_version for row in rows} == {before[-1]}
    assert await pipeline.ends("segment-changes") == ends
