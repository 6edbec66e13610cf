"""docs/segments.md from its first command to its last, in one shell, on a real broker."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.running import ROOT, Pipeline

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]

PAGE = ROOT / "docs" / "segments.md"
SECONDS_MAX = 200


def commands(page: str) -> list[str]:
    """Every command of the page's consoles, here-documents whole."""
    found: list[str] = []
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        lines = iter(block.splitlines())
        for line in lines:
            if not line.startswith("$ "):
                continue
            command = line[2:]
            if (marker := re.search(r"<<'(\w+)'", command)) is not None:
                for more in lines:
                    command += "\n" + more
                    if more == marker[1]:
                        break
            found.append(command)
    return found


def outputs(page: str) -> list[str]:
    """Every line the page shows as said by a command."""
    found: list[str] = []
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for command in commands(f"```console\n{block}```"):
            block = block.replace(f"$ {command}\n", "")
        found += block.splitlines()
    return found


def test_every_command_of_the_page_works(kafka: str, prefix: str, tmp_path: Path) -> None:
    """Each ends well, in the order of the page; what they say is what the page shows, line by line."""
    page = PAGE.read_text()
    script = ["set -e"]
    for number, command in enumerate(commands(page)):
        script += [f"echo '=== {number}'", command]
    shutil.copy(ROOT / "segments.yaml", tmp_path)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name, module in (("shoal", "-m cli"), ("python", "")):
        (bin_folder / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
        (bin_folder / name).chmod(0o755)
    environment = Pipeline(kafka, prefix, tmp_path, 8).environment(clock="wall", definitions="segments.yaml")
    environment["PATH"] = f"{bin_folder}:{os.environ['PATH']}"
    environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'sdk' / 'src'}"
    text = "\n".join(script).replace("127.0.0.1:9092", kafka)
    text = text.replace('app="docs"', f'app="docs", prefix="{prefix}"')
    shell = subprocess.Popen(
        ["bash", "-c", "set -m\n" + text],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = shell.communicate(timeout=SECONDS_MAX)
    finally:
        _end_workers(tmp_path)
    assert shell.returncode == 0, said
    # What the page shows is what is said, but for instants.
    shown = [line for line in outputs(page) if not re.search(r"20\d\d-|^\.\.\.$", line)]
    assert len(shown) > 20
    for line in shown:
        assert line in said, f"{line!r} is not in:\n{said}"
    assert "customer-12  since" in said and "customer-14  since" not in said


def _end_workers(folder: Path) -> None:
    """Kill what a failed script left behind: the worker whose folder this is."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == folder and b"cli" in (process / "cmdline").read_bytes():
                os.kill(int(process.name), 9)
        except OSError:
            continue
