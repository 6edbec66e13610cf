"""`shoal members`: who is in a segment, or has a value, at this moment."""

from __future__ import annotations

from contextlib import aclosing

import click

from commands.starting import finished, settings_alone
from settings import Settings
from streams.applying import Pipeline
from streams.kafka.running import configure_logging
from streams.members import members
from streams.segments.clauses import instant
from streams.topics import check_topics


@click.command("members")
@click.argument("segment", metavar="SEGMENT")
@click.argument("value", metavar="[VALUE]", required=False)
def members_command(segment: str, value: str | None) -> None:
    """List who is in SEGMENT since when, or has a value, or VALUE, in a dimension such as rfm."""
    settings = settings_alone()
    configure_logging("WARNING")
    finished(_listed(settings, segment, value))


async def _listed(settings: Settings, segment: str, value: str | None) -> None:
    await check_topics(
        settings.kafka, settings.prefix, settings.partitions, wait_s_max=settings.kafka_wait_s_max
    )
    count = 0
    pipeline = Pipeline(settings.kafka, settings.prefix, settings.partitions)
    async with aclosing(members(pipeline, segment, value)) as found:
        async for each in found:
            count += 1
            said = "" if each.value == segment else f"{each.value} "
            click.echo(f"{each.customer_id}  {said}since {instant(each.since_ms)}")
    click.echo(f"{count:,} members")
