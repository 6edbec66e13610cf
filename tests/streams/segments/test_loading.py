"""segments.yaml: what is read, and what is refused with which words."""

from __future__ import annotations

from fractions import Fraction

import pytest

from errors import DefinitionError
from streams.segments.definition import DAY_MS, Definition, Lifecycle
from streams.segments.loading import DEFAULT_PATH, default_definition, load, load_path
from tests.streams.segments.custom import place_of

TEXT = DEFAULT_PATH.read_text("utf-8")


def problems_of(text: str) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        load(text, "segments.yaml")
    return list(caught.value.problems)


def test_default_definition_holds_the_designs_constants(definition: Definition) -> None:
    """The committed file is the design's defaults: GBP, 365 d, the edges, A = 60 d, C = 180 d, N = 30 d."""
    assert (definition.version, definition.reporting_currency) == (1, "GBP")
    assert definition.rates.declared.keys() >= {"EUR", "USD"}
    assert definition.window_ms == definition.longest_window_ms == 365 * DAY_MS
    assert definition.r_edges_ms == tuple(d * DAY_MS for d in (30, 60, 90, 180))
    assert definition.f_edges == (2, 3, 6, 12)
    assert definition.m_edges_minor == (100_00, 250_00, 500_00, 1000_00)
    assert definition.lifecycle == Lifecycle(60 * DAY_MS, 180 * DAY_MS, 30 * DAY_MS, 180 * DAY_MS, 4, 4)


def test_the_version_need_not_be_in_the_file() -> None:
    """Applying gives the number; a file without one is the first, and it is no part of the hash."""
    without = TEXT.replace("version: 1\n", "")
    assert load(without, "segments.yaml") == load(TEXT, "segments.yaml")
    other = load(TEXT.replace("version: 1\n", "version: 7\n"), "segments.yaml")
    assert (other.version, other.hash) == (7, load(without, "segments.yaml").hash)


def test_rates_are_exactly_what_is_written() -> None:
    """0.86 is 86/100, never the nearest binary float."""
    assert default_definition().rates.declared["EUR"] == Fraction(86, 100)


def test_hash_ignores_layout_and_knows_every_constant() -> None:
    """Comments and the number do not change the hash, any constant does; it is the same in every process."""
    same = "\n".join(line for line in TEXT.splitlines() if not line.strip().startswith("#"))
    assert load(same, "x").hash == default_definition().hash == default_definition().numbered(7).hash
    edits = [
        ("EUR: 0.86", "EUR: 0.87"),
        ("window: 365d", "window: 364d"),
        ("5: 30d", "5: 29d"),
        ("5: 12", "5: 13"),
        ("5: 1000", "5: 1000.01"),
        ("champions: ", "heroes: "),
        ("4: 8\n    5: 9-10", "4: 8-9\n    5: 10"),
        ("recent_for: 30d", "recent_for: 31d"),
        ("frequency: 4", "frequency: 5"),
    ]
    hashes = {load(TEXT.replace(old, new), "x").hash for old, new in edits}
    assert len(hashes | {default_definition().hash}) == len(edits) + 1
    assert default_definition().hash == "555fbe7279dc27946f434476e21429e383b5fa57e7d38c6f167b387f3bd1aea4"


def test_longest_window_covers_a_silence_and_what_follows() -> None:
    """With a short RFM window, facts still reach back far enough to see a reactivation."""
    text = TEXT.replace("window: 365d", "window: 90d")
    assert load(text, "x").longest_window_ms == 210 * DAY_MS


def test_all_problems_come_at_once_with_their_places() -> None:
    """One attempt shows everything: line and column, name, what was expected, what was there."""
    text = TEXT
    for old, new in [
        ("version: 1", "version: one"),
        ("EUR: 0.86", "EUR: -1"),
        ("window: 365d", "window: 1y"),
        ("5: 12", "5: 12.5"),
        ("at_risk_after: 60d", "at_risk_after: 60"),
        ("champions: [R5 FM4-5]", "champions: [R5 FM4-6]"),
    ]:
        text = text.replace(old, new)
    told = [
        ("one", "version: expected a whole number in 1..2147483647, got one"),
        (
            "-1\n",
            "money.rates.EUR: expected a decimal above 0 with at most 9 digits, such as 0.86, got -1",
        ),
        ("1y", "rfm.window: expected whole days from 1d to 9999d, such as 30d, got 1y"),
        ("12.5", "rfm.orders_at_least.5: expected a whole number in 1..1000000, got 12.5"),
        (
            "R5 FM4-6",
            "rfm.grid.champions: expected cells within R1..5 and FM1..5, such as R5 FM4-5, got R5 FM4-6",
        ),
        (
            "60\n",
            "lifecycle.at_risk_after: expected whole days from 1d to 9999d, such as 30d, got 60",
        ),
    ]
    assert problems_of(text) == [f"segments.yaml:{place_of(text, part)}: {said}" for part, said in told]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "lifecycle:",
            "lifecycel:",
            [
                "lifecycel: expected a known field, got lifecycel (did you mean lifecycle?)",
                "lifecycle: expected a value, got none",
            ],
        ),
        ("  window:", "  qqq: 1\n  window:", ["rfm.qqq: expected a known field, got qqq (known are window,"]),
        ("USD: 0.79", "USX: 0.79", ["money.rates.USX: expected an ISO 4217 currency code (did you mean"]),
        (
            "reporting_currency: GBP",
            "reporting_currency: gbp",
            ["expected an ISO 4217 currency code such as EUR, got gbp"],
        ),
        (
            "reporting_currency: GBP",
            "reporting_currency: GPB",
            ["expected an ISO 4217 currency code (did you mean GBP?), got GPB"],
        ),
        (
            "version: 1",
            "version: 1\nversion: 2",
            ["version: expected a key once, got it again (first on line 4)"],
        ),
        ("EUR: 0.86", "EUR: 0.86\n    EUR: 0.9", ["money.rates.EUR: expected a key once, got it again"]),
        (
            "EUR: 0.86",
            "EUR: 1.2345678901",
            ["money.rates.EUR: expected a decimal above 0 with at most 9 digits"],
        ),
        (
            "EUR: 0.86",
            "GBP: 1.1",
            ["money.rates.GBP: expected 1, for it is the reporting currency itself, got 1.1"],
        ),
        (
            "5: 1000",
            "5: 1000.001",
            ["rfm.spend_at_least.5: expected an amount above 0 with at most 2 decimals"],
        ),
        ("5: 1000", "5: 400", ["rfm.spend_at_least: expected thresholds strictly falling from score 5 to 2"]),
        ("5: 30d", "5: 60d", ["rfm.recency_under: expected thresholds strictly rising from score 5 to 2"]),
        (
            "recent_for: 30d",
            "recent_for: 180d",
            ["lifecycle.recent_for: expected less than churned_after, got 180d"],
        ),
        (
            "at_risk_after: 60d",
            "at_risk_after: 181d",
            ["lifecycle.at_risk_after: expected less than churned_after"],
        ),
        (
            "frequency: 4",
            "frequency: 6",
            ["lifecycle.loyal.frequency: expected a whole number in 1..5, got 6"],
        ),
        ("new: [R5 FM1]", "prospect: [R5 FM1]", ["rfm.grid.prospect: expected a name of lower-case letters"]),
        ("new: [R5 FM1]", "New: [R5 FM1]", ["rfm.grid.New: expected a name of lower-case letters"]),
        ("new: [R5 FM1]", "new: []", ["rfm.grid.new: expected cells within R1..5"]),
        (
            "new: [R5 FM1]",
            "new: [five]",
            [
                "rfm.grid.new: expected cells within R1..5",
            ],
        ),
        ("new: [R5 FM1]", "new: [R5 FM2-1]", ["rfm.grid.new: expected cells within R1..5"]),
        ("    new: [R5 FM1]\n", "", ["rfm.grid cell R5 FM1: expected exactly one name, got it left out"]),
        (
            "new: [R5 FM1]",
            "new: [R5 FM1-2]",
            ["rfm.grid cell R5 FM2: expected exactly one name, got it claimed by potential_loyalist"],
        ),
        ("5: 9-10", "5: 9-11", ["rfm.fm.5: expected sums of F and M within 2..10"]),
        ("5: 9-10", "5: 10", ["rfm.grid F+M=9: expected exactly one FM column, got it left out"]),
        ("5: 9-10", "5: [9, 10]\n    6: 8", ["rfm.fm.6: expected a known field, got 6"]),
        (
            "window: 365d",
            "window: [365d]",
            ["rfm.window: expected whole days from 1d to 9999d, such as 30d, got a list"],
        ),
        (
            "window: 365d",
            "window:",
            ["rfm.window: expected whole days from 1d to 9999d, such as 30d, got nothing"],
        ),
    ],
)
def test_each_mistake_has_its_words(old: str, new: str, expected: list[str]) -> None:
    """A single edit that breaks the file is reported by name, and nothing else is."""
    assert old in TEXT
    found = problems_of(TEXT.replace(old, new, 1))
    assert len(found) == len(expected), found
    for part in expected:
        assert any(part in problem for problem in found), found


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("version: 1", "version: 010", "got 010"),
        ("version: 1", "version: 0x1F", "got 0x1F"),
        ("version: 1", "version: 1_000", "got 1_000"),
        ("version: 1", "version: 1:30", "got 1:30"),
        ("version: 1", "version: yes", "got yes"),
        ("version: 1", "version: ١", "got ١"),  # noqa: RUF001  # An Arabic digit one is the case under test.
        ("EUR: 0.86", "EUR: 8.6e-1", "got 8.6e-1"),
        ("EUR: 0.86", "EUR: .86", "got .86"),
        ("EUR: 0.86", "EUR: 0,86", "got 0,86"),
        ("EUR: 0.86", "EUR: .inf", "got .inf"),
        ("EUR: 0.86", "NO: 0.86", "money.rates.NO: expected an ISO 4217 currency code"),
        ("version: 1", "version: &v 1", "expected no anchors and aliases, got v"),
        ("version: 1", "version: *v", "expected no anchors and aliases, got v"),
        ("version: 1", "version: !!python/object/apply:os.system [id]", "expected no tags"),
        ("version: 1", "version: !!int '1'", "expected no tags"),
        ("version: 1", "--- \nversion: 1\n---\nversion: 1", "expected one document, got another one"),
        ("version: 1", "<<: {version: 1}", "expected a known field, got <<"),
        ("version: 1", "? [a]\n: 1\nversion: 1", "expected a plain key, got a list"),
        ("version: 1", "version: " + "[" * 40 + "]" * 40, "expected at most 8 levels, got more"),
        ("version: 1", "version: [1", "expected YAML, got an error"),
        ("version: 1", "\tversion: 1", "expected YAML, got an error"),
        ("version: 1", "version: \x00", "expected YAML, got an error"),
    ],
)
def test_yaml_traps_are_refused_or_taken_literally(old: str, new: str, expected: str) -> None:
    """YAML guesses nothing here: octals, truths, sexagesimals, aliases, tags and bombs are problems."""
    found = problems_of(TEXT.replace(old, new, 1))
    assert any(expected in problem for problem in found), found


def test_norway_is_a_name_not_a_truth() -> None:
    """A segment called no is called no."""
    assert "no" in load(TEXT.replace("    new: [R5 FM1]", "    no: [R5 FM1]"), "x").grid.names


def test_a_bomb_of_aliases_ends_at_once() -> None:
    """Nine levels of nine aliases are refused while being read, before anything is built."""
    lines = ["a0: &a0 [x, x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    assert "expected no anchors and aliases" in problems_of("\n".join(lines))[0]


def test_size_is_bounded() -> None:
    """A file beyond 64 KiB is not even parsed."""
    assert problems_of("#" * 70_000) == ["segments.yaml:1:1: file: expected at most 65536 bytes, got 70000"]


def test_depth_is_bounded_however_deep() -> None:
    """Tens of thousands of brackets neither exhaust the stack nor take long."""
    assert "expected at most 8 levels" in problems_of("[" * 60_000)[0]


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_an_empty_file_says_so(text: str) -> None:
    """No document is one problem, not a crash."""
    assert problems_of(text) == ["segments.yaml:1:1: file: expected a definition, got an empty document"]


@pytest.mark.parametrize("text", ["[]", "just text", "version"])
def test_something_else_than_a_mapping_says_so(text: str) -> None:
    """A list or a text where the definition should be is one problem."""
    assert "expected the fields money, rfm, lifecycle" in problems_of(text)[0]


def test_problems_are_bounded() -> None:
    """After 100 problems the rest is counted."""
    found = problems_of("\n".join(f"k{i}: 1" for i in range(300)))
    assert len(found) == 101
    assert found[-1] == "segments.yaml: and 203 more"


def test_bytes_that_are_not_utf8_are_a_problem(tmp_path) -> None:
    """A Latin-1 file is reported as such."""
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"version: \xe9")
    with pytest.raises(
        DefinitionError, match=r"mine.yaml:1:1: file: expected UTF-8 text, got byte 9 that is not"
    ):
        load_path(path)


def test_any_reporting_currency_keeps_its_minor_unit() -> None:
    """In yen, thresholds have no decimals and are their own minor units."""
    text = TEXT.replace("reporting_currency: GBP", "reporting_currency: JPY").replace("    JPY: 0.0053\n", "")
    assert load(text, "x").m_edges_minor == (100, 250, 500, 1000)
