"""Follows the `definitions` topic: a version applied while this worker runs reaches its partitions."""

from __future__ import annotations

import asyncio
import logging

from errors import DefinitionError, DefinitionMismatch, KafkaUnavailable
from streams.app import ShoalApp
from streams.definitions import DefinitionFeed
from streams.segments.evaluate import Evaluator
from streams.segments.versions import Version, Versions
from streams.steps.readers import readers_of

log = logging.getLogger(__name__)

LOOK_S = 0.5


def register(app: ShoalApp, feed: DefinitionFeed, versions: Versions) -> None:
    """Add the timer to `app`; `versions` is what its engines go by."""
    follower = _Follower(app, feed, versions)
    app.timer(LOOK_S, name="follow_definitions")(follower.look)
    app.on_before_shutdown.connect(follower.close, weak=False)


class _Follower:
    def __init__(self, app: ShoalApp, feed: DefinitionFeed, versions: Versions) -> None:
        self._app, self._feed, self._versions = app, feed, versions
        self._seen = versions.newest_number

    async def look(self) -> None:
        """Take in what was applied since, and have every partition look."""
        try:
            news = await self._feed.news()
        except KafkaUnavailable:
            # What runs goes on; the next look connects again.
            await self._feed.close()
            return
        except DefinitionError as error:
            log.error("definitions: %s", error)
            return
        new = [version for version in news if version.number > self._seen]
        for version in new:
            self._seen = version.number
            await self._take_in(version)
        resend = self._feed.resend_run_id
        if resend is not None and resend != self._versions.resend_run_id:
            self._versions.resend_run_id = resend
            log.info("all members are sent again, run %s", resend)
        elif not new:
            return
        for partition in self._app.owner.partitions.values():
            partition.look_up()

    async def _take_in(self, version: Version) -> None:
        try:
            # Compiled before anybody may use it: what cannot be must not stop what runs. In a thread, for
            # hundreds of rules take some hundred milliseconds, in which the event loop goes on.
            evaluator = await asyncio.to_thread(_compiled, version)
        except (DefinitionError, DefinitionMismatch) as error:
            log.error(
                "definition %d cannot run here, this worker goes on as before: %s", version.number, error
            )
            return
        self._versions.add(version, evaluator)
        said = f": {version.comment}" if version.comment else ""
        log.info("definition %d, applied by %s%s", version.number, version.by, said)

    async def close(self, *_: object, **__: object) -> None:
        """Let go of the connection."""
        await self._feed.close()


def _compiled(version: Version) -> Evaluator:
    """Return what partitions go by; what else they need of a definition is made too, and kept for them."""
    definition = version.definition()
    readers_of(definition)
    return Evaluator(definition)
