from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from settings import VARIABLES

ROOT = Path(__file__).resolve().parents[1]
PAGES = {*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("sdk/*.md")}


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


def test_the_folder_map_names_every_module_and_no_other() -> None:
    """ARCHITECTURE.md has a line for each module, under its package."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folder_map = text.split("\n## What lies where\n")[1].split("\n**Beside the code**\n")[0]
    written, package = set(), ""
    for line in folder_map.splitlines():
        if heading := re.match(r"\*\*(?:Top level\.|`([^`]+)/`)", line):
            package = heading[1] or "."
        elif module := re.match(r"- `([a-z_]+\.py)` \S", line):
            written.add((ROOT / package / module[1]).relative_to(ROOT))
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = {Path(line) for line in listed.stdout.splitlines() if (ROOT / line).exists()}
    assert written == {path for path in paths if "tests" not in path.parts and path.name != "__init__.py"}


@pytest.mark.parametrize("page", sorted(PAGES, key=str), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that is there."""
    targets = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []
