"""The optional sections of segments.yaml: what is read, what is refused where, and the schema editors use."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
import yaml

import sinks.contract
from errors import DefinitionError
from streams.segments import declared, loading
from streams.segments.checking import check
from streams.segments.declared import KEPT_BY_SINKS
from streams.segments.definition import Definition
from streams.segments.literals import Vocabulary
from streams.segments.loading import DEFAULT_PATH, load
from streams.segments.syntax import Refused
from tests.streams.segments.custom import CORE, defined, place_of, segments, with_sections

DAY = 86_400_000
SCHEMA = json.loads((DEFAULT_PATH.parent / "streams/segments/segments.schema.json").read_text())

FULL = """
traits:
  company_size: number
  apps: set
events:
  feature_used: {feature: string, size: number}
segments:
  power_users:
    name: Power users
    description: Exported at least five times this week
    owner: growth@example.com
    labels: [product]
    when: >-
      count("feature_used", 7d where feature == "export") >= 5
      and not ticket_open
    dwell_enter: 1d
    dwell_exit: 36h
    cooldown: 1w
    valid_from: 2026-01-01T00:00:00Z
    valid_until: 2026-07-01T00:00:00+02:00
    state: shadow
  big: {when: company_size >= 100 and "slack" in apps}
dimensions:
  value_tier:
    values:
      gold: spend(365d) >= 1000
      silver: spend(400d) >= 250
    otherwise: bronze
"""


def problems_of(sections: str) -> list[str]:
    """What is said of the file, each line without its place in the core."""
    with pytest.raises(DefinitionError) as caught:
        defined(sections)
    return list(caught.value.problems)


def test_everything_there_is_to_say_is_read() -> None:
    """All fields of a segment and of a dimension, durations of all units, instants with an offset."""
    definition = defined(FULL)
    power, big = definition.segments
    assert (power.name, power.owner, power.labels, power.state) == (
        "Power users",
        "growth@example.com",
        ("product",),
        "shadow",
    )
    assert (power.dwell_enter_ms, power.dwell_exit_ms, power.cooldown_ms) == (DAY, 36 * DAY // 24, 7 * DAY)
    assert (power.valid_from_ms, power.valid_until_ms) == (1_767_225_600_000, 1_782_856_800_000)
    assert [series.key for series in power.series] == ['activity "feature_used" where "feature" == "export"']
    assert definition.dimensions[0].values == ("gold", "silver", "bronze")
    assert definition.longest_window_ms == 400 * DAY
    assert big.name == "" and definition.traits == (("apps", "set"), ("company_size", "number"))


def test_the_hash_knows_what_decides_and_nothing_else() -> None:
    """Another rule, delay or state is another definition; another owner, layout or comment is not."""
    whole = defined(FULL).hash
    same = (
        FULL.replace("growth@example.com", "sales@example.com")
        .replace(">-\n", ">-\n\n")
        .replace('export") >= 5', 'export")   >= 5')
    )
    assert defined(same).hash == whole
    for old, new in (
        (">= 5", ">= 6"),
        ("dwell_enter: 1d", "dwell_enter: 2d"),
        ("shadow", "live"),
        ("bronze", "tin"),
        ("400d", "401d"),
    ):
        assert defined(FULL.replace(old, new)).hash != whole


@pytest.mark.parametrize(
    ("rule", "at", "said"),
    [
        ('cuont("login", 7d) > 1', "cuont", "expected a function, got `cuont` (did you mean count?)"),
        ('orders(30d) >= 3 and cuntry == "DE"', "cuntry", "(did you mean country?)"),
        ('orders(30d) > "x"', '"x"', 'expected a number, got `"x"`'),
        ("country > 3", "country > 3", "expected == or != for text"),
        ("orders(3651d) > 1", "3651d", "up to 10 years"),
        ('spend(30d where catgory == "x") > 1', "catgory", "(did you mean category?)"),
        ('in_segment("oher")', '"oher"', "(did you mean other?)"),
        ('lifecycle == "at_rik"', '"at_rik"', "(did you mean at_risk?)"),
        ('__import__("os").system("x")', "__import__", "expected a name, a number, a text or an operator"),
        ("().__class__.__bases__", "__class__", "expected a name, a number, a text or an operator"),
        ("(lambda: 1)()", "lambda", "expected a name of the language"),
        ("orders.__call__(30d) > 1", "__call__", "expected a name, a number"),
        ("[x for x in y]", "[x", "a list is written"),
        ("9 ** 9 ** 9 > 1", "** 9 **", "there is no arithmetic"),
        ("days_active(65d) > 1", "65d", "1 to 64 whole days"),
        ("plan", "plan", "expected something true or false, got text"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_line_and_column(rule: str, at: str, said: str) -> None:
    """The place in the file, what was expected, what is there, and the nearest name that is known."""
    other = "traits: {country: string}\nsegments:\n  other: {when: orders(1d) > 0}\n"
    sections = f"{other}  it:\n    when: '{rule}'\n"
    (problem,) = problems_of(sections)
    place = place_of(with_sections(sections), f"'{rule}'", 1 + rule.index(at))
    assert problem.startswith(f"segments.yaml:{place}: segments.it.when: ")
    assert said in problem


def test_the_place_is_right_in_folded_and_plain_text_too() -> None:
    """However YAML lays a rule out, a problem points at the character in the file."""
    for head, indent in ((">-", "      "), ("|", "      "), ("", "      ")):
        sections = (
            f"segments:\n  it:\n    when: {head}\n{indent}orders(30d) > 3\n{indent}and ordres(7d) > 1\n"
        )
        (problem,) = problems_of(sections)
        place = place_of(with_sections(sections), "ordres")
        assert problem.startswith(f"segments.yaml:{place}: segments.it.when: "), problem


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            'segments:\n  a: {when: in_segment("b")}\n  b: {when: not in_segment("a")}\n',
            "segments.a: expected rules that do not read each other in a circle, got a -> b -> a",
        ),
        (
            'segments:\n  a: {when: t == "x"}\n'
            'dimensions:\n  t: {values: {x: in_segment("a")}, otherwise: y}\n',
            "in a circle",
        ),
        ("segments:\n  a: {when: orders(1d) > 0}\n  a: {when: orders(1d) > 0}\n", "expected a key once"),
        ("traits: {plan: string}\n", "the trait plan and the word plan of the language"),
        ("traits: {age: integer}\n", "expected one of string, number, boolean, timestamp, set"),
        ("segments:\n  rfm: {when: orders(1d) > 0}\n", "not rfm or lifecycle"),
        ("segments:\n  seq: {when: orders(1d) > 0}\n", "a key that sinks do not keep for themselves"),
        ("segments:\n  a: {when: orders(1d) > 0, stat: draft}\n", "did you mean state?"),
        ("segments:\n  a: {name: A}\n", "segments.a.when: expected a value, got none"),
        ("segments:\n  a: {when: orders(1d) > 0, dwell_enter: 4000d}\n", "up to 3650d"),
        (
            "segments:\n  a: {when: orders(1d) > 0, valid_from: 2026-02-01T00:00:00Z,"
            " valid_until: 2026-01-01T00:00:00Z}\n",
            "after valid_from",
        ),
        ("segments:\n  a: {when: orders(1d) > 0, valid_from: 2026-02-01T00:00:00}\n", "with its Z"),
        ("dimensions:\n  t: {values: {x: orders(1d) > 0}, otherwise: x}\n", "a value of its own"),
        (
            "dimensions:\n  tenure: {values: {x: orders(1d) > 0}, otherwise: y}\n",
            "the dimension tenure and the word tenure",
        ),
        (
            "segments:\n  a: {when: 'in_segment(\"b\")'}\n  b: {when: orders(1d) > 0, cooldown: 1d}\n",
            "without dwell_enter, dwell_exit and cooldown",
        ),
        ("events: {login: {}}\nsegments:\n  a: {when: 'count(\"logn\", 7d) > 0'}\n", "did you mean login?"),
        (
            "events: {login: {app: string}}\n"
            'segments:\n  a: {when: \'count("login", 7d where ap == "x") > 0\'}\n',
            "did you mean app?",
        ),
        (
            "events: {login: {app: string}}\nsegments:\n  a: {when: 'sum(\"login\", app, 7d) > 0'}\n",
            "expected a number, got a string as declared",
        ),
        ("segments: &a {x: *a}\n", "expected no anchors and aliases"),
    ],
)
def test_what_is_wrong_is_refused_with_the_reason(sections: str, said: str) -> None:
    """Cycles, duplicates, names taken, wrong types, wrong lengths: never a definition."""
    assert said in "\n".join(problems_of(sections))


@pytest.mark.parametrize(
    ("sections", "at", "said"),
    [
        ("segments:\n  a: {when: orders(1d) > 0, stat: draft}\n", "stat:", "did you mean state?"),
        ("segments:\n  a: {when: orders(1d) > 0, state: drat}\n", "drat", "did you mean draft?"),
        ("segments:\n  a: {when: orders(1d) > 0}\n  a: {when: vip}\n", "a: {when: vip", "first on line"),
        ("segments:\n  abc: {name: A}\n", "abc:", "segments.abc.when: expected a value, got none"),
        ("segments:\n  abc:\n    name: A\n", "abc:", "segments.abc.when: expected a value, got none"),
        ("segments:\n  abc:\n    when:\n", "when:\n", "got nothing"),
        ("segments:\n  abc:\n    when:\n      - vip\n", "when:\n", "got a list"),
        ("segments:\n  abc:\n    when: [vip]\n", "[vip]", "got a list"),
        ("traits:\n  age:\n    integer\n", "integer", "expected one of string"),
        ("traits: {age: number\n", "", "expected YAML"),
        ("segments: &a {}\n", "&a", "no anchors"),
    ],
)
def test_what_is_wrong_with_the_layout_has_its_place_too(sections: str, at: str, said: str) -> None:
    """A key is pointed at where the key is wrong or missing something, its value where that is."""
    text = with_sections(sections)
    place = place_of(text, at, after=0 if at else len(text))
    (problem,) = [each for each in problems_of(sections) if said in each]
    assert problem.startswith(f"segments.yaml:{place}: "), problem


def test_ten_thousand_nodes_are_refused() -> None:
    """So is anything else too long or too deep to be a rule a person wrote, before it is parsed."""
    for rule, said in (
        (" and ".join(["vip"] * 5_000), "expected at most"),
        ("not " * 300 + "vip", "32 levels"),
        ("(" * 300 + "vip" + ")" * 300, "32 levels"),
    ):
        assert said in problems_of(f"traits: {{vip: boolean}}\nsegments:\n  a: {{when: '{rule}'}}\n")[0]


SCRAPS = ["(", ")", ">=", "3", "and", "or", "not", "where", '"x"', ",", ".", "in", "30d", "-1", "==", "#"]
SCRAPS += ["__x__", "é", "0x1", "1_0", "1e9", "$", "lambda"]
SCRAPS += ["orders", "count", "rfm", "segment", "ever", "vip", "\\"]


def test_any_text_is_a_rule_or_refused_and_never_anything_else() -> None:
    """Random scraps of rules and of Python raise nothing but a problem with a place."""
    rng = random.Random(7)
    vocabulary = Vocabulary(2, {"vip": "boolean"}, {"rfm": ("prospect",), "lifecycle": ("lead",)})
    refused = 0
    for _ in range(5_000):
        rule = " ".join(rng.choice(SCRAPS) for _ in range(rng.randrange(1, 9)))
        try:
            check(rule, vocabulary)
        except Refused as problem:
            refused += 0 <= problem.at <= len(rule) and problem.problem.startswith("expected ")
        else:
            refused += 1
    assert refused == 5_000


def as_editors_read(text: str) -> Any:
    """The document as YAML tools read it: keys and instants as text, as in JSON."""

    def plain(node: Any) -> Any:
        if isinstance(node, dict):
            return {str(key): plain(value) for key, value in node.items()}
        if isinstance(node, list):
            return [plain(each) for each in node]
        return node if isinstance(node, str | int | float | bool) else node.isoformat()

    return plain(yaml.safe_load(text))


def test_the_schema_takes_what_the_loader_takes() -> None:
    """The committed file and one with everything in it; and it is a schema itself."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    for text in (DEFAULT_PATH.read_text(), with_sections(FULL)):
        load(text, "segments.yaml")
        jsonschema.validate(as_editors_read(text), SCHEMA)


@pytest.mark.parametrize(
    "sections",
    [
        "segments:\n  a: {name: A}\n",
        "segments:\n  Big: {when: orders(1d) > 0}\n",
        "segments:\n  a: {when: orders(1d) > 0, stat: draft}\n",
        "segments:\n  a: {when: orders(1d) > 0, state: hidden}\n",
        "segments:\n  a: {when: orders(1d) > 0, dwell_enter: 3}\n",
        "traits: {age: integer}\n",
        "dimensions:\n  t: {values: {x: orders(1d) > 0}}\n",
        "dimensions:\n  t: {values: {}, otherwise: x}\n",
        "unknown: 1\n",
    ],
)
def test_what_the_schema_refuses_the_loader_refuses(sections: str) -> None:
    """An editor marks it, and so does the worker."""
    assert problems_of(sections)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(as_editors_read(with_sections(sections)), SCHEMA)


def test_the_schema_knows_every_field_the_loader_knows() -> None:
    """Neither has a field the other does not."""
    properties = SCHEMA["properties"]
    assert properties.keys() == {"version", "money", "rfm", "lifecycle", *declared.SECTIONS}
    segment = properties["segments"]["additionalProperties"]["properties"]
    assert segment.keys() == {"when", *declared._SEGMENT}
    assert SCHEMA["required"] == ["money", "rfm", "lifecycle"]


def test_a_core_without_optional_sections_is_what_it_was() -> None:
    """The committed core alone: no segments, no series, and the longest window of the core."""
    definition: Definition = loading.load(CORE, "segments.yaml")
    assert (definition.segments, definition.dimensions, definition.series, definition.rules) == (
        (),
        (),
        (),
        (),
    )
    assert segments(a="orders(7d) > 0").longest_window_ms == definition.longest_window_ms


def test_no_sink_keeps_another_name_for_itself() -> None:
    """What a definition may not use is what sinks refuse to be given."""
    assert KEPT_BY_SINKS == sinks.contract.RESERVED
