"""A chunk on its way through the engine: what it says, and how far it has been applied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streams.customers.facts import Erasures, Facts, Int64s
from streams.kafka.seam import Chunk, DeadLetter
from streams.steps.ticks import Ticks

ERASED = -2
"""In place of a slot: the fact happened before its customer was erased, and is dropped."""


@dataclass(slots=True)
class Work:
    """One chunk, read. `row`, `tick`, `dead`, `erased` and `records` are how far it is done; what else
    changes is only `slots`, of whose customer is erased.

    `slots` (-1: applied to nobody, or ERASED), `tick_of_row`, `fold_line_ms` are int64[n], parallel to
    `facts`; `dead_letters` are ordered by record, `dead_records` their indices within the chunk. Everything
    before an erasure is done before it: `erasure_row` and `erasure_tick` say how many facts and ticks it is.
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
    erasures: Erasures
    erasure_row: Int64s
    erasure_tick: Int64s
    row: int = 0
    tick: int = 0
    dead: int = 0
    erased: int = 0
    records: int = 0
    done: bool = False
    passed: Ticks | None = None
    """Ticks at which nobody is evaluated, in a quiet replay: only the clock moves."""

    @classmethod
    def of_ticks(cls, ticks: Ticks) -> Work:
        """Return work without records: time passes, and that is all."""
        none, nothing = np.empty(0, np.int64), Facts.none()
        erasures = Erasures.none()
        return cls(Chunk(0, (), 0, 0), nothing, (), none, none, none, ticks, (), none, erasures, none, none)

    @property
    def row_limit(self) -> int:
        """How many facts come before the next erasure, or at all."""
        return int(self.erasure_row[self.erased]) if self.erased < len(self.erasures) else len(self.facts)

    @property
    def tick_limit(self) -> int:
        """How many ticks come before the next erasure, or at all."""
        return int(self.erasure_tick[self.erased]) if self.erased < len(self.erasures) else len(self.ticks)

    @property
    def erases_next(self) -> bool:
        """Whether everything before the next erasure is done."""
        reached = self.row == self.row_limit and self.tick == self.tick_limit
        return reached and self.erased < len(self.erasures)

    def hush(self) -> None:
        """Let no tick evaluate anybody: all facts come as after the last of them."""
        self.passed = self.ticks
        none = np.empty(0, np.int64)
        self.ticks, self.tick_of_row = Ticks(none, none, none), np.zeros_like(self.tick_of_row)
        self.erasure_tick = np.zeros_like(self.erasure_tick)

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
        lengths = self.facts.event_id.lengths, self.erasures.event_id.lengths
        return max(int(each.max(initial=0)) for each in lengths)

    def _records_before(self, row: int, tick: int) -> int:
        positions, erased = self.erasures.position, self.erased
        if row == self.row_limit and tick == self.tick_limit:
            return int(positions[erased]) if erased < len(positions) else len(self.chunk.records)
        done = int(self.facts.position[row - 1]) + 1 if row else 0
        if tick:
            done = max(done, int(self.ticks.next_record[tick - 1]))
        if erased:
            done = max(done, int(positions[erased - 1]) + 1)
        return done


def dead_letter_bytes(letter: DeadLetter) -> int:
    """Return no less than a dead letter's key and value take on Kafka, where a long value is cut."""
    return len(letter.key or b"") + len(letter.value or b"")
