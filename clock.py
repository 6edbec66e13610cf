"""Wall time as a dependency, so that nothing pure ever reads it and every test can hold it still."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What everybody who needs the wall time is given."""

    def now_ms(self) -> int:
        """Return the wall time in UTC milliseconds."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Return the wall time in UTC milliseconds."""
        return time.time_ns() // 1_000_000


class FrozenClock:
    """A clock that moves only when told to; for tests."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """Return the time it was last set to."""
        return self._now_ms

    def set(self, now_ms: int) -> None:
        """Move to `now_ms`; a ValueError if that is backwards."""
        if now_ms < self._now_ms:
            raise ValueError(f"now_ms={now_ms} is before {self._now_ms}: a clock never goes back")
        self._now_ms = now_ms
