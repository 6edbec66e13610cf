"""Which events a flush waits for: those accepted before it, told by the mark of their time.

A flush starts a new mark and waits until the events up to its own are gone. There are never more
marks than waiting events and running flushes.
"""

from __future__ import annotations

from collections import deque


class Marks:
    """How many events of each mark wait, on disk unread ones included. For one thread at a time.

    A signal handler that interrupts that thread to count as well may lose a count. So what is not
    there is removed without an error, for the sender must go on.
    """

    def __init__(self) -> None:
        self.unread = 0
        """Events on disk that were not read back yet."""
        self._now = 0
        self._waiting: dict[int, int] = {}
        # Runs of [mark, number] in the order of the disk.
        self._unread_runs: deque[list[int]] = deque()

    def next(self) -> int:
        """Start a new mark and return the one before."""
        self._now += 1
        return self._now - 1

    def add(self) -> int:
        """Count an event as waiting and return its mark."""
        self._waiting[self._now] = self._waiting.get(self._now, 0) + 1
        return self._now

    def add_old(self) -> int:
        """Count an event that is older than whatever a flush may wait for, and return its mark."""
        self._waiting[0] = self._waiting.get(0, 0) + 1
        return 0

    def remove(self, mark: int) -> None:
        """Count an event of this mark as waiting no longer."""
        left = self._waiting.pop(mark, 1) - 1
        if left > 0:
            self._waiting[mark] = left

    def up_to(self, mark: int) -> int:
        """Return how many events wait that have this mark or an older one."""
        return sum(count for at, count in self._waiting.items() if at <= mark)

    def add_unread(self, mark: int) -> None:
        """Count an event that waits as the last one on disk."""
        self.unread += 1
        if not self._unread_runs or self._unread_runs[-1][0] != mark:
            self._unread_runs.append([mark, 0])
        self._unread_runs[-1][1] += 1

    def first_unread(self) -> int:
        """Count the first event on disk as read, and return its mark."""
        return self._remove_unread(0)

    def remove_last_unread(self) -> None:
        """Undo `add` and `add_unread` for the last event: the disk did not take it."""
        self.remove(self._remove_unread(-1))

    def remove_first_unread(self) -> None:
        """Undo them for the first event: the disk has lost it."""
        self.remove(self._remove_unread(0))

    def _remove_unread(self, at: int) -> int:
        self.unread = max(0, self.unread - 1)
        if not self._unread_runs:
            return 0
        run = self._unread_runs[at]
        run[1] -= 1
        if run[1] <= 0:
            del self._unread_runs[at]
        return run[0]
