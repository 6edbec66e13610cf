"""`shoal plan`, `apply`, `history`, `rollback`, `calibrate`, `resend`: what is computed, and changing it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from clock import SystemClock
from commands.starting import EXIT_FAILED, configured_with, finished, operator, settings_alone
from errors import DefinitionMismatch, TooFewCustomers
from settings import Settings
from streams import committed
from streams.applying import Pipeline, apply, make_plan
from streams.calibrating import figures_of, joined, proposal
from streams.definitions import read_versions, request_resend, when
from streams.kafka.reading import reader
from streams.kafka.running import configure_logging
from streams.plan_report import as_json, as_text
from streams.planning import Plan
from streams.segments.definition import Definition
from streams.segments.versions import Version, Versions
from streams.topics import check_topics

_FILE = click.argument("path", metavar="FILE", type=click.Path(path_type=Path))


@click.command("plan")
@_FILE
@click.option("--json", "machine", is_flag=True, help="Print it for a program.")
def plan_command(path: Path, machine: bool) -> None:
    """Show what applying FILE would do: who enters and leaves what; nothing changes."""
    settings, (definition, text) = configured_with(path)
    configure_logging("WARNING")
    _, plan = finished(_planned(settings, definition, text))
    click.echo(json.dumps(as_json(plan), indent=1) if machine else as_text(plan))
    if plan.refusals:
        sys.exit(EXIT_FAILED)


@click.command("apply")
@_FILE
@click.option("--comment", default="", help="Why, for whoever reads the history.")
@click.option("--confirm", is_flag=True, help="Apply it though it moves more than 5 % of the customers.")
@click.option("--by", default="", help="Who applies it; without it, user and machine.")
def apply_command(path: Path, comment: str, confirm: bool, by: str) -> None:
    """Make FILE the next version: plan it, then have every worker convert to it."""
    settings, (definition, text) = configured_with(path)
    configure_logging("WARNING")
    finished(
        _applied(
            settings, definition, Version(1, text, definition.hash, 0, by or operator(), comment), confirm
        )
    )


@click.command("rollback")
@click.argument("number", metavar="VERSION", type=click.IntRange(min=1))
@click.option("--comment", default="", help="Why, for whoever reads the history.")
@click.option("--confirm", is_flag=True, help="Do it though it moves more than 5 % of the customers.")
@click.option("--by", default="", help="Who does it; without it, user and machine.")
def rollback_command(number: int, comment: str, confirm: bool, by: str) -> None:
    """Apply what VERSION said, as a new version."""
    settings = settings_alone()
    configure_logging("WARNING")
    finished(_rolled_back(settings, number, comment, by or operator(), confirm))


@click.command("history")
@click.option("--show", "number", type=click.IntRange(min=1), help="Print the file of this version.")
@click.option("--json", "machine", is_flag=True, help="Print it for a program.")
def history_command(number: int | None, machine: bool) -> None:
    """List every version that was applied, and how far the partitions are."""
    settings = settings_alone()
    configure_logging("WARNING")
    versions, rows = finished(_history(settings))
    if number is not None:
        found = [version for version in versions if version.number == number]
        if not found:
            click.echo(f"there is no definition {number}", err=True)
            sys.exit(EXIT_FAILED)
        click.echo(found[0].yaml, nl=False)
    elif machine:
        click.echo(json.dumps([_as_json(version, rows) for version in versions], indent=1))
    else:
        for version in versions:
            click.echo(_line(version, rows))


@click.command("calibrate")
def calibrate_command() -> None:
    """Propose thresholds for the three scores from today's customers, as YAML to put into the file."""
    settings = settings_alone()
    configure_logging("WARNING")
    click.echo(finished(_calibrated(settings)), nl=False)


@click.command("resend")
@click.option("--by", default="", help="Who asks for it; without it, user and machine.")
def resend_command(by: str) -> None:
    """Have running workers send every member again, as reconcile, for a subscriber that lost them."""
    settings = settings_alone()
    configure_logging("WARNING")
    run_id = finished(_resent(settings, by or operator()))
    click.echo(f"workers send all members again, run {run_id}")


async def checked(settings: Settings, longest_window_ms: int = 0) -> Pipeline:
    """Return the pipeline of these settings, its topics checked. Raises TopicMismatch, KafkaUnavailable."""
    await check_topics(
        settings.kafka,
        settings.prefix,
        settings.partitions,
        longest_window_ms=longest_window_ms,
        wait_s_max=settings.kafka_wait_s_max,
    )
    wall = SystemClock() if settings.clock == "wall" else None
    return Pipeline(settings.kafka, settings.prefix, settings.partitions, wall)


async def _planned(settings: Settings, definition: Definition, text: str) -> tuple[Pipeline, Plan]:
    pipeline = await checked(settings, definition.longest_window_ms)
    applied = await read_versions(settings.kafka, settings.prefix)
    return pipeline, await make_plan(pipeline, applied, definition, text)


async def _applied(settings: Settings, definition: Definition, version: Version, confirmed: bool) -> None:
    applied = await read_versions(settings.kafka, settings.prefix) if version.restores is None else []
    if applied and applied[-1].hash == version.hash:
        click.echo(f"definition {applied[-1].number} says the same already; nothing is applied")
        return
    pipeline, plan = await _planned(settings, definition, version.yaml)
    click.echo(as_text(plan))
    done = await apply(pipeline, plan, version, confirmed=confirmed, clock=SystemClock())
    click.echo(f"definition {done.number} is applied; workers convert to it now")


async def _rolled_back(settings: Settings, number: int, comment: str, by: str, confirmed: bool) -> None:
    await checked(settings)
    versions = await read_versions(settings.kafka, settings.prefix)
    found = [version for version in versions if version.number == number]
    if not found:
        raise DefinitionMismatch(f"there is no definition {number}; `shoal history` lists them")
    old = found[0]
    again = Version(1, old.yaml, old.hash, 0, by, comment or f"back to {number}", number)
    await _applied(settings, old.definition(), again, confirmed)


async def _calibrated(settings: Settings) -> str:
    pipeline = await checked(settings)
    applied = await read_versions(settings.kafka, settings.prefix)
    if not applied:
        raise TooFewCustomers("no definition is applied yet, so there are no customers; start a worker first")
    versions = Versions(applied)
    async with reader(settings.kafka) as consumer:
        parts = [
            figures_of(
                await committed.restored(consumer, settings.prefix, number, pipeline.partitions, versions)
            )
            for number in range(pipeline.partitions)
        ]
    return proposal(joined(parts), versions.newest.definition)


async def _resent(settings: Settings, by: str) -> str:
    await checked(settings)
    return await request_resend(settings.kafka, settings.prefix, SystemClock(), by)


async def _history(settings: Settings) -> tuple[list[Version], dict[int, Any]]:
    await checked(settings)
    versions = await read_versions(settings.kafka, settings.prefix)
    epochs = Versions(versions).epochs if versions else committed.FIRST
    return versions, await committed.partition_rows(
        settings.kafka, settings.prefix, settings.partitions, epochs
    )


def _state(version: Version, rows: dict[int, Any]) -> str:
    """Say how many partitions have come to a version."""
    mine = [row for row in rows.values() if row.definition_version == version.number]
    converting = sum(row.converting is not None for row in mine)
    if not mine:
        return ""
    return f"in force on {len(mine)} of {len(rows)} partitions" + (
        f", {converting} still converting" if converting else ""
    )


def _line(version: Version, rows: dict[int, Any]) -> str:
    parts = [f"{version.number:>4}", when(version.applied_at_ms), version.hash[:12], version.by]
    said = [text for text in (version.comment, _state(version, rows)) if text]
    return "  ".join(parts + said)


def _as_json(version: Version, rows: dict[int, Any]) -> dict[str, Any]:
    return {
        "version": version.number,
        "hash": version.hash,
        "applied_at": datetime.fromtimestamp(version.applied_at_ms / 1000, UTC).isoformat(),
        "by": version.by,
        "comment": version.comment,
        "restores": version.restores,
        "partitions": sorted(n for n, row in rows.items() if row.definition_version == version.number),
        "converting": sorted(
            n
            for n, row in rows.items()
            if row.definition_version == version.number and row.converting is not None
        ),
    }
