"""`python -m demo`: two years of a shop through Kafka and a worker in a minute, then checked against SQL.

Then a rule is edited on the customers there are, and what that changed is checked against SQL too.

SHOAL_KAFKA names a cluster to use, SHOAL_REDIS_URL a Redis; without them they are started for the run
and ended with it. Topics and keys are fresh every time and deleted afterwards. Ends with 0 only if
every customer is what SQL says, in Redis and after the edit too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from demo import in_redis, worker
from demo.check import compare
from demo.display import Scene, Screen, screen_for
from demo.exposed import Exposed, print_exposed, scrape
from demo.follow import Follower
from demo.oracle import standings
from demo.purchases import INVOICE_LINES, Invoices
from demo.readback import pipeline_standings
from demo.replay import KafkaTicks, Sent, midnights, replay
from demo.rule_edit import edit_a_rule, print_edited
from demo.summary import Outcome, grid_of, print_summary
from demo.topics import fresh_topics
from deploy.local.cluster import kafka_for
from deploy.local.redis import redis_for
from errors import KafkaUnavailable, LocalRedisFailed, ShoalError
from shoal_sdk import Shoal
from streams.kafka.reading import reader
from streams.segments.loading import default_definition
from streams.topics import EVENTS, topic_name

FINAL_TICK_MS = 1_323_475_200_000
"""2011-12-10T00:00Z, the midnight after the last invoice."""
PARTITIONS = 4
"""More than a small machine has cores, few enough that a day's tick costs little."""
STALL_S_MAX = 60.0
"""A worker whose clocks stand still for so long, though it owes ticks, is given up."""
LOGS = Path(__file__).parents[1] / "var" / "demo"
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Interrupted(Exception):
    """Raised inside the replaying thread when the run is over before it is."""


async def run(console: Console, bootstrap: str, redis_url: str | None) -> int:
    """Replay, follow, check, report; edit a rule, check again; return the exit code."""
    prefix = f"demo-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}"
    settings = {
        "SHOAL_KAFKA": bootstrap,
        "SHOAL_PREFIX": prefix,
        "SHOAL_CLOCK": "event",
        "SHOAL_PARTITIONS": str(PARTITIONS),
    }
    async with fresh_topics(bootstrap, prefix, PARTITIONS):
        outcome, exposed = await _two_years(console, bootstrap, prefix, settings, redis_url)
        print_summary(console, default_definition(), outcome)
        edited = await edit_a_rule(console, bootstrap, settings, LOGS, outcome.standings, FINAL_TICK_MS)
    print_edited(console, edited)
    print_exposed(console, exposed)
    return 0 if outcome.good and edited.good else 1


async def _two_years(
    console: Console, bootstrap: str, prefix: str, settings: Mapping[str, str], redis_url: str | None
) -> tuple[Outcome, Exposed | None]:
    """Replay everything through a worker and compare what came of it; the worker is gone afterwards."""
    invoices = Invoices()
    scene = Scene(grid_of(default_definition()), invoices.first_ms, FINAL_TICK_MS)
    async with worker.running(LOGS / f"{prefix}.log", settings) as running, reader(bootstrap) as consumer:
        console.print(
            f"Kafka at {bootstrap}, topics {prefix}.*, the worker's log in {running.log}", soft_wrap=True
        )
        follower = Follower(bootstrap, consumer, prefix, PARTITIONS, scene)
        began_s = time.monotonic()
        with screen_for(scene, console) as screen:
            sent = await _replayed(bootstrap, prefix, invoices, scene, screen, follower, running)
        seconds = time.monotonic() - began_s
        actual = await pipeline_standings(bootstrap, prefix, PARTITIONS, FINAL_TICK_MS)
        exposed = await scrape(running.log.read_text(errors="replace"))
        await running.stop()
        outcome = Outcome(
            coverage=invoices.coverage,
            sent=sent,
            seconds=seconds,
            causes=scene.causes,
            standings=actual,
            figures=worker.figures(running.log.read_text(errors="replace")),
            log=running.log,
            differences=compare(standings(INVOICE_LINES, FINAL_TICK_MS), actual),
            changes_add_up=+scene.members == Counter(standing.rfm for standing in actual.values()),
            in_redis=await in_redis.differences(LOGS / f"{prefix}-sink.log", settings, redis_url, actual),
        )
    return outcome, exposed


async def _replayed(
    bootstrap: str,
    prefix: str,
    invoices: Invoices,
    scene: Scene,
    screen: Screen,
    follower: Follower,
    running: worker.Worker,
) -> Sent:
    """Send everything while following the pipeline; return once the final tick's work is committed."""
    over = threading.Event()

    def on_tick(at_ms: int, sent: Sent) -> None:
        if over.is_set():
            raise Interrupted
        scene.sent(at_ms, sent.events)

    def send() -> Sent:
        with Shoal(bootstrap, app=prefix, prefix=prefix, on_full="wait") as shoal:
            days = midnights(invoices.first_ms, FINAL_TICK_MS)
            return replay(invoices.events(), days, shoal, ticks, on_tick)

    async with KafkaTicks(bootstrap, topic_name(prefix, EVENTS), PARTITIONS) as ticks:
        sending = asyncio.create_task(asyncio.to_thread(send))
        try:
            await _follow_to_the_end(follower, screen, sending, running)
            return await sending
        finally:
            over.set()
            # The thread needs this loop for its ticks, so it is waited for while the loop still runs.
            await asyncio.wait([sending])


async def _follow_to_the_end(
    follower: Follower, screen: Screen, sending: asyncio.Task[Sent], running: worker.Worker
) -> None:
    """Follow until every partition stands at the final tick and its changes are read.

    Raises what the sending raised, WorkerEnded, or KafkaUnavailable after STALL_S_MAX without progress.
    """
    moved_s, clock_ms = time.monotonic(), 0
    while follower.clock_ms < FINAL_TICK_MS:
        running.check()
        if sending.done():
            sending.result()
        await follower.follow()
        screen.update()
        if follower.clock_ms > clock_ms:
            moved_s, clock_ms = time.monotonic(), follower.clock_ms
        elif time.monotonic() - moved_s > STALL_S_MAX:
            raise KafkaUnavailable(f"the pipeline has not moved for {STALL_S_MAX:.0f} s; see {running.log}")
    await follower.catch_up()


async def _until_told(console: Console, bootstrap: str, redis_url: str | None) -> int:
    """Run; SIGTERM ends the run as Ctrl-C does, with everything stopped."""
    task = asyncio.current_task()
    assert task is not None, "asyncio.run made one"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(console, bootstrap, redis_url)


@contextlib.contextmanager
def _redis(console: Console) -> Iterator[str | None]:
    """Yield a URL; None on a machine for which there is no server: the rest is worth showing there."""
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(redis_for())
        except LocalRedisFailed as error:
            console.print(str(error), style="yellow", markup=False, highlight=False)
            url = None
        yield url


def main() -> int:
    """Run the demo; 0 if nobody differs, 1 if somebody does or it failed, 130 if interrupted."""
    console = Console()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What libraries have to say would tear the live screen.
    LOGS.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=LOGS / "demo.log", level=logging.WARNING, format=LOG_FORMAT)
    try:
        if not os.environ.get("SHOAL_KAFKA", "").strip():
            console.print("starting a Kafka for this run; the first time, its jars are fetched")
        with _redis(console) as redis_url, kafka_for() as bootstrap:
            return asyncio.run(_until_told(console, bootstrap, redis_url))
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("interrupted; everything the demo started is stopped")
        return 130
    except ShoalError as error:
        console.print(f"{type(error).__name__}: {error}", style="red", markup=False, highlight=False)
        return 1


if __name__ == "__main__":
    sys.exit(main())
