"""`shoal explain`: why a customer is what it is, what made it so, and what comes next."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime

import click

from commands.starting import EXIT_FAILED, File, configured, finished
from settings import Settings
from streams.applying import Pipeline, versions_of
from streams.explanation import Explained, explanation
from streams.explanation_report import as_json, as_text
from streams.kafka.running import configure_logging
from streams.segments.literals import epoch_ms
from streams.topics import check_topics


class _Instant(click.ParamType):
    """An instant with a zone, such as 2026-01-31T12:00:00Z; a date alone is its beginning in UTC."""

    name = "TIME"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return UTC ms."""
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"expected an instant such as 2026-01-31T12:00:00Z, got {value}", param, ctx)
        return epoch_ms(at if at.tzinfo else at.replace(tzinfo=UTC))


@click.command("explain")
@click.argument("customer_id", metavar="CUSTOMER")
@click.option("--at", "at_ms", type=_Instant(), help="Explain it at another instant, in UTC without a zone.")
@click.option("--json", "machine", is_flag=True, help="Print it for a program.")
def explain_command(customer_id: str, at_ms: int | None, machine: bool) -> None:
    """Say why CUSTOMER has the values it has, which event made it so, and what happens next."""
    settings, file = configured(os.environ)
    configure_logging("WARNING")
    found = finished(_explained(settings, file, customer_id, at_ms))
    if found is None:
        click.echo(f"nothing is known of customer {customer_id!r}", err=True)
        sys.exit(EXIT_FAILED)
    click.echo(json.dumps(as_json(found), indent=1) if machine else as_text(found))


async def _explained(settings: Settings, file: File, customer_id: str, at_ms: int | None) -> Explained | None:
    await check_topics(
        settings.kafka, settings.prefix, settings.partitions, wait_s_max=settings.kafka_wait_s_max
    )
    pipeline = Pipeline(settings.kafka, settings.prefix, settings.partitions)
    return await explanation(pipeline, await versions_of(pipeline, *file), customer_id, at_ms)
