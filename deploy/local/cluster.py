"""Which Kafka to use: the one SHOAL_KAFKA names, the one people brought up, or one of our own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.local.kafka import HOST, LocalKafka, answers, end_by_pid, free_port, is_free

FOLDER = Path(__file__).resolve().parents[2] / "var" / "kafka"
"""Where `up` keeps its broker; ignored by git."""
PREFERRED_PORT = 9092
"""What every Kafka tool assumes, so that nothing needs to be set when it is free."""


@contextlib.contextmanager
def kafka_for(env: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Yield a bootstrap address: SHOAL_KAFKA if set, else that of a fresh broker ended afterwards.

    The fresh broker's data lies in a temporary folder and goes with it; a cluster of somebody
    else's is left as it is.
    """
    given = env.get("SHOAL_KAFKA", "").strip()
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="shoal-kafka-") as folder, LocalKafka(Path(folder)) as kafka:
        yield kafka.bootstrap


def up(folder: Path = FOLDER) -> str:
    """Start the broker kept in `folder` unless it runs, and return its address; it outlives us.

    Raises LocalKafkaFailed when it cannot be started.
    """
    running = address(folder)
    if running:
        return running
    port = PREFERRED_PORT if is_free(PREFERRED_PORT) else free_port()
    kafka = LocalKafka(folder, port=port, detached=True)
    kafka.start()
    state = {"pid": kafka.pid, "bootstrap": kafka.bootstrap}
    (folder / "broker.json").write_text(json.dumps(state))
    return kafka.bootstrap


def down(folder: Path = FOLDER) -> bool:
    """Stop the broker `up` started, keeping its data; False if none was running."""
    state = _state(folder)
    if state is None:
        return False
    end_by_pid(state[0])
    (folder / "broker.json").unlink(missing_ok=True)
    return True


def address(folder: Path = FOLDER) -> str | None:
    """Return the address of the broker `up` started, None unless it runs and answers."""
    state = _state(folder)
    if state is None:
        return None
    return state[1] if answers(HOST, int(state[1].rsplit(":", 1)[1])) else None


def _state(folder: Path) -> tuple[int, str] | None:
    """Read pid and address; None if the process is gone or the pid is another program's by now."""
    try:
        state = json.loads((folder / "broker.json").read_text())
    except FileNotFoundError:
        return None
    pid, bootstrap = int(state["pid"]), str(state["bootstrap"])
    command = ["ps", "-ww", "-o", "args=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    return (pid, bootstrap) if str(folder.resolve()) in shown.stdout else None
