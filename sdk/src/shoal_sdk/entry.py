"""One accepted event on its way, as buffer, spool and sender hand it on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # It reads and writes entries, so only the other direction needs the import to run.
    from shoal_sdk.segment import Segment

OVERHEAD_BYTES = 256
"""What one waiting event costs beside its key and value: Python objects, record framing."""


class Entry:
    """One accepted event on its way; the payload is let go once the event is settled."""

    __slots__ = (
        "__weakref__",
        "alone",
        "delivered",
        "event_id",
        "event_type",
        "key",
        "mark",
        "place",
        "settled",
        "value",
    )

    def __init__(self, key: bytes, value: bytes, event_type: str, event_id: str) -> None:
        self.key = key
        self.value = value
        self.event_type = event_type
        self.event_id = event_id
        self.mark = 0
        self.alone = False
        """Sent in a batch of its own, because a batch it was in was refused."""
        self.place: tuple[Segment, int] | None = None
        """The spool's file it was read from, and where it begins there."""
        self.settled = False
        self.delivered = False

    @property
    def cost_bytes(self) -> int:
        """What the event counts against `max_bytes`."""
        return len(self.key) + len(self.value) + OVERHEAD_BYTES
