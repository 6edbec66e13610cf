"""Where the engine, which knows customers, meets Kafka, which knows partitions: neither imports the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from schemas.markers import Marker

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
    epoch: int = 1
    """Whose changelog the rows go to."""
    quiet: bool = False
    """Rows alone: nobody is told anything, and the group's offset stays where it is."""
    begins: Marker | None = None
    """Stands before the changes."""
    ends: Marker | None = None
    """Stands behind the changes."""
    farewell: tuple[int, Row] | None = None
    """An epoch that is left, and the row that says so in its changelog."""


@dataclass(frozen=True, slots=True)
class Restoration:
    """From which changelogs the state of a partition is restored."""

    epoch: int
    """Whose rows hold the facts."""
    told_epoch: int | None = None
    """Whose rows say what subscribers were told, as long as not every row of `epoch` does."""
    until: int | None = None
    """Up to where `events` is replayed quietly before `epoch` goes live; None when it is live."""


class StepEngine(Protocol):
    """The state of one partition and what a step does to it. Never awaits, never does I/O.

    Any exception but one from `set_aside` leaves the state undefined: it is restored before use.
    `stage_ms() -> dict[str, float]`, CPU since its last call, is logged where an engine offers it.
    """

    @property
    def applied_offset(self) -> int:
        """Next source offset whose record is not yet reflected in the state."""

    @property
    def epochs(self) -> Sequence[int]:
        """The epochs whose changelog may be the truth, oldest first: with one of them no row is looked at."""

    @property
    def epoch(self) -> int:
        """The epoch whose rows this state came from."""

    @property
    def position_key(self) -> bytes:
        """The key of the row that says where a changelog stands."""

    @property
    def leaves(self) -> bool:
        """Whether this state is to be given up, everything committed, for that of a newer epoch."""

    def choose(self, rows: Mapping[int, bytes | None]) -> Restoration | None:
        """Return what to restore from, given where the newest epochs stand; None to be given an older one."""

    def begin_restore(self, epoch: int = 1, *, quiet: bool = False) -> None:
        """Forget everything; rows of an epoch follow; where there are none, its replay begins if `quiet`."""

    def restore_row(self, key: bytes, value: bytes | None) -> None:
        """Take one changelog row, oldest first."""

    def told_row(self, key: bytes, value: bytes | None) -> None:
        """Take one row of the epoch that says what subscribers were told, oldest first."""

    def go_live(self) -> None:
        """After a quiet replay: take over what subscribers were told, and tell them what changes."""

    def finish_restore(self, *, partitions: int) -> int | None:
        """Return the partition row's source offset; None for a partition that never committed."""

    def start_at(self, offset: int, since_ms: int = 0) -> None:
        """Begin a fresh partition at `offset`, where its log begins, which is whole from `since_ms` on."""

    def begin(self, chunk: Chunk) -> Any:
        """Decode and validate; the result is passed to `advance` and has a bool `done`."""

    def advance(self, work: Any) -> bool:
        """Apply one bounded piece; False when pending work must be taken before there is room."""

    def sweep(self, now_ms: int) -> bool:
        """Evaluate deadlines up to `now_ms`; False when cut by the bound: take, then call again."""

    @property
    def half_swept(self) -> bool:
        """Whether a sweep was cut and lost its worker: `convert` finishes it, before any chunk is begun."""

    @property
    def converting(self) -> bool:
        """Whether `convert` has something to do. Time may make it so: ask again after a sweep."""

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

    def restore(self, epoch: int = 1) -> AsyncGenerator[Row, None]:
        """Iterate over the committed rows of an epoch's changelog, oldest first, up to its stable end."""

    async def latest(self, epoch: int, key: bytes) -> bytes | None:
        """Return the latest row of an epoch's changelog under a key that every transaction writes."""

    async def shut_out(self, epoch: int) -> None:
        """Let whoever rebuilt an epoch write to it no more; what that left open is aborted."""

    def replay(self, start: int, end: int) -> AsyncGenerator[Chunk, None]:
        """Iterate over `events` of [start, end) in chunks that form a chain."""

    async def partitions(self) -> int:
        """How many partitions `events` has."""

    async def first_offset(self, stored: int | None) -> int:
        """Return where to read on: `stored`, or the beginning when None; LogTruncated if it is not held."""

    async def transact(self, transaction: Transaction) -> None:
        """Commit it whole. After any error fence and restore: it may or may not have committed."""

    async def close(self) -> None:
        """Let go of connections; never raises."""
