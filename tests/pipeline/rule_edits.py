"""Random edits of a definition, one after the other: thresholds, names, segments, dimensions, states, delays.

What is drawn reads only what is kept of events, unless it is meant to be refused.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from streams.segments.definition import Definition
from streams.segments.loading import DEFAULT_PATH, load
from tests.streams.segments.brute_force import TRAITS
from tests.streams.segments.custom import with_sections
from tests.streams.segments.edits import edited

Draw = Callable[[random.Random], str]


def _days(rng: random.Random, most: int = 300) -> str:
    return f"{rng.choice((3, 10, 30, 45, 90, 200)) % most or most}d"


RULES: tuple[Draw, ...] = (
    lambda rng: f"orders({_days(rng)}) >= {rng.randrange(1, 4)}",
    lambda rng: f"spend({_days(rng)}) >= {rng.randrange(1, 40)}",
    lambda rng: f"refunds({_days(rng)}) > 0",
    lambda rng: f"net({_days(rng)}) < {rng.randrange(-5, 20)}",
    lambda rng: f"rfm.r >= {rng.randrange(2, 5)} and rfm.f <= {rng.randrange(1, 4)}",
    lambda rng: f'lifecycle in ("active", "{rng.choice(("new", "churned", "at_risk"))}")',
    lambda rng: f"days_since(last()) > {rng.randrange(5, 200)}",
    lambda rng: f"tenure > {rng.randrange(5, 200)}",
    lambda rng: f'in_segment("asked") and orders({_days(rng)}) < 2',
    lambda rng: f'country == "{rng.choice(("DE", "AT"))}"',
    lambda rng: f"vip or company_size >= {rng.choice((2, 10))}",
    lambda rng: 'not "slack" in apps',
    lambda rng: f"days_until(contract_end) < {rng.randrange(1, 9)}",
    lambda rng: f'plan == "{rng.choice(("pro", "basic"))}"',
    lambda rng: f"mrr >= {rng.choice((1, 10, 19.99))}",
    lambda rng: f"days_until(renews_at) < {rng.randrange(1, 9)}",
    lambda rng: 'subscribed(product == "crm") or ticket_open',
    lambda rng: f"tickets({_days(rng)}) >= {rng.randrange(1, 3)}",
    lambda rng: f"rating({_days(rng)}) < 4",
)
"""What every partition can compute."""

BY_SERIES: tuple[Draw, ...] = (
    lambda rng: f'count("login", {_days(rng)}) >= {rng.randrange(1, 4)}',
    lambda rng: f'days_since("login") > {rng.randrange(5, 200)}',
    lambda rng: f'count("feature_used", {_days(rng)} where feature == "export") >= {rng.randrange(1, 3)}',
    lambda rng: f"days_active({_days(rng, 60)}) >= {rng.randrange(1, 4)}",
    lambda rng: f'sum("feature_used", size, {_days(rng)}) > {rng.randrange(-1, 9)}',
    lambda rng: f'distinct("feature_used", feature, {_days(rng)}) >= 2',
    lambda rng: f'spend({_days(rng)} where category == "books") > {rng.randrange(5)}',
)
"""What needs a series, each another one but the first two."""

ANCHOR = " or ".join(
    (
        'count("login", 9d) > 99',
        'count("feature_used", 9d where feature == "export") > 99',
        "days_active(9d) > 60",
        'sum("feature_used", size, 9d) > 99999',
        'distinct("feature_used", feature, 9d) > 99',
        'spend(9d where category == "books") > 99999',
    )
)
"""Reads every series of BY_SERIES, so that it is kept whatever else goes; nobody is ever in there."""

STEADY: tuple[Draw, ...] = (RULES[9], RULES[10], RULES[11])
"""What time alone does not change: with these a delay comes to rest."""

KEYS = [f"k{number}" for number in range(8)]
STATES = ("live", "live", "live", "shadow", "draft")


@dataclass
class Segment:
    """One custom segment."""

    when: str
    state: str = "live"
    more: dict[str, str] = field(default_factory=dict)
    """Delays and validity."""

    def lines(self, key: str) -> str:
        """Its part of the file."""
        more = "".join(f"    {name}: {value}\n" for name, value in self.more.items())
        return f"  {key}:\n    when: {self.when!r}\n    state: {self.state}\n{more}"


@dataclass
class Draft:
    """A definition somebody edits."""

    core: str
    segments: dict[str, Segment]
    dimensions: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def first(cls) -> Draft:
        """The committed core, in smaller amounts, and what every edit leaves alone."""
        core = DEFAULT_PATH.read_text("utf-8")
        segments = {"anchor": Segment(ANCHOR, "shadow"), "asked": Segment("orders(60d) >= 1")}
        return cls(core, segments)

    def text(self) -> str:
        """The file."""
        traits = ", ".join(f"{name}: {kind}" for name, kind in sorted(TRAITS.items()))
        sections = f"traits: {{{traits}}}\nsegments:\n"
        sections += "".join(each.lines(key) for key, each in self.segments.items())
        if self.dimensions:
            sections += "dimensions:\n"
        for key, values in self.dimensions.items():
            lines = "".join(f"      {value}: {when!r}\n" for value, when in values.items())
            sections += f"  {key}:\n    values:\n{lines}    otherwise: rest\n"
        whole = with_sections(sections)
        own = re.search(r"\n# -- optional", self.core)
        core = self.core[: own.start()] if own else self.core
        return core + "\n" + whole[whole.index("traits: {") :]

    @cached_property
    def definition(self) -> Definition:
        """What it says."""
        return load(self.text(), "edited")

    @property
    def series(self) -> set[str]:
        """What it needs kept beside orders and refunds."""
        return {each.key for each in self.definition.series}

    def _copy(self) -> Draft:
        return Draft(self.core, copy.deepcopy(self.segments), copy.deepcopy(self.dimensions))

    def edited(self, rng: random.Random) -> Draft:
        """Another one, which differs in one place or a few."""
        found = self._copy()
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            rng.choice((_core, _add, _add, _edit, _edit, _remove, _state, _delay, _dimension, _dimension))(
                found, rng
            )
        return found

    def settled(self) -> Draft:
        """The same without delays, but for those that come to rest."""
        found = self._copy()
        for key, each in found.segments.items():
            if not key.startswith("steady"):
                each.more = {name: value for name, value in each.more.items() if name.startswith("valid")}
        return found

    def asking(self, when: str) -> Draft:
        """The same with a segment of this rule."""
        found = self._copy()
        found.segments["asking"] = Segment(when)
        return found

    def without(self, when: str) -> Draft:
        """The same without anything that reads a series this rule reads."""
        found, lost = self._copy(), Draft.first().with_only(when).series
        found.segments["anchor"].when = "orders(9d) > 99"
        for key in KEYS:
            if key in found.segments and lost & found.with_only(found.segments[key].when).series:
                del found.segments[key]
        for key, values in self.dimensions.items():
            if any(lost & found.with_only(each).series for each in values.values()):
                del found.dimensions[key]
        return found

    def with_only(self, when: str) -> Draft:
        """The core and one segment."""
        return Draft(self.core, {"asked": Segment("true"), "only": Segment(when)})


def draw(rng: random.Random) -> str:
    """A rule."""
    when = rng.choice(RULES if rng.random() < 0.6 else BY_SERIES)(rng)
    return f"not ({when})" if rng.random() < 0.2 else when


def _core(draft: Draft, rng: random.Random) -> None:
    draft.core = edited(rng, draft.core, spend=range(1, 60))


def _add(draft: Draft, rng: random.Random) -> None:
    free = [key for key in KEYS if key not in draft.segments]
    if free:
        draft.segments[rng.choice(free)] = Segment(draw(rng), rng.choice(STATES))


def _some(draft: Draft, rng: random.Random) -> str | None:
    own = [key for key in draft.segments if key in KEYS]
    return rng.choice(own) if own else None


def _edit(draft: Draft, rng: random.Random) -> None:
    if rng.random() < 0.2:
        draft.segments["asked"].when = f"orders({_days(rng)}) >= {rng.randrange(1, 3)}"
    elif (key := _some(draft, rng)) is not None:
        draft.segments[key].when = draw(rng)


def _remove(draft: Draft, rng: random.Random) -> None:
    if (key := _some(draft, rng)) is not None:
        del draft.segments[key]


def _state(draft: Draft, rng: random.Random) -> None:
    if rng.random() < 0.3:
        draft.segments["asked"].state = rng.choice(STATES)
    elif (key := _some(draft, rng)) is not None:
        draft.segments[key].state = rng.choice(STATES)


def _delay(draft: Draft, rng: random.Random) -> None:
    """Let somebody wait, or not any more."""
    key = rng.choice(("steady0", "steady1", _some(draft, rng) or "steady2"))
    each = draft.segments.setdefault(key, Segment(rng.choice(STEADY)(rng)))
    names = ("dwell_enter", "dwell_exit", "cooldown")
    each.more = {name: f"{rng.randrange(1, 9)}d" for name in names if rng.random() < 0.5}
    if rng.random() < 0.2:
        each.more["valid_from"] = f"2023-{rng.randrange(11, 13)}-{rng.randrange(10, 29)}T00:00:00Z"


def _dimension(draft: Draft, rng: random.Random) -> None:
    key = rng.choice(("worth", "mood"))
    if key in draft.dimensions and rng.random() < 0.3:
        del draft.dimensions[key]
    else:
        values = rng.sample(("gold", "silver", "bronze", "lead"), rng.randrange(1, 4))
        draft.dimensions[key] = {value: draw(rng) for value in values}
