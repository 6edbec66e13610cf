"""A worker process with the toy engine: python toy_worker.py BOOTSTRAP PREFIX [POISON]."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from agents import update_customers
from streams.app import create_app
from streams.kafka.running import configure_logging, run
from tests.streams.kafka.toy_engine import ToyEngine


@dataclass(frozen=True)
class ToySettings:
    """What the app reads of the settings."""

    kafka: str
    prefix: str
    chunk_records_max: int = 5000
    session_timeout_ms: int = 6000


def explode(offset: int, value: bytes) -> None:
    """Fail on the value the tests call poison."""
    if value == b"poison":
        raise ValueError(f"poison at {offset}")


async def main(bootstrap: str, prefix: str) -> int:
    """Run until told to stop."""
    app = create_app(ToySettings(bootstrap, prefix), lambda number: ToyEngine(explode))
    update_customers.register(app)
    return await run(app, report_s=2.0)


if __name__ == "__main__":
    configure_logging("INFO")
    sys.exit(asyncio.run(main(*sys.argv[1:])))
