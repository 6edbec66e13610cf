"""The command line: `shoal worker`, `shoal topics`, `shoal changes`, `shoal customer ID`, `shoal sink`.

Exit status 2 means the settings or segments.yaml are wrong, and nothing was started; 1 that
something outside, such as Kafka, is; 0 that what was asked for was done.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, Literal, cast

import click

from agents import hold_name, measure_lag, sweep_deadlines, update_customers
from clock import SystemClock
from errors import DefinitionError, SettingsError, ShoalError
from settings import Settings
from sinks.delivery import Delivery
from sinks.snapshot import Source
from sinks.standing import Standing
from streams.app import create_app, group_id
from streams.change_feed import as_line, changes
from streams.customer_card import customer_card
from streams.kafka.broker_clock import BrokerClock
from streams.kafka.running import configure_collection, configure_logging, run
from streams.kafka.worker_name import WorkerName
from streams.segments.definition import Definition
from streams.segments.evaluate import Evaluator
from streams.segments.loading import load_path
from streams.steps.engine import PartitionEngine
from streams.steps.room import Bounds
from streams.topics import MEMBERSHIPS, SEGMENT_CHANGES, check_topics, ensure_topics, topic_name
from streams.web import Web, Worker
from web_address import WebAddress

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
    configure_collection()
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


@main.group()
def sink() -> None:
    """Keep another system up to date with the changes, in a process of its own."""


@sink.command("redis")
@click.option("--rebuild", is_flag=True, help="First make Redis exactly what the memberships say.")
@click.option("--once", is_flag=True, help="Deliver what is there, and end.")
def redis_command(rebuild: bool, once: bool) -> None:
    """Keep the Redis of SHOAL_REDIS_URL: values by customer, customers by value; until SIGTERM."""
    settings, _ = _configured(os.environ)
    configure_logging(settings.log_level)
    _finished(_delivered(settings, rebuild=rebuild, once=once))


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
    async with Web(settings.web_host, settings.web_port, settings.web_url) as web:
        await check_topics(
            settings.kafka,
            settings.prefix,
            settings.partitions,
            longest_window_ms=definition.longest_window_ms,
            wait_s_max=settings.kafka_wait_s_max,
        )
        return await _serve(settings, definition, web)


async def _serve(settings: Settings, definition: Definition, web: Web) -> int:
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

    broker = BrokerClock(settings.kafka, settings.prefix, clock) if settings.clock == "wall" else None
    named = settings.worker_id
    name = WorkerName(settings.kafka, settings.prefix, group_id(settings.prefix), named) if named else None
    try:
        if broker is not None:
            # Before joining the group: a worker that may not serve must not take partitions over.
            await broker.check()
        if name is not None:
            await name.claim()
        app = create_app(settings, engine, web_url=web.url)
        update_customers.register(app)
        measure_lag.register(app)
        if broker is not None:
            sweep_deadlines.register(app, clock, broker)
        if name is not None:
            hold_name.register(app, name)
        web.watched = Worker(app, definition, evaluator, clock, settings.partitions, broker)
        return await run(app)
    finally:
        for each in (broker, name):
            if each is not None:
                await each.close()


async def _delivered(settings: Settings, *, rebuild: bool, once: bool) -> None:
    async with AsyncExitStack() as stack:
        address: WebAddress[Standing] | None = None
        # One that ends by itself is run beside those that stay, whose port it would want.
        if not once:
            address = WebAddress(settings.web_host, settings.web_port, what="sink's process")
            await stack.enter_async_context(address)
        await check_topics(
            settings.kafka, settings.prefix, settings.partitions, wait_s_max=settings.kafka_wait_s_max
        )
        await _deliver(settings, address, rebuild=rebuild, once=once)


async def _deliver(
    settings: Settings, address: WebAddress[Standing] | None, *, rebuild: bool, once: bool
) -> None:
    # Here, since a worker without a sink need not load the Redis client: an eighth of all its imports.
    from sinks.redis import RedisSink

    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    source = Source(
        settings.kafka,
        topic_name(settings.prefix, SEGMENT_CHANGES),
        topic_name(settings.prefix, MEMBERSHIPS),
        settings.partitions,
    )
    redis = RedisSink(settings.redis_url.reveal(), settings.prefix, timeout_s=settings.sink_timeout_ms / 1000)
    delivery = Delivery(
        source,
        redis,
        group=f"{settings.prefix}-sink-redis",
        batch_changes_max=settings.sink_batch_changes_max,
        session_timeout_ms=settings.session_timeout_ms,
        rebuild=rebuild,
    )
    if address is not None:
        address.watched = delivery.standing
    await delivery.run(stop, once=once)


async def _printed(settings: Settings, from_beginning: bool) -> None:
    await check_topics(
        settings.kafka, settings.prefix, settings.partitions, wait_s_max=settings.kafka_wait_s_max
    )
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    feed = changes(
        settings.kafka,
        settings.prefix,
        settings.partitions,
        from_beginning=from_beginning,
        stopped=stopped.is_set,
    )
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
