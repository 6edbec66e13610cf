"""The folder of the spool: whose files are whose, which are read first, which are deleted."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import logging
import os
import resource
import subprocess
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shoal_sdk.counters import Counters
from shoal_sdk.entry import Entry
from shoal_sdk.outbox import Outbox
from shoal_sdk.segment import READ_BYTES
from shoal_sdk.spool import NAMES_INHERITED_MAX, Spool

Start = Callable[..., subprocess.Popen[str]]

ALL = (10_000, 1 << 30)


def entry(name: str, size: int = 10) -> Entry:
    """Return an event with this id."""
    return Entry(b"customer", b"x" * size, "purchased", name)


def spool(folder: Path, max_bytes: int = 64 << 20) -> Spool:
    """Open the spool as another process would: locks are held by open files, not by processes."""
    return Spool(folder, max_bytes=max_bytes, fsync=False)


def write(spool: Spool, *names: str, size: int = 10) -> None:
    """Append events of these ids."""
    for name in names:
        assert spool.append(entry(name, size))


def settle(spool: Spool, entries: list[Entry]) -> None:
    """Settle events as the outbox does."""
    for each in entries:
        each.settled = True
    spool.settle(entries)


def ids(entries: list[Entry]) -> list[str]:
    """Return the event ids."""
    return [each.event_id for each in entries]


def files(folder: Path, kind: str = "*") -> list[str]:
    """Return the names in the folder."""
    return sorted(path.name for path in folder.glob(kind))


def die(spool: Spool) -> None:
    """Let go of everything without a word, as a killed process does."""
    spool.forget()


def test_what_the_dead_left_comes_first_and_oldest_first(tmp_path: Path) -> None:
    """Newer events of a customer must not overtake older ones."""
    for name in ("a", "b", "c"):
        dead = spool(tmp_path)
        dead._take_over = lambda: None  # type: ignore[method-assign]  # It takes over nothing later.
        write(dead, f"{name}1", f"{name}2")
        heirs = dead._names[1:]
        die(dead)
        assert not heirs or name > "a"
    heir = spool(tmp_path)
    write(heir, "new")
    assert ids(heir.read(*ALL)) == ["a1", "a2", "b1", "b2", "c1", "c2", "new"]
    assert not heir.has_unread
    heir.close()


def test_nobody_takes_over_from_the_living(tmp_path: Path) -> None:
    """Nor do two take over from one that died."""
    living, dead = spool(tmp_path), spool(tmp_path)
    write(living, "living")
    write(dead, "dead")
    die(dead)
    heir, other = spool(tmp_path), spool(tmp_path)
    assert ids(heir.read(*ALL)) == ["dead"]
    assert other.read(*ALL) == []
    assert not other.leftovers
    for each in (living, heir, other):
        each.close()


def test_a_live_childs_copies_do_not_keep_a_dead_parents_spool(tmp_path: Path, start_script: Start) -> None:
    """The child of a fork lets go of its parent's lock, and does not unlock it while the parent lives."""
    code = """
import os, sys
from shoal_sdk import *
client = Shoal("127.0.0.1:9", app="shop", spool=sys.argv[1])
client.purchased("c1", order_id="parent", amount=Money(1, "EUR"))
if os.fork() == 0:
    print("child", flush=True)
    sys.stdin.readline()
    os._exit(0)
sys.stdin.readline()
"""
    process = start_script(code, str(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline() == "child\n"
    folder = tmp_path / "shoal.events"
    early = spool(folder)
    assert not early.leftovers, "the child has unlocked its parent's files"
    early.close()
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    heir = spool(folder)
    assert len(heir.read(*ALL)) == 1
    heir.close()


def test_a_lock_on_a_file_just_deleted_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last holder was done between our opening and locking it: the next one could lock the same name."""
    lock = fcntl.flock

    def lock_late(fd: int, how: int) -> None:
        for path in tmp_path.glob("*.lock"):
            path.unlink()
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with pytest.raises(OSError, match="no name could be locked"):
        spool(tmp_path)


def test_a_settled_spool_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither its own files nor those it took over."""
    dead = spool(tmp_path)
    write(dead, "a", "b")
    die(dead)
    heir = spool(tmp_path)
    write(heir, "c")
    settle(heir, heir.read(*ALL))
    assert len(files(tmp_path, "*.lock")) == 1
    heir.close()
    assert files(tmp_path) == []


def test_what_is_not_settled_waits_for_the_next(tmp_path: Path) -> None:
    """Also when the client is closed in good order; files of others in the folder are left alone."""
    (tmp_path / "notes.log").write_text("somebody else's")
    first = spool(tmp_path)
    write(first, "a", "b", "c")
    settle(first, first.read(1, 1 << 20))
    first.close()
    second = spool(tmp_path)
    assert ids(second.read(*ALL)) == ["b", "c"]
    second.close()
    assert "notes.log" in files(tmp_path)


def test_full_files_go_as_soon_as_they_are_settled(tmp_path: Path) -> None:
    """The bound is on what is on disk, over all files; then events are refused until there is room again."""
    full = spool(tmp_path, max_bytes=1 << 20)
    names = []
    while full.append(entry(f"e{len(names)}", 10_000)):
        names.append(f"e{len(names)}")
    assert 95 < len(names) <= 104
    assert sum(path.stat().st_size for path in tmp_path.glob("*.log")) == full.bytes_held <= 1 << 20
    assert len(files(tmp_path, "*.log")) > 3
    found = full.read(30, 1 << 30)
    settle(full, found)
    assert full.append(entry("later", 10_000))
    found += full.read(*ALL)
    assert ids(found) == [*names, "later"]
    settle(full, found[30:])
    full.close()
    assert files(tmp_path) == []


def test_a_torn_tail_is_skipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once; then the file goes as any other."""
    dead = spool(tmp_path)
    write(dead, "a", "b")
    die(dead)
    path = next(tmp_path.glob("*.log"))
    os.truncate(path, path.stat().st_size - 3)
    heir = spool(tmp_path)
    found = heir.read(*ALL)
    assert ids(found) == ["a"]
    assert heir.read(*ALL) == []
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "did not live to finish" in caplog.text
    settle(heir, found)
    heir.close()
    assert files(tmp_path) == []


@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, whole: bool) -> None:
    """Its good events are delivered first, it is kept for people to look at, and nobody reads it again."""
    dead = spool(tmp_path)
    write(dead, "a", "b", "c")
    die(dead)
    path = next(tmp_path.glob("*.log"))
    content = path.read_bytes()
    path.write_bytes(b"x" * len(content) if whole else content.replace(b"b", b"?"))
    heir = spool(tmp_path)
    write(heir, "new")
    found = heir.read(*ALL)
    assert ids(found) == (["new"] if whole else ["a", "new"])
    settle(heir, found)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "corrupt" in caplog.text
    heir.close()
    assert len(files(tmp_path)) == 1 and files(tmp_path)[0].endswith(".corrupt")
    last = spool(tmp_path)
    assert not last.leftovers
    last.close()
    assert len(caplog.records) == 1


def test_a_folder_of_no_use_is_an_error(tmp_path: Path) -> None:
    """At the start, where it can be mended."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        spool(tmp_path / "file" / "spool")


def test_an_event_that_is_stuck_keeps_none_of_those_delivered_after_it(tmp_path: Path) -> None:
    """The bounds no longer count them, so memory must not hold them; what is stuck stays on disk."""
    box = spool(tmp_path)
    write(box, "stuck", *[f"e{number}" for number in range(100)])
    stuck, *others = box.read(*ALL)
    kept = [weakref.ref(each) for each in others]
    settle(box, others)
    others.clear()
    gc.collect()
    assert [each() for each in kept] == [None] * 100
    box.close()
    heir = spool(tmp_path)
    assert ids(heir.read(*ALL))[0] == stuck.event_id
    heir.close()


def test_a_folder_the_disk_fails_to_note_once_takes_events_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file made by then must not be in the way of the next, nor stay."""
    box = Spool(tmp_path, max_bytes=64 << 20, fsync=True)
    sync = os.fsync

    def fail_once(fd: int) -> None:
        monkeypatch.setattr(os, "fsync", sync)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail_once)
    assert not box.append(entry("a"))
    assert files(tmp_path, "*.log") == []
    write(box, "b")
    found = box.read(*ALL)
    assert ids(found) == ["b"]
    settle(box, found)
    box.close()
    assert files(tmp_path) == []


def test_bytes_are_counted_before_an_interrupting_event_may_write(tmp_path: Path) -> None:
    """A signal handler that tracks an event between reading and writing the sum would undo its own part."""
    refused: list[bool] = []

    class Interrupted(Spool):
        appended = 0

        @property
        def _appended_bytes(self) -> int:
            counted = self.appended
            if self.armed and len(refused) < 3:
                refused.append(self.append(entry("handler")))
            return counted

        @_appended_bytes.setter
        def _appended_bytes(self, count: int) -> None:
            self.appended = count

        armed = False

    box = Interrupted(tmp_path, max_bytes=64 << 20, fsync=False)
    write(box, "first")
    box.armed = True
    write(box, "a")
    box.armed = False
    assert refused and not any(refused)
    assert sum(path.stat().st_size for path in tmp_path.glob("*.log")) == box.bytes_held
    box.close()


@contextlib.contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """Leave this process that many descriptors to open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    busy = [os.open(os.devnull, os.O_RDONLY)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 9, hard))
        with contextlib.suppress(OSError):
            while True:
                busy.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(count):
            os.close(busy.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in busy:
            os.close(fd)


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("left", range(5))
def test_a_shortage_of_descriptors_harms_no_file(tmp_path: Path, left: int) -> None:
    """What cannot be opened at the start waits for the next start, as it is."""
    dead = spool(tmp_path)
    dead._segment_bytes_max = 100
    write(dead, *"abcde", size=100)
    die(dead)
    before = descriptors()
    with descriptors_left(left), contextlib.suppress(OSError):
        short = spool(tmp_path)
        die(short)
    assert descriptors() == before
    heir = spool(tmp_path)
    assert files(tmp_path, "*.corrupt") == []
    assert ids(heir.read(*ALL)) == [*"abcde"]
    heir.close()


def test_an_unfinished_start_lets_go_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the application could not even try again: its own locks would be in the way."""
    dead = spool(tmp_path)
    write(dead, "a")
    die(dead)
    before = descriptors()

    def end(self: Spool) -> None:
        raise MemoryError

    # It comes after the file was opened.
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "_remove_settled", end)
        with pytest.raises(MemoryError):
            spool(tmp_path)
    assert descriptors() == before
    heir = spool(tmp_path)
    assert len(files(tmp_path, "*.lock")) == 2
    assert ids(heir.read(*ALL)) == ["a"]
    heir.close()


def test_what_cannot_be_locked_or_opened_stops_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another user's, for example; here a folder stands where a file should, which stops root as well."""
    (tmp_path / f"{1:020d}-1-00000000.lock").mkdir()
    (tmp_path / f"{2:020d}-1-00000000.00000000.log").mkdir()
    dead = spool(tmp_path)
    write(dead, "a")
    die(dead)
    caplog.clear()
    heir = spool(tmp_path)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "2 files" in caplog.text
    assert ids(heir.read(*ALL)) == ["a"]
    heir.close()
    assert (tmp_path / f"{2:020d}-1-00000000.00000000.log").is_dir(), "it was set aside"


def test_many_dead_processes_cost_a_bounded_number_of_descriptors(tmp_path: Path) -> None:
    """Short runs during an outage leave any number of files: all are read, in order, before our own."""
    others = NAMES_INHERITED_MAX * 2 + 5
    dead = [spool(tmp_path) for _ in range(others)]
    for number, each in enumerate(dead):
        write(each, str(number))
    living = dead.pop()
    for each in dead:
        die(each)
    before = descriptors()
    heir = spool(tmp_path)
    write(heir, "ours")
    assert descriptors() - before <= NAMES_INHERITED_MAX + 2
    assert heir.leftovers == others - 1
    found = heir.read(*ALL)
    assert ids(found) == [str(number) for number in range(NAMES_INHERITED_MAX)]
    assert heir.read(*ALL) == [], "older ones must be settled first"
    assert heir.has_unread
    settle(heir, found)
    while some := heir.read(*ALL):
        found += some
        assert descriptors() - before <= NAMES_INHERITED_MAX + 2
        settle(heir, some)
    assert ids(found) == [*[str(number) for number in range(others - 1)], "ours"]
    assert not heir.leftovers and not heir.has_unread
    assert sum(path.stat().st_size for path in tmp_path.glob(f"{heir._name.name}.*")) == heir.bytes_held
    heir.close()
    living.close()
    assert len(files(tmp_path)) == 2, "all but those of the living are gone"


def test_more_dead_processes_without_an_event_are_in_nobodys_way(tmp_path: Path) -> None:
    """Killed after everything of theirs was settled: their names make room for others at once."""
    dead = [spool(tmp_path) for _ in range(NAMES_INHERITED_MAX + 5)]
    for each in dead:
        write(each, "settled")
        for one in each.read(*ALL):
            assert one.place is not None
            one.place[0].note_settled([one.place[1]])
    last = spool(tmp_path)
    write(last, "last")
    for each in (*dead, last):
        die(each)
    heir = spool(tmp_path)
    assert heir.leftovers == 1
    assert ids(heir.read(*ALL)) == ["last"]
    heir.close()


def fail_reads(patch: pytest.MonkeyPatch, path: Path, position: int) -> None:
    """Have the disk fail from there on in this file."""
    pread, number = os.pread, path.stat().st_ino

    def read(fd: int, count: int, at: int) -> bytes:
        if at >= position and os.fstat(fd).st_ino == number:
            raise OSError(errno.EIO, "Input/output error")
        return pread(fd, count, at)

    patch.setattr(os, "pread", read)


def test_a_file_the_disk_does_not_give_is_left_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad sector must not stop delivery; what was read before it is delivered, the rest by the next."""
    dead = spool(tmp_path)
    write(dead, "a1", "a2", "a3", size=READ_BYTES * 3 // 4)
    die(dead)
    bad = next(tmp_path.glob("*.log"))
    box = outbox(tmp_path, max_events=100)
    box.max_bytes = 1 << 30
    box.offer(entry("ours"))
    with monkeypatch.context() as patch:
        fail_reads(patch, bad, READ_BYTES)
        found = box.take()
        assert ids(found) == ["a1", "a2", "ours"]
        box.settle(found, delivered=True)
        assert box.take() == []
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert box.flush(0.0) == 0
    assert box.counters == Counters(1, 3, 0, 0, spooled=1, replayed=2)
    box.abandon()
    assert bad.exists()
    heir = spool(tmp_path)
    assert ids(heir.read(*ALL)) == ["a3"]
    heir.close()


def test_our_own_file_the_disk_does_not_give_is_left_and_the_next_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush says what is not delivered; events after that go on, into another file."""
    box = outbox(tmp_path)
    box.offer(entry("a"))
    bad = next(tmp_path.glob("*.log"))
    with monkeypatch.context() as patch:
        fail_reads(patch, bad, 0)
        assert box.take() == []
        assert box.flush(0.0) == 1
        box.offer(entry("b"))
        found = box.take()
    assert ids(found) == ["b"]
    box.settle(found, delivered=True)
    assert box.flush(0.0) == 0
    box.abandon()
    heir = spool(tmp_path)
    assert ids(heir.read(*ALL)) == ["a"]
    heir.close()


def test_a_flush_does_not_wait_for_a_file_that_held_nothing(tmp_path: Path) -> None:
    """Nothing of a torn record is ever settled, so who reads it must say that it is gone."""
    dead = spool(tmp_path)
    write(dead, "torn")
    die(dead)
    path = next(tmp_path.glob("*.log"))
    os.truncate(path, path.stat().st_size - 3)
    box = outbox(tmp_path)
    notified: list[int] = []
    waiting = box._changed.wait

    def take_meanwhile(timeout: float | None = None) -> bool:
        assert not notified, "it was woken for nothing"
        other = threading.Thread(target=box.take)
        other.start()
        notified.append(waiting(timeout))
        other.join()
        return True

    box._changed.wait = take_meanwhile  # type: ignore[method-assign]  # Only to take while it waits.
    assert box.flush(20.0) == 0
    assert notified == [True]
    box.abandon()


def outbox(folder: Path, max_events: int = 3, max_bytes: int = 64 << 20) -> Outbox:
    """Return an outbox with a spool."""
    box = Outbox(max_events, 1 << 20, lambda urgent: None)
    box.use(spool(folder, max_bytes))
    return box


def test_the_outbox_takes_from_disk_what_memory_has_room_for(tmp_path: Path) -> None:
    """More is accepted than memory holds, and comes out in order."""
    box = outbox(tmp_path)
    for number in range(8):
        assert box.offer(entry(str(number))) is None
    assert box.waiting == 8
    taken: list[str] = []
    while some := box.take():
        assert len(some) <= 3
        assert box.take() == []
        taken += ids(some)
        box.settle(some, delivered=True)
    assert taken == [str(number) for number in range(8)]
    assert box.counters == Counters(8, 8, 0, 0, spooled=8)
    box.abandon()
    assert files(tmp_path) == []


def test_a_full_disk_means_memory_and_then_drops(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing raises, order is kept, the log says it once; what is in memory is not counted as spooled."""
    caplog.set_level(logging.INFO)
    box = outbox(tmp_path)
    assert box.offer(entry("disk")) is None
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        refusals = [box.offer(entry(f"memory{number}")) for number in range(4)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [refusal is None for refusal in refusals] == [True] * 3 + [False]
    assert box.counters == Counters(4, 0, 1, 0, spooled=1)
    assert box.offer(entry("still memory")) is not None
    oldest = box.take()
    assert ids(oldest) == ["disk"]
    box.settle(oldest, delivered=True)
    younger = box.take()
    assert ids(younger) == ["memory0", "memory1", "memory2"]
    box.settle(younger, delivered=True)
    assert box.offer(entry("disk again")) is None
    assert box.counters == Counters(5, 4, 2, 0, spooled=2)
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert box.abandon() == []
    heir = spool(tmp_path)
    assert ids(heir.read(*ALL)) == ["disk again"]
    heir.close()
