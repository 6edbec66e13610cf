"""The command line: what it refuses, with which exit status, and what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def shoal(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run `shoal` with these SHOAL_ settings and no others."""
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=60,
    )


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with exactly these SHOAL_ settings."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
    return {**others, **{f"SHOAL_{name.upper()}": value for name, value in settings.items()}}


@pytest.mark.parametrize("command", [("worker",), ("topics",), ("customer", "c1")])
def test_every_problem_is_told_before_anything_starts(command: tuple[str, ...], tmp_path: Path) -> None:
    """Wrong settings and a wrong segments.yaml together: exit 2, one line each, Kafka not asked."""
    path = tmp_path / "segments.yaml"
    path.write_text("version: none\n")
    done = shoal(*command, kafka="nonsense", clock="moon", definitions=str(path))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert any(line.startswith("SHOAL_KAFKA: expected") for line in lines)
    assert any(line.startswith("SHOAL_CLOCK: expected") for line in lines)
    assert any(line.startswith("segments.yaml:1: ") for line in lines)


def test_a_definition_that_cannot_be_read_is_a_problem_of_the_settings(tmp_path: Path) -> None:
    """The message names the setting, the path and why."""
    done = shoal("worker", definitions=str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "SHOAL_DEFINITIONS" in done.stderr and "No such file" in done.stderr


@pytest.mark.parametrize("command", [("worker",), ("topics",), ("customer", "c1")])
def test_kafka_away_is_said_with_its_address_after_a_bounded_wait(command: tuple[str, ...]) -> None:
    """Exit 1, one line, no stack."""
    done = shoal(*command, kafka="127.0.0.1:1", kafka_wait_s_max="1")
    assert done.returncode == 1
    assert done.stderr.startswith("KafkaUnavailable: no Kafka answered at 127.0.0.1:1 within 1 s")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.kafka
def test_a_worker_without_topics_says_how_to_make_them(kafka: str, prefix: str) -> None:
    """Exit 1; every missing topic is named."""
    done = shoal("worker", kafka=kafka, prefix=prefix)
    assert done.returncode == 1
    assert f"{prefix}.events: does not exist; create it with `shoal topics`" in done.stderr


@pytest.mark.kafka
@pytest.mark.parametrize("clock", ["event", "wall"])
def test_topics_then_a_worker_then_a_customer_nobody_knows(kafka: str, prefix: str, clock: str) -> None:
    """The three commands on an empty pipeline; SIGTERM ends the worker with 0."""
    settings = {"kafka": kafka, "prefix": prefix, "partitions": "2", "clock": clock}
    made = shoal("topics", **settings)
    assert made.returncode == 0 and f"created {prefix}.events" in made.stdout
    assert "created" not in shoal("topics", **settings).stdout
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "worker"], cwd=ROOT, env=environment(**settings), stderr=subprocess.PIPE
    ) as worker:
        assert worker.stderr is not None
        for line in worker.stderr:
            if b"Worker ready" in line:
                break
        time.sleep(2.5 if clock == "wall" else 0.0)
        worker.send_signal(signal.SIGTERM)
        rest = worker.stderr.read()
    assert worker.returncode == 0, rest
    assert b"Traceback" not in rest
    unknown = shoal("customer", "c1", **settings)
    assert unknown.returncode == 1
    assert unknown.stderr == "nothing is known of customer 'c1'\n"
