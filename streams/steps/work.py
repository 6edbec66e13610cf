"""A chunk on its way through the engine: what it says, and how far it has been applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streams.customers.facts import Facts, Int64s
from streams.kafka.seam import Chunk, DeadLetter
from streams.steps.ticks import Ticks


@dataclass(slots=True)
class Work:
    """One chunk, read. `row`, `tick`, `dead` and `records` are how far it is done; everything else stays.

    `slots`, `tick_of_row`, `fold_line_ms` are int64[n], parallel to `facts`;
    `dead_letters` are ordered by record, `dead_records` their indices within the chunk.
    """

    chunk: Chunk
    facts: Facts
    event_ids: Sequence[bytes]
    slots: Int64s
    tick_of_row: Int64s
    fold_line_ms: Int64s
    ticks: Ticks
    dead_letters: Sequence[DeadLetter]
    dead_records: Int64s
    row: int = 0
    tick: int = 0
    dead: int = 0
    records: int = 0
    done: bool = False

    def records_done(self) -> int:
        """How many records of the chunk are fully reflected in state."""
        if self.row == len(self.facts) and self.tick == len(self.ticks):
            return len(self.chunk.records)
        done = int(self.facts.position[self.row - 1]) + 1 if self.row else 0
        if self.tick:
            done = max(done, int(self.ticks.next_record[self.tick - 1]))
        return done
