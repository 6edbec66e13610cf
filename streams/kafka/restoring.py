"""From changelogs to an engine at the last commit, also where a rebuilt epoch takes over from an old one.

Up to the first transaction of a rebuilt epoch the epoch before it is the truth; from then on the
rebuilt one is. So however often this is cut short, it begins anew from what is committed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from clock import SystemClock
from errors import KafkaError, StateCorrupt
from streams.checks import FUTURE_MS_MAX
from streams.kafka.seam import Chunk, PartitionLog, Restoration, Row, StepEngine
from streams.kafka.suspicion import Search, pieces

log = logging.getLogger(__name__)

SIGN_ROWS = 1024
"""A restore says it is alive every so many rows."""


class Replay:
    """Quiet replays of one partition; remembers over failures which record it was that failed to apply.

    After any error the engine is restored and the replay begun again.
    """

    def __init__(self, number: int) -> None:
        # Nobody waits for a replay, so it is searched at once.
        self._search = Search(number, failures_min=1)

    async def run(
        self,
        engine: StepEngine,
        log_: PartitionLog,
        until: int,
        turn: asyncio.Lock,
        alive: Callable[[int], None] = lambda offset: None,
    ) -> None:
        """Apply `events` from where the engine stands up to `until`, and commit all of it.

        `alive` is told after each piece how far it is. Raises what the log does, and what the engine
        does until its record is found: that one is then left out, as the partition's owner leaves it.
        """
        for offset, error in self._search.culprits.items():
            if offset >= engine.applied_offset:
                engine.set_aside(offset, error)
        async with aclosing(log_.replay(engine.applied_offset, until)) as chunks:
            async for chunk in chunks:
                for piece in pieces(chunk, alone=self._search.covers(chunk)):
                    try:
                        await _apply(engine, log_, piece, turn, alive)
                    except KafkaError:
                        raise
                    except Exception as error:
                        self._search.failed(piece, error, alone=len(piece.records) == 1)
                        raise
        if engine.has_pending():
            await log_.transact(engine.take())
        self._search.passed(until, alone=True)


async def _apply(
    engine: StepEngine, log_: PartitionLog, chunk: Chunk, turn: asyncio.Lock, alive: Callable[[int], None]
) -> None:
    async with turn:
        work = engine.begin(chunk)
        await asyncio.sleep(0)
    while not work.done:
        async with turn:
            has_room = engine.advance(work)
            await asyncio.sleep(0)
        if not has_room:
            await log_.transact(engine.take())
        alive(engine.applied_offset)


async def restored(
    number: int,
    engine: StepEngine,
    log_: PartitionLog,
    replay: Replay,
    turn: asyncio.Lock,
    alive: Callable[[int], None] = lambda offset: None,
) -> tuple[int, int | None]:
    """Bring an engine to the last commit; return the rows that took, and where to read on.

    None: the partition never committed. Call it fenced. Raises StateCorrupt, KafkaUnavailable, and
    whatever a quiet replay does.
    """
    choice = await _chosen(engine, log_)
    if choice.until is not None:
        await log_.shut_out(choice.epoch)
    engine.begin_restore(choice.epoch, quiet=choice.until is not None)
    count = 0
    if choice.told_epoch is not None:
        count = await _fed(log_.restore(choice.told_epoch), engine.told_row, alive)
    rows = await _fed(log_.restore(choice.epoch), engine.restore_row, alive)
    stored = engine.finish_restore(partitions=await log_.partitions())
    if stored is None and rows:
        raise StateCorrupt(f"partition {number}: {rows} changelog rows but no partition row")
    if choice.until is not None:
        first = await log_.first_offset(stored)
        # What was rebuilt says itself since when it is whole.
        engine.start_at(first, await _whole_since_ms(log_, first, choice.until) if stored is None else 0)
        log.info("partition %d goes to epoch %d: %d to %d", number, choice.epoch, first, choice.until)
        await replay.run(engine, log_, choice.until, turn, alive)
        engine.go_live()
        stored = engine.applied_offset
    return count + rows, stored


async def _whole_since_ms(log_: PartitionLog, first: int, until: int) -> int:
    """Return since when `events` holds everything, UTC ms; 0: from the first event ever."""
    if not first:
        return 0
    async with aclosing(log_.replay(first, until)) as chunks:
        async for chunk in chunks:
            if chunk.records:
                # An event may say that it happened a little after it was written.
                return chunk.records[0].timestamp + FUTURE_MS_MAX
    return SystemClock().now_ms()


async def _chosen(engine: StepEngine, log_: PartitionLog) -> Restoration:
    """Ask the engine, which is shown where the newest epochs stand until it knows."""
    seen: dict[int, bytes | None] = {}
    for epoch in reversed(engine.epochs):
        choice = engine.choose(seen)
        if choice is not None:
            return choice
        seen[epoch] = await log_.latest(epoch, engine.position_key)
    choice = engine.choose(seen)
    assert choice is not None, "all epochs are shown"
    return choice


async def _fed(
    changelog: AsyncGenerator[Row, None],
    take: Callable[[bytes, bytes | None], None],
    alive: Callable[[int], None],
) -> int:
    rows = 0
    async with aclosing(changelog) as each:
        async for key, value in each:
            take(key, value)
            rows += 1
            if rows % SIGN_ROWS == 0:
                alive(0)
    return rows
