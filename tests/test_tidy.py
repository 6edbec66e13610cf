"""House rules a tool does not hold: sizes, names, reasons for exceptions, what tests and modules must say."""

from __future__ import annotations

import ast
import functools
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
VAGUE_NAMES = {
    "utils",
    "util",
    "manager",
    "managers",
    "helper",
    "helpers",
    "data",
    "handler",
    "handlers",
    "common",
}
"""A module with such a name takes in anything; it has to say what it holds."""
GROUND = {
    "errors": set(),
    "clock": {"errors"},
    "settings": {"errors"},
    "metrics": {"errors"},
    "web_address": {"errors", "metrics"},
}
"""What the top level modules may import of ours; the import rules only see packages."""
OURS = {
    "agents",
    "cli",
    "clock",
    "commands",
    "demo",
    "deploy",
    "errors",
    "metrics",
    "schemas",
    "settings",
    "sinks",
    "streams",
    "web_address",
}
SOURCE = {".py", ".pyi"}


def files() -> list[Path]:
    """Return every Python file of the project that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    return sorted(path for path in paths if path.suffix in SOURCE and path.exists())


def is_test(path: Path) -> bool:
    return "tests" in path.relative_to(ROOT).parts


FILES = files()
MODULES = [path for path in FILES if not is_test(path)]
TESTS = [path for path in FILES if is_test(path) and path.name.startswith("test_")]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def comments(path: Path) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def shown(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_modules_are_short() -> None:
    """A module is read in one sitting."""
    lengths = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert [shown(path, count) for path, count in lengths.items() if count > MODULE_LINES_MAX] == []


def test_functions_are_short() -> None:
    """A function fits on a screen, its docstring included; so does a test."""
    long = [
        shown(path, node.lineno)
        for path in FILES
        for node in functions(path)
        if node.end_lineno and node.end_lineno - node.lineno >= FUNCTION_LINES_MAX
    ]
    assert long == []


def test_module_names_say_what_is_inside() -> None:
    """No drawer for odds and ends."""
    named = {path: {path.stem, *path.relative_to(ROOT).parent.parts} for path in FILES}
    assert [shown(path, 1) for path, names in named.items() if names & VAGUE_NAMES] == []


def test_exceptions_from_the_rules_name_the_rule_and_the_reason() -> None:
    """`# type: ignore[code]  # Why.` and `# noqa: CODE  # Why.`: a reader can judge both."""
    allowed = re.compile(
        r"#\s*(type: ignore\[[a-z-]+(, ?[a-z-]+)*\]|noqa: [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)*)\s+(#\s*)?\S.*\w.*"
    )
    bare = [
        f"{shown(path, line)} {comment}"
        for path in FILES
        for line, comment in comments(path)
        if re.match(r"#\s*(type:\s*ignore|noqa)", comment) and not allowed.match(comment)
    ]
    assert bare == []


def test_nothing_is_left_for_later() -> None:
    """What is missing is in the tracker, where somebody plans it; not in a comment."""
    later = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    found = [shown(path, line) for path in FILES for line, comment in comments(path) if later.search(comment)]
    assert found == []


def test_every_test_states_a_behaviour() -> None:
    """A failing test says in a sentence what no longer holds."""
    silent = [
        shown(path, node.lineno)
        for path in TESTS
        for node in functions(path)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert silent == []


def test_no_two_tests_of_a_module_share_a_name() -> None:
    """The first of them would never run."""
    doubled = []
    for path in TESTS:
        for scope in [parsed(path), *(node for node in parsed(path).body if isinstance(node, ast.ClassDef))]:
            names = [
                node.name for node in scope.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            doubled += [f"{shown(path, 1)} {name}" for name in set(names) if names.count(name) > 1]
    assert doubled == []


def test_every_module_says_its_place() -> None:
    """The first line of a module tells whether to read on."""
    silent = [
        shown(path, 1) for path in MODULES if path.read_text().strip() and not ast.get_docstring(parsed(path))
    ]
    assert silent == []


def test_public_names_are_explained() -> None:
    """Classes and functions other modules can use say what they do."""
    silent = [
        f"{shown(path, node.lineno)} {node.name}"
        for path in MODULES
        for node in parsed(path).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_importing_a_module_does_nothing() -> None:
    """At module level there are definitions and constants: no call for its effect, no loop."""
    active = [
        shown(path, node.lineno)
        for path in MODULES
        for node in parsed(path).body
        if isinstance(node, ast.For | ast.While | ast.With)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await))
    ]
    assert active == []


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_floor_imports_nothing_above_it(name: str) -> None:
    """errors, clock, settings and metrics can be imported by everybody because they import nobody."""
    path = ROOT / f"{name}.py"
    if not path.exists():
        pytest.skip(f"there is no {name}.py")
    imported = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            imported |= {each.name.split(".")[0] for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    assert imported & OURS <= GROUND[name]


def test_no_test_asserts_a_time() -> None:
    """A slow machine is no failure: a measured duration may be waited for, never asserted."""
    clocks = re.compile(r"assert\b.*\b(time\.(time|monotonic|perf_counter)\w*\(|elapsed)")
    found = [
        shown(path, number)
        for path in TESTS
        if path != Path(__file__)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if clocks.search(line)
    ]
    assert found == []
