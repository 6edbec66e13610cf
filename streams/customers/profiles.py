"""What customers say about themselves: traits and account, each with the stamp that set it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from streams.customers.facts import TraitValue

PROFILE_BYTES_MAX = 64 << 10
"""Encoded traits of one customer; an event that would go beyond is refused."""

TRAITS_MAX = 256
"""Names of traits of one customer, deleted ones included."""

Stamped = tuple[int, bytes, TraitValue]
"""(occurred_at in UTC ms, event_id, value)."""

# The same C function json.dumps ends in, without building an encoder for every text.
_quoted = json.encoder.encode_basestring_ascii


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

    __slots__ = ("_encoded", "account", "bytes_max", "traits")

    def __init__(self) -> None:
        self.traits: dict[str, Stamped] = {}
        self.account: Stamped | None = None
        self._encoded: bytes | None = _NOTHING
        # At least the length of `encoded`, so that most calls of `merge` need not encode.
        self.bytes_max = len(_NOTHING)

    def __bool__(self) -> bool:
        return True

    def merge(
        self, time_ms: int, event_id: bytes, traits: Mapping[str, TraitValue], account: str | None
    ) -> bool | None:
        """Take what is newer; True when anything changed, None when the traits do not fit.

        Traits fit when, all of them being set, the bounds on names and bytes would hold; those
        that do not change nothing, nor does their account.
        """
        added = 0
        if traits:
            if (
                len(self.traits) + len(traits) > TRAITS_MAX
                and len(self.traits.keys() | traits.keys()) > TRAITS_MAX
            ):
                return None
            added = _bytes_at_most(event_id, traits)
            if self.bytes_max + added > PROFILE_BYTES_MAX:
                stamp = _stamp(time_ms, event_id)
                added = sum([len(_named(name, stamp, value)) + _SLACK for name, value in traits.items()])
                self.bytes_max = len(self.encoded())
                if self.bytes_max + added > PROFILE_BYTES_MAX:
                    return None
        changed = False
        for name, value in traits.items():
            stamped = (time_ms, event_id, value)
            if _beats(stamped, self.traits.get(name)):
                self.traits[name] = stamped
                changed = True
        if account is not None and _beats((time_ms, event_id, account), self.account):
            self.account = (time_ms, event_id, account)
            added += len(_named("account", _stamp(time_ms, event_id), account)) + _SLACK
            changed = True
        if changed:
            self.bytes_max += added
            self._encoded = None
        return changed

    def values(self) -> dict[str, TraitValue]:
        """Return the traits that are set; deleted ones are absent."""
        return {name: stamped[2] for name, stamped in self.traits.items() if stamped[2] is not None}

    def value(self, name: str) -> TraitValue:
        """Return one trait, None when it is not set."""
        stamped = self.traits.get(name)
        return None if stamped is None else stamped[2]

    def latest_ms(self) -> int:
        """Return when the latest of what is known was said; 0 for nothing."""
        stamps = [*self.traits.values(), *([] if self.account is None else [self.account])]
        return max((stamp[0] for stamp in stamps), default=0)

    def __len__(self) -> int:
        """Return no less than the length of `encoded`; cheap."""
        return self.bytes_max

    def encoded(self) -> bytes:
        """Return readable JSON, the same for equal profiles: compact, keys sorted, in ASCII."""
        if self._encoded is None:
            traits = self.traits
            # Written by hand, because json.dumps costs several times as much for so little.
            texts = ",".join([_of(name, traits[name]) for name in sorted(traits)])
            account = "" if self.account is None else _of("account", self.account) + ","
            self._encoded = f'{{{account}"traits":{{{texts}}}}}'.encode("ascii")
            self.bytes_max = len(self._encoded)
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
        profile.bytes_max = len(encoded)
        return profile


_NOTHING = b'{"traits":{}}'

_QUOTED, _ESCAPED, _ESCAPED_PAIR = 2, 6, 12
"""What a printable ASCII character, a byte, and any character becomes in ASCII JSON at most."""

_FRAME = 64
"""More than the instant, the quotes, commas and brackets of one trait take, or a number or a truth."""

_SLACK = 8
"""More than the comma and the key "account" need beside one more stamped value."""


def _bytes_at_most(event_id: bytes, traits: Mapping[str, TraitValue]) -> int:
    """Return no less than these traits add to the JSON; rough, because it is asked for every event."""
    total = len(traits) * (_ESCAPED * len(event_id) + _FRAME)
    for name, value in traits.items():
        total += len(name) * (_QUOTED if name.isascii() and name.isprintable() else _ESCAPED_PAIR)
        kind = type(value)
        if kind is str:
            text = cast(str, value)
            total += len(text) * (_QUOTED if text.isascii() and text.isprintable() else _ESCAPED_PAIR)
        elif kind is tuple:
            total += len(_dump(_plain(value)))
    return total


def _stamp(time_ms: int, event_id: bytes) -> str:
    """Return the start of the JSON of a stamped value."""
    return f"{time_ms},{_quoted(event_id.decode('utf-8', 'surrogateescape'))}"


def _named(name: str, stamp: str, value: TraitValue) -> str:
    """Return the JSON of one member, "name":[time, event id, value]."""
    # The type itself, because a truth is an int too.
    kind = type(value)
    if kind is str:
        text = _quoted(cast(str, value))
    elif kind is int:
        text = str(value)
    else:
        text = _dump(_plain(value))
    return f"{_quoted(name)}:[{stamp},{text}]"


def _of(name: str, stamped: Stamped) -> str:
    return _named(name, _stamp(stamped[0], stamped[1]), stamped[2])


def _read(written: list[Any]) -> Stamped:
    return int(written[0]), written[1].encode("utf-8", "surrogateescape"), _trait(written[2])
