"""The smallest engine that can show a lost, doubled or reordered record: it counts per key.

State: count and digest per key, one sequence number per partition. Each record makes one change
carrying the sequence number, the key's new count and the record's offset.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from streams.kafka.seam import Chunk, DeadLetter, Restoration, Row, Transaction

PARTITION_ROW = b"\x00partition"
PIECE_RECORDS_MAX = 500
PENDING_RECORDS_MAX = 4000


@dataclass
class ToyWork:
    """A chunk on its way; `at` is the next record."""

    chunk: Chunk
    at: int = 0
    done: bool = False


@dataclass
class ToyEngine:
    """Applies one record per event; `explode` is called before each and may raise."""

    explode: Callable[[int, bytes], None] = lambda offset, value: None
    applied_offset: int = 0
    seq: int = 0
    partitions: int = 0
    swept_ms: list[int] = field(default_factory=list)
    counts: dict[bytes, int] = field(default_factory=dict)
    rows: dict[bytes, bytes] = field(default_factory=dict)
    changes: list[tuple[bytes, bytes]] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    aside: dict[int, str] = field(default_factory=dict)
    events: int = 0
    moved: bool = False
    restored: int = 0
    since_ms: int = 0
    newest_epoch: int = 1
    epoch: int = 1
    live: bool = True
    told: dict[bytes, bytes | None] = field(default_factory=dict)
    pieces_left: int = 1
    slices_left: int = 0
    halves_left: int = 0
    converted: list[int] = field(default_factory=list)
    refusal: str | None = None

    @property
    def epochs(self) -> tuple[int, ...]:
        """One, or as many as a test says."""
        return tuple(range(1, self.newest_epoch + 1))

    @property
    def position_key(self) -> bytes:
        """The partition row's."""
        return PARTITION_ROW

    @property
    def leaves(self) -> bool:
        """Whether there is a newer epoch."""
        return self.epoch < self.newest_epoch

    def choose(self, rows: Mapping[int, bytes | None]) -> Restoration | None:
        """The newest epoch that is live; the one after it is replayed to where that stands."""
        if self.newest_epoch == 1:
            return Restoration(1)
        for epoch, row in rows.items():
            held = json.loads(row or b"{}")
            if held.get("live") or (epoch == 1 and held):
                if epoch == self.newest_epoch:
                    return Restoration(epoch)
                return Restoration(self.newest_epoch, epoch, held["offset"])
        return None if 1 not in rows else Restoration(1)

    def told_row(self, key: bytes, value: bytes | None) -> None:
        """Take what subscribers were told."""
        self.told[key] = value

    def go_live(self) -> None:
        """Go on from the sequence number of what was told."""
        self.live = self.moved = True
        self.seq = json.loads(self.told[PARTITION_ROW] or b"{}")["seq"]

    def begin_restore(self, epoch: int = 1, *, quiet: bool = False) -> None:
        """Forget everything."""
        self.counts, self.rows, self.changes, self.dead, self.aside = {}, {}, [], [], {}
        self.seq = self.applied_offset = self.events = 0
        self.moved = False
        self._stored: int | None = None
        self.epoch, self.live, self.told = epoch, not quiet, {}
        self.restored += 1

    def restore_row(self, key: bytes, value: bytes | None) -> None:
        """Take one row."""
        if key == PARTITION_ROW:
            row = json.loads(value or b"")
            self.seq, self._stored, self.live = row["seq"], row["offset"], row["live"]
        else:
            self.counts[key] = int(value or b"0")

    def finish_restore(self, *, partitions: int) -> int | None:
        """Return the stored offset."""
        self.partitions = partitions
        self.applied_offset = self._stored or 0
        return self._stored

    def start_at(self, offset: int, since_ms: int = 0) -> None:
        """Begin at the log's beginning."""
        self.applied_offset, self.since_ms = offset, since_ms

    def begin(self, chunk: Chunk) -> ToyWork:
        """Start on a chunk; an empty one is done at once."""
        work = ToyWork(chunk)
        if not chunk.records:
            self._finish(work)
        return work

    def _finish(self, work: ToyWork) -> None:
        work.done = self.moved = True
        self.applied_offset = work.chunk.end_offset

    def advance(self, work: ToyWork) -> bool:
        """Apply up to 500 records."""
        if self.events >= PENDING_RECORDS_MAX:
            return False
        records = work.chunk.records[work.at : work.at + PIECE_RECORDS_MAX]
        for record in records:
            self._apply(record.offset, record.key or b"", record.value)
        work.at += len(records)
        self.applied_offset = records[-1].offset + 1
        self.moved = True
        if work.at == len(work.chunk.records):
            self._finish(work)
        return True

    def _apply(self, offset: int, key: bytes, value: bytes | None) -> None:
        self.events += 1
        if offset in self.aside:
            self.dead.append(DeadLetter(offset, key, value, "ApplyFailed", self.aside.pop(offset)))
            return
        if value is None or value == b"dead":
            self.dead.append(DeadLetter(offset, key, value, "UndecodableValue", "asked for"))
            return
        if value.startswith(b"huge"):
            self.dead.append(DeadLetter(offset, key, value, "UndecodableValue", "too big"))
            return
        # The count is raised before the explosion, so a state that is trusted after it is wrong.
        count = self.counts[key] = self.counts.get(key, 0) + 1
        self.explode(offset, value)
        self.seq += 1
        self.rows[key] = b"%d" % count
        self.changes.append((key, json.dumps({"seq": self.seq, "count": count, "offset": offset}).encode()))

    def set_aside(self, offset: int, error: str) -> None:
        """Remember a culprit."""
        self.aside[offset] = error

    def sweep(self, now_ms: int) -> bool:
        """Record the time; `pieces_left` is how many pieces it takes, each a transaction of its own."""
        if self.moved:
            return False
        self.swept_ms.append(now_ms)
        self.moved = True
        self.pieces_left -= 1
        return self.pieces_left <= 0

    @property
    def half_swept(self) -> bool:
        """Whether a test says so; a slice is what finishes it."""
        return self.halves_left > 0

    @property
    def converting(self) -> bool:
        """Whether slices are left."""
        return self.half_swept or self.slices_left > 0

    def convert(self) -> bool:
        """Note how many events were applied before; each slice is a transaction of its own."""
        assert self.converting, "asked while there is nothing to do"
        if self.moved:
            return False
        if self.half_swept:
            self.halves_left -= 1
        else:
            self.slices_left -= 1
        self.converted.append(self.applied_offset)
        self.moved = True
        return True

    def has_pending(self) -> bool:
        """Whether anything moved."""
        return self.moved

    def take(self) -> Transaction:
        """Everything since the last take."""
        row = json.dumps({"seq": self.seq, "offset": self.applied_offset, "live": self.live}).encode()
        rows: list[Row] = [*self.rows.items(), (PARTITION_ROW, row)]
        quiet = not self.live
        changes = [] if quiet else self.changes
        taken = Transaction(
            self.applied_offset, rows, changes, [], self.dead, self.events, epoch=self.epoch, quiet=quiet
        )
        self.rows, self.changes, self.dead, self.events, self.moved = {}, [], [], 0, False
        return taken
