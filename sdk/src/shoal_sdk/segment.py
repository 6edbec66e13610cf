"""One file of the spool: accepted events in order, and how far they are settled.

Layout: magic (8 bytes), settled position (u64) and its CRC-32 (u32), then records, each of length
(u32), CRC-32 of the body (u32), CRC-32 of those two (u32) and body; little-endian. A body is the
lengths of event type (u8), event id (u16) and key (u16), then those three and the value. Everything
before the settled position needs no second delivery. The frame has a CRC of its own, because only
an intact length tells a record that was cut off from one that was damaged.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from weakref import WeakValueDictionary

from shoal_sdk.entry import Entry

MAGIC = b"SHOALSP1"
READ_BYTES = 256 * 1024

_SETTLED = struct.Struct("<QI")
_FRAME = struct.Struct("<III")
_FRONT = struct.Struct("<II")
_BODY = struct.Struct("<BHH")
HEADER_BYTES = len(MAGIC) + _SETTLED.size


class Unreadable(Exception):
    """A file that is no segment from its first bytes on."""


def frame(entry: Entry) -> bytes:
    """Return the record of an event as it lies in the file."""
    event_type, event_id = entry.event_type.encode(), entry.event_id.encode()
    head = _BODY.pack(len(event_type), len(event_id), len(entry.key))
    body = b"".join((head, event_type, event_id, entry.key, entry.value))
    front = _FRONT.pack(len(body), zlib.crc32(body))
    return b"".join((front, _crc(front), body))


def _crc(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(4, "little")


def _length_in(chunk: bytes, at: int) -> int | None:
    """Return the length of the body whose frame lies at `at`; None unless the frame is whole and intact."""
    if len(chunk) - at < _FRAME.size:
        return None
    length, _, crc = _FRAME.unpack_from(chunk, at)
    return length if zlib.crc32(chunk[at : at + _FRONT.size]) == crc else None


def _entry_of(body: bytes) -> Entry:
    """Return the event in a body whose CRC was right."""
    type_end, id_end, key_end = _BODY.unpack_from(body)
    type_end += _BODY.size
    id_end += type_end
    key_end += id_end
    event_type, event_id = body[_BODY.size : type_end].decode(), body[type_end:id_end].decode()
    return Entry(body[id_end:key_end], body[key_end:], event_type, event_id)


def _settled_mark(position: int) -> bytes:
    packed = position.to_bytes(8, "little")
    return packed + _crc(packed)


class Segment:
    """One file. `append` is the writers', under their lock; the rest belongs to the one reader.

    A file of ours is open until `close`; one left behind only while it is read or written, because
    there may be any number of them. `size` is where the next record goes.
    """

    def __init__(self, path: Path, fd: int | None, *, size: int, settled: int, ours: bool) -> None:
        self.path = path
        self.size = size
        self.ours = ours
        """Written by this process; otherwise left behind by one that is gone."""
        self.sealed = not ours
        self.damage = ""
        """What is wrong with the rest of the file, once the reader has come upon it."""
        self.torn_bytes = 0
        """The length of a record at the end that its process did not live to finish."""
        self.failure = ""
        """Why the disk would not give us the rest of the file; there may be nothing wrong with it."""
        self.receipts: WeakValueDictionary[int, Entry] = WeakValueDictionary()
        """By position, the events somebody holds a receipt of: the same object is handed out again."""
        self._fd = fd
        self._closed = False
        self._read = settled
        self._settled = settled
        # Where the records begin that were read and are not settled, in order. Not the events: what is
        # delivered behind one that is stuck must not be kept by it.
        self._under_way: dict[int, None] = {}

    @classmethod
    def create(cls, path: Path) -> Segment:
        """Make a new file, for its owner's eyes only; an OSError if the disk does not let us."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _write(fd, MAGIC + _settled_mark(HEADER_BYTES), 0)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return cls(path, fd, size=HEADER_BYTES, settled=HEADER_BYTES, ours=True)

    @classmethod
    def adopt(cls, path: Path) -> Segment:
        """Look at a file a dead process left behind; Unreadable if it is none."""
        fd = os.open(path, os.O_RDWR)
        try:
            size = os.fstat(fd).st_size
            head = os.pread(fd, HEADER_BYTES, 0)
        finally:
            os.close(fd)
        if len(head) < HEADER_BYTES and MAGIC.startswith(head[: len(MAGIC)]):
            # Made and not finished: it never held a record.
            return cls(path, None, size=HEADER_BYTES, settled=HEADER_BYTES, ours=False)
        if not head.startswith(MAGIC):
            raise Unreadable("it does not begin as a spool file does")
        settled, crc = _SETTLED.unpack_from(head, len(MAGIC))
        # A mark that makes no sense costs a second delivery of the whole file, no event.
        sensible = zlib.crc32(head[len(MAGIC) : len(MAGIC) + 8]) == crc and HEADER_BYTES <= settled <= size
        return cls(path, None, size=size, settled=settled if sensible else HEADER_BYTES, ours=False)

    def append(self, record: bytes, entry: Entry, *, fsync: bool) -> None:
        """Write one record whole or, with an OSError, not at all; then the event's payload is let go."""
        assert self._fd is not None
        try:
            _write(self._fd, record, self.size)
            if fsync:
                os.fsync(self._fd)
        except OSError:
            # What is there of it must not stand before the next record.
            os.ftruncate(self._fd, self.size)
            raise
        # The reader sees the record as soon as `size` says so, and gives the event its payload back.
        entry.value = b""
        self.receipts[self.size] = entry
        self.size += len(record)

    def read(self, events_max: int, bytes_max: int) -> list[Entry]:
        """Return the next events in order, and remember them as under way.

        At most `events_max`, and those that cost at most `bytes_max` in memory together, but one at
        least. An incomplete record at the end of an adopted file sets `torn_bytes`, any other that
        is not what was written `damage`, and a disk that fails `failure`; then the rest of the file is
        not read. Nothing is raised: what was found before is always returned.
        """
        found: list[Entry] = []
        cost = 0
        while len(found) < events_max and self.has_unread:
            try:
                chunk = self._chunk()
            except OSError as error:
                self.failure = str(error)
                break
            for entry, length in self._records(chunk):
                cost += entry.cost_bytes
                if found and cost > bytes_max:
                    return found
                entry.place = (self, self._read)
                self._under_way[self._read] = None
                self._read += length
                found.append(entry)
                if len(found) == events_max:
                    break
        return found

    @property
    def has_unread(self) -> bool:
        """Whether there may be events to read now."""
        return self._read < self.size and not self.is_over

    @property
    def is_over(self) -> bool:
        """Whether the rest of the file is not going to be read."""
        return bool(self.damage or self.torn_bytes or self.failure)

    @property
    def is_settled(self) -> bool:
        """Whether every event that can be read from it is settled."""
        return not self.has_unread and not self._under_way

    def note_settled(self, starts: Iterable[int]) -> None:
        """Forget the events that begin there, and write down up to where everything is settled."""
        for start in starts:
            self._under_way.pop(start, None)
        before, self._settled = self._settled, next(iter(self._under_way), self._read)
        if self._settled > before and not self._closed:
            # A failing disk costs a second delivery after a crash, no event.
            with contextlib.suppress(OSError), self._open() as fd:
                os.pwrite(fd, _settled_mark(self._settled), len(MAGIC))

    def close(self) -> None:
        """Let the file go; also right in a forked child, for the child's copy."""
        self._closed = True
        fd, self._fd = self._fd, None
        if fd is not None:
            # The descriptor is gone whatever the file system says; NFS tells of earlier writes here.
            with contextlib.suppress(OSError):
                os.close(fd)

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        """Lend a descriptor of the file."""
        if self._fd is not None:
            yield self._fd
            return
        fd = os.open(self.path, os.O_RDWR)
        try:
            yield fd
        finally:
            os.close(fd)

    def _chunk(self) -> bytes:
        """Read on from where the reader stands: whole records, the first at least if the file holds it."""
        left = self.size - self._read
        with self._open() as fd:
            chunk = os.pread(fd, min(READ_BYTES, left), self._read)
            first = _FRAME.size + (_length_in(chunk, 0) or 0)
            return chunk if first <= len(chunk) else os.pread(fd, min(first, left), self._read)

    def _records(self, chunk: bytes) -> Iterator[tuple[Entry, int]]:
        """Yield the whole, intact records a chunk begins with, each with its length in the file."""
        start, at = self._read, 0
        while (length := _length_in(chunk, at)) is not None and at + _FRAME.size + length <= len(chunk):
            body = chunk[at + _FRAME.size : at + _FRAME.size + length]
            if zlib.crc32(body) != _FRONT.unpack_from(chunk, at)[1]:
                break
            try:
                entry = _entry_of(body)
            except (struct.error, UnicodeDecodeError) as error:
                # Written like this, by whatever did: no use in reading it again.
                self.damage = f"the record at {start + at} holds no event: {error}"
                return
            if (kept := self.receipts.get(start + at)) is not None:
                kept.value = entry.value
                entry = kept
            yield entry, _FRAME.size + length
            at += _FRAME.size + length
        if at == 0:
            self._judge(chunk)

    def _judge(self, chunk: bytes) -> None:
        """Tell a record its process did not live to finish from one that is damaged."""
        left = self.size - self._read
        length = _length_in(chunk, 0)
        # A power failure may leave the right length with bytes that were never written, or only zeros.
        cut_off = left < _FRAME.size if length is None else _FRAME.size + length >= left
        if not self.ours and (cut_off or not any(chunk)):
            self.torn_bytes = left
        else:
            self.damage = f"the record at {self._read} is not what was written, {left} bytes are unreadable"


def _write(fd: int, content: bytes, position: int) -> None:
    """Write all of it; the kernel may take less at a time, as when the disk gets full."""
    while content:
        written = os.pwrite(fd, content, position)
        content = content[written:]
        position += written
