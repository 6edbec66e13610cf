"""What customers say about themselves: traits and account, each with the stamp that set it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from streams.customers.facts import TraitValue

PROFILE_BYTES_MAX = 64 << 10
"""Encoded traits of one customer; an event that would go beyond is refused."""

TRAITS_MAX = 256
"""Names of traits of one customer, deleted ones included."""

Stamped = tuple[int, bytes, TraitValue]
"""(occurred_at in UTC ms, event_id, value)."""


def _plain(value: TraitValue) -> Any:
    """Return JSON's form of a value; an instant and a set of texts stay apart."""
    if isinstance(value, tuple):
        if len(value) == 1 and isinstance(value[0], int):
            return {"at": value[0]}
        return list(value)
    return value


def _trait(plain: Any) -> TraitValue:
    if isinstance(plain, dict):
        return (int(plain["at"]),)
    return tuple(plain) if isinstance(plain, list) else plain


def _dump(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), sort_keys=True)


def _beats(new: Stamped, old: Stamped | None) -> bool:
    """Greatest (occurred_at, event_id) wins; one event that says two things is settled by its text."""
    if old is None or new[:2] != old[:2]:
        return old is None or new[:2] > old[:2]
    return _dump(_plain(new[2])) > _dump(_plain(old[2]))


class Profile:
    """Traits and account of one customer; every content ever delivered has been merged in.

    Merging takes the maximum by stamp, so order and duplicates cannot matter.
    """

    __slots__ = ("_bytes_max", "_encoded", "account", "traits")

    def __init__(self) -> None:
        self.traits: dict[str, Stamped] = {}
        self.account: Stamped | None = None
        self._encoded: bytes | None = None
        # At least the length of `encoded`, so that most calls of `fits` need not encode.
        self._bytes_max = len(self.encoded())

    def fits(self, time_ms: int, event_id: bytes, traits: Mapping[str, TraitValue]) -> bool:
        """Tell whether the traits can be set within the bounds on names and bytes."""
        if len(self.traits.keys() | traits.keys()) > TRAITS_MAX:
            return False
        added = sum(_bytes_of(name, (time_ms, event_id, value)) for name, value in traits.items())
        if self._bytes_max + added > PROFILE_BYTES_MAX:
            self._bytes_max = len(self.encoded())
        return self._bytes_max + added <= PROFILE_BYTES_MAX

    def __bool__(self) -> bool:
        return True

    def merge(
        self, time_ms: int, event_id: bytes, traits: Mapping[str, TraitValue], account: str | None
    ) -> bool:
        """Take what is newer; True when anything changed."""
        changed = False
        for name, value in traits.items():
            stamped = (time_ms, event_id, value)
            if _beats(stamped, self.traits.get(name)):
                self.traits[name] = stamped
                self._bytes_max += _bytes_of(name, stamped)
                changed = True
        if account is not None and _beats((time_ms, event_id, account), self.account):
            self.account = (time_ms, event_id, account)
            self._bytes_max += _bytes_of("account", self.account)
            changed = True
        if changed:
            self._encoded = None
        return changed

    def values(self) -> dict[str, TraitValue]:
        """Return the traits that are set; deleted ones are absent."""
        return {name: stamped[2] for name, stamped in self.traits.items() if stamped[2] is not None}

    def __len__(self) -> int:
        """Return no less than the length of `encoded`; cheap."""
        return self._bytes_max

    def encoded(self) -> bytes:
        """Return readable JSON, the same for equal profiles."""
        if self._encoded is None:
            content: dict[str, Any] = {
                "traits": {name: _written(stamped) for name, stamped in self.traits.items()}
            }
            if self.account is not None:
                content["account"] = _written(self.account)
            self._encoded = _dump(content).encode("ascii")
        return self._encoded

    @classmethod
    def decode(cls, encoded: bytes) -> Profile:
        """Read what `encoded` wrote."""
        content = json.loads(encoded)
        profile = cls()
        profile.traits = {name: _read(written) for name, written in content["traits"].items()}
        if "account" in content:
            profile.account = _read(content["account"])
        profile._encoded = encoded
        profile._bytes_max = len(encoded)
        return profile


def _bytes_of(name: str, stamped: Stamped) -> int:
    """Return no less than what one more stamped value adds to an encoded profile."""
    return len(_dump([name, *_written(stamped)])) + 8


def _written(stamped: Stamped) -> list[Any]:
    return [stamped[0], stamped[1].decode("utf-8", "surrogateescape"), _plain(stamped[2])]


def _read(written: list[Any]) -> Stamped:
    return int(written[0]), written[1].encode("utf-8", "surrogateescape"), _trait(written[2])
