"""`shoal rebuild`: a definition that needs facts which are not kept, computed anew from `events`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import click

from clock import SystemClock
from commands.definitions import checked
from commands.starting import EXIT_FAILED, configured_with, finished, operator, settings_alone
from errors import DefinitionMismatch, FactsMissing
from settings import Settings
from streams import committed
from streams.applying import Pipeline, make_plan
from streams.definitions import abandon_rebuild, claim_rebuild, read_held
from streams.kafka.running import configure_logging
from streams.rebuilding import Progress, Rebuilding, beginnings
from streams.segments.definition import Definition
from streams.segments.versions import COMMENT_CHARACTERS_MAX, Version, Versions
from streams.steps.intake import Mode
from streams.steps.room import Bounds
from streams.taking_over import Outcome, TakingOver, changes_end, give_up
from streams.topics import changelog_name, ensure_changelog

SAY_S = 2.0


@click.command("rebuild")
@click.argument("path", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--comment", default="", help="Why, for whoever reads the history.")
@click.option("--by", default="", help="Who does it; without it, user and machine.")
@click.option("--anyway", is_flag=True, help="Rebuild though `shoal apply` would do.")
@click.option("--accept-loss", is_flag=True, help="Rebuild though events no longer begins with the first.")
@click.option("--delete-old", is_flag=True, help="Give up older epochs' rows, which nobody reads then.")
@click.option("--abandon", is_flag=True, help="Give up the rebuild that is under way, whoever began it.")
def rebuild_command(
    path: Path | None,
    comment: str,
    by: str,
    anyway: bool,
    accept_loss: bool,
    delete_old: bool,
    abandon: bool,
) -> None:
    """Compute FILE anew from `events`, beside the running workers, then have them go over to it.

    Killed, it goes on where it was when it is run again.
    """
    configure_logging("WARNING")
    if abandon:
        settings = settings_alone()
        given_up = finished(abandon_rebuild(settings.kafka, settings.prefix))
        topic = changelog_name(settings.prefix, given_up.epoch)
        click.echo(f"the rebuild of definition {given_up.number} by {given_up.by} is given up")
        click.echo(f"{topic} may be deleted once its process has ended")
        return
    if path is None and delete_old:
        if not finished(_given_up(settings_alone())):
            sys.exit(EXIT_FAILED)
        return
    if path is None:
        raise click.UsageError("name the file to rebuild, or say --abandon, or --delete-old alone")
    settings, (definition, text) = configured_with(path)
    version = Version(
        1, text, definition.hash, SystemClock().now_ms(), by or operator(), comment[:COMMENT_CHARACTERS_MAX]
    )
    done = finished(
        _rebuilt(settings, definition, version, anyway=anyway, accept_loss=accept_loss, delete_old=delete_old)
    )
    if not done:
        sys.exit(EXIT_FAILED)


async def _rebuilt(
    settings: Settings,
    definition: Definition,
    version: Version,
    *,
    anyway: bool,
    accept_loss: bool,
    delete_old: bool,
) -> bool:
    """Return whether every partition went over to it."""
    pipeline = await checked(settings, definition.longest_window_ms)
    held = await read_held(settings.kafka, settings.prefix)
    if not held.versions:
        raise DefinitionMismatch(
            "no definition is applied yet, so there is nothing to rebuild; start a worker"
        )
    epochs = Versions(held.versions).epochs
    running = held.claim is not None and held.claim.state == "running"
    if not running and not anyway and held.versions[-1].hash == version.hash:
        click.echo(f"definition {held.base} says the same already; --anyway rebuilds it nevertheless")
        return False
    if not running and not anyway:
        plan = await make_plan(pipeline, held.versions, definition, version.yaml)
        if not plan.refusals:
            click.echo(
                "`shoal apply` does for this file, whose facts are all kept; --anyway rebuilds all the same"
            )
            return False
    begins = await beginnings(pipeline, epochs)
    refusal = begins.refusal(definition) or (None if accept_loss else begins.loss())
    if refusal is not None:
        raise FactsMissing(
            refusal + ("" if begins.refusal(definition) else "; to accept that: --accept-loss")
        )
    claim = await claim_rebuild(settings.kafka, settings.prefix, version, base=held.base)
    await ensure_changelog(
        settings.kafka,
        settings.prefix,
        settings.partitions,
        claim.epoch,
        replication=settings.replication,
        wait_s_max=settings.kafka_wait_s_max,
    )
    goes_on = running and held.claim is not None and held.claim.version.epoch == claim.epoch
    click.echo(
        f"{'going on with' if goes_on else 'beginning'} the rebuild of definition {claim.number} into"
        f" {changelog_name(settings.prefix, claim.epoch)}"
    )
    rebuilding = Rebuilding(
        pipeline,
        claim,
        cast(Mode, settings.clock),
        since_ms=begins.since_ms,
        bounds=Bounds(settings.transaction_rows_max, settings.transaction_bytes_max),
        say=_progress(),
    )
    ends = await changes_end(pipeline)
    await rebuilding.run()
    click.echo(f"definition {claim.number} is published; workers go over to epoch {claim.epoch} now")
    rows = await committed.partition_rows(settings.kafka, settings.prefix, settings.partitions, epochs)
    return await _taken_over(pipeline, claim.epoch, epochs[-1], ends, list(rows), delete_old=delete_old)


async def _taken_over(
    pipeline: Pipeline, epoch: int, before: int, ends: dict[int, int], live: list[int], *, delete_old: bool
) -> bool:
    following = TakingOver(pipeline, epoch, ends, live)
    whole = await following.follow(_switched(pipeline.partitions))
    _tell(following.outcome)
    old = changelog_name(pipeline.prefix, before)
    if not whole:
        left = sorted(set(range(pipeline.partitions)) - following.outcome.done)
        click.echo(
            f"partitions {', '.join(map(str, left))} have not gone over: they do when a worker owns them;"
            f" {old} is needed until then",
            err=True,
        )
        return False
    if delete_old:
        return await _give_up(pipeline, before, epoch)
    click.echo(
        f"nobody reads the rows of {old} any more, and erasures do not reach them:"
        " give them up with `shoal rebuild --delete-old`"
    )
    return True


async def _given_up(settings: Settings) -> bool:
    """Return whether no partition needs the rows of an older epoch any more."""
    pipeline = await checked(settings)
    epochs = Versions((await read_held(settings.kafka, settings.prefix)).versions).epochs
    return all([await _give_up(pipeline, epoch, epochs[-1]) for epoch in epochs[:-1]])


async def _give_up(pipeline: Pipeline, epoch: int, newest: int) -> bool:
    given_up = await give_up(pipeline, epoch, newest)
    old = changelog_name(pipeline.prefix, epoch)
    click.echo(f"{given_up.rows:,} rows of {old} are given up; Kafka's cleaner frees their space")
    if given_up.needed:
        click.echo(
            f"partitions {', '.join(map(str, given_up.needed))} have not gone over, and keep theirs;"
            " when a worker owns them, they do: then say `shoal rebuild --delete-old` again",
            err=True,
        )
    return not given_up.needed


def _tell(outcome: Outcome) -> None:
    total = sum(outcome.told.values())
    click.echo(f"{total:,} differences were told, as reconcile")
    for (dimension, before, after), count in sorted(outcome.told.items(), key=lambda each: str(each[0])):
        click.echo(f"  {dimension}: {before or '(none)'} → {after or '(none)'}: {count:,}")


def _progress() -> Callable[[Progress], None]:
    """Return what prints a line every SAY_S, and one for the end of every partition."""
    said_s = time.monotonic()

    def say(progress: Progress) -> None:
        nonlocal said_s
        if time.monotonic() - said_s < SAY_S and progress.offset < progress.until:
            return
        said_s = time.monotonic()
        click.echo(
            f"partition {progress.partition}: {progress.offset:,} of {progress.until:,},"
            f" {progress.customers:,} customers"
        )

    return say


def _switched(partitions: int) -> Callable[[Outcome], None]:
    """Return what prints how many partitions went over, when that changes."""
    last = (-1, -1)

    def say(outcome: Outcome) -> None:
        nonlocal last
        now = len(outcome.begun), len(outcome.done)
        if now != last:
            last = now
            click.echo(
                f"{len(outcome.done)} of {partitions} partitions went over, {len(outcome.begun)} began to"
            )

    return say
