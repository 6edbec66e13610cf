"""What became of the events of a client, in numbers, and why one was not accepted."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Refusal(Enum):
    """Why an event was not accepted."""

    FULL = "full"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Counters:
    """Numbers of events since the client was made, or since its process was forked.

    accepted + replayed - delivered - failed are waiting. An event that is being written to disk counts
    as accepted and spooled meanwhile.
    """

    accepted: int
    delivered: int
    dropped: int
    """Never accepted."""
    failed: int
    """Accepted and given up."""
    spooled: int = 0
    """Of those accepted: written to disk before the call returned."""
    replayed: int = 0
    """Accepted by an earlier process, and taken over from its spool."""
