"""The real Java client in a process of its own: compiled and run on the runtime the local Kafka has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from deploy.local import jars

HERE = Path(__file__).parent
"""With the source, and the lock of the compiler: the runtime of the wheel has none."""


def compile_producer(folder: Path) -> str:
    """Compile Produce.java into `folder` and return the class path to run it with."""
    kafka = jars.classpath()
    # Not `--release`, for which a compiler needs a file only development kits have.
    command = [jars.java(), "-jar", jars.classpath(wanted=HERE), "-17", "-proc:none"]
    _run([*command, "-cp", kafka, "-d", folder, HERE / "Produce.java"])
    return os.pathsep.join([str(folder), kafka])


def produce(classpath: str, bootstrap: str, topic: str, records: Sequence[tuple[bytes, bytes]]) -> list[int]:
    """Send (key, value) records with the client's defaults; return the partition of each."""
    lines = "".join(f"{key.hex()} {value.hex()}\n" for key, value in records)
    command = [jars.java(), "-cp", classpath, "Produce", bootstrap, topic]
    return [int(line) for line in _run(command, lines).split()]


def _run(command: Sequence[str | Path], given: str = "") -> str:
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
