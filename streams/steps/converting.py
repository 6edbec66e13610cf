"""The part of a partition's engine that takes on newer versions of the definition, slice by slice."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from streams.customers.facts import Int64s
from streams.customers.table import CustomerTable
from streams.kafka.seam import Tally
from streams.segments.evaluate import Evaluator
from streams.steps.conversion import Conversion
from streams.steps.counting import count_moves
from streams.steps.resending import Resending, members
from streams.steps.ticks import Ticks
from streams.steps.work import Work
from streams.steps.writing import ChangeWriter


class Converting(ABC):
    """What `PartitionEngine` does about versions; the rest of it is declared here and done there."""

    table: CustomerTable
    clock_ms: int
    fold_line_ms: int
    epoch: int
    seq: int
    _conversion: Conversion
    _resending: Resending
    _writer: ChangeWriter
    _tally: Tally
    _evaluator: Evaluator
    _keep_ms: int
    _converted: bool
    """Whether the cursor of a conversion, which is in no customer's row, moved since the last take."""

    @abstractmethod
    def has_pending(self) -> bool:
        """Whether anything, if only the offset, moved since the last `take`."""

    @abstractmethod
    def _use(self, evaluator: Evaluator) -> None: ...

    @abstractmethod
    def _measure(self) -> None: ...

    @abstractmethod
    def _fitting(self, slots: Int64s, work: Work) -> int: ...

    @abstractmethod
    def _run(
        self,
        work: Work,
        rows: Int64s,
        due_slots: Int64s,
        tick_ms: Int64s,
        tick_of_row: Int64s,
        *,
        moves_clock: bool,
        converts: bool = False,
    ) -> None: ...

    @property
    def converting(self) -> bool:
        """Whether `convert` has something to do."""
        return self._conversion.has_work(self.table) or self._resending.has_work

    @property
    def refusal(self) -> str | None:
        """Why a newer version is not taken on."""
        return self._conversion.refusal

    @property
    def unconverted(self) -> int:
        """Customers whose values are still those of an earlier version."""
        return self._conversion.stale_count(self.table)

    @property
    def evaluator(self) -> Evaluator:
        """The definition in force, compiled."""
        return self._evaluator

    def convert(self) -> bool:
        """Convert one slice of customers to the newest version, at the clock; False when it must wait.

        When there is none, members that were asked for are sent again, a slice of them.
        """
        if self.has_pending():
            return False
        if not self._conversion.has_work(self.table):
            self._resend()
            return True
        conversion = self._conversion
        if conversion.take_on(self.table, self.clock_ms):
            self._use(conversion.evaluator)
            # What was never refused is kept, so a longer look back may reach as far as that.
            complete_ms = conversion.complete_ms(self.table)
            self.fold_line_ms = max(complete_ms, self.clock_ms - self._keep_ms)
            self._measure()
            self._converted = True
        at_clock = Ticks(*(np.array([each], np.int64) for each in (0, self.clock_ms, 0)))
        work = Work.of_ticks(at_clock)
        slots = conversion.slice(self.table, lambda slots: self._fitting(slots, work))
        if len(slots):
            none = work.slots
            self._run(work, none, slots, at_clock.time_ms, none, moves_clock=True, converts=True)
            self._converted = True
        elif conversion.end(self.table):
            self._use(conversion.evaluator)
            self._measure()
            self._converted = True
        return True

    def _resend(self) -> None:
        at_clock = Ticks(*(np.array([each], np.int64) for each in (0, self.clock_ms, 0)))
        work = Work.of_ticks(at_clock)
        slots = self._resending.slice(self.table, lambda slots: self._fitting(slots, work))
        self._converted = True
        moves = members(self.table, self._evaluator, slots, self.clock_ms)
        if moves is not None:
            run_id = self._resending.run_id
            self.seq = self._writer.add(self.table, moves, epoch=self.epoch, last_seq=self.seq, run_id=run_id)
            count_moves(self._tally, moves, self._evaluator.dimensions, live=False, origin="reconcile")

    def _refuse_before(self, fold_line_ms: int) -> None:
        conversion = self._conversion
        conversion.complete_since_ms = max(conversion.complete_since_ms, fold_line_ms)
