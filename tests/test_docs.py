from __future__ import annotations

import re
from pathlib import Path

import pytest

from settings import VARIABLES

ROOT = Path(__file__).resolve().parents[1]


def test_the_example_environment_holds_every_setting_at_its_default() -> None:
    """.env.example names all variables, no other, each with the default the code has."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    written = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert written == {variable.name: variable.default for variable in VARIABLES}


def test_the_readme_has_a_row_for_every_setting() -> None:
    """The table of README.md names all variables, no other, each with the default the code has."""
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("README.md is not written yet")
    rows = re.findall(r"^\| `(SHOAL_[A-Z_]+)` \| `([^`]*)` \|", readme.read_text(), re.MULTILINE)
    assert dict(rows) == {variable.name: variable.default for variable in VARIABLES}


def test_the_changelog_has_an_entry_for_what_comes_next() -> None:
    """CHANGELOG.md keeps the form readers and tools know."""
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.startswith("# Changelog\n")
    assert "\n## [Unreleased]\n" in text
