"""One file of the spool: what is written is read; what is damaged is told from what was cut off."""

from __future__ import annotations

import os
import resource
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal_sdk.entry import Entry
from shoal_sdk.segment import HEADER_BYTES, READ_BYTES, Segment, Unreadable, frame


def entry(number: int, size: int = 10) -> Entry:
    """Return an event that can be told from others."""
    return Entry(b"customer", b"%d" % number * size, "purchased", f"e{number}")


def write(path: Path, *entries: Entry) -> list[int]:
    """Write events into a new file as a process that ends at once would; return where each ends."""
    segment = Segment.create(path)
    ends = []
    for each in entries:
        segment.append(frame(each), each, fsync=False)
        ends.append(segment.size)
    segment.close()
    return ends


def ids(entries: list[Entry]) -> list[str]:
    """Return the event ids."""
    return [each.event_id for each in entries]


@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=2 * READ_BYTES)), max_size=5))
def test_what_is_written_is_read(contents: list[tuple[bytes, bytes]]) -> None:
    """Every part of every event, in order, also when records are longer than what is read at once."""
    path = Path(f"/dev/shm/shoal-{os.getpid()}.log" if Path("/dev/shm").is_dir() else "/tmp/shoal-test.log")
    path.unlink(missing_ok=True)
    sent = [Entry(key, value, "refunded", f"é{number}") for number, (key, value) in enumerate(contents)]
    write(path, *sent)
    segment = Segment.adopt(path)
    found = segment.read(100, 1 << 30)
    assert [(each.key, each.value, each.event_type, each.event_id) for each in found] == [
        (key, value, "refunded", f"é{number}") for number, (key, value) in enumerate(contents)
    ]
    assert not segment.has_unread and not segment.torn_bytes and not segment.damage
    segment.close()
    path.unlink()


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Events say who bought what."""
    write(tmp_path / "a.log", entry(1))
    assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600


def test_no_more_is_read_than_asked_for(tmp_path: Path) -> None:
    """Both bounds hold, but one event is always read: it must get out somehow."""
    write(tmp_path / "a.log", *[entry(number) for number in range(6)])
    segment = Segment.adopt(tmp_path / "a.log")
    cost = entry(0).cost_bytes
    assert ids(segment.read(2, 1 << 20)) == ["e0", "e1"]
    assert ids(segment.read(100, 2 * cost)) == ["e2", "e3"]
    assert ids(segment.read(100, 1)) == ["e4"]
    assert ids(segment.read(100, 1 << 20)) == ["e5"]
    segment.close()


def test_what_is_settled_is_not_read_again(tmp_path: Path) -> None:
    """Up to the first event that is not settled: order matters more than a second delivery."""
    path = tmp_path / "a.log"
    write(path, *[entry(number) for number in range(4)])
    segment = Segment.adopt(path)
    read = segment.read(100, 1 << 20)
    segment.note_settled(place[1] for number in (0, 2, 3) if (place := read[number].place) is not None)
    segment.close()
    again = Segment.adopt(path)
    assert ids(again.read(100, 1 << 20)) == ["e1", "e2", "e3"]
    again.close()


@pytest.mark.parametrize("cut_bytes", [1, 11, 12, 13, 30])
def test_a_record_cut_off_at_the_end_is_torn(tmp_path: Path, cut_bytes: int) -> None:
    """Wherever its process was killed while it wrote: the events before it are read, it is not."""
    path = tmp_path / "a.log"
    ends = write(path, entry(1), entry(2))
    os.truncate(path, ends[0] + cut_bytes)
    segment = Segment.adopt(path)
    assert ids(segment.read(100, 1 << 20)) == ["e1"]
    assert segment.read(100, 1 << 20) == []
    assert segment.torn_bytes == cut_bytes and not segment.damage
    assert not segment.has_unread
    segment.close()


@pytest.mark.parametrize("content", [b"\0" * 5000, b""])
def test_a_tail_the_machine_did_not_live_to_write_is_torn(tmp_path: Path, content: bytes) -> None:
    """After a power failure a file may end in zeros, or its last record in bytes never written."""
    path = tmp_path / "a.log"
    ends = write(path, entry(1), entry(2))
    with path.open("r+b") as file:
        file.seek(ends[0] if content else ends[1] - 5)
        file.write(content or b"\0" * 5)
    segment = Segment.adopt(path)
    assert ids(segment.read(100, 1 << 20)) == ["e1"]
    segment.read(100, 1 << 20)
    assert segment.torn_bytes and not segment.damage
    segment.close()


@pytest.mark.parametrize("offset", [0, 4, 8, 12, 20])
def test_a_damaged_record_is_no_torn_one(tmp_path: Path, offset: int) -> None:
    """A flipped bit in length, CRC or body: events before it are read, those after it are not guessed at."""
    path = tmp_path / "a.log"
    ends = write(path, entry(1), entry(2), entry(3))
    with path.open("r+b") as file:
        file.seek(ends[0] + offset)
        byte = file.read(1)[0]
        file.seek(ends[0] + offset)
        file.write(bytes([byte ^ 0x40]))
    segment = Segment.adopt(path)
    assert ids(segment.read(100, 1 << 20)) == ["e1"]
    assert segment.read(100, 1 << 20) == []
    assert segment.damage and not segment.torn_bytes
    assert segment.is_settled is False
    segment.close()


def test_a_record_that_holds_no_event_is_damage(tmp_path: Path) -> None:
    """Intact and of no use, whoever wrote it: it must not raise, and those before it are read."""
    path = tmp_path / "a.log"
    write(path, entry(1))
    body = b"\x00\x01\x00\x00\x00\xff"
    front = struct.pack("<II", len(body), zlib.crc32(body))
    with path.open("ab") as file:
        file.write(front + zlib.crc32(front).to_bytes(4, "little") + body)
    segment = Segment.adopt(path)
    assert ids(segment.read(100, 1 << 20)) == ["e1"]
    assert "no event" in segment.damage and not segment.torn_bytes
    segment.close()


def test_a_file_of_something_else_is_unreadable(tmp_path: Path) -> None:
    """It is not ours to interpret."""
    (tmp_path / "a.log").write_text("some other program's log of long standing")
    with pytest.raises(Unreadable):
        Segment.adopt(tmp_path / "a.log")


@pytest.mark.parametrize("size", [0, 5, HEADER_BYTES - 1])
def test_a_file_made_and_not_begun_is_empty(tmp_path: Path, size: int) -> None:
    """Its process ended before the first event."""
    write(tmp_path / "a.log")
    os.truncate(tmp_path / "a.log", size)
    segment = Segment.adopt(tmp_path / "a.log")
    assert segment.is_settled
    segment.close()


def test_a_mark_that_makes_no_sense_costs_no_event(tmp_path: Path) -> None:
    """All of the file is delivered again."""
    path = tmp_path / "a.log"
    write(path, entry(1), entry(2))
    with path.open("r+b") as file:
        file.seek(8)
        file.write(b"\xff" * 12)
    segment = Segment.adopt(path)
    assert ids(segment.read(100, 1 << 20)) == ["e1", "e2"]
    segment.close()


def test_a_disk_that_takes_half_a_record_holds_none_of_it(tmp_path: Path) -> None:
    """What the next record would otherwise stand behind; here the kernel's limit on files is the disk."""
    path = tmp_path / "a.log"
    segment = Segment.create(path)
    first, second, third = entry(1), entry(2, size=2000), entry(3)
    segment.append(frame(first), first, fsync=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (segment.size + 1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            segment.append(frame(second), second, fsync=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert second.value, "the caller needs it for memory"
    assert path.stat().st_size == segment.size
    segment.append(frame(third), third, fsync=False)
    assert ids(segment.read(100, 1 << 20)) == ["e1", "e3"]
    segment.close()


def test_the_receipts_event_is_the_one_read(tmp_path: Path) -> None:
    """So that a receipt somebody kept learns of the delivery; its payload is on disk alone meanwhile."""
    segment = Segment.create(tmp_path / "a.log")
    kept = entry(1)
    value = kept.value
    segment.append(frame(kept), kept, fsync=True)
    assert kept.value == b""
    assert segment.read(1, 1 << 20)[0] is kept
    assert kept.value == value
    segment.close()
