"""What the application keeps of Faust's habits, and what it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

FIRST_START = """
import asyncio
from streams.app import create_app
from tests.streams.kafka.toy_engine import ToyEngine
from tests.streams.kafka.toy_worker import ToySettings

async def main():
    app = create_app(ToySettings("127.0.0.1:1", "folders"), lambda number: ToyEngine())
    await app.on_first_start()

asyncio.run(main())
"""


def test_a_start_leaves_nothing_in_the_current_directory(tmp_path: Path) -> None:
    """State is in memory and in Kafka: Faust's folders for tables, offsets and versions are not made."""
    # In a process of its own, for Faust makes event loops nobody closes before it is started.
    ended = subprocess.run(
        [sys.executable, "-c", FIRST_START],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sdk/src'}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert list(tmp_path.iterdir()) == []
