"""Ends this worker when another one has started under its SHOAL_WORKER_ID."""

from __future__ import annotations

from errors import KafkaUnavailable, NameTaken
from streams.app import ShoalApp
from streams.kafka.worker_name import WorkerName

HOLD_S = 3.0


def register(app: ShoalApp, name: WorkerName) -> None:
    """Add the timer to `app`; the name is claimed already."""

    async def hold() -> None:
        try:
            await name.hold()
        except NameTaken as error:
            app.give_up(error)
        except KafkaUnavailable:
            # While Kafka is away nobody can take the name; an aborted transaction costs the next
            # try nothing but an error that repeats, and partitions have their own bounds for that.
            return

    app.timer(HOLD_S, name="hold_name")(hold)
