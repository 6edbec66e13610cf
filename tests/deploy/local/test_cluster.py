from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import cluster
from deploy.local.kafka import HOST, answers

ROOT = Path(cluster.__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "kafka"
    cluster.down(tmp_path / "kafka")


def port(bootstrap: str) -> int:
    return int(bootstrap.rsplit(":", 1)[1])


def test_a_cluster_named_in_the_environment_is_used_and_left_alone() -> None:
    """Nothing is started, so nothing is stopped."""
    with cluster.kafka_for({"SHOAL_KAFKA": "a:1,b:2"}) as bootstrap:
        assert bootstrap == "a:1,b:2"


@pytest.mark.kafka
def test_without_one_a_broker_is_started_and_ended() -> None:
    """It answers inside and is gone outside, an empty variable counting as none."""
    with cluster.kafka_for({"SHOAL_KAFKA": ""}) as bootstrap:
        assert answers(HOST, port(bootstrap))
    assert not answers(HOST, port(bootstrap))


@pytest.mark.kafka
def test_what_is_brought_up_outlives_us_until_it_is_brought_down(folder: Path) -> None:
    """Up in another process, found from here; up twice is one broker; down ends it and keeps its address."""
    code = "import pathlib, sys; from deploy.local.cluster import up; print(up(pathlib.Path(sys.argv[1])))"
    shown = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    bootstrap = shown.stdout.strip()
    assert cluster.address(folder) == bootstrap
    assert cluster.up(folder) == bootstrap
    assert cluster.down(folder)
    assert cluster.address(folder) is None
    assert not cluster.down(folder)
    assert cluster.up(folder) == bootstrap


def test_a_pid_that_is_another_programs_by_now_is_left_alone(folder: Path) -> None:
    """After a reboot the number may be anybody's: here it is ours, and we survive."""
    folder.mkdir()
    (folder / "broker.json").write_text(json.dumps({"pid": os.getpid(), "bootstrap": "127.0.0.1:1"}))
    assert cluster.address(folder) is None
    assert not cluster.down(folder)


def test_the_command_reports_that_nothing_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` is for scripts too: its exit code says it."""
    from click.testing import CliRunner

    from deploy.local.__main__ import main

    monkeypatch.setattr(cluster, "address", lambda: None)
    monkeypatch.setattr(cluster, "down", lambda: False)
    assert CliRunner().invoke(main, ["status"]).exit_code == 1
    assert CliRunner().invoke(main, ["down"]).output == "was not running\n"
