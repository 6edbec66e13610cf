"""The agent that feeds fetched chunks of `events` to the partitions this worker owns."""

from __future__ import annotations

from typing import Any

from streams.app import ShoalApp, events


def register(app: ShoalApp) -> None:
    """Add the agent to `app`.

    It only hands over: each partition applies and commits in tasks of its own, so that one
    partition waiting for its transaction does not hold up the others.
    """

    async def update_customers(stream: Any) -> None:
        async for event in stream.events():
            app.owner.deliver(event.message.partition, event.value)

    app.agent(events(app), name="update_customers")(update_customers)
