"""The disk behind the buffer: accepted events survive the process, and go out in order once.

One folder per topic, shared by any number of processes. Each keeps files of its own there under a
name of its own, and holds a lock on that name for as long as it lives; the kernel lets go of it
however the process ends. Whoever starts next takes over the names nobody holds, and delivers what
is in their files before its own events.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from pathlib import Path

from shoal_sdk.entry import Entry
from shoal_sdk.segment import HEADER_BYTES, Segment, Unreadable, frame

try:
    import fcntl
except ImportError:  # Windows has no such locks; Spool says so.
    fcntl = None  # type: ignore[assignment]  # It is looked at before it is used.

_LOG = logging.getLogger("shoal_sdk")

SEGMENT_BYTES_MAX = 4 << 20
"""A file is deleted when all its events are settled, so this is what a settled spool may still hold."""
NAME_TRIES_MAX = 10
NAMES_INHERITED_MAX = 32
"""Each costs a descriptor. Of more dead processes the younger wait until some are delivered."""

_NAME = re.compile(r"[0-9]{20}-[0-9]+-[0-9a-f]{8}")
"""When, by which process, and a random part; any other file in the folder is none of ours."""


class SpoolFull(Exception):
    """The files of this process hold as many bytes as they may."""


class _Name:
    """A name in the folder, locked by us until let go or until the process is gone."""

    def __init__(self, folder: Path, name: str, fd: int) -> None:
        self.folder = folder
        self.name = name
        self._fd: int | None = fd

    @classmethod
    def take(cls, folder: Path, name: str) -> _Name | None:
        """Lock a name, new or left behind; None if somebody else holds it."""
        path = folder / f"{name}.lock"
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last holder may have deleted the file between our opening and locking it.
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return cls(folder, name, fd)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def segments(self) -> list[Path]:
        """Return the files under this name, oldest first."""
        # Not glob, which of some Python versions takes a folder it cannot list for an empty one.
        files = (each for each in os.listdir(self.folder) if each.endswith(".log"))
        return sorted(self.folder / each for each in files if each.startswith(f"{self.name}."))

    def release(self) -> None:
        """Let the name go: for good, when nothing is left under it, or to whoever takes it over."""
        # The lock goes last, so that there are never files without one; one that stays does no harm.
        with contextlib.suppress(OSError):
            if not self.segments():
                (self.folder / f"{self.name}.lock").unlink(missing_ok=True)
        self.forget()

    def forget(self) -> None:
        """Close our descriptor and delete nothing; in a forked child the parent's lock stays its."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


class Spool:
    """Files of at most `max_bytes` in all, those taken over included.

    `append` is for one thread at a time, `read` and `settle` for one other.
    """

    def __init__(self, folder: Path, *, max_bytes: int, fsync: bool) -> None:
        """Open the spool and take over what dead processes left; an OSError if the folder is of no use."""
        if fcntl is None:
            raise OSError("this system has no file locks: a spool needs them")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._segment_bytes_max = min(SEGMENT_BYTES_MAX, max_bytes // 4)
        # Kept apart, so that the two threads never write the same number.
        self._appended_bytes = 0
        self._freed_bytes = 0
        self._names: list[_Name] = []
        # Read before our own: the files of names taken over, then those of names still to be taken over.
        self._inherited: list[Segment] = []
        self._pending: deque[str] = deque()
        self._segments: list[Segment] = []
        self._appending = False
        self._trouble = ""
        self._reported = False
        self._current: Segment | None = None
        self._count = 0
        try:
            self._name = self._own_name()
            self._take_over()
        except BaseException:
            for segment in self._inherited:
                segment.close()
            for name in self._names:
                name.release()
            raise

    @property
    def leftovers(self) -> int:
        """How many files of earlier processes there are still to read; one for each not looked at."""
        return sum(segment.has_unread for segment in self._inherited.copy()) + len(self._pending)

    @property
    def bytes_held(self) -> int:
        """What the files of this process take on disk."""
        return self._appended_bytes - self._freed_bytes

    def append(self, entry: Entry) -> bool:
        """Write an event behind all others, and let its payload go; False if that cannot be done now.

        Then nothing of it is on disk: the bound is reached, the disk takes no more, or we are already
        writing an event further up the stack, interrupted by a signal. `report` says the first two.
        """
        if self._appending:
            return False
        self._appending = True
        try:
            record = frame(entry)
            segment = self._segment_for(len(record))
            segment.append(record, entry, fsync=self._fsync)
            # Still as the one who appends: a signal handler's event would be lost in this sum.
            self._appended_bytes += len(record)
            self._trouble = ""
        except (SpoolFull, OSError) as error:
            self._trouble = str(error)
            return False
        finally:
            self._appending = False
        return True

    def report(self) -> None:
        """Say in the log, once each, that the disk takes no events and that it does again."""
        trouble, reported = self._trouble, self._reported
        if bool(trouble) != reported:
            self._reported = bool(trouble)
            if trouble:
                _LOG.error(
                    "the spool in %s takes no events: %s. They are kept in memory within its bounds, and"
                    " would not survive the process",
                    self._folder,
                    trouble,
                )
            else:
                _LOG.info("the spool in %s takes events again", self._folder)

    def read(self, events_max: int, bytes_max: int) -> list[Entry]:
        """Return the next events, oldest first: see Segment.read for the bounds."""
        found: list[Entry] = []
        while len(found) < events_max and bytes_max > 0 and (segment := self._next()) is not None:
            some = segment.read(events_max - len(found), bytes_max)
            bytes_max -= sum(entry.cost_bytes for entry in some)
            found += some
            if segment.torn_bytes:
                _LOG.warning(
                    "%s ends in %d bytes of a record its process did not live to finish: they are skipped,"
                    " their event was never accepted",
                    segment.path,
                    segment.torn_bytes,
                )
            if segment.damage:
                _LOG.error("%s: %s; it is kept as *.corrupt for you to look at", segment.path, segment.damage)
            if segment.failure:
                _LOG.error(
                    "%s cannot be read: %s. The rest of it is left as it is, for who starts next",
                    segment.path,
                    segment.failure,
                )
            self._remove_settled()
        return found

    @property
    def has_unread(self) -> bool:
        """Whether there may be events to read now."""
        return self._unread() is not None or bool(self._pending)

    def settle(self, entries: Iterable[Entry]) -> None:
        """Note what is settled, and delete the files that hold nothing else."""
        starts: defaultdict[Segment, list[int]] = defaultdict(list)
        for segment, start in (entry.place for entry in entries if entry.place is not None):
            starts[segment].append(start)
        for segment, settled in starts.items():
            segment.note_settled(settled)
        self._remove_settled()

    def close(self) -> None:
        """Delete what is settled, leave the rest to whoever starts next."""
        for segment in self._segments:
            segment.sealed = True
        self._remove_settled()
        for segment in self._all():
            segment.close()
        for name in self._names:
            name.release()
        self._names.clear()

    def forget(self) -> None:
        """In a forked child: let go of the parent's files without touching them or its locks."""
        for segment in self._all():
            segment.close()
        for name in self._names:
            name.forget()
        self._pending.clear()

    def _own_name(self) -> _Name:
        for _ in range(NAME_TRIES_MAX):
            # Names sort by age, so that the oldest events are taken over first.
            name = _Name.take(self._folder, f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}")
            if name is not None:
                self._names.append(name)
                return name
        raise OSError(f"no name could be locked in {self._folder} in {NAME_TRIES_MAX} tries")

    def _take_over(self) -> None:
        """Find the names nobody holds, and take over the oldest."""
        files = [each for each in os.listdir(self._folder) if each.endswith((".lock", ".log"))]
        found = {each.split(".")[0] for each in files} - {self._name.name}
        self._pending.extend(sorted(name for name in found if _NAME.fullmatch(name)))
        self._take_over_some()
        self._pending = deque(name for name in self._pending if self._is_free(name))

    def _is_free(self, each: str) -> bool:
        """Whether it is worth trying a name later."""
        try:
            name = _Name.take(self._folder, each)
        except OSError:
            return True  # Whoever tries it then says why.
        if name is not None:
            name.forget()
        return name is not None

    def _take_over_some(self) -> None:
        """Lock pending names, as many as we may hold, and look at their files, oldest first.

        What cannot be locked or opened now is left as it is, for who starts next: it may be somebody
        else's, or our own shortage of descriptors.
        """
        before = len(self._inherited)
        troubles: list[str] = []
        while self._pending and len(self._names) <= NAMES_INHERITED_MAX:
            try:
                name = _Name.take(self._folder, self._pending[0])
                if name is not None:
                    self._names.append(name)
                    troubles += self._adopt(name.segments())
            except OSError as error:
                troubles.append(str(error))
            # Not earlier: there is no moment at which a flush sees nothing of it.
            self._pending.popleft()
            self._remove_settled()
        if troubles:
            _LOG.error(
                "%d files of earlier processes cannot be taken over from %s, the first because of: %s."
                " They are left as they are, for who starts next",
                len(troubles),
                self._folder,
                troubles[0],
            )
        if len(self._inherited) > before:
            _LOG.info(
                "%d files of events earlier processes accepted are taken over from %s",
                len(self._inherited) - before,
                self._folder,
            )

    def _adopt(self, paths: Iterable[Path]) -> list[str]:
        """Open files; return why some of them cannot be opened now."""
        troubles = []
        for path in paths:
            try:
                segment = Segment.adopt(path)
            except Unreadable as error:
                _LOG.error("%s: %s; it is kept as *.corrupt for you to look at", path, error)
                _set_aside(path)
            except OSError as error:
                troubles.append(str(error))
            else:
                self._inherited.append(segment)
                # The reader's number, see __init__.
                self._freed_bytes -= segment.size
        return troubles

    def _segment_for(self, length: int) -> Segment:
        """Return the file the next record goes to, a new one if the current one is full."""
        current = self._current
        bound = max(self._segment_bytes_max, HEADER_BYTES + length)
        # What is written behind something unreadable would never be read.
        if current is not None and not current.is_over and current.size + length <= bound:
            if self.bytes_held + length > self._max_bytes:
                raise SpoolFull(f"it holds {self.bytes_held} bytes, at most {self._max_bytes}")
            return current
        if self.bytes_held + HEADER_BYTES + length > self._max_bytes:
            # The current file may hold nothing but settled events: it is the next to go.
            self._seal(current)
            raise SpoolFull(f"it holds {self.bytes_held} bytes, at most {self._max_bytes}")
        # First, so that a name that could not be used up is not tried for ever.
        self._count += 1
        made = Segment.create(self._folder / f"{self._name.name}.{self._count:08d}.log")
        if self._fsync:
            try:
                _fsync_folder(self._folder)
            except OSError:
                made.close()
                with contextlib.suppress(OSError):
                    made.path.unlink()
                raise
        self._appended_bytes += HEADER_BYTES
        self._segments.append(made)
        self._current = made
        self._seal(current)
        return made

    def _seal(self, segment: Segment | None) -> None:
        if segment is not None:
            segment.sealed = True
            if self._current is segment:
                self._current = None

    def _all(self) -> list[Segment]:
        """Return all files in the order in which they are read; a copy: the other thread may add one."""
        return [*self._inherited, *self._segments]

    def _next(self) -> Segment | None:
        """Return the file to read now; None also if older ones must be settled to make room for it."""
        segment = self._unread()
        while self._pending and (segment is None or segment.ours):
            if len(self._names) > NAMES_INHERITED_MAX:
                return None
            self._take_over_some()
            segment = self._unread()
        return segment

    def _unread(self) -> Segment | None:
        return next((segment for segment in self._all() if segment.has_unread), None)

    def _remove_settled(self) -> None:
        """Delete the sealed files nothing will come of any more, but none with something unread in it."""
        for segment in [each for each in self._all() if each.sealed and each.is_settled]:
            (self._segments if segment.ours else self._inherited).remove(segment)
            segment.close()
            if segment.damage:
                _set_aside(segment.path)
            elif not segment.failure:
                with contextlib.suppress(OSError):
                    segment.path.unlink(missing_ok=True)
            elif segment.ours:
                continue  # It still takes its place on the disk.
            self._freed_bytes += segment.size
        held = {segment.path.name.split(".")[0] for segment in self._inherited}
        for name in [each for each in self._names if each is not self._name and each.name not in held]:
            self._names.remove(name)
            name.release()


def _fsync_folder(folder: Path) -> None:
    """Have the disk remember that a file was made."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _set_aside(path: Path) -> None:
    """Rename a damaged file, so that it is kept and never read again."""
    with contextlib.suppress(OSError):
        path.rename(path.with_suffix(".corrupt"))
