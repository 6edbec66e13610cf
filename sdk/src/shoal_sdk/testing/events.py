"""Events read back from the bytes Kafka would get, in the words they were sent in: Money, Item, Context."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Any

from fastavro import schemaless_reader

from shoal_sdk.arguments import Item
from shoal_sdk.context import Campaign, Context
from shoal_sdk.encoding import EventType, schema_of
from shoal_sdk.money import Money

TYPES = {event_type.name.lower(): event_type for event_type in EventType}
"""The names of the events, as in `Event.type` and `Drop.event_type`."""
METHODS = {
    "identify": "profile_updated",
    "ticket": "ticket_changed",
    "track": "activity",
    "erase": "erased",
}
"""Methods whose event has a name of its own; either name may be asked for."""

_PREFIX_BYTES = 10
_MINOR = "_minor"


@dataclass(frozen=True)
class Event:
    """One event that was sent, as Kafka would hold it.

    Fields are attributes under their names in the schema; what was passed in the SDK's own types
    comes back in them: `context` a Context, `items` a tuple of Item, an instant or a set among traits
    an aware datetime or a frozenset. Beside every `<part>_minor` there is `<part>`, the same as Money.
    """

    type: str
    """As in `purchased`."""
    fields: Mapping[str, Any]
    """All of them, read-only."""

    def __getattr__(self, name: str) -> Any:
        # Both are absent while an event is being copied, and asking for them would lead here again.
        kind, fields = self.__dict__.get("type"), self.__dict__.get("fields", {})
        if name not in fields:
            raise AttributeError(f"{kind} has no field {name!r}{instead(name, list(fields))}")
        return fields[name]

    def __hash__(self) -> int:
        return hash((self.type, self.fields["event_id"]))

    def __repr__(self) -> str:
        said = {
            name: value if not isinstance(value, Mapping) else dict(value)
            for name, value in self.fields.items()
            # Money says it all, and most optional fields are not there.
            if value is not None and value != () and name != "currency" and not name.endswith(_MINOR)
        }
        return f"{self.type}({', '.join(f'{name}={value!r}' for name, value in said.items())})"


class Events(tuple[Event, ...]):
    """Some of the events sent, in the order of the calls; `events.purchased` are those of a type."""

    __slots__ = ()

    def of(self, customer_id: str) -> Events:
        """Return those of one customer."""
        return Events(event for event in self if event.fields["customer_id"] == customer_id)

    def of_type(self, name: str) -> Events:
        """Return those of one type; a ValueError if there is no such type."""
        wanted = type_named(name)
        return Events(event for event in self if event.type == wanted)

    def __getattr__(self, name: str) -> Events:
        try:
            return self.of_type(name)
        except ValueError as error:
            raise AttributeError(str(error)) from None

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *TYPES, *METHODS]


def type_named(name: str) -> str:
    """Return the type of that name, or of the method of that name; else a ValueError naming all."""
    __tracebackhide__ = True
    found = METHODS.get(name, name)
    if found not in TYPES:
        raise ValueError(f"there is no event {name!r}{instead(name, [*TYPES, *METHODS])}")
    return found


def instead(name: str, valid: Sequence[str]) -> str:
    """Return how to go on after a wrong name: the one probably meant, and all there are."""
    near = get_close_matches(name, valid, n=1)
    return f"{f'; did you mean {near[0]!r}?' if near else ''} (one of {', '.join(valid)})"


@cache
def names_of(type_name: str) -> tuple[str, ...]:
    """Return the names of a type's fields, the amounts as Money included."""
    written = [field["name"] for field in schema_of(TYPES[type_name]).parsed["fields"]]
    return (*written, *(name.removesuffix(_MINOR) for name in written if name.endswith(_MINOR)))


def decode(value: bytes) -> Event:
    """Return the event in framed bytes, read with the schema their fingerprint names."""
    kind = next(each for each in EventType if schema_of(each).prefix == value[:_PREFIX_BYTES])
    body = io.BytesIO(value[_PREFIX_BYTES:])
    fields: Any = schemaless_reader(body, schema_of(kind).parsed, None)
    currency = fields.get("currency")
    moneys = {
        name.removesuffix(_MINOR): None if minor is None else Money(minor, currency)
        for name, minor in fields.items()
        if name.endswith(_MINOR)
    }
    read = {name: _read(name, value, currency) for name, value in fields.items()}
    return Event(kind.name.lower(), MappingProxyType(read | moneys))


def _read(name: str, value: Any, currency: str) -> Any:
    """Return one field's value in the SDK's types, and read-only."""
    if name == "context" and value is not None:
        campaign = value["campaign"]
        return Context(**{**value, "campaign": None if campaign is None else Campaign(**campaign)})
    if name == "items":
        return tuple(_item(line, currency) for line in value)
    if isinstance(value, dict):
        return MappingProxyType({key: _variant(each) for key, each in value.items()})
    return tuple(value) if isinstance(value, list) else value


def _item(line: dict[str, Any], currency: str) -> Item:
    price = Money(line.pop("unit_price_minor"), currency)
    return Item(**line, unit_price=price)


def _variant(value: Any) -> Any:
    """Return the value of a trait: the record is an instant, the array a set."""
    if isinstance(value, dict):
        return value["at"]
    return frozenset(value) if isinstance(value, list) else value
