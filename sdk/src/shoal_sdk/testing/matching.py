"""Assertions on recorded events: which fit, and what to say when none does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from shoal_sdk.arguments import Item, instant_ms
from shoal_sdk.money import Money
from shoal_sdk.testing.events import Event, Events, instead, names_of, type_named

_LISTED_MAX = 10
_TRUTH_AND_NUMBERS = (bool, int, float)


def fitting(events: Events, name: str, expected: Mapping[str, Any]) -> Events:
    """Return the events of that type whose fields equal all that is expected.

    A ValueError for an event or field that does not exist: such an expectation is a mistake of the
    test, which could otherwise pass or fail for the wrong reason.
    """
    __tracebackhide__ = True
    wanted = type_named(name)
    for field in expected:
        if field not in names_of(wanted):
            raise ValueError(f"{wanted} has no field {field!r}{instead(field, names_of(wanted))}")
    return Events(event for event in events.of_type(wanted) if not differences(event, expected))


def differences(event: Event, expected: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields that are not as expected."""
    return [field for field, value in expected.items() if not same(value, event.fields[field])]


def same(expected: Any, got: Any) -> bool:
    """Whether a value is the expected one, which may be given in any way the SDK takes it.

    Minor units as an int, an instant with microseconds and in any zone, any sequence and set. True
    is not 1, nor 1.0: they are different values in Kafka. What brings its own `==` is asked.
    """
    if isinstance(expected, datetime):
        return isinstance(got, datetime) and instant_ms("expected", expected) == instant_ms("got", got)
    if isinstance(expected, Item):
        return isinstance(got, Item) and all(
            same(getattr(expected, name), getattr(got, name)) for name in Item.__slots__
        )
    if isinstance(expected, Mapping):
        return (
            isinstance(got, Mapping)
            and expected.keys() == got.keys()
            and all(same(value, got[key]) for key, value in expected.items())
        )
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(got, tuple)
            and len(expected) == len(got)
            and all(same(*pair) for pair in zip(expected, got, strict=True))
        )
    if isinstance(expected, _TRUTH_AND_NUMBERS):
        minor = got.amount_minor if isinstance(got, Money) else got
        return type(minor) is type(expected) and minor == expected
    return bool(expected == got)


def none_fits(events: Events, name: str, expected: Mapping[str, Any]) -> str:
    """Say that no event fits, how the nearest one differs, and what else was sent."""
    wanted = type_named(name)
    candidates = events.of_type(wanted)
    said = f"no {_described(wanted, expected)} was sent"
    if not candidates:
        return f"{said}; {listed(events)}"
    # Of several equally near the last, which is usually the one the test just caused.
    nearest = min(reversed(candidates), key=lambda event: len(differences(event, expected)))
    wrong = differences(nearest, expected)
    place = next(at for at, event in enumerate(events, 1) if event is nearest)
    lines = [f"{said}; the nearest is number {place} of {len(events)} events:"]
    for field, value in expected.items():
        got = nearest.fields[field]
        if field not in wrong:
            lines.append(f"    {field}: {_shown(got)}")
        elif isinstance(value, Mapping) and isinstance(got, Mapping):
            lines += _differing_keys(field, value, got)
        else:
            lines += [f"  - {field}: expected {_shown(value)}", f"  + {field}: got      {_shown(got)}"]
    return "\n".join(lines)


def too_many(found: Events, name: str, expected: Mapping[str, Any], times: int) -> str:
    """Say how often it was sent instead, and show those events."""
    return (
        f"{_described(type_named(name), expected)} was sent {len(found)} times, expected {times};"
        f" {listed(found)}"
    )


def listed(events: Sequence[Event]) -> str:
    """Return the events one per line, the first ten of them."""
    if not events:
        return "nothing was sent"
    lines = [f"{at}. {event!r}" for at, event in enumerate(events[:_LISTED_MAX], 1)]
    if len(events) > _LISTED_MAX:
        lines.append(f"... and {len(events) - _LISTED_MAX} more")
    return "\n  ".join([f"sent ({len(events)}):", *lines])


def _described(wanted: str, expected: Mapping[str, Any]) -> str:
    if not expected:
        return f"{wanted} event"
    return f"{wanted} event with {', '.join(f'{name}={_shown(value)}' for name, value in expected.items())}"


def _differing_keys(field: str, expected: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
    lines = []
    for key in [*expected, *(key for key in got if key not in expected)]:
        if key not in got or key not in expected or not same(expected[key], got[key]):
            lines += [
                f"  - {field}[{key!r}]: expected {_shown(expected[key]) if key in expected else 'nothing'}",
                f"  + {field}[{key!r}]: got      {_shown(got[key]) if key in got else 'nothing'}",
            ]
    return lines


def _shown(value: Any) -> str:
    return repr(dict(value) if isinstance(value, Mapping) else value)
