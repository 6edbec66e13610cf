"""The command line: what it refuses, with which exit status, and what it says."""

from __future__ import annotations

import itertools
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shoal_sdk import Money, Shoal
from streams.change_feed import as_line

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


@pytest.mark.parametrize(
    "command", [("worker",), ("topics",), ("changes",), ("customer", "c1"), ("sink", "redis")]
)
def test_every_problem_is_told_before_anything_starts(command: tuple[str, ...], tmp_path: Path) -> None:
    """Wrong settings and a wrong segments.yaml together: exit 2, one line each, Kafka not asked."""
    path = tmp_path / "segments.yaml"
    path.write_text("version: none\n")
    done = shoal(*command, kafka="nonsense", clock="moon", definitions=str(path))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert any(line.startswith("SHOAL_KAFKA: expected") for line in lines)
    assert any(line.startswith("SHOAL_CLOCK: expected") for line in lines)
    assert any(line.startswith("segments.yaml:1:1: ") for line in lines)


def test_a_definition_that_cannot_be_read_is_a_problem_of_the_settings(tmp_path: Path) -> None:
    """The message names the setting, the path and why."""
    done = shoal("worker", definitions=str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "SHOAL_DEFINITIONS" in done.stderr and "No such file" in done.stderr


@pytest.mark.parametrize(
    "command", [("worker",), ("topics",), ("changes",), ("customer", "c1"), ("sink", "redis")]
)
def test_kafka_away_is_said_with_its_address_after_a_bounded_wait(command: tuple[str, ...]) -> None:
    """Exit 1, one line beside what a process says at INFO of its address, no stack."""
    done = shoal(*command, kafka="127.0.0.1:1", kafka_wait_s_max="1", log_level="WARNING")
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


def test_a_change_is_one_line() -> None:
    """When it became true, who, in which dimension, from what to what, and why; ends of a value are said."""
    change = {"effective_at": 1_262_304_000_000, "customer_id": "c1", "dimension": "rfm", "cause": "event"}
    assert as_line({**change, "from": None, "to": "new"}) == "2010-01-01 00:00:00 c1 rfm: → new (event)"
    moved = {**change, "from": "new", "to": "lost", "cause": "time_elapsed"}
    assert as_line(moved) == "2010-01-01 00:00:00 c1 rfm: new → lost (time_elapsed)"
    assert as_line({**change, "from": "new", "to": None}).endswith("rfm: new → (none) (event)")


@pytest.mark.kafka
def test_changes_are_followed_until_interrupted(kafka: str, prefix: str) -> None:
    """A purchase becomes two lines, old ones only when asked for; SIGINT ends the command with 0."""
    settings = {"kafka": kafka, "prefix": prefix, "partitions": "2", "clock": "wall"}
    assert shoal("topics", **settings).returncode == 0
    with (
        running("worker", **settings) as worker,
        Shoal(kafka, app="test", prefix=prefix) as client,
        running("changes", "--from-beginning", **settings) as everything,
    ):
        assert worker.stderr is not None and everything.stdout is not None
        threading.Thread(target=worker.stderr.read, daemon=True).start()
        client.purchased("old", order_id="1", amount=Money.of("20.00", "GBP"))
        lines = [everything.stdout.readline().split(" ", 2)[2] for _ in range(2)]
        assert lines == ["old rfm: → new (event)\n", "old lifecycle: → new (event)\n"]
        with running("changes", **settings) as later:
            assert later.stdout is not None
            # When "now" is, only the command knows: somebody buys until it has begun.
            for number in itertools.count():
                client.purchased(f"later-{number}", order_id="1", amount=Money.of("20.00", "GBP"))
                if select.select([later.stdout], [], [], 0.2)[0]:
                    break
            assert " later-" in later.stdout.readline()
            for feed in (everything, later):
                feed.send_signal(signal.SIGINT)
                _, said = feed.communicate()
                assert (feed.returncode, said) == (0, "")
        worker.send_signal(signal.SIGTERM)


@contextmanager
def running(*arguments: str, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Run `shoal` beside the test; killed when the block is left by an error."""
    with subprocess.Popen(
        [sys.executable, "-m", "cli", *arguments],
        cwd=ROOT,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
