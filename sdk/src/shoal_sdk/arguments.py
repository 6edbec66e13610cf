"""What callers pass, checked and turned into what the schemas hold.

Every function raises a ValueError that names the field, its value and the way out.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from shoal_sdk.context import Campaign, Context
from shoal_sdk.money import INT64_MAX, Money, check_minor

ID_BYTES_MAX = 256

TraitValue = str | int | float | bool | datetime | AbstractSet[str] | None
"""A trait: text, number, truth, an aware datetime or a set of texts; None deletes the trait."""

PropertyValue = str | int | float | bool
"""A property of something a customer did: text, number or truth."""

NAMES_MAX = 64

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
_SHOWN_MAX = 80
_SURROGATE = "holds half a surrogate pair, which UTF-8 cannot; mend or drop it"

# A tuple names the branch of a union for the Avro writer, which otherwise tries one after another.
_CONTEXT = "shoal.events.Context"
_CAMPAIGN = "shoal.events.Campaign"
_INSTANT = "shoal.events.Instant"


@dataclass(frozen=True, slots=True)
class Item:
    """One line of an order. `unit_price` is Money, or an int of minor units in the order's currency."""

    sku: str
    quantity: int
    unit_price: Money | int
    name: str | None = None
    category: str | None = None
    line_id: str | None = None


def shown(value: object) -> str:
    """Return `value` as an error message shows it: at most 80 characters."""
    text = repr(value)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "..."


def identifier(field: str, value: object) -> str:
    """Return an id: text of 1 to 256 bytes of UTF-8."""
    if not isinstance(value, str):
        raise ValueError(f"{field}={shown(value)}: an id is text; pass str(...)")
    if not value:
        raise ValueError(f"{field}='': an id is not empty; leave the call out for somebody unknown")
    try:
        # Counting bytes means encoding, which ids of ordinary length need not pay for.
        long = not value.isascii() or len(value) > ID_BYTES_MAX
        size = len(value.encode()) if long else 0
    except UnicodeEncodeError:
        raise ValueError(f"{field}={shown(value)}: {_SURROGATE}") from None
    if size > ID_BYTES_MAX:
        raise ValueError(f"{field}={shown(value)}: {size} bytes of UTF-8, at most {ID_BYTES_MAX}")
    return value


def text_or_none(field: str, value: object) -> str | None:
    """Return text that UTF-8 can hold, or None."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{field}={shown(value)}: expected text or None, got {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{field}={shown(value)}: {_SURROGATE}") from None
    return value


def instant_ms(field: str, value: object) -> int:
    """Return an aware datetime as UTC milliseconds, rounded down."""
    if not isinstance(value, datetime):
        raise ValueError(f"{field}={shown(value)}: expected an aware datetime, got {type(value).__name__}")
    try:
        return (value - _EPOCH) // _MILLISECOND
    except TypeError:
        raise ValueError(
            f"{field}={shown(value)}: no time zone;"
            " pass datetime.now(timezone.utc) or .replace(tzinfo=timezone.utc)"
        ) from None


def name_or_none(field: str, value: object) -> str | None:
    """Return a name that rules can ask for, 1 to 256 bytes of UTF-8, or None."""
    if value == "":
        raise ValueError(f"{field}='': pass None for what is not known")
    return None if value is None else identifier(field, text_or_none(field, value))


def names(field: str, values: object) -> list[str]:
    """Return a list of at most 64 such names, in the caller's order."""
    found = texts(field, values)
    if len(found) > NAMES_MAX:
        raise ValueError(f"{field}: {len(found)} texts, at most {NAMES_MAX}")
    return [identifier(f"{field}[{index}]", value) for index, value in enumerate(found)]


def one_of(field: str, value: object, known: Sequence[str]) -> str:
    """Return one of some texts."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{field}={shown(value)}: expected one of {', '.join(known)}")
    return value


def count_or_none(field: str, value: object) -> int | None:
    """Return a whole number of at least 0, or None."""
    if value is not None and (type(value) is not int or not 0 <= value <= INT64_MAX):
        raise ValueError(f"{field}={shown(value)}: expected an int of at least 0, or None")
    return value


def truth_or_none(field: str, value: object) -> bool | None:
    """Return True, False or None."""
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{field}={shown(value)}: expected True, False or None")
    return value


def occurred_at_ms(value: object) -> int:
    """Return when it happened as UTC milliseconds; None is now."""
    return time.time_ns() // 1_000_000 if value is None else instant_ms("occurred_at", value)


def at_least(field: str, value: object, least: int) -> None:
    """Raise unless a setting is a number of at least `least`, and no infinite one."""
    wrong = isinstance(value, bool) or not isinstance(value, (int, float))
    if wrong or not least <= value < math.inf:  # type: ignore[operator]  # It is a number if not wrong.
        raise ValueError(f"{field}={shown(value)}: expected a number of at least {least}")


def wait_s(timeout: float | None) -> float:
    """Return for how long to wait: None and more than a thread can wait are that, NaN is not at all."""
    longest = threading.TIMEOUT_MAX / 2
    return longest if timeout is None else min(max(0.0, timeout), longest)


def paid(field: str, value: object) -> Money:
    """Return the amount of an order or refund: Money of at least 0."""
    if not isinstance(value, Money):
        raise ValueError(
            f"{field}={shown(value)}: expected Money, got {type(value).__name__};"
            " pass Money.of('12.50', 'EUR') or Money(1250, 'EUR')"
        )
    if value.amount_minor < 0:
        raise ValueError(f"{field}={shown(value)}: below zero; send what was given back with refunded()")
    return value


def part_minor(field: str, value: object, currency: str) -> int | None:
    """Return one part of an order's amount, at least 0, as minor units of the order's currency."""
    if value is None:
        return None
    minor = _minor_in(field, value, currency)
    if minor < 0:
        raise ValueError(f"{field}={shown(value)}: below zero; leave it out or pass 0")
    return minor


def plan_money(mrr: object, usage: object) -> dict[str, int | str | None]:
    """Return mrr_minor, usage_minor and their one currency; both may be None."""
    amounts = {name: value for name, value in (("mrr", mrr), ("usage", usage)) if value is not None}
    moneys = {name: paid(name, value) for name, value in amounts.items()}
    currencies = {money.currency for money in moneys.values()}
    if len(currencies) > 1:
        raise ValueError(f"usage={shown(usage)}: mrr is in {moneys['mrr'].currency}; convert it")
    return {
        "mrr_minor": moneys["mrr"].amount_minor if "mrr" in moneys else None,
        "usage_minor": moneys["usage"].amount_minor if "usage" in moneys else None,
        "currency": next(iter(currencies), None),
    }


def item_records(items: Iterable[Item], currency: str) -> list[dict[str, Any]]:
    """Return the lines of an order as Avro records."""
    if isinstance(items, (str, bytes, Mapping)) or not isinstance(items, Iterable):
        raise ValueError(f"items={shown(items)}: expected Items, got {type(items).__name__}")
    return [_item_record(f"items[{index}]", item, currency) for index, item in enumerate(items)]


def texts(field: str, values: object) -> list[str]:
    """Return a list of texts, in the caller's order; a bare text is a mistake, not a list of letters."""
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ValueError(f"{field}={shown(values)}: expected several texts, got {type(values).__name__}")
    found = list(values)
    for index, value in enumerate(found):
        if text_or_none(f"{field}[{index}]", value) is None:
            raise ValueError(f"{field}[{index}]=None: expected text")
    return found


def trait_values(traits: Mapping[str, TraitValue]) -> dict[str, Any]:
    """Return traits as Avro values, each with the name of its branch."""
    if not isinstance(traits, Mapping):
        raise ValueError(f"traits={shown(traits)}: expected a mapping, got {type(traits).__name__}")
    return {_trait_name(name): _trait_value(f"traits[{name!r}]", value) for name, value in traits.items()}


def property_values(properties: Mapping[str, PropertyValue]) -> dict[str, Any]:
    """Return the properties of an activity as Avro values, each with the name of its branch."""
    if not isinstance(properties, Mapping):
        raise ValueError(
            f"properties={shown(properties)}: expected a mapping, got {type(properties).__name__}"
        )
    if len(properties) > NAMES_MAX:
        raise ValueError(f"properties: {len(properties)} names, at most {NAMES_MAX}")
    return {
        identifier("properties: a name", name): _property_value(f"properties[{name!r}]", value)
        for name, value in properties.items()
    }


def context_value(context: object) -> tuple[str, dict[str, Any]] | None:
    """Return a Context as an Avro value."""
    if context is None:
        return None
    if not isinstance(context, Context):
        raise ValueError(f"context={shown(context)}: expected a Context, got {type(context).__name__}")
    value = _record(context)
    if context.campaign is not None:
        value["campaign"] = (_CAMPAIGN, _record(context.campaign))
    return (_CONTEXT, value)


def _record(source: Context | Campaign) -> dict[str, Any]:
    return {name: getattr(source, name) for name in source.__slots__}


def _minor_in(field: str, value: object, currency: str) -> int:
    """Return minor units of `currency` from Money in that currency, or from an int."""
    if isinstance(value, Money):
        if value.currency != currency:
            raise ValueError(f"{field}={shown(value)}: the order is in {currency}; convert it")
        return value.amount_minor
    check_minor(field, value)
    assert isinstance(value, int)
    return value


def _item_record(field: str, item: object, currency: str) -> dict[str, Any]:
    if not isinstance(item, Item):
        raise ValueError(f"{field}={shown(item)}: expected an Item, got {type(item).__name__}")
    if type(item.quantity) is not int or not -INT64_MAX <= item.quantity <= INT64_MAX:
        raise ValueError(f"{field}.quantity={shown(item.quantity)}: expected an int that 64 bits hold")
    return {
        "line_id": text_or_none(f"{field}.line_id", item.line_id),
        "sku": identifier(f"{field}.sku", item.sku),
        "name": text_or_none(f"{field}.name", item.name),
        "category": text_or_none(f"{field}.category", item.category),
        "quantity": item.quantity,
        "unit_price_minor": _minor_in(f"{field}.unit_price", item.unit_price, currency),
    }


def _trait_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError(f"traits: the name {shown(name)} is not a text of at least one character")
    text_or_none("traits: a name", name)
    return name


def _property_value(field: str, value: object) -> Any:
    """Return one property as an Avro value: what a trait can be, except for an instant, a set and None."""
    if not isinstance(value, (str, int, float)):
        raise ValueError(
            f"{field}={shown(value)}: a property is text, a number or a bool, got {type(value).__name__}"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{field}={value!r}: not a number that compares; leave it out")
    return _trait_value(field, value)


def _trait_value(field: str, value: object) -> Any:
    """Return one trait as an Avro value; the order of the checks matters, as True is an int."""
    if value is None:
        return None
    if isinstance(value, str):
        return ("string", text_or_none(field, value))
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, int):
        if not -INT64_MAX <= value <= INT64_MAX:
            raise ValueError(f"{field}={shown(value)}: more than 64 bits hold; pass it as text")
        return ("long", value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{field}={value!r}: not a number that compares; pass None to delete the trait")
        return ("double", value)
    if isinstance(value, datetime):
        return (_INSTANT, {"at": instant_ms(field, value)})
    if isinstance(value, AbstractSet):
        # Sorted, so that equal sets are equal bytes in every process.
        return sorted(texts(field, value))
    raise ValueError(
        f"{field}={shown(value)}: a trait is text, a number, a bool, a datetime or a set of texts,"
        f" got {type(value).__name__}"
    )
