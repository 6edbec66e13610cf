"""The partition row: where the state of one partition stands, written with every transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from errors import StateCorrupt
from streams.customers.row_format import PARTITION_ROW, encode_key

FORMAT_VERSION = 1

PARTITION_ROW_KEY = encode_key(PARTITION_ROW, b"")
"""The key of the one partition row of a partition."""


@dataclass(frozen=True, slots=True)
class Converting:
    """How far the customers of a partition are converted to the definition its row names."""

    cursor: int
    """Done are those whose place in CustomerTable.ordering is below it, unless pending then."""
    kinds: Mapping[str, str]
    """Kind of each dimension that definition no longer has, for the exits."""
    base: int
    """The version everybody was judged by, at least, when the first unfinished conversion began."""
    passed: Mapping[int, int]
    """Cursor of each unfinished conversion to an earlier version, when the next one began."""


@dataclass(frozen=True, slots=True)
class Resent:
    """The latest request to send all members again, and how far it is."""

    run_id: str
    cursor: int
    """Sent are those whose place in CustomerTable.ordering is below it."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A state that was rebuilt from `events`, as long as not all of it was told to subscribers."""

    live: bool
    """Whether it is the truth; before, it is only a replay, and the epoch before is."""
    told_epoch: int = 0
    """Whose rows say what was told of customers no row here says it of."""
    changes: int = 0
    """Changes sent because of it so far."""


_PARTS = {"converting": Converting, "resent": Resent, "rebuilt": Rebuilt}


@dataclass(frozen=True, slots=True)
class PartitionRow:
    """The one truth about a partition: restore the rows, then read on from `source_offset`."""

    source_offset: int
    """Offset in `events` of the next record to apply."""
    clock_ms: int
    seq: int
    """Number of the last change sent."""
    epoch: int
    partitions: int
    definition_version: int
    definition_hash: str
    fold_line_ms: int
    complete_since: dict[str, int]
    """Per series, the UTC ms from which on every fact is kept."""
    fact_key: bytes
    converting: Converting | None = field(default=None)
    """None when every customer's values are those of the definition."""
    resent: Resent | None = field(default=None)
    """None when there never was such a request."""
    rebuilt: Rebuilt | None = field(default=None)
    """None when the state was told whole."""
    superseded_by: int | None = field(default=None)
    """The epoch that is the truth instead of this one; None when this is the newest."""
    sweeping_ms: int = 0
    """The tick at which some customers are evaluated already while the clock waits for the rest of them;
    at or before the clock when there is none."""
    erasing: bool = False
    """Whether the facts of somebody are gone in part: an Erased that took more than a transaction is next."""
    begun_ms: Mapping[str, int] = field(default_factory=dict)
    """When each new or edited dimension came into force, as long as an event on time may be from before."""

    def encode(self) -> bytes:
        """Return readable JSON with the version of the format."""
        content = {"format": FORMAT_VERSION, **asdict(self), "fact_key": self.fact_key.hex()}
        return json.dumps(content, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def decode(cls, encoded: bytes) -> PartitionRow:
        """Read what `encode` wrote; StateCorrupt for anything else."""
        try:
            content = json.loads(encoded)
            version = content.pop("format")
            if version != FORMAT_VERSION:
                raise StateCorrupt(f"partition row of format {version!r}; this worker reads {FORMAT_VERSION}")
            content["fact_key"] = bytes.fromhex(content["fact_key"])
            if content.get("converting") is not None:
                passed = content["converting"]["passed"]
                content["converting"]["passed"] = {
                    int(number): int(cursor) for number, cursor in passed.items()
                }
            for name, kind in _PARTS.items():
                if content.get(name) is not None:
                    content[name] = kind(**content[name])
            return cls(**{each.name: content[each.name] for each in fields(cls) if each.name in content})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StateCorrupt(f"partition row unreadable: {error!r}") from error
