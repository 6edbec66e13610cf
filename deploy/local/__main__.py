"""`python -m deploy.local up|down|status`: a Kafka for people to try Shoal against."""

from __future__ import annotations

import sys

import click

from deploy.local import cluster
from errors import ShoalError


@click.group()
def main() -> None:
    """Run one local Kafka; its address, log and data are kept in var/kafka."""


@main.command()
def up() -> None:
    """Start it unless it runs, and print its address."""
    try:
        bootstrap = cluster.up()
    except ShoalError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    click.echo(bootstrap)
    if not bootstrap.endswith(f":{cluster.PREFERRED_PORT}"):
        click.echo(f"port {cluster.PREFERRED_PORT} is taken: export SHOAL_KAFKA={bootstrap}", err=True)


@main.command()
def down() -> None:
    """Stop it; its data stays for the next start."""
    click.echo("stopped" if cluster.down() else "was not running")


@main.command()
def status() -> None:
    """Print its address; exit 1 if it does not run."""
    running = cluster.address()
    click.echo(running or "not running")
    sys.exit(0 if running else 1)


if __name__ == "__main__":
    main()
