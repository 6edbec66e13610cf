"""Which offsets failed to apply, and how a chunk is taken apart to find the record that does it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streams.kafka.seam import Chunk


@dataclass(slots=True)
class Suspicion:
    """The offsets of a chunk that failed to apply, and how often; from the second time it is searched."""

    start_offset: int
    end_offset: int
    failures: int = 1

    def touches(self, chunk: Chunk) -> bool:
        """Whether the chunk shares an offset with it."""
        return chunk.start_offset < self.end_offset and self.start_offset < chunk.end_offset


def one_by_one(chunk: Chunk) -> Iterator[Chunk]:
    """Split a chunk into chunks of one record each that cover the same offsets."""
    starts = [chunk.start_offset, *(record.offset for record in chunk.records[1:])]
    ends = [*starts[1:], chunk.end_offset]
    if not chunk.records:
        yield chunk
    for record, start, end in zip(chunk.records, starts, ends, strict=bool(chunk.records)):
        yield Chunk(start, (record,), end, chunk.generation)
