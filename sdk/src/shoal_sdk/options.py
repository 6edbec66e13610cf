"""How a client is set up: every argument but the callback, checked together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Literal, get_args

from shoal_sdk import arguments
from shoal_sdk.security import Security

OnFull = Literal["drop", "wait"]

PREFIX = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
"""What a topic's name may begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The arguments of a client, checked: a ValueError names the first that is wrong; see Shoal."""

    bootstrap: str | Sequence[str]
    app: str
    prefix: str
    security: Security | None
    max_events: int
    max_bytes: int
    linger_s: float
    spool: str | PathLike[str] | None
    spool_max_bytes: int
    spool_fsync: bool
    sync: bool
    sync_timeout_s: float
    strict: bool
    disabled: bool
    on_full: OnFull

    def __post_init__(self) -> None:
        if not self.bootstrap:
            raise ValueError(f"bootstrap={self.bootstrap!r}: empty; pass 'host:port' of a broker")
        _check_addresses(self.bootstrap)
        arguments.identifier("app", self.app)
        arguments.identifier("prefix", self.prefix)
        if not re.fullmatch(PREFIX, self.prefix):
            raise ValueError(
                f"prefix={arguments.shown(self.prefix)}: expected 1 to 100 of A-Z a-z 0-9 . _ - and no mark"
                " in front, as topics are named"
            )
        if self.security is not None and not isinstance(self.security, Security):
            raise ValueError(f"security: expected a Security, got {type(self.security).__name__}")
        arguments.at_least("max_events", self.max_events, 1)
        arguments.at_least("max_bytes", self.max_bytes, 1)
        arguments.at_least("linger_s", self.linger_s, 0)
        arguments.at_least("spool_max_bytes", self.spool_max_bytes, 1 << 20)
        arguments.at_least("sync_timeout_s", self.sync_timeout_s, 0)
        if self.spool is not None and not isinstance(self.spool, (str, PathLike)):
            raise ValueError(f"spool={arguments.shown(self.spool)}: expected the path of a folder or None")
        if self.on_full not in get_args(OnFull):
            raise ValueError(f"on_full={self.on_full!r}: expected 'drop' or 'wait'")

    @property
    def topic(self) -> str:
        """The topic events go to."""
        return f"{self.prefix}.events"


def _check_addresses(bootstrap: object) -> None:
    """Raise unless it is 'host:port', several with commas between, or a sequence of such texts."""
    parts = bootstrap.split(",") if isinstance(bootstrap, str) else bootstrap
    if not isinstance(parts, Sequence) or not all(
        isinstance(part, str) and is_address(part.strip()) for part in parts
    ):
        raise ValueError(f"bootstrap={arguments.shown(bootstrap)}: expected 'host:port', or several of those")


def is_address(text: str) -> bool:
    """Return whether this is 'host:port'; an address of IPv6 is in brackets."""
    match = re.fullmatch(r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", text)
    return match is not None and 1 <= int(match[1]) <= 65_535
