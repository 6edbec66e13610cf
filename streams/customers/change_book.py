"""The changes of one customer's subscriptions and tickets: each once, in order, bounded, as stored."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from enum import IntEnum
from typing import Any

from streams.customers.changes import Change, Known, PlanChange, TicketChange, folded
from streams.customers.entities import Standing, Subscription, Ticket
from streams.customers.revenue import Movement, movements

BOOK_BYTES_MAX = 64 << 10
"""Encoded changes of one customer that are not past the fold line, and what those before them left;
a change that would go beyond is refused."""

FOLD_FROM = 32
"""So many changes are kept before those past the fold line are replaced by what they left."""


class Merged(IntEnum):
    """What became of a change."""

    NEW = 1
    REPLACED = 2
    """Another content under its event id was there, and is gone."""
    KNOWN = 3
    LOST = 4
    """Another content under its event id is there, and stays."""
    REFUSED = 5


class ChangeBook:
    """Every change of one customer's subscriptions and tickets that is not past the fold line.

    What is known is a function of the set of changes: they are read in the order of (instant, rank,
    event id), and of two contents under one event id the least (instant, encoded content) stands.
    """

    __slots__ = ("_base", "_base_text", "_bytes", "_changes", "_known", "_latest")

    def __init__(self) -> None:
        self._base = Known()
        self._base_text = ""
        self._changes: dict[bytes, tuple[Change, str]] = {}
        self._bytes = _FRAME_BYTES
        self._known: Known | None = self._base
        self._latest: tuple[int, int, bytes] | None = None

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        """Return the length of `encoded`, or one more; cheap."""
        return self._bytes

    def merge(self, change: Change, fold_line_ms: int) -> Merged:
        """Take one change that is not before the fold line; what is older may be folded."""
        text = _encoded(change)
        held = self._changes.get(change.event_id)
        if held is not None and (held[0].at_ms, held[1]) <= (change.at_ms, text):
            return Merged.KNOWN if held[1] == text else Merged.LOST
        if len(self._changes) >= FOLD_FROM or self._bytes + len(text) >= BOOK_BYTES_MAX:
            self._fold(fold_line_ms)
        if self._bytes + len(text) + 1 > BOOK_BYTES_MAX:
            return Merged.REFUSED
        self._add(change, text, held)
        return Merged.NEW if held is None else Merged.REPLACED

    def _add(self, change: Change, text: str, held: tuple[Change, str] | None) -> None:
        self._changes[change.event_id] = change, text
        self._bytes += len(text) + 1 - (0 if held is None else len(held[1]) + 1)
        order = change.order
        # Mostly a change is the latest, and then the others need not be read again.
        if held is None and self._known is not None and (self._latest is None or order > self._latest):
            self._known, self._latest = folded(self._known, (change,)), order
        else:
            self._known = self._latest = None

    def known(self) -> Known:
        """Return what all changes together say."""
        if self._known is None:
            changes = self._in_order()
            self._known, self._latest = folded(self._base, changes), changes[-1].order
        return self._known

    def latest_ms(self) -> int:
        """Return when the latest change happened that is not folded; 0 for none."""
        return max((change.at_ms for change, _ in self._changes.values()), default=0)

    def known_at(self, until_ms: int) -> Known:
        """Return what the changes up to an instant say, and before them what was left of those folded."""
        return folded(self._base, [change for change in self._in_order() if change.at_ms <= until_ms])

    @property
    def has_folded(self) -> bool:
        """Whether changes were replaced by what they left."""
        return bool(self._base_text)

    def movements(self, until_ms: int) -> list[Movement]:
        """Return every movement of the customer's MRR up to an instant that is not past the fold line."""
        changes = [change for change in self._in_order() if isinstance(change, PlanChange)]
        return movements(self._base.subscriptions, self._base.standing, changes, until_ms)

    def _in_order(self) -> list[Change]:
        return sorted((change for change, _ in self._changes.values()), key=lambda change: change.order)

    def _fold(self, before_ms: int) -> None:
        """Replace the changes before an instant by what they left; what is closed since is forgotten."""
        old = [change for change in self._in_order() if change.at_ms < before_ms]
        if not old:
            return
        base = _trimmed(folded(self._base, old), before_ms)
        text = _base_text(base)
        if len(text) - len(self._base_text) > sum(len(self._changes[change.event_id][1]) for change in old):
            return  # What they left is more than they are: nothing would be won, and a bound be lost.
        self._base, self._base_text = base, text
        for change in old:
            del self._changes[change.event_id]
        self._bytes = len(self.encoded()) + bool(self._changes)
        self._known = self._latest = None
        if not self._changes:
            self._known = self._base

    def encoded(self) -> bytes:
        """Return readable JSON in ASCII: what folded changes left, and the others in their order."""
        texts = ",".join(self._changes[change.event_id][1] for change in self._in_order())
        return f'{{"base":{self._base_text or "{}"},"changes":[{texts}]}}'.encode("ascii")

    @classmethod
    def decode(cls, encoded: bytes) -> ChangeBook:
        """Read what `encoded` wrote."""
        content = json.loads(encoded)
        book = cls()
        if content["base"]:
            book._base = _known(content["base"])
            book._base_text = _base_text(book._base)
        for written in content["changes"]:
            change = _change(written)
            book._changes[change.event_id] = change, _encoded(change)
        book._bytes = len(encoded) + bool(book._changes)
        book._known = None if book._changes else book._base
        return book


_FRAME_BYTES = len('{"base":{},"changes":[]}')

_CLASSES: dict[str, type[Change]] = {"plan": PlanChange, "ticket": TicketChange}


def _encoded(change: Change) -> str:
    """Return a change as JSON: its kind, instant, event id, and what it says."""
    kind = "plan" if isinstance(change, PlanChange) else "ticket"
    said = {
        field.name: value
        for field in fields(change)[2:]
        if (value := getattr(change, field.name)) is not None
    }
    event_id = change.event_id.decode("utf-8", "surrogateescape")
    return json.dumps([kind, change.at_ms, event_id, said], separators=(",", ":"), sort_keys=True)


def _change(written: list[Any]) -> Change:
    kind, at_ms, event_id, said = written
    if "addons" in said:
        said["addons"] = tuple(said["addons"])
    return _CLASSES[kind](at_ms, event_id.encode("utf-8", "surrogateescape"), **said)


def _base_text(known: Known) -> str:
    """Return what is known as JSON, without what is as it is when nothing is known."""
    content = {
        "subscriptions": [_said(each) for each in known.subscriptions],
        "tickets": [_said(each) for each in known.tickets],
        "standing": asdict(known.standing),
    }
    return json.dumps(content, separators=(",", ":"), sort_keys=True)


def _said(entity: Subscription | Ticket) -> dict[str, Any]:
    return {
        field.name: value
        for field in fields(entity)
        if (value := getattr(entity, field.name)) != field.default
    }


def _known(plain: dict[str, Any]) -> Known:
    return Known(
        tuple(
            Subscription(**{**each, "addons": tuple(each.get("addons", ()))})
            for each in plain["subscriptions"]
        ),
        Standing(tuple(plain["standing"]["payments_ms"]), tuple(plain["standing"]["ends_ms"])),
        tuple(
            Ticket(**{**each, "reopened_ms": tuple(each.get("reopened_ms", ()))}) for each in plain["tickets"]
        ),
    )


def _trimmed(known: Known, before_ms: int) -> Known:
    """Return what is still of use of what was folded: no window reaches further back."""
    payments, ends = known.standing.payments_ms, known.standing.ends_ms
    old_payments = [at_ms for at_ms in payments if at_ms < before_ms]
    old_ends = [at_ms for at_ms in ends if at_ms < before_ms]
    standing = Standing(
        (*sorted({*old_payments[:1], *old_payments[-1:]}), *payments[len(old_payments) :]),
        (*old_ends[-1:], *ends[len(old_ends) :]),
    )
    return Known(
        tuple(each for each in known.subscriptions if each.state in ("active", "trial", "paused")),
        standing,
        tuple(
            replace(each, reopened_ms=tuple(at_ms for at_ms in each.reopened_ms if at_ms >= before_ms))
            for each in known.tickets
            if each.is_open
        ),
    )
