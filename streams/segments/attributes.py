"""What a customer is rather than does: traits, and the bucket its id falls into. Timeless, all of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from fractions import Fraction
from hashlib import sha256

import numpy as np

from streams.customers.facts import Bools, Int64s, TraitValue
from streams.customers.series import MILLIONTHS
from streams.segments.measures import MISSING
from streams.segments.view import View, Window

_NUMBER_LIMIT = 1 << 60
"""A trait's number, in millionths, is held within this; no threshold comes near it."""


class Traits:
    """One trait of every customer, read once for all conditions on it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def evaluate(self, view: View) -> list[TraitValue]:
        """Return n values, None where it is not set."""
        return view.facts.trait(self._name, view.slots)


class Distinct:
    """The different values of a trait, so that many conditions on it are asked once for each of those."""

    def __init__(self, traits: Traits) -> None:
        self._traits = traits

    def evaluate(self, view: View) -> tuple[list[TraitValue], Int64s]:
        """Return the different values, and int64[n]: which of them each customer's is."""
        places: dict[tuple[type, TraitValue], int] = {}
        # With its type, because True == 1 == 1.0 while a truth is no number.
        codes = [places.setdefault((type(value), value), len(places)) for value in view.value(self._traits)]
        return [value for _, value in places], np.array(codes, np.int64)


class TraitMeasure:
    """A trait that is a number (in millionths) or an instant (in UTC ms); MISSING when it is neither."""

    optional = True

    def __init__(self, traits: Traits, read: Callable[[TraitValue], int | None]) -> None:
        self._traits, self._read = traits, read

    def windows(self) -> Iterable[Window]:
        """Return none."""
        return ()

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n]."""
        read = map(self._read, view.value(self._traits))
        return np.array([MISSING if value is None else value for value in read], np.int64)

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Only an event changes a trait."""
        return view.never()


class TraitCondition:
    """A truth about the value of a trait, which only an event changes."""

    timeless = True

    def __init__(self, distinct: Distinct, holds: Callable[[TraitValue], bool]) -> None:
        self._distinct, self._holds = distinct, holds

    def windows(self) -> Iterable[Window]:
        """Return none."""
        return ()

    def evaluate(self, view: View) -> Bools:
        """Return bool[n]."""
        values, codes = view.value(self._distinct)
        holds: Bools = np.array([self._holds(value) for value in values], np.bool_)[codes]
        return holds

    def due(self, view: View) -> Int64s:
        """Return FAR_MS."""
        return view.never()


def number_of(value: TraitValue) -> int | None:
    """Return a number in millionths, a double rounded half to even; None for what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    exact = value * MILLIONTHS if isinstance(value, int) else round(Fraction(value) * MILLIONTHS)
    return max(-_NUMBER_LIMIT, min(exact, _NUMBER_LIMIT))


def instant_of(value: TraitValue) -> int | None:
    """Return an instant in UTC ms; None for what is no instant."""
    if isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], int):
        return value[0]
    return None


def is_of(kind: str) -> Callable[[TraitValue], bool]:
    """Return what tells whether a value is of a declared type: string, number, boolean, timestamp or set."""
    tests: dict[str, Callable[[TraitValue], bool]] = {
        "string": lambda value: isinstance(value, str),
        "number": lambda value: number_of(value) is not None,
        "boolean": lambda value: isinstance(value, bool),
        "timestamp": lambda value: instant_of(value) is not None,
        "set": lambda value: isinstance(value, tuple) and instant_of(value) is None,
    }
    return tests[kind]


class Bucket:
    """A whole number in 0..99 that stays with a customer: sha256(salt, 0, id) modulo 100."""

    optional = False

    def __init__(self, salt: str) -> None:
        self._prefix = sha256(salt.encode() + b"\0")

    def windows(self) -> Iterable[Window]:
        """Return none."""
        return ()

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n]."""
        return np.array([self._of(identity) for identity in view.table.ids(view.slots)], np.int64)

    def _of(self, identity: bytes) -> int:
        digest = self._prefix.copy()
        digest.update(identity)
        return int.from_bytes(digest.digest(), "big") % 100

    def leaves(self, view: View, floor: Int64s, ceiling: Int64s) -> Int64s:
        """Nothing changes it."""
        return view.never()
