"""The definition: every constant that decides who is in which segment, under one version and hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from streams.customers.series import Series
from streams.segments import tree
from streams.segments.currencies import Rates
from streams.segments.grid import Grid
from streams.segments.literals import WINDOW_MAX_MS
from streams.segments.rules import (
    BOOKS,
    CustomDimension,
    Segment,
    keys_of,
    looks_back,
    members_of,
    needs_ms,
    windows_ms,
)
from streams.segments.settling import RULE_SUFFIX
from streams.segments.view import ORDERS, REFUNDS

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The constants of the lifecycle dimension; durations in ms."""

    at_risk_ms: int
    """A: a silence this long puts a customer at risk."""
    churned_ms: int
    """C: a silence this long makes one churned, and coming back after it reactivated."""
    recent_ms: int
    """N: how long new customers stay new and returning ones reactivated. At least a day below C."""
    loyal_tenure_ms: int
    loyal_recency: int
    """The least R score of a loyal customer."""
    loyal_frequency: int
    """The least F score of a loyal customer."""


@dataclass(frozen=True)
class Definition:
    """One version of what Shoal computes. Built by loading.load(), which checks every constant.

    What follows from the constants is worked out once, for walks through hundreds of rules take their time:
    hence no slots.
    """

    version: int
    """Given when it is applied; until then what the file says."""
    rates: Rates
    window_ms: int
    """The trailing window of F and M."""
    r_edges_ms: tuple[int, int, int, int]
    """Ascending ages of the last order: below the first is R 5, from the last on R 1."""
    f_edges: tuple[int, int, int, int]
    """Ascending counts of orders: below the first is F 1, from the last on F 5."""
    m_edges_minor: tuple[int, int, int, int]
    """Ascending nets in minor units of the reporting currency: below the first is M 1."""
    grid: Grid
    lifecycle: Lifecycle
    traits: tuple[tuple[str, str], ...] = ()
    """Trait and type, sorted: what rules may read of what `identify` sets."""
    segments: tuple[Segment, ...] = ()
    dimensions: tuple[CustomDimension, ...] = ()

    @cached_property
    def computed(self) -> tuple[Segment, ...]:
        """The segments that are computed: all but drafts."""
        return tuple(segment for segment in self.segments if segment.state != "draft")

    @cached_property
    def rules(self) -> tuple[tree.Rule, ...]:
        """The rules of everything custom that is computed, and of the drafts these ask for."""
        rules = [segment.rule for segment in self.computed]
        rules += [case.rule for dimension in self.dimensions for case in dimension.cases]
        by_key = {segment.key: segment for segment in self.segments}
        asked = {segment.key for segment in self.computed}
        for rule in rules:
            # The list grows while it is walked through: a draft may ask for another.
            for key in members_of(rule) - asked:
                asked.add(key)
                rules.append(by_key[key].rule)
        return tuple(rules)

    @cached_property
    def series(self) -> tuple[Series, ...]:
        """What must be kept beside orders and refunds, by key."""
        declared = [part.series for part in self.segments] + [part.series for part in self.dimensions]
        found = {each.key: each for series in declared for each in series}
        return tuple(found[key] for key in sorted(set().union(*map(keys_of, self.rules)) & found.keys()))

    @property
    def reporting_currency(self) -> str:
        """The ISO 4217 code all amounts are converted to."""
        return self.rates.reporting_currency

    @cached_property
    def longest_window_ms(self) -> int:
        """How far back facts decide anything: the longest window, or a silence and what follows it.

        Of orders, what lies further back counts for the window `ever` only.
        """
        core = max(self.window_ms, self.lifecycle.recent_ms + self.lifecycle.churned_ms)
        return max((core, *(length_ms for rule in self.rules for length_ms in windows_ms(rule))))

    @cached_property
    def kept_ms(self) -> int:
        """How long facts are kept: 10 years if a rule asks for the first or last of an event, or for all."""
        return WINDOW_MAX_MS if any(map(looks_back, self.rules)) else self.longest_window_ms

    @property
    def needs_ms(self) -> dict[str, int]:
        """How far back what must be kept: `orders`, `refunds`, BOOKS, and declared series by their keys."""
        lifecycle = self.lifecycle
        core = max(self.window_ms, lifecycle.recent_ms + lifecycle.churned_ms)
        needs = {ORDERS: core, REFUNDS: core, BOOKS: core} | {series.key: 0 for series in self.series}
        for name, length_ms in (pair for rule in self.rules for pair in needs_ms(rule)):
            needs[name] = max(needs[name], length_ms)
        return needs

    @property
    def declared(self) -> dict[str, Any]:
        """What decides the value in each dimension, as far as that dimension itself says it.

        Those of whom a membership follows with a delay are named as the evaluator names them, so that a
        segment that becomes shown or hidden is another one.
        """
        content, own = self._core(), ("rates", "reporting_currency", "lifecycle")
        rfm = {name: part for name, part in content.items() if name not in own}
        declared: dict[str, Any] = {"rfm": rfm, "lifecycle": content["lifecycle"]}
        declared |= {each.key: each.content() for each in self.dimensions}
        for segment in self.computed:
            declared[segment.dimension] = segment.content()
            if segment.settles:
                declared[segment.key + RULE_SUFFIX] = segment.content()
        return declared

    def numbered(self, version: int) -> Definition:
        """Return the same content as another version."""
        return replace(self, version=version)

    @cached_property
    def hash(self) -> str:
        """The SHA-256, in hex, of the content, its number aside: equal however the file is laid out."""
        content = self._core()
        # Left out when there are none: what was built before there were any stays valid.
        if self.segments or self.dimensions:
            content["traits"] = dict(self.traits)
            content["segments"] = {segment.key: segment.content() for segment in self.segments}
            content["dimensions"] = {each.key: each.content() for each in self.dimensions}
            content["series"] = [series.key for series in self.series]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def _core(self) -> dict[str, Any]:
        lifecycle = self.lifecycle
        return {
            "reporting_currency": self.reporting_currency,
            "rates": {code: str(rate) for code, rate in self.rates.declared.items()},
            "window_ms": self.window_ms,
            "r_edges_ms": self.r_edges_ms,
            "f_edges": self.f_edges,
            "m_edges_minor": self.m_edges_minor,
            # The order of names is the order of codes; the order of a name's cells is nothing.
            "grid": [[name, sorted(cells)] for name, cells in self.grid.claims],
            "columns": sorted([column, sorted(sums)] for column, sums in self.grid.columns),
            "lifecycle": {name: getattr(lifecycle, name) for name in lifecycle.__dataclass_fields__},
        }
