"""The command line: `shoal worker`, `shoal topics`, `shoal changes`, `shoal customer ID`.

Exit status 2 means the settings or segments.yaml are wrong, and nothing was started; 1 that
something outside, such as Kafka, is; 0 that what was asked for was done.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine, Mapping
from contextlib import aclosing
from typing import Any, Literal, cast

import click

from agents import sweep_deadlines, update_customers
from clock import SystemClock
from errors import DefinitionError, SettingsError, ShoalError
from settings import Settings
from streams.app import create_app
from streams.change_feed import as_line, changes
from streams.customer_card import customer_card
from streams.kafka.running import configure_logging, run
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.segments.loading import load_path
from streams.steps.engine import Bounds, PartitionEngine
from streams.topics import check_topics, ensure_topics

EXIT_FAILED = 1
EXIT_WRONG_SETTINGS = 2


@click.group()
def main() -> None:
    """Customer segments that are right now. Settings are SHOAL_ variables of the environment."""


@main.command()
def worker() -> None:
    """Keep segments: read events, write changes; until SIGTERM, which commits and leaves."""
    settings, definition = _configured(os.environ)
    configure_logging(settings.log_level)
    sys.exit(_finished(_work(settings, definition)))


@main.command()
def topics() -> None:
    """Create the topics that are missing, check the others, publish the schemas."""
    settings, definition = _configured(os.environ)
    configure_logging("WARNING")
    created = _finished(
        ensure_topics(
            settings.kafka,
            settings.prefix,
            settings.partitions,
            replication=settings.replication,
            events_retention_ms=settings.events_retention_ms,
            longest_window_ms=definition.longest_window_ms,
            wait_s_max=settings.kafka_wait_s_max,
        )
    )
    for name in created:
        click.echo(f"created {name}")
    click.echo(f"all topics of {settings.prefix} are there, as they have to be")


@main.command()
@click.argument("customer_id", metavar="ID")
def customer(customer_id: str) -> None:
    """Show what is known of one customer: segments, scores, figures, and what comes next."""
    settings, definition = _configured(os.environ)
    configure_logging("WARNING")
    card = _finished(_described(settings, definition, customer_id))
    if card is None:
        click.echo(f"nothing is known of customer {customer_id!r}", err=True)
        sys.exit(EXIT_FAILED)
    click.echo(card)


@main.command("changes")
@click.option("--from-beginning", is_flag=True, help="Begin with the oldest kept, not with the next one.")
def changes_command(from_beginning: bool) -> None:
    """Print every change of a segment as it is committed, a line each; until interrupted."""
    settings, _ = _configured(os.environ)
    configure_logging("WARNING")
    try:
        _finished(_printed(settings, from_beginning))
    except KeyboardInterrupt:
        sys.exit(0)


def _configured(environment: Mapping[str, str]) -> tuple[Settings, Definition]:
    """Read settings and definition; with anything wrong in either, say all of it and exit."""
    problems: list[str] = []
    settings = Settings()
    try:
        settings = Settings.from_env(environment)
    except SettingsError as error:
        problems += error.problems
    definition: Definition | None = None
    # Where SHOAL_DEFINITIONS is not what is wrong, the file's problems can be told as well.
    path = (
        settings.definitions
        if not problems
        else Settings.from_env(_only_definitions(environment)).definitions
    )
    try:
        definition = load_path(path)
    except DefinitionError as error:
        problems += error.problems
    except OSError as error:
        problems.append(f"SHOAL_DEFINITIONS: {path} cannot be read: {error.strerror}")
    if problems or definition is None:
        for problem in problems:
            click.echo(problem, err=True)
        sys.exit(EXIT_WRONG_SETTINGS)
    return settings, definition


def _only_definitions(environment: Mapping[str, str]) -> dict[str, str]:
    name = "SHOAL_DEFINITIONS"
    return {name: environment[name]} if name in environment else {}


def _finished(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end and return the result; an error of ours is one message and exit status 1."""
    try:
        return asyncio.run(work)
    except ShoalError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(EXIT_FAILED)


async def _work(settings: Settings, definition: Definition) -> int:
    await check_topics(
        settings.kafka,
        settings.prefix,
        settings.partitions,
        longest_window_ms=definition.longest_window_ms,
        wait_s_max=settings.kafka_wait_s_max,
    )
    evaluator, clock = Evaluator(definition), SystemClock()
    bounds = Bounds(settings.transaction_rows_max, settings.transaction_bytes_max)

    def engine(partition: int) -> PartitionEngine:
        return PartitionEngine(
            app=settings.prefix,
            partition=partition,
            definition=definition,
            evaluator=evaluator,
            mode=cast(Literal["event", "wall"], settings.clock),
            wall=clock,
            bounds=bounds,
        )

    app = create_app(settings, engine)
    update_customers.register(app)
    if settings.clock == "wall":
        sweep_deadlines.register(app, clock)
    return await run(app)


async def _printed(settings: Settings, from_beginning: bool) -> None:
    await check_topics(
        settings.kafka, settings.prefix, settings.partitions, wait_s_max=settings.kafka_wait_s_max
    )
    feed = changes(settings.kafka, settings.prefix, settings.partitions, from_beginning=from_beginning)
    async with aclosing(feed) as followed:
        async for change in followed:
            click.echo(as_line(change))


async def _described(settings: Settings, definition: Definition, customer_id: str) -> str | None:
    await check_topics(
        settings.kafka, settings.prefix, settings.partitions, wait_s_max=settings.kafka_wait_s_max
    )
    return await customer_card(settings.kafka, settings.prefix, settings.partitions, definition, customer_id)


if __name__ == "__main__":
    main()
