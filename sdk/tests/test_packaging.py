"""The SDK as others get it: built, installed where nothing else is, and run on every Python it names."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas.framing import split
from schemas.registry import committed

SDK = Path(__file__).parents[1]
NAMED = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (SDK / "pyproject.toml").read_text())
"""The Python versions the package says it runs on."""
OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
ONLY_HERE = ("mark.kafka", "from deploy", "from schemas", "from streams", "import httpx")
"""A test with one of these needs what only this project's own environment has."""
PURCHASE = """
import json, sys
import shoal_sdk
from shoal_sdk.encoding import EventType, encode
from shoal_sdk.testing import RecordingShoal
shoal = RecordingShoal()
shoal.purchased("c1", order_id="1001", amount=shoal_sdk.Money.of("12.50", "EUR"))
event = shoal.assert_sent("purchased", order_id="1001")
fields = {"event_id": "e1", "customer_id": "c1", "account_id": None, "occurred_at": 0, "context": None}
value = encode(EventType.PROFILE_UPDATED, {**fields, "traits": {}})
print(json.dumps([sys.prefix, shoal_sdk.__file__, value.hex(), 'pytest' in sys.modules]))
"""

pytestmark = pytest.mark.timeout(600)  # The first run fetches the dependencies from the package index.


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a program and return what it printed; a failed one fails the test with all it said."""
    # What this test run has on its path must not be what is found.
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=surroundings, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def install(python: Path, *what: str | Path) -> None:
    """Install into the environment of `python`: with uv, which takes a second, or else with pip."""
    quick = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", python, *what]
    if subprocess.run(quick, capture_output=True).returncode != 0:
        run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *what)


def interpreter(version: str) -> Path | None:
    """Return a Python of that version on this machine: on the path, or where pyenv keeps its own."""
    found = [path for path in [shutil.which(f"python{version}")] if path]
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found += [str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python"))]
    question = f"import sys; sys.exit(sys.version_info[:2] != ({version.replace('.', ', ')}))"
    # On the path may be a stand-in that knows the name and not the version.
    works = (
        path for path in found if subprocess.run([path, "-c", question], capture_output=True).returncode == 0
    )
    return next(map(Path, works), None)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the sdist, and the wheel built from it, without a network; the checkout stays clean."""
    folder = tmp_path_factory.mktemp("packaging")
    kept_out = shutil.ignore_patterns("*.egg-info", "build", "dist", "__pycache__")
    shutil.copytree(SDK, folder / "sdk", ignore=kept_out)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, folder / "sdk")
    (wheel,) = folder.glob("*.whl")
    (sdist,) = folder.glob("*.tar.gz")
    return {"wheel": wheel, "sdist": sdist}


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Return a function that makes an environment with nothing in it and returns its Python."""

    def make(python: Path) -> Path:
        run(python, "-m", "venv", "--without-pip", tmp_path / "empty")
        return tmp_path / "empty" / "bin" / "python"

    yield make
    shutil.rmtree(tmp_path / "empty", ignore_errors=True)


def test_both_archives_hold_what_is_imported_and_read(built: dict[str, Path]) -> None:
    """Every module and schema, the marker for type checkers, the fixtures' entry point."""
    source = SDK / "src"
    patterns = ("*.py", "*.avsc", "py.typed")
    wanted = {str(path.relative_to(source)) for pattern in patterns for path in source.rglob(pattern)}
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = set(wheel.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert wheel.read(entry_points).decode().split() == ["[pytest11]", "shoal", "=", "shoal_pytest"]
    assert {name for name in names if ".dist-info/" not in name} == wanted
    assert {"shoal_sdk/py.typed", "shoal_sdk/avro/purchased.v1.avsc", "shoal_pytest.py"} <= wanted
    with tarfile.open(built["sdist"]) as sdist:
        inside = {name.split("/", 1)[-1] for name in sdist.getnames()}
    assert {f"src/{name}" for name in wanted} | {"README.md", "pyproject.toml"} <= inside


def test_no_dependency_beyond_two(built: dict[str, Path]) -> None:
    """The package brings the Kafka client and the Avro writer, on every Python it names."""
    with zipfile.ZipFile(built["wheel"]) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
        said = wheel.read(name).decode()
    assert re.findall(r"^Requires-Dist: (.*)$", said, re.MULTILINE) == [
        "aiokafka<1,>=0.12",
        "fastavro<2,>=1.9",
    ]
    assert f"\nRequires-Python: >={NAMED[0]}\n" in said
    assert NAMED == ["3.10", "3.11", "3.12", "3.13"]


@pytest.mark.parametrize("archive", ["wheel", "sdist"])
def test_it_runs_where_nothing_else_is_installed(
    built: dict[str, Path], empty: Callable[[Path], Path], tmp_path: Path, archive: str
) -> None:
    """Installed by name of file, it finds its schemas, and its bytes are those Shoal knows."""
    python = empty(Path(sys.executable))
    install(python, built[archive])
    run(sys.executable, "-m", "pip", "--python", python, "check")
    prefix, file, value, with_pytest = json.loads(run(python, "-W", "error", "-c", PURCHASE, cwd=tmp_path))
    assert Path(prefix) == python.parents[1] and Path(file).is_relative_to(prefix)
    assert not with_pytest
    fingerprint, _ = split(bytes.fromhex(value))
    assert fingerprint in {version.fingerprint for version in committed().versions("ProfileUpdated")}


@pytest.mark.parametrize("version", [version for version in NAMED if version != OWN])
def test_the_tests_without_kafka_pass_on_every_python_named(
    built: dict[str, Path], empty: Callable[[Path], Path], tmp_path: Path, version: str
) -> None:
    """With the installed wheel, not the checkout; where there is no such Python, it says so."""
    found = interpreter(version)
    if found is None:
        pytest.skip(f"there is no Python {version} on the path or in pyenv")
    python = empty(found)
    install(python, built["wheel"], "pytest>=9", "pytest-asyncio>=1.5", "hypothesis>=6")
    paths = [
        path
        for path in sorted(SDK.glob("tests/test_*.py"))
        if not any(word in path.read_text() for word in ONLY_HERE)
    ]
    assert len(paths) >= 7
    options = ["-c", os.devnull, "--rootdir", tmp_path, "--import-mode=importlib", "-q"]
    options += ["-p", "no:cacheprovider", "-W", "error", "-o", "asyncio_mode=auto"]
    options += ["-o", "asyncio_default_fixture_loop_scope=function"]
    said = run(python, "-B", "-m", "pytest", *options, *paths, cwd=tmp_path)
    assert " passed" in said and "skipped" not in said
