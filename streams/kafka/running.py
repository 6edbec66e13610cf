"""From start to exit status: runs the application until it is told to stop or gives up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal

from errors import MembershipLost
from streams.app import ShoalApp
from streams.kafka import reading
from streams.kafka.transport import ChunkConsumer

log = logging.getLogger(__name__)

REPORT_S = 10.0
START_S_MAX = 120.0
STOP_S_MAX = 35.0
"""With what settling takes before, and closing after, less than 45 s in all."""
WATCH_S = 1.0
REBALANCE_S_MAX = 120.0
"""Twice what Kafka waits for the slowest member."""

COLLECT_AFTER_OBJECTS = 50_000
"""Objects made and not yet freed before the cycle collector looks at them: a few transactions."""

QUIET = ("faust", "mode", "aiokafka")
"""Their INFO is about themselves; warnings and errors are kept."""


NOISE = {
    # Since KIP-890 the broker refuses a produce request that overtook its partition's registration,
    # hundreds of times an hour on a busy worker, and the client sends it again; nothing is wrong.
    # Without a connection it tries again every few milliseconds, and says so.
    "aiokafka.producer.sender": ("NotEnoughReplicas", "NodeNotReadyError"),
    # Without a connection the consumer, too, tries again ten times a second; partitions that fail
    # for it say so themselves. Topics just made have no leader yet, a broker just started no coordinator.
    "aiokafka.consumer.fetcher": ("NodeNotReadyError", "NotLeaderForPartitionError"),
    "aiokafka.consumer.group_coordinator": ("NodeNotReadyError", "GroupCoordinatorNotAvailableError"),
    # A fenced producer leaves futures nobody awaits; that it was fenced is reported by its partition.
    "asyncio": ("exception=ProducerFenced",),
    # It has no sensors, on purpose.
    "streams.app": ("Missing sensor state",),
    # Every topic exists, but Faust asks to declare its own before it may not.
    "faust.transport.drivers.aiokafka": ("Topic creation disabled",),
    # Said at every attempt to connect; whoever attempts it gets an error, and says so once.
    "aiokafka": ("Unable connect to", "Unable to update metadata"),
}
"""Logger to what of it is dropped."""


class Noise(logging.Filter):
    """Drops records whose message contains one of some phrases."""

    def __init__(self, phrases: tuple[str, ...]) -> None:
        super().__init__()
        self._phrases = phrases

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is worth showing."""
        message = record.getMessage()
        return not any(phrase in message for phrase in self._phrases)


def configure_logging(level: str) -> None:
    """Log to standard error: Shoal's own messages from `level`, the libraries' from WARNING."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))
    for name, phrases in NOISE.items():
        logging.getLogger(name).addFilter(Noise(phrases))


def configure_collection() -> None:
    """Make Python's cycle collector look at what may be cyclic: call once everything is imported.

    By default it goes over the young after every 700 tuples, and over everything, modules included,
    when a quarter has been added. Chunks and transactions are tens of thousands of tuples and
    records without a cycle, so a tenth of a worker's time went into that.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER_OBJECTS, 10, 10)


async def run(app: ShoalApp, *, stop: asyncio.Event | None = None, report_s: float = REPORT_S) -> int:
    """Run until `stop` is set, SIGTERM or SIGINT arrives, or the worker gives up; return the exit status.

    A stop commits what is applied and leaves the group. 0 if it was asked for and nothing was
    left uncommitted for want of time, else 1.

    Faust's own Worker is not used: an error of its shutdown, after everything is committed, would
    become the exit status, and it takes over logging and the loop.
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError):  # Not the main thread: a test.
            loop.add_signal_handler(number, stop.set)
    stopped = asyncio.create_task(stop.wait())
    started = asyncio.create_task(app.start())
    reporting = asyncio.create_task(_report(app, report_s))
    watching = asyncio.create_task(_watch(app))
    ended = asyncio.create_task(app.wait_until_stopped())
    try:
        await asyncio.wait({stopped, started}, timeout=START_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        if started.done() and started.exception() is not None:
            app.give_up(started.exception() or RuntimeError("the start failed"))
        elif not started.done() and not stopped.done():
            app.give_up(TimeoutError(f"the worker did not start within {START_S_MAX:g} s"))
        await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # What crashes from here on does so because it is being stopped: Faust's fetcher does, when
        # that happens in the middle of a rebalance. What counts is whether everything was committed.
        crash = app.crash_reason
        for task in (stopped, started, reporting, watching):
            task.cancel()
        clean = await _stop(app)
        ended.cancel()
        log.info("%s", app.owner.report())
    if app.fatal is None and crash is not None:
        log.error("the worker crashed: %r", crash)
    return 0 if stop.is_set() and clean and app.fatal is None and crash is None else 1


async def _stop(app: ShoalApp) -> bool:
    """Settle first, so that nothing Faust does while stopping can cost a commit; then stop Faust."""
    clean = True
    try:
        app.consumer.stop_flow()
        clean = await app.owner.settle()
    except Exception as error:  # noqa: BLE001  a stop goes on to the end whatever happens
        log.error("settling failed: %r", error)
        clean = False
    try:
        await asyncio.wait_for(app.stop(), STOP_S_MAX)
    except Exception as error:  # noqa: BLE001  everything is committed; Faust's shutdown has known faults
        log.warning("stopping Faust: ignored %r", error)
    await reading.close_quietly(app.owner.close(), "the partitions")
    return clean


async def _watch(app: ShoalApp) -> None:
    """Give up when the worker is no member of its group any more, or has been kept waiting for too long."""
    waited_s = 0.0
    while app.fatal is None:
        await asyncio.sleep(WATCH_S)
        consumer = app.consumer
        error = consumer.membership_error() if isinstance(consumer, ChunkConsumer) else None
        if error is not None:
            app.give_up(MembershipLost(f"this worker fell out of its group: {error!r}"))
        waited_s = waited_s + WATCH_S if app.rebalancing else 0.0
        if waited_s > REBALANCE_S_MAX:
            app.give_up(MembershipLost(f"a rebalance did not end within {REBALANCE_S_MAX:g} s"))


async def _report(app: ShoalApp, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        log.info("%s", app.owner.report())
