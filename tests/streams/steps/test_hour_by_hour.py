"""Random rules on random customers through the engine, hour by hour, against plain loops.

Killed and restored at random hours, the definition replaced by other random ones meanwhile: at every
hour each customer's memberships are what plain loops over everything that has come say, by the rules
of the version that customer was last evaluated by.
"""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.customers.facts import PENDING_MS
from streams.segments.checking import check
from streams.segments.evaluate import Evaluator
from streams.segments.settling import RULE_SUFFIX, SHADOW_SUFFIX, is_hidden
from streams.segments.versions import Versions
from streams.steps.room import Bounds
from tests.simulation import SimulatedPartition
from tests.streams.segments.brute_force import HOUR, TRAITS, Rule, rule
from tests.streams.segments.custom import with_sections
from tests.streams.segments.described import Customer
from tests.streams.segments.edits import version
from tests.streams.segments.test_expressions_exact import VOCABULARY
from tests.streams.steps.told import HOURS, Heard, stories

CUSTOMERS, RULES, EXAMPLES = 40, 16, 5
VERSIONS = 6
CORE = ("rfm", "lifecycle")
# A seed cannot be shrunk to anything simpler.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)

AT_ANY_INSTANT = re.compile("days_since|days_until|tenure|contract_end|renews_at|trial_ends_at")
"""Rules with these may turn a millisecond after a full hour."""

Delay = tuple[int, int, int]
"""dwell_enter, dwell_exit, cooldown in ms."""


@dataclass(frozen=True)
class Declared:
    """A segment of one version."""

    rule: Rule
    hidden: bool = False
    delay: Delay = (0, 0, 0)

    @property
    def content(self) -> tuple[str, bool, Delay]:
        """What has to be the same for a segment to be the same."""
        return self.rule.text, self.hidden, self.delay

    def lines(self, key: str) -> list[str]:
        """Its part of the file."""
        names = ("dwell_enter", "dwell_exit", "cooldown")
        delays = zip(names, self.delay, strict=True)
        return [
            f"  {key}:",
            f"    when: {self.rule.text!r}",
            *(f"    {name}: {length_ms // HOUR}h" for name, length_ms in delays if length_ms),
            *["    state: shadow"] * self.hidden,
        ]


@dataclass
class Spec:
    """One version: its segments, and the rule behind each value of its dimension."""

    segments: dict[str, Declared]
    tiers: list[tuple[str, Rule]] = field(default_factory=list)

    def text(self) -> str:
        """The file."""
        traits = ", ".join(f"{name}: {kind}" for name, kind in sorted(TRAITS.items()))
        lines = [f"traits: {{{traits}}}", "segments:"]
        lines += [line for key, each in self.segments.items() for line in each.lines(key)]
        if self.tiers:
            values = ", ".join(f"{value}: {each.text!r}" for value, each in self.tiers)
            lines += ["dimensions:", f"  worth: {{values: {{{values}}}, otherwise: rest}}"]
        return with_sections("\n".join(lines) + "\n")

    @property
    def asked(self) -> int:
        """How many truths a customer's values stand for."""
        return len(self.segments) + len(self.tiers)


@dataclass
class Stage:
    """Where one customer stands in a segment with a delay, hour by hour."""

    inside: bool = False
    left_ms: int | None = None
    true: bool = False
    since_ms: int = 0

    def follow(self, true: bool, now: int, delay: Delay) -> None:
        """One hour later: what the rule said until now, then what it says from now on."""
        before = self.inside, self.left_ms
        self._move(now, delay)
        if true != self.true:
            self.true, self.since_ms = true, now
        self._move(now, delay)
        if self.inside == before[0]:
            # In and out within one step is no change.
            self.left_ms = before[1]

    def _move(self, now: int, delay: Delay) -> None:
        enter_ms, exit_ms, cooldown_ms = delay
        paused = self.left_ms is not None and now < self.left_ms + cooldown_ms
        if self.true and not self.inside and now >= self.since_ms + enter_ms and not paused:
            self.inside = True
        elif not self.true and self.inside and now >= self.since_ms + exit_ms:
            self.inside, self.left_ms = False, now


@dataclass
class Person:
    """One customer: what has come by when, and where it stands."""

    heard: Heard = field(default_factory=Heard)
    history: list[tuple[int, Customer]] = field(default_factory=list)
    number: int = 0
    """The version by which it was last evaluated."""
    stages: dict[str, Stage] = field(default_factory=dict)

    def known(self, now: int) -> Customer | None:
        """What was known at an hour, None before anything was."""
        return next((each for since, each in reversed(self.history) if since <= now), None)

    def wanted(self, number: int, specs: dict[int, Spec], now: int) -> dict[str, str] | None:
        """What the customer is, evaluated by a version, hidden dimensions too; hours come one by one."""
        known, one = self.known(now), specs[number]
        if known is None:
            return None
        if self.number not in (0, number):
            self._begin_afresh(known, [specs[n] for n in range(self.number, number + 1)], now)
        self.number = number
        found: dict[str, str] = {}
        for key, each in one.segments.items():
            inside = true = each.rule.holds(known, now)
            if any(each.delay):
                stage = self.stages.setdefault(key, Stage())
                stage.follow(true, now, each.delay)
                inside = stage.inside
                found |= {key + RULE_SUFFIX: key + RULE_SUFFIX} if true else {}
            found |= {key + SHADOW_SUFFIX * each.hidden: key} if inside else {}
        if one.tiers:
            first = (value for value, each in one.tiers if each.holds(known, now))
            found["worth"] = next(first, "rest")
        return found

    def _begin_afresh(self, known: Customer, specs: list[Spec], now: int) -> None:
        """Whatever was edited since is what its rule says, and has no past; the rest goes on."""
        for key, each in specs[-1].segments.items():
            said = [one.segments[key].content if key in one.segments else None for one in specs]
            if any(one != each.content for one in said):
                true = each.rule.holds(known, now)
                self.stages[key] = Stage(true, None, true, now)
        self.stages = {key: stage for key, stage in self.stages.items() if key in specs[-1].segments}


def series_of(each: Rule) -> set[str]:
    """What a rule needs kept beside orders and refunds."""
    return set(check(each.text, VOCABULARY).series)


def negated(each: Rule) -> Rule:
    """The rule that holds when this one does not."""
    return Rule(f"not ({each.text})", lambda c, now: not each.holds(c, now))


def spec(rng: random.Random, rules: list[Rule], before: Spec | None, delays: bool) -> Spec:
    """A version of these rules: some under another's key, some turned round, hidden, or followed late.

    With `delays` a third of the segments is as it was before.
    """
    drawn = [negated(each) if rng.random() < 0.25 else each for each in rules]
    if rng.random() < 0.5:
        rng.shuffle(drawn)
    tiers = []
    if len(drawn) > 4 and rng.random() < 0.7:
        tiers = [("gold", drawn.pop()), ("silver", drawn.pop())]
    keys = sorted(rng.sample(range(len(drawn) + 2), len(drawn))) if rng.random() < 0.5 else range(len(drawn))
    segments = {}
    for key, each in zip((f"s{key}" for key in keys), drawn, strict=True):
        segments[key] = Declared(each, rng.random() < 0.15)
        if delays and not AT_ANY_INSTANT.search(each.text) and rng.random() < 0.8:
            delay = rng.choice((0, 1, 5, 24)), rng.choice((0, 0, 3, 12)), rng.choice((0, 0, 8, 60))
            enter_h, exit_h, cooldown_h = delay
            segments[key] = Declared(
                each, rng.random() < 0.15, (enter_h * HOUR, exit_h * HOUR, cooldown_h * HOUR)
            )
        kept = None if before is None else before.segments.get(key)
        if delays and kept is not None and series_of(kept.rule) <= series_of(each) and rng.random() < 0.6:
            segments[key] = kept
    return Spec(segments, tiers)


class Comparison:
    """One partition that reads a log hour by hour, and the plain loops beside it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.count = rng, 0
        # With delays everything happens at full hours, so that hours are all an observer need look at.
        self.delays = rng.random() < 0.5
        self.pool = [rule(rng) for _ in range(RULES)]
        self.specs = {1: spec(rng, self.pool, None, self.delays)}
        first = version(1, self.specs[1].text()).definition()
        self.kept = {each.key for each in first.series}
        self.partition = SimulatedPartition(
            first, versions=Versions(only=Evaluator(first)), bounds=Bounds(rows_max=rng.choice((3, 6, 1000)))
        )
        offsets: dict[str, Any] = {"offsets_ms": (0,)} if self.delays else {}
        self.told = stories(rng, [f"c{i:02}" for i in range(CUSTOMERS)], **offsets)
        self.people: dict[str, Person] = {}
        self.looked_at = 0

    def run(self) -> None:
        """Read everything; at random hours convert and restart."""
        rng = self.rng
        # Two versions close to each other: the second finds the first unfinished.
        applied = [30 + rng.randrange(60), 120 + rng.randrange(200), 350 + rng.randrange(60)]
        applied += [applied[0] + rng.randrange(1, 3), applied[1] + rng.randrange(1, 3)]
        applied.sort()
        at = 0
        while at < len(HOURS):
            while applied and at >= applied[0]:
                applied.pop(0)
                self.apply()
            converting = self.partition.engine.converting
            # While customers are converted, whose turn has come is seen after each hour only.
            hours = HOURS[at : at + (1 if converting else rng.choice((1, 2, 5, 12, 30)))]
            if applied:
                hours = hours[: max(1, applied[0] - at)]
            self.read(hours[:-1])
            self.hear(hours[-1])
            if converting:
                # Between an event and its Tick.
                self.proceed()
                self.convert(hours[-1] - HOUR)
            self.partition.tick(hours[-1])
            self.proceed()
            if not converting:
                self.check_told(hours)
            self.check(hours[-1])
            self.convert(hours[-1])
            at += len(hours)
        self.partition.convert(self.crash)
        self.check(HOURS[-1])
        assert not self.partition.engine.converting
        assert self.partition.engine.definition.version == VERSIONS

    def proceed(self) -> None:
        """Read the log to its end."""
        self.partition.run((self.rng.choice((1, 7, 60)) for _ in itertools.count()), self.crash, self.back)

    def convert(self, now: int) -> None:
        """Restart, convert some slices, restart, or not."""
        converting = self.partition.engine.converting
        if self.rng.random() < (0.4 if converting else 0.2):
            self.partition.crash()
            self.check(now)
        self.partition.convert(self.crash, slices=self.rng.choice((0, 0, 1, 2, 30)))
        self.check(now)
        if converting and self.rng.random() < 0.4:
            self.partition.crash()
            self.check(now)

    def back(self) -> None:
        """Convert some slices if a Tick was met by some customers when the worker was killed.

        The conversion comes at that Tick, behind the rest of its sweep.
        """
        if self.partition.engine.half_swept:
            self.partition.convert(self.crash, slices=self.rng.choice((0, 1, 2, 30)))

    def crash(self) -> bool:
        """Whether the worker is killed now: often where that is in the middle of something."""
        engine = self.partition.engine
        return self.rng.random() < (0.25 if engine.converting or engine.half_swept else 0.05)

    def apply(self) -> None:
        """Apply another version: one segment edited, an earlier version again, or everything anew.

        All of it is about what is kept of events.
        """
        rng, number = self.rng, max(self.specs) + 1
        before = self.specs[number - 1]
        drawn = [*rng.sample(self.pool, rng.randrange(RULES // 2, RULES + 1)), *(rule(rng) for _ in range(8))]
        drawn = [each for each in drawn if series_of(each) <= self.kept][:RULES]
        draw = rng.random()
        earlier = self.specs[rng.randrange(1, number)]
        if draw < 0.3 and self.series_of(earlier) <= self.kept:
            found = earlier
        elif draw < 0.7:
            key = rng.choice([*before.segments, "new"])
            one = spec(rng, drawn[:1], None, self.delays).segments
            found = Spec({**before.segments, key: next(iter(one.values()))}, before.tiers)
        else:
            found = spec(rng, drawn, before, self.delays)
        self.specs[number] = found
        # What is not asked for is not kept any more.
        self.kept = self.series_of(found)
        assert self.partition.versions is not None
        self.partition.versions.add(version(number, found.text()))

    def series_of(self, one: Spec) -> set[str]:
        """What a version needs kept."""
        return {each.key for each in version(1, one.text()).definition().series}

    def read(self, hours: list[int]) -> None:
        """Write the log of these hours."""
        for now in hours:
            self.hear(now)
            self.partition.tick(now)

    def hear(self, now: int) -> None:
        """Write what comes before the Tick of an hour, and note what is known then."""
        came = set()
        while self.told and self.told[0][0] <= now:
            _, type_name, customer, fields = self.told.pop(0)
            self.partition.event(type_name, customer, fields)
            self.people.setdefault(customer, Person()).heard.hear(type_name, fields)
            came.add(customer)
        for customer in came:
            person = self.people[customer]
            person.history.append((now, person.heard.known()))

    def check(self, now: int) -> None:
        """Memory and memberships say what the loops say, each customer under its own version.

        Of who waits for a Tick nothing is asked.
        """
        engine = self.partition.engine
        table = engine.table
        slots = np.arange(table.count)
        names = [identity.decode() for identity in table.slots.ids_of(slots)]
        by = table.evaluated_by[slots].tolist()
        waiting = (table.due_ms[slots] == PENDING_MS).tolist()
        assert engine.unconverted == sum(number not in (0, engine.definition.version) for number in by)
        assert engine.refusal is None
        assert sorted(self.people) == sorted(names)
        members = self.partition.values()
        self.check_causes(dict(zip(names, by, strict=True)))
        rows = zip(names, by, waiting, table.value[slots].tolist(), strict=True)
        for name, number, waits, codes in rows:
            if waits:
                continue
            wanted = self.people[name].wanted(number, self.specs, now)
            assert wanted is not None
            held = {
                dimension: table.values[d][code]
                for d, (dimension, code) in enumerate(zip(table.dimensions, codes, strict=True))
                if code >= 0 and dimension not in CORE
            }
            assert held == wanted, (name, now, number, self.differing(number, held, wanted))
            assert custom(members.get(name, {})) == shown(wanted)
            self.count += self.specs[number].asked

    def check_causes(self, by: dict[str, int]) -> None:
        """New changes are by a changed rule where the customer's version changed, and only there."""
        changes = self.partition.changes
        for change in changes[self.looked_at :]:
            name, number = change["customer_id"], by[change["customer_id"]]
            converted = self.people[name].number not in (0, number)
            assert change["definition_version"] == number
            assert (change["cause"] == "rule_changed") == converted, (change, converted)
        self.looked_at = len(changes)
        assert [change["seq"] for change in changes[-9:]] == list(range(1, len(changes) + 1))[-9:]

    def check_told(self, hours: list[int]) -> None:
        """Changes, by the instants they were true from, say what each customer was at each of these hours."""
        number = self.partition.engine.definition.version
        changes: dict[str, list[dict[str, Any]]] = {}
        for change in self.partition.changes:
            changes.setdefault(change["customer_id"], []).append(change)
        for name, person in self.people.items():
            mine, held = iter(changes.get(name, [])), {}
            following = next(mine, None)
            for now in hours:
                while following is not None and following["effective_at"] <= now:
                    held[following["dimension"]] = following["to"]
                    following = next(mine, None)
                wanted = person.wanted(number, self.specs, now)
                if wanted is None:
                    continue
                told = custom({dimension: value for dimension, value in held.items() if value is not None})
                assert told == shown(wanted), (name, now, self.differing(number, told, shown(wanted)))
                self.count += self.specs[number].asked
            assert following is None

    def differing(self, number: int, held: dict[str, str], wanted: dict[str, str]) -> list[Any]:
        """The dimensions in which two differ, and what is behind them."""
        one = self.specs[number]
        names = sorted(d for d in held.keys() | wanted.keys() if held.get(d) != wanted.get(d))
        behind = [one.segments.get(d.split(" ")[0], one.tiers) for d in names]
        return [(d, held.get(d), wanted.get(d), each) for d, each in zip(names, behind, strict=True)]


def custom(values: dict[str, str]) -> dict[str, str]:
    """Without what the core says."""
    return {dimension: value for dimension, value in values.items() if dimension not in CORE}


def shown(values: dict[str, str]) -> dict[str, str]:
    """What people are told of."""
    return {dimension: value for dimension, value in values.items() if not is_hidden(dimension)}


COUNTED: list[int] = []


@pytest.mark.timeout(600)  # A minute of work for one core, which others may be using too.
@settings(max_examples=EXAMPLES, deadline=None, phases=PHASES)
@given(st.integers(0, 1 << 60))
def test_at_every_hour_everybody_is_what_plain_loops_say(seed: int) -> None:
    """Across restarts and five conversions: nobody differs in anything at any hour."""
    comparison = Comparison(random.Random(seed))
    comparison.run()
    COUNTED.append(comparison.count)


def test_a_million_memberships_were_compared() -> None:
    """The test above has run, and long enough."""
    if not COUNTED:
        pytest.skip("the comparison has not run")
    assert sum(COUNTED) >= 1_000_000
