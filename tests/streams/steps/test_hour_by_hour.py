"""Random rules on random customers through the engine, hour by hour, against plain loops.

Killed and restored at random hours, the definition replaced by other random ones meanwhile: at every
hour each customer's memberships are what plain loops over everything that has come say, by the rules
of the version that customer was last evaluated by.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.segments.checking import check
from streams.segments.evaluate import Evaluator
from streams.segments.loading import load
from streams.segments.settling import SHADOW_SUFFIX
from streams.segments.versions import Versions
from streams.steps.room import Bounds
from tests.simulation import SimulatedPartition
from tests.streams.segments.brute_force import TRAITS, Rule, rule
from tests.streams.segments.custom import with_sections
from tests.streams.segments.described import Customer
from tests.streams.segments.edits import version
from tests.streams.segments.test_expressions_exact import VOCABULARY
from tests.streams.steps.told import HOURS, Heard, stories

CUSTOMERS, RULES, EXAMPLES = 40, 16, 5
VERSIONS = 4
# A seed cannot be shrunk to anything simpler.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)


@dataclass
class Spec:
    """One version: its text, and the rule behind each value of each of its dimensions."""

    rules: dict[str, Rule] = field(default_factory=dict)
    """Segment, live or shadow, to its rule."""
    tiers: list[tuple[str, Rule]] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)

    def text(self) -> str:
        """The file."""
        traits = ", ".join(f"{name}: {kind}" for name, kind in sorted(TRAITS.items()))
        lines = [f"traits: {{{traits}}}", "segments:"]
        for key, each in self.rules.items():
            lines += [f"  {key}:", f"    when: {each.text!r}"]
            lines += ["    state: shadow"] * (key in self.hidden)
        if self.tiers:
            values = ", ".join(f"{value}: {each.text!r}" for value, each in self.tiers)
            lines += ["dimensions:", f"  worth: {{values: {{{values}}}, otherwise: rest}}"]
        return with_sections("\n".join(lines) + "\n")

    def values(self, known: Customer, now: int) -> dict[str, str]:
        """What a customer is, hidden dimensions too."""
        found = {
            key + SHADOW_SUFFIX * (key in self.hidden): key
            for key, each in self.rules.items()
            if each.holds(known, now)
        }
        if self.tiers:
            first = (value for value, each in self.tiers if each.holds(known, now))
            found["worth"] = next(first, "rest")
        return found

    @property
    def asked(self) -> int:
        """How many truths a customer's values stand for."""
        return len(self.rules) + len(self.tiers)


def series_of(each: Rule) -> set[str]:
    """What a rule needs kept beside orders and refunds."""
    return set(check(each.text, VOCABULARY).series)


def negated(each: Rule) -> Rule:
    """The rule that holds when this one does not."""
    return Rule(f"not ({each.text})", lambda c, now: not each.holds(c, now))


def spec(rng: random.Random, pool: list[Rule]) -> Spec:
    """A version made of these rules: some under another's key, some turned round, some hidden."""
    drawn = [negated(each) if rng.random() < 0.25 else each for each in pool]
    if rng.random() < 0.5:
        rng.shuffle(drawn)
    found = Spec()
    if len(drawn) > 4 and rng.random() < 0.7:
        found.tiers = [("gold", drawn.pop()), ("silver", drawn.pop())]
    keys = rng.sample(range(len(drawn) + 2), len(drawn)) if rng.random() < 0.5 else range(len(drawn))
    found.rules = {f"s{key}": each for key, each in zip(sorted(keys), drawn, strict=True)}
    found.hidden = {key for key in found.rules if rng.random() < 0.15}
    return found


class Comparison:
    """One partition that reads a log hour by hour, and the plain loops beside it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.count = rng, 0
        self.pool = [rule(rng) for _ in range(RULES)]
        self.specs = {1: spec(rng, self.pool)}
        first = load(self.specs[1].text(), "x")
        self.kept = {each.key for each in first.series}
        self.partition = SimulatedPartition(
            first, versions=Versions(only=Evaluator(first)), bounds=Bounds(rows_max=rng.choice((7, 15, 1000)))
        )
        self.partition.definition = first
        self.told = stories(rng, [f"c{i:02}" for i in range(CUSTOMERS)])
        self.heard: dict[str, Heard] = {}
        self.known: dict[str, list[tuple[int, Customer]]] = {}

    def run(self) -> None:
        """Read everything; at random hours convert and restart."""
        rng = self.rng
        applied = sorted(rng.sample(range(30, len(HOURS) - 30), VERSIONS - 1))
        at = 0
        while at < len(HOURS):
            if applied and at >= applied[0]:
                applied.pop(0)
                self.apply()
            converting = self.partition.engine.converting
            # While customers are converted, whose turn has come is seen after each hour only.
            hours = HOURS[at : at + (1 if converting else rng.choice((1, 2, 5, 12, 30)))]
            self.read(hours)
            self.partition.run((rng.choice((1, 7, 60)) for _ in itertools.count()), self.crash)
            if not converting:
                self.check_told(hours)
            self.check(hours[-1])
            if rng.random() < 0.2:
                self.partition.crash()
                self.check(hours[-1])
            self.partition.convert(self.crash, slices=rng.choice((0, 1, 1, 3)))
            self.check(hours[-1])
            at += len(hours)
        self.partition.convert(self.crash)
        self.check(HOURS[-1])
        assert not self.partition.engine.converting
        assert self.partition.engine.definition.version == VERSIONS

    def crash(self) -> bool:
        """Whether the worker is killed now."""
        return self.rng.random() < 0.05

    def apply(self) -> None:
        """Apply another version: some rules go, others come, all of them about what is kept of events."""
        rng, number = self.rng, max(self.specs) + 1
        drawn = [*rng.sample(self.pool, rng.randrange(RULES // 2, RULES + 1)), *(rule(rng) for _ in range(8))]
        drawn = [each for each in drawn if series_of(each) <= self.kept][:RULES]
        self.specs[number] = spec(rng, drawn)
        applied = version(number, self.specs[number].text())
        # What is not asked for is not kept any more.
        self.kept = {each.key for each in applied.definition().series}
        assert self.partition.versions is not None
        self.partition.versions.add(applied)

    def read(self, hours: list[int]) -> None:
        """Write the log up to the last of these hours, and note what is known at each."""
        for now in hours:
            while self.told and self.told[0][0] <= now:
                _, type_name, customer, fields = self.told.pop(0)
                self.partition.event(type_name, customer, fields)
                heard = self.heard.setdefault(customer, Heard())
                heard.hear(type_name, fields)
                history = self.known.setdefault(customer, [])
                if history and history[-1][0] == now:
                    history.pop()
                history.append((now, heard.known()))
            self.partition.tick(now)

    def check(self, now: int) -> None:
        """Memory, memberships and changes say what the loops say, each customer under its own version."""
        engine = self.partition.engine
        table = engine.table
        slots = np.arange(table.count)
        by = table.evaluated_by[slots].tolist()
        assert engine.unconverted == sum(number != engine.definition.version for number in by)
        members = self.partition.values()
        assert sorted(self.heard) == sorted(each.decode() for each in table.slots.ids_of(slots))
        assert engine.refusal is None
        for identity, number, codes in zip(
            table.slots.ids_of(slots), by, table.value[slots].tolist(), strict=True
        ):
            name = identity.decode()
            one = self.specs[number]
            wanted = one.values(self.known[name][-1][1], now)
            held = {
                dimension: table.values[d][code]
                for d, (dimension, code) in enumerate(zip(table.dimensions, codes, strict=True))
                if code >= 0 and dimension not in ("rfm", "lifecycle")
            }
            assert held == wanted, (name, now, number, differing(one, held, wanted))
            shown = {d: value for d, value in wanted.items() if not d.endswith(SHADOW_SUFFIX)}
            told = members.get(name, {})
            assert {d: v for d, v in told.items() if d not in ("rfm", "lifecycle")} == shown
            self.count += one.asked

    def check_told(self, hours: list[int]) -> None:
        """Changes, by the instants they were true from, say what each customer was at each of these hours."""
        one = self.specs[self.partition.engine.definition.version]
        changes: dict[str, list[dict[str, Any]]] = {}
        for change in self.partition.changes:
            changes.setdefault(change["customer_id"], []).append(change)
        for name, history in self.known.items():
            mine, held = iter(changes.get(name, [])), {}
            following = next(mine, None)
            for now in hours:
                while following is not None and following["effective_at"] <= now:
                    held[following["dimension"]] = following["to"]
                    following = next(mine, None)
                known = next((each for since, each in reversed(history) if since <= now), None)
                if known is None:
                    continue
                wanted = one.values(known, now)
                shown = {d: value for d, value in wanted.items() if not d.endswith(SHADOW_SUFFIX)}
                told = {d: v for d, v in held.items() if v is not None and d not in ("rfm", "lifecycle")}
                assert told == shown, (name, now, differing(one, told, shown))
                self.count += one.asked
            assert following is None


def differing(one: Spec, held: dict[str, str], wanted: dict[str, str]) -> list[tuple[str, Any, Any, str]]:
    """The dimensions in which two differ, and their rules."""
    names = {d for d in held.keys() | wanted.keys() if held.get(d) != wanted.get(d)}
    texts = {d: one.rules[d.removesuffix(SHADOW_SUFFIX)].text for d in names if d != "worth"}
    texts["worth"] = str([each.text for _, each in one.tiers])
    return [(d, held.get(d), wanted.get(d), texts[d]) for d in sorted(names)]


COUNTED: list[int] = []


@settings(max_examples=EXAMPLES, deadline=None, phases=PHASES)
@given(st.integers(0, 1 << 60))
def test_at_every_hour_everybody_is_what_plain_loops_say(seed: int) -> None:
    """Across restarts and three conversions: nobody differs in anything at any hour."""
    comparison = Comparison(random.Random(seed))
    comparison.run()
    COUNTED.append(comparison.count)


def test_a_million_memberships_were_compared() -> None:
    """The test above has run, and long enough."""
    if not COUNTED:
        pytest.skip("the comparison has not run")
    assert sum(COUNTED) >= 1_000_000
