"""Definitions with custom sections, on the committed core."""

from __future__ import annotations

from streams.segments.definition import Definition
from streams.segments.loading import DEFAULT_PATH, load

CORE = DEFAULT_PATH.read_text("utf-8")


def with_sections(sections: str) -> str:
    """The committed file, its own optional sections (if any) replaced by these."""
    core = CORE.split("\n# -- optional")[0]
    return f"{core}\n{sections}"


def place_of(text: str, part: str, after: int = 0) -> str:
    """`LINE:COLUMN` of a part of a text, `after` characters into it, as problems tell places."""
    before = text[: text.index(part) + after]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def defined(sections: str) -> Definition:
    """The definition of the committed core and these sections."""
    return load(with_sections(sections), "segments.yaml")


def segments(**rules: str) -> Definition:
    """The definition with one segment per rule."""
    lines = "".join(f"  {key}:\n    when: {rule!r}\n" for key, rule in rules.items())
    return defined(f"segments:\n{lines}")
