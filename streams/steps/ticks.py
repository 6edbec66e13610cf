"""Where the clock of a partition moves within a chunk: the ticks, in event time or in append time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from streams.customers.facts import Int64s

MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class Ticks:
    """k instants at which the partition is evaluated; every array has k entries, in order.

    `row` is how many facts of the chunk come before the tick; `time_ms` never falls;
    `next_record` is the index of the first record after it.
    """

    row: Int64s
    time_ms: Int64s
    next_record: Int64s

    def __len__(self) -> int:
        return len(self.time_ms)


def sweep_ticks(from_ms: int, now_ms: int, *, tick_ms: int = MINUTE_MS) -> Ticks:
    """Cut the time from `from_ms` to `now_ms` at every full minute, for a partition without records.

    So after an outage an idle partition makes the changes it would have made had it been up, one
    per minute and value, and not one net change over all of the outage.
    """
    minutes = np.arange(from_ms // tick_ms + 1, -(-now_ms // tick_ms)) * tick_ms
    times = np.append(minutes, now_ms).astype(np.int64)
    none = np.zeros(len(times), np.int64)
    return Ticks(none, times, none)


def event_ticks(positions: Int64s, times_ms: Int64s, fact_positions: Int64s, clock_ms: int) -> Ticks:
    """Turn a replayer's Tick records into ticks.

    A Tick before the clock, or before an earlier Tick, is left out: the clock never goes
    back. One equal to the clock evaluates what came since at that same time.

    `positions`, `times_ms`: int64[k] of the Tick records; `fact_positions`: int64[n].
    """
    highest = np.maximum.accumulate(np.concatenate(([clock_ms], times_ms)))
    kept = times_ms >= highest[:-1]
    positions = positions[kept]
    return Ticks(np.searchsorted(fact_positions, positions), times_ms[kept], positions + 1)


def append_ticks(
    append_ms: Int64s, fact_positions: Int64s, clock_ms: int, *, tick_ms: int = MINUTE_MS
) -> Ticks:
    """Cut a chunk at every full minute its append times cross, and at its end.

    A minute's tick is swept before the first record appended at or after it, so a customer
    whose deadline passed during an outage is judged by what was known then. The last tick
    is the append time of the last record: while a partition is behind, that is its clock.

    `append_ms`: int64[records], may fall (brokers' clocks differ); `fact_positions`: int64[n].
    """
    reached = np.maximum.accumulate(np.concatenate(([clock_ms], append_ms)))
    before, now = reached[:-1] // tick_ms, reached[1:] // tick_ms
    crossing = np.flatnonzero(now > before) if clock_ms > 0 else np.flatnonzero(now > before)[1:]
    crossed = (now - before)[crossing]
    # Minute m of record i: the boundaries before[i]+1 .. now[i], one after the other.
    step = np.arange(crossed.sum()) - np.repeat(np.cumsum(crossed) - crossed, crossed) + 1
    times = (np.repeat(before[crossing], crossed) + step) * tick_ms
    records = np.repeat(crossing, crossed)
    if len(append_ms):
        times, records = np.append(times, reached[-1]), np.append(records, len(append_ms))
    return Ticks(np.searchsorted(fact_positions, records), times.astype(np.int64), records)
