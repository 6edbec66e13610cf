"""Which offsets failed to apply, and how a chunk is taken apart to find the record that does it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from errors import StateCorrupt
from streams.kafka.seam import Chunk

log = logging.getLogger(__name__)

CULPRITS_MAX = 20
"""Records set aside with no chunk applied whole in between; more, and the fault is not the records'."""


@dataclass(slots=True)
class _Suspicion:
    """The offsets of a chunk that failed to apply, and how often."""

    start_offset: int
    end_offset: int
    failures: int = 1

    def touches(self, chunk: Chunk) -> bool:
        """Whether the chunk shares an offset with it."""
        return chunk.start_offset < self.end_offset and self.start_offset < chunk.end_offset


class Search:
    """The search for records of one partition that cannot be applied, over as many lives as it takes.

    A chunk is searched once it failed `failures_min` times.
    """

    def __init__(self, partition: int, *, failures_min: int) -> None:
        self._partition, self._failures_min = partition, failures_min
        self._suspicion: _Suspicion | None = None
        self.culprits: dict[int, str] = {}
        """Offset of each record that was found, and its error: to be set aside, not applied again."""

    def covers(self, chunk: Chunk) -> bool:
        """Whether the chunk holds what failed so often: it is applied record by record."""
        suspicion = self._suspicion
        if suspicion is None or suspicion.failures < self._failures_min:
            return False
        return suspicion.touches(chunk)

    def failed(self, piece: Chunk, error: Exception, *, alone: bool) -> None:
        """Note that a piece failed; `alone`: it is one record by itself, and so the culprit.

        Raises StateCorrupt when there are so many that the records are not what is wrong.
        """
        if alone:
            if len(self.culprits) >= CULPRITS_MAX:
                raise StateCorrupt(
                    f"partition {self._partition}: {CULPRITS_MAX} records in one stretch failed to apply, "
                    f"the last at offset {piece.start_offset}: {error!r}"
                ) from error
            for record in piece.records:
                self.culprits[record.offset] = f"{type(error).__name__}: {error}"
                where = self._partition, record.offset
                log.error("partition %d offset %d cannot be applied: %r", *where, error)
        elif self._suspicion is not None and self._suspicion.touches(piece):
            self._suspicion.failures += 1
            self._suspicion.end_offset = max(self._suspicion.end_offset, piece.end_offset)
        else:
            self._suspicion = _Suspicion(piece.start_offset, piece.end_offset)

    def passed(self, position: int, *, alone: bool) -> None:
        """Note that everything before `position` is applied; with a whole chunk, culprits are history."""
        if self._suspicion is None or position >= self._suspicion.end_offset:
            self._suspicion = None
            if not alone:
                self.culprits.clear()


def pieces(chunk: Chunk, *, alone: bool) -> Iterable[Chunk]:
    """Return the chunk whole, or each of its records alone: the same offsets either way."""
    return _one_by_one(chunk) if alone else (chunk,)


def _one_by_one(chunk: Chunk) -> Iterator[Chunk]:
    starts = [chunk.start_offset, *(record.offset for record in chunk.records[1:])]
    ends = [*starts[1:], chunk.end_offset]
    if not chunk.records:
        yield chunk
    for record, start, end in zip(chunk.records, starts, ends, strict=bool(chunk.records)):
        yield Chunk(start, (record,), end, chunk.generation)
