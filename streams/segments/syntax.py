"""The text of an expression as a syntax tree: scanned and bounded before any parser sees it.

Python's own grammar does the parsing, of a text that has been looked at token by token before and in
which only two things are replaced, each by something just as long, so that every place in the tree is
a place in the text: a duration `90d` becomes the imaginary number `90j`, and `where` a comma.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

CHARACTERS_MAX = 16_384
TOKENS_MAX = 2_000
"""Tokens in one expression; there are never more nodes than some few of these."""
DEPTH_MAX = 32
"""Parentheses in parentheses, and `not` or `-` one after the other."""

DURATIONS_MS = {"h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<text>"(?:[^"\\\r\n]|\\["\\])*"|'(?:[^'\\\r\n]|\\['\\])*')
      | (?P<number>[0-9]+(?:\.[0-9]+)?)(?P<unit>[A-Za-z_][A-Za-z0-9_]*)?
      | (?P<name>[A-Za-z][A-Za-z0-9_]*)
      | (?P<operator>==|!=|<=|>=|[<>(),.\-])""",
    re.VERBOSE,
)
_RESERVED = {"lambda", "if", "else", "is", "for", "await", "yield", "import", "del", "None", "class", "def"}


class Refused(Exception):
    """An expression is not one: at which character (from 0), and what was expected."""

    def __init__(self, at: int, problem: str) -> None:
        super().__init__(problem)
        self.at, self.problem = at, problem


@dataclass(frozen=True, slots=True)
class Syntax:
    """A parsed expression: the tree, and how to find a node in the text."""

    text: str
    root: ast.expr
    wheres: tuple[int, ...]
    """Where in the text each `where` begins, ascending."""
    _source: str

    def at(self, node: ast.expr) -> int:
        """Return at which character of the text a node begins."""
        return self._character(node.lineno, node.col_offset)

    def end(self, node: ast.expr) -> int:
        """Return the character behind a node's last."""
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self._character(node.end_lineno, node.end_col_offset)

    def written(self, node: ast.expr) -> str:
        """Return a node as it is written."""
        return self.text[self.at(node) : self.end(node)]

    def is_where(self, before: ast.expr, node: ast.expr) -> bool:
        """Tell whether the word `where` stands between two arguments."""
        return any(self.end(before) <= where < self.at(node) for where in self.wheres)

    def _character(self, line: int, offset: int) -> int:
        # There is one line: line ends were replaced. Python counts in bytes of UTF-8.
        assert line == 1
        return len(self._source.encode()[:offset].decode())


def parse(text: str) -> Syntax:
    """Return the syntax tree of an expression. Raises Refused; nothing else, whatever the text."""
    if len(text) > CHARACTERS_MAX:
        raise Refused(CHARACTERS_MAX, f"expected at most {CHARACTERS_MAX} characters, got {len(text)}")
    if not text.strip():
        raise Refused(0, "expected a condition, got nothing")
    source, wheres = list(text), []
    for match in _scan(text):
        if match.lastgroup == "space":
            source[match.start() : match.end()] = " " * len(match[0])
        elif match["unit"]:
            source[match.end() - 1] = "j"
        elif match["name"] == "where":
            wheres.append(match.start())
            source[match.start() : match.end()] = ",    "
    joined = "".join(source)
    stripped = joined.lstrip()
    try:
        tree = ast.parse(stripped, mode="eval")
    except SyntaxError as error:
        # Unlike a node's place, this one is told in characters, from 1.
        at = len(joined) - len(stripped) + max(0, (error.offset or 1) - 1)
        _refuse_syntax(text, min(at, len(text)))
    except (ValueError, RecursionError, MemoryError):
        raise Refused(0, "expected a simpler expression: this one is too deeply nested") from None
    shift = len(joined.encode()) - len(stripped.encode())
    for node in ast.walk(tree):
        if isinstance(node, ast.expr):
            node.col_offset += shift
            node.end_col_offset = (node.end_col_offset or 0) + shift
    return Syntax(text, tree.body, tuple(wheres), joined)


def one_line(text: str) -> str:
    """Return an expression with one blank for every stretch of them; texts in quotes stay as they are.

    Raises Refused for what no token begins with.
    """
    return "".join(" " if match.lastgroup == "space" else match[0] for match in _scan(text)).strip()


def _refuse_syntax(text: str, at: int) -> NoReturn:
    found = _TOKEN.match(text, at)
    while found is not None and found.lastgroup == "space":
        at = found.end()
        found = _TOKEN.match(text, at)
    got = "the end" if found is None else f"`{found[0][:40]}`"
    raise Refused(at, f"expected a value, an operator or a closing parenthesis, got {got}")


def _scan(text: str) -> Iterator[re.Match[str]]:
    """Yield the tokens of a text; refuse what no token begins with, and what would be too much to parse."""
    at = tokens = depth = prefixes = 0
    before: re.Match[str] | None = None
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            _refuse_character(text, at)
        at = match.end()
        if match.lastgroup == "space":
            before = None
            yield match
            continue
        tokens += 1
        if tokens > TOKENS_MAX:
            raise Refused(match.start(), f"expected at most {TOKENS_MAX} words and signs, got more")
        _check_token(match, before)
        depth += (match[0] == "(") - (match[0] == ")")
        prefixes = prefixes + 1 if match[0] in ("not", "-") else 0
        if depth > DEPTH_MAX or prefixes > DEPTH_MAX:
            raise Refused(match.start(), f"expected at most {DEPTH_MAX} levels of nesting, got more")
        before = match
        yield match


def _check_token(match: re.Match[str], before: re.Match[str] | None) -> None:
    token, at = match[0], match.start()
    if match["unit"] and match["unit"] not in DURATIONS_MS:
        raise Refused(at, f"expected a number or a duration such as 90d or 12h, got `{token[:40]}`")
    if match["unit"] and "." in match["number"]:
        raise Refused(at, f"expected a whole duration such as 36h, got `{token[:40]}`")
    if (
        match["number"]
        and len(match["number"]) > 1
        and match["number"][0] == "0"
        and match["number"][1] != "."
    ):
        raise Refused(at, f"expected a number without leading zeros, got `{token[:40]}`")
    if match["number"] and len(match["number"]) > 30:
        raise Refused(at, f"expected a number of at most 30 digits, got {len(match['number'])} characters")
    if match["name"] in _RESERVED:
        raise Refused(at, f"expected a name of the language, got `{token}`")
    if before is not None and (match["text"] or match["name"]) and (before["name"] or before["text"]):
        raise Refused(at, f"expected a space or an operator before `{token[:40]}`")


def _refuse_character(text: str, at: int) -> NoReturn:
    character = text[at]
    if character in "\"'":
        raise Refused(
            at,
            f"expected text closed by {character} on the same line (only \\\\ and \\{character}"
            " are escapes), got none",
        )
    hints = {
        "=": " (equality is written ==)",
        "&": " (both is written `and`)",
        "|": " (either is written `or`)",
        "!": " (the opposite is written `not`)",
        "+": " (there is no arithmetic)",
        "*": " (there is no arithmetic)",
        "/": " (there is no arithmetic)",
        "[": ' (a list is written ("a", "b"))',
    }
    shown = character if character.isprintable() else repr(character)
    raise Refused(
        at, f"expected a name, a number, a text or an operator, got `{shown}`{hints.get(character, '')}"
    )
