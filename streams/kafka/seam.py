"""Where the engine, which knows customers, meets Kafka, which knows partitions: neither imports the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Row = tuple[bytes, bytes | None]
"""A keyed record; a value of None is a tombstone."""


class Record(Protocol):
    """What is read of a fetched record; aiokafka's ConsumerRecord is one."""

    @property
    def offset(self) -> int:
        """Its place in the partition."""

    @property
    def timestamp(self) -> int:
        """The broker's append time, UTC ms."""

    @property
    def key(self) -> bytes | None:
        """The raw key."""

    @property
    def value(self) -> bytes | None:
        """The raw value."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Records of one partition fetched together, in offset order; possibly none.

    It covers every offset in [start_offset, end_offset), also those that carry no record
    (transaction markers, aborted records), so chunks form a chain. `generation` counts the seeks
    of this partition in this process: a chunk fetched before the latest seek is void.
    """

    start_offset: int
    records: Sequence[Record]
    end_offset: int
    generation: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that cannot be applied, and why."""

    offset: int
    key: bytes | None
    value: bytes | None
    error_class: str
    message: str


@dataclass(slots=True)
class Tally:
    """What the work of one transaction came to, for metrics: the engine counts, the owner publishes.

    Nothing of it is published before the commit, so what is applied twice is counted once.
    `events` counts by (type, result) without dead letters, which speak for themselves; `changes`
    by (dimension, change, cause, origin). The two lists of columns stay empty in event mode.
    """

    events: Counter[tuple[str, str]] = field(default_factory=Counter)
    changes: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    age_ms: list[npt.NDArray[np.int64]] = field(default_factory=list)
    """Of each event when it was read."""
    effective_at_ms: list[tuple[str, npt.NDArray[np.int64]]] = field(default_factory=list)
    """(cause, one instant per change)."""
    nanoseconds: Counter[str] = field(default_factory=Counter)
    """CPU by stage of the engine."""


@dataclass(frozen=True, slots=True)
class Transaction:
    """Everything that becomes true at once; `rows` includes the partition row, never empty.

    `source_offset` is the next offset of `events` to read; `events` is how many records it covers.
    """

    source_offset: int
    rows: Sequence[Row]
    changes: Sequence[tuple[bytes, bytes]]
    memberships: Sequence[Row]
    dead_letters: Sequence[DeadLetter]
    events: int
    tally: Tally = field(default_factory=Tally)


class StepEngine(Protocol):
    """The state of one partition and what a step does to it. Never awaits, never does I/O.

    Any exception but one from `set_aside` leaves the state undefined: it is restored before use.
    `stage_ms() -> dict[str, float]`, CPU since its last call, is logged where an engine offers it.
    """

    @property
    def applied_offset(self) -> int:
        """Next source offset whose record is not yet reflected in the state."""

    def begin_restore(self) -> None:
        """Forget everything; rows follow."""

    def restore_row(self, key: bytes, value: bytes | None) -> None:
        """Take one changelog row, oldest first."""

    def finish_restore(self, *, partitions: int) -> int | None:
        """Return the partition row's source offset; None for a partition that never committed."""

    def start_at(self, offset: int) -> None:
        """Begin a fresh partition at `offset`, the beginning of its log."""

    def begin(self, chunk: Chunk) -> Any:
        """Decode and validate; the result is passed to `advance` and has a bool `done`."""

    def advance(self, work: Any) -> bool:
        """Apply one bounded piece; False when pending work must be taken before there is room."""

    def sweep(self, now_ms: int) -> bool:
        """Evaluate deadlines up to `now_ms`; False when cut by the bound: take, then call again."""

    @property
    def converting(self) -> bool:
        """Whether `convert` has something to do."""

    @property
    def refusal(self) -> str | None:
        """Why a newer version of the definition is not taken on, None while there is no reason."""

    def convert(self) -> bool:
        """Bring one slice of customers to the newest version; False when pending work must be taken."""

    def set_aside(self, offset: int, error: str) -> None:
        """Make the record at `offset`, not yet begun, a dead letter (ApplyFailed) instead of applying it."""

    def has_pending(self) -> bool:
        """Whether anything, if only the offset, moved since the last `take`."""

    def take(self) -> Transaction:
        """Return everything applied since the last `take` and clear it."""


class PartitionLog(Protocol):
    """All Kafka I/O of one partition's steps. Errors are `KafkaError`s; their class says if to retry."""

    async def fence(self) -> None:
        """Become the only writer: abort what is open under this partition's id, shut out older owners."""

    async def untouched(self) -> bool:
        """Whether the changelog, after fencing, ends exactly where this owner last left it."""

    def restore(self) -> AsyncGenerator[Row, None]:
        """Iterate over the committed rows of the changelog, oldest first, up to its stable end."""

    async def partitions(self) -> int:
        """How many partitions `events` has."""

    async def first_offset(self, stored: int | None) -> int:
        """Return where to read on: `stored`, or the beginning when None; LogTruncated if it is not held."""

    async def transact(self, transaction: Transaction) -> None:
        """Commit it whole. After any error fence and restore: it may or may not have committed."""

    async def close(self) -> None:
        """Let go of connections; never raises."""
