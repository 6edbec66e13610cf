"""The command line: `shoal worker`, `topics`, `changes`, `customer`, `sink`; others are in `commands`.

Exit status 2 means the settings or segments.yaml are wrong, and nothing was started; 1 that
something outside, such as Kafka, is; 0 that what was asked for was done.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import AsyncExitStack, aclosing
from typing import Literal, cast

import click

from agents import follow_definitions, hold_name, measure_lag, sweep_deadlines, update_customers
from clock import SystemClock
from commands.definitions import (
    apply_command,
    calibrate_command,
    history_command,
    plan_command,
    resend_command,
    rollback_command,
)
from commands.explain import explain_command
from commands.members import members_command
from commands.rebuild import rebuild_command
from commands.starting import EXIT_FAILED, File, configured, finished, operator
from settings import Settings
from sinks.delivery import Delivery
from sinks.snapshot import Source
from sinks.standing import Standing
from streams.app import create_app, group_id
from streams.applying import Pipeline, versions_of
from streams.change_feed import as_line, changes
from streams.customer_card import customer_card
from streams.definitions import DefinitionFeed, in_force
from streams.kafka.broker_clock import BrokerClock
from streams.kafka.running import configure_collection, configure_logging, run
from streams.kafka.worker_name import WorkerName
from streams.segments.versions import Versions
from streams.steps.engine import PartitionEngine
from streams.steps.room import Bounds
from streams.topics import MEMBERSHIPS, SEGMENT_CHANGES, check_topics, ensure_topics, topic_name
from streams.web import Web, Worker
from web_address import WebAddress

COMMANDS = (
    plan_command,
    apply_command,
    history_command,
    rollback_command,
    calibrate_command,
    resend_command,
    rebuild_command,
    explain_command,
    members_command,
)
"""Those that are declared elsewhere."""


@click.group(commands=COMMANDS)
def main() -> None:
    """Customer segments that are right now. Settings are SHOAL_ variables of the environment."""


@main.command()
def worker() -> None:
    """Keep segments: read events, write changes; until SIGTERM, which commits and leaves."""
    settings, file = configured(os.environ)
    configure_logging(settings.log_level)
    configure_collection()
    sys.exit(finished(_work(settings, file)))


@main.command()
def topics() -> None:
    """Create the topics that are missing, check the others, publish the schemas."""
    settings, (definition, _) = configured(os.environ)
    configure_logging("WARNING")
    created = finished(
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
    settings, file = configured(os.environ)
    configure_logging("WARNING")
    card = finished(_described(settings, file, customer_id))
    if card is None:
        click.echo(f"nothing is known of customer {customer_id!r}", err=True)
        sys.exit(EXIT_FAILED)
    click.echo(card)


@main.command("changes")
@click.option("--from-beginning", is_flag=True, help="Begin with the oldest kept, not with the next one.")
def changes_command(from_beginning: bool) -> None:
    """Print every change of a segment as it is committed, a line each; until interrupted."""
    settings, _ = configured(os.environ)
    configure_logging("WARNING")
    try:
        finished(_printed(settings, from_beginning))
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
    settings, _ = configured(os.environ)
    configure_logging(settings.log_level)
    finished(_delivered(settings, rebuild=rebuild, once=once))


async def _work(settings: Settings, file: File) -> int:
    async with Web(settings.web_host, settings.web_port, settings.web_url) as web:
        await _check_topics(settings, 0)
        versions = await in_force(
            settings.kafka, settings.prefix, settings.partitions, SystemClock(), file, operator()
        )
        await _check_topics(settings, versions.newest.definition.longest_window_ms, versions.epochs[-1])
        return await _serve(settings, versions, web)


async def _check_topics(settings: Settings, longest_window_ms: int, epoch: int = 1) -> None:
    await check_topics(
        settings.kafka,
        settings.prefix,
        settings.partitions,
        longest_window_ms=longest_window_ms,
        epoch=epoch,
        wait_s_max=settings.kafka_wait_s_max,
    )


async def _serve(settings: Settings, versions: Versions, web: Web) -> int:
    clock = SystemClock()
    bounds = Bounds(settings.transaction_rows_max, settings.transaction_bytes_max)

    def engine(partition: int) -> PartitionEngine:
        newest = versions.newest
        return PartitionEngine(
            app=settings.prefix,
            partition=partition,
            definition=newest.definition,
            evaluator=newest,
            versions=versions,
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
        follow_definitions.register(app, DefinitionFeed(settings.kafka, settings.prefix), versions)
        if broker is not None:
            sweep_deadlines.register(app, clock, broker)
        if name is not None:
            hold_name.register(app, name)
        web.watched = Worker(app, versions, clock, settings.partitions, broker)
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


async def _described(settings: Settings, file: File, customer_id: str) -> str | None:
    await _check_topics(settings, 0)
    pipeline = Pipeline(settings.kafka, settings.prefix, settings.partitions)
    return await customer_card(pipeline, await versions_of(pipeline, *file), customer_id)


if __name__ == "__main__":
    main()
