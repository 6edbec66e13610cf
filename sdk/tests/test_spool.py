"""The folder of the spool: whose files are whose, which are read first, which are deleted."""

from __future__ import annotations

import fcntl
import logging
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from shoal_sdk.counters import Counters
from shoal_sdk.entry import Entry
from shoal_sdk.outbox import Outbox
from shoal_sdk.spool import Spool

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
