"""A chunk on its way through the engine: what it says, and how far it has been applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
    passed: Ticks | None = None
    """Ticks at which nobody is evaluated, in a quiet replay: only the clock moves."""

    @classmethod
    def of_ticks(cls, ticks: Ticks) -> Work:
        """Return work without records: time passes, and that is all."""
        none, nothing = np.empty(0, np.int64), Facts.none()
        return cls(Chunk(0, (), 0, 0), nothing, (), none, none, none, ticks, (), none)

    def hush(self) -> None:
        """Let no tick evaluate anybody: all facts come as after the last of them."""
        self.passed = self.ticks
        none = np.empty(0, np.int64)
        self.ticks, self.tick_of_row = Ticks(none, none, none), np.zeros_like(self.tick_of_row)

    def records_done(self) -> int:
        """How many records of the chunk are fully reflected in state."""
        return self._records_before(self.row, self.tick)

    def dead_bytes(self, row_end: int, tick_end: int) -> int:
        """Return what the dead letters take that come along once the work is done that far, headers aside."""
        if self.dead == len(self.dead_letters):
            return 0
        end = int(np.searchsorted(self.dead_records, self._records_before(row_end, tick_end)))
        return sum(dead_letter_bytes(letter) for letter in self.dead_letters[self.dead : end])

    @property
    def event_id_bytes_max(self) -> int:
        """The longest event id of the chunk."""
        return int(self.facts.event_id.lengths.max(initial=0))

    def _records_before(self, row: int, tick: int) -> int:
        if row == len(self.facts) and tick == len(self.ticks):
            return len(self.chunk.records)
        done = int(self.facts.position[row - 1]) + 1 if row else 0
        if tick:
            done = max(done, int(self.ticks.next_record[tick - 1]))
        return done


def dead_letter_bytes(letter: DeadLetter) -> int:
    """Return no less than a dead letter's key and value take on Kafka, where a long value is cut."""
    return len(letter.key or b"") + len(letter.value or b"")
