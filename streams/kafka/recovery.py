"""Faust's recovery with its own way to restore: fence, read the committed rows, seek, start.

Faust's stock recovery lost rows when a rebalance met a restore; its life cycle (signalled by a
rebalance, then resuming the flow) is kept.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from aiokafka.errors import IllegalStateError
from faust.tables.manager import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped
from mode import Service

if TYPE_CHECKING:
    from streams.app import ShoalApp

log = logging.getLogger(__name__)


class FencedRecovery(Recovery):
    """Brings every assigned partition to life after a rebalance."""

    app: ShoalApp
    mundane_level = "debug"

    @Service.task
    async def _slurp_changelogs(self) -> None:
        """Do nothing: the main consumer never fetches the changelog."""

    @Service.task
    async def _publish_stats(self) -> None:
        """Do nothing: it would report on the stock restore."""

    @Service.task
    async def _restart_recovery(self) -> None:
        while not self.should_stop:
            started = self.signal_recovery_start
            if await self.wait_for_stopped(started):  # type: ignore[arg-type]  # Mode names its own Event.
                break
            self.signal_recovery_start.clear()
            generation = self._generation_id
            try:
                self._set_recovery_started()
                # Cancelled when another rebalance begins; what it left half open is opened anew.
                await self._wait(self._open())
                await self._wait(self.on_recovery_completed(generation))
            except (RebalanceAgain, IllegalStateError):
                log.info("a rebalance interrupted the restore")
            except ServiceStopped:
                break
            except Exception as error:
                self.app.give_up(error)
                raise

    async def _open(self) -> None:
        if not await self.app.owner.open(self._sources()):
            raise RebalanceAgain

    def _sources(self) -> set[int]:
        return {tp.partition for tp in self.app.consumer.assignment() if tp.topic == self.app.events_topic}


class FencedTableManager(TableManager):
    """Faust's table manager with the recovery above."""

    mundane_level = "debug"

    async def on_start(self) -> None:
        """Start the recovery at once; Faust waits a second for tables nobody adds."""
        await self._update_channels()
        await self.recovery.start()

    @property
    def recovery(self) -> Any:
        """The recovery service, made on first use."""
        if self._recovery is None:
            self._recovery = FencedRecovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
