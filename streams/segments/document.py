"""A YAML text as a tree of literal texts with their places, read without any of YAML's guesses.

No scalar is ever turned into a truth, a number or a date by YAML: `NO` stays the text NO and
010 the text 010, and whoever wants a number says so and gets a problem with a line otherwise.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

import yaml

from errors import DefinitionError

TEXT_LIMIT_BYTES = 64 * 1024
DEPTH_LIMIT = 8
PROBLEM_LIMIT = 100
"""Problems after this many are counted, not listed."""

DAY_MS = 86_400_000
_DAYS = re.compile(r"([1-9][0-9]{0,3})d")
_DURATION = re.compile(r"([0-9]{1,6})([hdw])")
_WHOLE = re.compile(r"0|[1-9][0-9]{0,17}")
_DECIMAL = re.compile(r"(0|[1-9][0-9]{0,11})(\.[0-9]{1,12})?")


Place = tuple[int, int]
"""Line and column in the file, both from 1, as editors and compilers count."""

BEGINNING: Place = (1, 1)


class Problems:
    """Everything found wrong with one file so far."""

    def __init__(self, source_name: str) -> None:
        self._source_name = source_name
        self._found: list[tuple[Place, str]] = []

    def add(self, place: Place, name: str, problem: str) -> None:
        """Note a problem: what was expected at a place and what was there."""
        line, column = place
        self._found.append((place, f"{self._source_name}:{line}:{column}: {name}: {problem}"))

    def raise_any(self) -> None:
        """Raise a DefinitionError with all problems, in the order of their places, if there are any."""
        if not self._found:
            return
        texts = [text for _, text in sorted(self._found, key=lambda found: found[0])]
        more = len(texts) - PROBLEM_LIMIT
        if more > 0:
            texts = [*texts[:PROBLEM_LIMIT], f"{self._source_name}: and {more} more"]
        raise DefinitionError(texts)


class Entry:
    """One named node of the document; every read answers None after noting a problem."""

    def __init__(self, problems: Problems, name: str, node: yaml.Node) -> None:
        self._problems, self.name, self._node = problems, name, node
        # Where the entry is named: of what is in a mapping the place of its key.
        self._named = self._written = _place(node.start_mark)

    def problem(self, expected: str, got: str | None = None) -> None:
        """Note that something else was expected here."""
        self._problems.add(
            self._written, self.name, f"expected {expected}, got {self._shown() if got is None else got}"
        )

    def note(self, part: str, problem: str) -> None:
        """Note a problem with a part of this entry that has no place of its own."""
        self._problems.add(self._named, f"{self.name} {part}", problem)

    def fields(self, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Entry]:
        """Return the fields of a mapping, in their written order: all that are required, no unknown one."""
        known = [*required, *optional]
        found = self.mapping(f"the fields {', '.join(known)}")
        if found is None:
            return {}
        for key, entry in list(found.items()):
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
                self._problems.add(
                    entry._named, entry.name, f"expected a known field, got {_short(key)} ({hint})"
                )
                del found[key]
        for key in required:
            if key not in found:
                self._problems.add(self._named, f"{self._prefix()}{key}", "expected a value, got none")
        return found

    def mapping(self, expected: str) -> dict[str, Entry] | None:
        """Return the entries of a mapping by key, in their written order."""
        if not isinstance(self._node, yaml.MappingNode):
            self.problem(expected)
            return None
        found: dict[str, Entry] = {}
        for key_node, value_node in self._node.value:
            key = Entry(self._problems, self.name, key_node)
            text = key._text()
            if text is None:
                key.problem("a plain key")
            elif text in found:
                self._problems.add(
                    key._written,
                    f"{self._prefix()}{_short(text)}",
                    f"expected a key once, got it again (first on line {found[text]._named[0]})",
                )
            else:
                found[text] = Entry(self._problems, f"{self._prefix()}{_short(text)}", value_node)
                found[text]._name_at(key._written)
        return found

    def _name_at(self, place: Place) -> None:
        """Be named where the key is; a value that is nothing, or laid out below it, is also written there."""
        self._named = place
        is_block = isinstance(self._node, yaml.CollectionNode) and not self._node.flow_style
        if is_block or self._text() == "":
            self._written = place

    def items(self, expected: str) -> list[Entry] | None:
        """Return the items of a list, or the one scalar there is."""
        if isinstance(self._node, yaml.SequenceNode):
            return [Entry(self._problems, self.name, node) for node in self._node.value]
        if isinstance(self._node, yaml.ScalarNode) and self._node.value:
            return [self]
        self.problem(expected)
        return None

    def match(self, pattern: re.Pattern[str], expected: str) -> re.Match[str] | None:
        """Return the match of the whole text."""
        text = self._text()
        found = None if text is None else pattern.fullmatch(text)
        if found is None:
            self.problem(expected)
        return found

    def whole(self, lowest: int, highest: int) -> int | None:
        """Return a whole number in lowest..highest, both included."""
        expected = f"a whole number in {lowest}..{highest}"
        found = self.match(_WHOLE, expected)
        if found is None:
            return None
        if lowest <= int(found[0]) <= highest:
            return int(found[0])
        self.problem(expected)
        return None

    def days_ms(self) -> int | None:
        """Return a duration of whole days in ms."""
        found = self.match(_DAYS, "whole days from 1d to 9999d, such as 30d")
        return None if found is None else int(found[1]) * DAY_MS

    def duration_ms(self, units: Mapping[str, int], longest_ms: int) -> int | None:
        """Return a duration in ms, such as 36h or 7d; 0d is none."""
        expected = "a duration such as 36h or 7d, up to 3650d"
        found = self.match(_DURATION, expected)
        if found is None:
            return None
        length_ms = int(found[1]) * units[found[2]]
        if length_ms <= longest_ms:
            return length_ms
        self.problem(expected)
        return None

    def words(self, expected: str, characters_max: int) -> str | None:
        """Return a text of one line or more."""
        text = self._text()
        if text is not None and 0 < len(text) <= characters_max and "\0" not in text:
            return text
        self.problem(f"{expected} of 1 to {characters_max} characters")
        return None

    def choice(self, known: Collection[str]) -> str | None:
        """Return one of the known texts."""
        text = self._text()
        if text in known:
            return text
        near = difflib.get_close_matches(text or "", known, n=1)
        self.problem(f"one of {', '.join(known)}{f' (did you mean {near[0]}?)' if near else ''}")
        return None

    def problem_at(self, offset: int, problem: str) -> None:
        """Note a problem at a character of this entry's text."""
        self._problems.add(self._place_of(offset), self.name, problem)

    def _place_of(self, offset: int) -> Place:
        """Return the place of a character of the text in the file.

        How a text is laid out in YAML (quoted, folded, over several lines) changes nothing but white
        space in it, so the characters of text and file are walked through side by side.
        """
        mark, end = self._node.start_mark, self._node.end_mark
        raw = str(mark.buffer)[mark.pointer : end.pointer]
        text = self._text() or ""
        at = raw.find("\n") + 1 if raw[:1] in ("|", ">") else int(raw[:1] in ("'", '"'))
        for position, character in enumerate(text):
            if character.isspace() and position < offset:
                continue
            while at < len(raw) and raw[at].isspace() and not character.isspace():
                at += 1
            if position >= offset:
                break
            if at < len(raw) and raw[at] != character:
                # An escape or something else with a layout of its own: the text's beginning must do.
                at = 0
                break
            at += 1
        line = raw.count("\n", 0, at)
        column = at - raw.rfind("\n", 0, at) if line else mark.column + at + 1
        return int(mark.line) + line + 1, int(column)

    def decimal(self, expected: str) -> Fraction | None:
        """Return a decimal above 0, exactly as written."""
        found = self.match(_DECIMAL, expected)
        if found is None:
            return None
        if Fraction(found[0]) > 0:
            return Fraction(found[0])
        self.problem(expected)
        return None

    def _text(self) -> str | None:
        return str(self._node.value) if isinstance(self._node, yaml.ScalarNode) else None

    def _shown(self) -> str:
        text = self._text()
        if text is None:
            return "a list" if isinstance(self._node, yaml.SequenceNode) else "a mapping"
        return _short(text) if text else "nothing"

    def _prefix(self) -> str:
        return f"{self.name}." if self.name else ""


def parse(text: str, problems: Problems) -> Entry:
    """Return the document's root. Raises DefinitionError at once when it is no safe YAML document."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > TEXT_LIMIT_BYTES:
        problems.add(BEGINNING, "file", f"expected at most {TEXT_LIMIT_BYTES} bytes, got {size}")
        problems.raise_any()
    root = None
    try:
        _refuse_traps(text, problems)
        problems.raise_any()
        # BaseLoader reads every scalar as the text it is and constructs nothing.
        root = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        what = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        place = BEGINNING if mark is None else _place(mark)
        problems.add(place, "file", f"expected YAML, got an error: {what}")
        problems.raise_any()
    if root is None:
        problems.add(BEGINNING, "file", "expected a definition, got an empty document")
        problems.raise_any()
    assert root is not None
    return Entry(problems, "", root)


def _refuse_traps(text: str, problems: Problems) -> None:
    # Aliases can make a small file vast, deep nesting can exhaust the stack, tags ask for
    # construction, and a second document would be ignored: none has a use here.
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.BaseLoader):
        place = _place(event.start_mark)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents == 2:
                problems.add(place, "file", "expected one document, got another one")
        # Only some kinds of event have these; an alias always has the anchor it repeats.
        anchor, tag = getattr(event, "anchor", None), getattr(event, "tag", None)
        if anchor is not None:
            problems.add(place, "file", f"expected no anchors and aliases, got {_short(anchor)}")
        elif tag is not None:
            problems.add(place, "file", f"expected no tags, got {_short(tag)}")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH_LIMIT:
            problems.add(place, "file", f"expected at most {DEPTH_LIMIT} levels, got more")
            return


def _place(mark: Any) -> Place:
    # PyYAML has two kinds of mark, both counting from 0; what is read from text always has one.
    return int(mark.line) + 1, int(mark.column) + 1


def _short(text: str) -> str:
    return text if len(text) <= 60 and text.isprintable() else repr(text[:60])
