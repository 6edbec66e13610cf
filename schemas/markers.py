"""Markers in `segment-changes`: records without key and value, which say where a rebuild begins and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

REBUILD_BEGINS, REBUILD_ENDS = "rebuild-begins", "rebuild-ends"

_KIND = "shoal-marker"
_FIELDS = ("epoch", "definition_version", "seq", "changes")

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Marker:
    """Stands between the changes of one partition; it has no number of its own."""

    kind: Literal["rebuild-begins", "rebuild-ends"]
    run_id: str
    """That of the changes between the two markers whose origin is `reconcile`."""
    epoch: int
    definition_version: int
    seq: int
    """Number of the last change before it."""
    changes: int
    """Changes of the rebuild so far; 0 where it begins."""

    def headers(self) -> Headers:
        """Return what the record carries, as readable text."""
        numbers = [(name, b"%d" % getattr(self, name)) for name in _FIELDS]
        return [(_KIND, self.kind.encode()), ("run_id", self.run_id.encode()), *numbers]


def read_marker(headers: Sequence[tuple[str, bytes]]) -> Marker | None:
    """Return the marker a record without a value is, None for one that is something else."""
    held = dict(headers)
    kind = held.get(_KIND, b"").decode()
    if kind != REBUILD_BEGINS and kind != REBUILD_ENDS:
        return None
    run_id = held["run_id"].decode()
    return Marker(
        "rebuild-begins" if kind == REBUILD_BEGINS else "rebuild-ends",
        run_id,
        *(int(held[name]) for name in _FIELDS),
    )
