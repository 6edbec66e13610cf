"""The Faust application: what is Faust's (assignment, agents, tables) and what is replaced."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol, cast

import faust
from faust.types import TP

from streams.kafka.assignor import ReturningAssignor
from streams.kafka.log import KafkaPartitionLog, LogNames
from streams.kafka.owner import Owner
from streams.kafka.recovery import FencedTableManager
from streams.kafka.seam import PartitionLog, StepEngine
from streams.kafka.transport import ChunkConsumer, ChunkSchema, ChunkTransport

log = logging.getLogger(__name__)

FETCH_BYTES_MAX = 4 << 20
"""Per partition: about one chunk of long events, several of short ones."""

NEVER_S = 86_400.0 * 365
"""For Faust's periodic jobs that have nothing to do here."""


class AppSettings(Protocol):
    """What the application reads of `settings.Settings`."""

    @property
    def kafka(self) -> str:
        """Bootstrap addresses, host:port with commas between."""

    @property
    def prefix(self) -> str:
        """What every topic, group and transactional id begins with."""

    @property
    def chunk_records_max(self) -> int:
        """Records of one partition handled together."""

    @property
    def session_timeout_ms(self) -> int:
        """Silence after which another worker takes over."""

    @property
    def worker_id(self) -> str:
        """The worker's own name in the group; empty for one that comes and goes."""


class ShoalApp(faust.App):
    """A Faust app whose partitions keep their state, offsets and outputs in their own transactions."""

    owner: Owner
    mundane_level = "debug"
    bootstrap: str
    events_topic: str
    fatal: BaseException | None = None
    """Why the worker gave up; it then stops and its exit status is not 0."""

    def give_up(self, error: BaseException) -> None:
        """Stop the worker with an error. Safe from any thread; the first error counts."""
        if self.fatal is None:
            self.fatal = error
            log.error("the worker gives up: %s: %s", type(error).__name__, error)
        self.loop.call_soon_threadsafe(self._crash, error)

    def on_init_dependencies(self) -> Any:
        """Leave Faust's own monitor out: it keeps books per event and topic that nobody reads."""
        services = super().on_init_dependencies()
        self.sensors.remove(self.monitor)
        return services

    def _create_directories(self) -> None:
        """Do nothing: state is in memory and in Kafka; Faust would make folders in the current directory."""

    def _new_transport(self) -> ChunkTransport:
        return ChunkTransport(self.conf.broker_consumer, self)


def group_id(prefix: str) -> str:
    """Return the consumer group, which is also the application part of transactional ids."""
    return f"{prefix}-worker"


def create_app(
    settings: AppSettings,
    engine_factory: Callable[[int], StepEngine],
    *,
    log_factory: Callable[[LogNames], PartitionLog] = KafkaPartitionLog,
    web_url: str | None = None,
) -> ShoalApp:
    """Build the application; call it inside a running event loop. Nothing starts yet.

    `engine_factory` makes the engine of one partition, from its number. `web_url` is what the other
    workers of the group are told, with every assignment, of where this one answers.
    """
    group = group_id(settings.prefix)
    options = _options(settings)
    if web_url is not None:
        options["canonical_url"] = web_url
    app = ShoalApp(group, **options)
    app.bootstrap = settings.kafka
    app.events_topic = f"{settings.prefix}.events"

    async def seek(partition: int, offset: int, generation: int) -> bool:
        tp = TP(app.events_topic, partition)
        return await cast(ChunkConsumer, app.consumer).seek_to(tp, offset, generation)

    async def rejoin() -> None:
        await cast(ChunkConsumer, app.consumer).rejoin()

    app.owner = Owner(
        engine_for=engine_factory,
        log_for=lambda number: log_factory(LogNames(settings.kafka, group, settings.prefix, number)),
        seek=seek,
        rejoin=rejoin,
        give_up=app.give_up,
    )
    # Never read or written through Faust: its changelog must take part in the assignment, so that
    # a partition of `customers` always goes where the same partition of `events` goes.
    app.Table("customers", changelog_topic=app.topic(f"{settings.prefix}.customers"))
    return app


def owner_url(app: ShoalApp, partition: int) -> str | None:
    """Return where the owner of a partition answers, as of the latest assignment this worker was told of.

    None when there was none yet, or when two workers give the same address.
    """
    changelog = f"{app.events_topic.removesuffix('events')}customers"
    for url, topics in app.assignor.tables_metadata().items():
        if partition in topics.get(changelog, ()):
            return str(url).rstrip("/")
    return None


def events(app: ShoalApp) -> Any:
    """Return the topic of chunks for agents to read."""
    return app.topic(app.events_topic, schema=ChunkSchema())


def _options(settings: AppSettings) -> dict[str, Any]:
    session_s = settings.session_timeout_ms / 1000
    return {
        "broker": [f"kafka://{address}" for address in settings.kafka.split(",")],
        "store": "memory://",
        "TableManager": FencedTableManager,
        "PartitionAssignor": ReturningAssignor,
        "web_enabled": False,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": FETCH_BYTES_MAX,
        "broker_max_poll_records": settings.chunk_records_max,
        "broker_session_timeout": session_s,
        # A member with a name keeps its partitions while it is away for less than a session.
        "consumer_group_instance_id": settings.worker_id or None,
        "broker_heartbeat_interval": min(3.0, session_s / 4),
        # Faust demands more than the session timeout.
        "broker_request_timeout": session_s + 15.0,
        "broker_rebalance_timeout": max(60.0, session_s),
        "broker_commit_interval": NEVER_S,
        "table_cleanup_interval": NEVER_S,
        "stream_recovery_delay": 0.0,
        "stream_wait_empty": True,
        "worker_redirect_stdouts": False,
    }
