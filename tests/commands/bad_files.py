"""Files nobody should be able to apply: what they say, and what is said of them."""

from __future__ import annotations

from dataclasses import dataclass

from tests.streams.segments.custom import CORE, place_of, with_sections

TRAITS = "traits: {country: string, company_size: number}\n"
EVENTS = "events: {login: {app: string}}\n"


@dataclass(frozen=True)
class BadFile:
    """A file, where its first problem is, and part of what is said there."""

    name: str
    text: str
    at: str
    """What is wrong, as it stands in the file: its place is the one that is told."""
    said: str

    def is_told_by(self, line: str, path: str) -> bool:
        """Whether a line of output names file, place and reason."""
        return line.startswith(f"{path}:{place_of(self.text, self.at)}: ") and self.said in line


def rule(name: str, when: str, at: str, said: str) -> BadFile:
    """A file with this rule in it, after everything a rule may speak of."""
    text = f"{TRAITS}{EVENTS}segments:\n  it:\n    when: '{when}'\n"
    return BadFile(name, with_sections(text), at, said)


NODES = 'country == "DE" or ' * 2_500 + 'country == "FR"'

BAD_FILES = (
    BadFile(
        "a circle of segments",
        with_sections('segments:\n  a: {when: in_segment("b")}\n  b: {when: not in_segment("a")}\n'),
        '{when: in_segment("b")',
        "expected rules that do not read each other in a circle, got a -> b -> a",
    ),
    rule("an unknown trait", 'cuntry == "DE"', 'cuntry == "DE"', "(did you mean country?)"),
    rule("an unknown property", 'count("login", 7d where ap == "x") > 0', "ap ==", "(did you mean app?)"),
    rule("another type", 'company_size > "big"', '"big"', "expected a number"),
    rule("text compared as a number", "country > 3", "country > 3", "expected == or != for text"),
    rule("a window over 10 years", "orders(3651d) > 0", "3651d", "up to 10 years"),
    rule("ten thousand nodes", NODES, NODES[16_384:], "expected at most 16384 characters"),
    rule("Python that imports", '__import__("os").system("x") > 0', "__import__", "expected a name"),
    rule("Python that climbs", "().__class__.__bases__ > 0", "__class__", "expected a name"),
    rule("Python that computes", "orders(9 ** 9 ** 9) > 0", "** 9 **", "there is no arithmetic"),
    rule("Python that defines", "(lambda: 1)() > 0", "lambda", "expected a name of the language"),
    BadFile(
        "a bomb of aliases",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nversion: [*c, *c]\n",
        "&a [x",
        "expected no anchors and aliases",
    ),
    BadFile(
        "a file that is too large",
        CORE + "# much\n" * 20_000,
        "# What Shoal",
        "expected at most",
    ),
    BadFile(
        "a key twice",
        with_sections("segments:\n  a: {when: orders(1d) > 0}\n  a: {when: orders(2d) > 0}\n"),
        "a: {when: orders(2d)",
        "expected a key once",
    ),
    BadFile(
        "a grid with a gap",
        CORE.replace("    new: [R5 FM1]\n", ""),
        "grid:",
        "cell R5 FM1: expected exactly one name, got it left out",
    ),
)
