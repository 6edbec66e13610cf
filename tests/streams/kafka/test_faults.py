"""A worker that is frozen, a broker that is restarted: what is committed stays exact."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from deploy.local.kafka import LocalKafka
from tests.streams.kafka.stage import Stage, Worker

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(240)]


def test_a_frozen_worker_that_wakes_up_is_fenced(kafka: str, prefix: str) -> None:
    """Its partitions went to another meanwhile; what it then tries to commit is refused."""
    stage = Stage(kafka, prefix)
    with Worker(stage) as frozen, Worker(stage) as other:
        for _ in range(3):
            stage.produce(3_000)
            time.sleep(1.5)
            frozen.process.send_signal(signal.SIGSTOP)
            stage.produce(3_000)
            time.sleep(9.0)
            frozen.process.send_signal(signal.SIGCONT)
            stage.produce(3_000)
        stage.wait_until_committed()
        assert frozen.process.poll() is None
        assert other.end() == 0
        stage.produce(1_000)
        stage.wait_until_committed()
        assert frozen.end() == 0
    stage.check()


def test_a_broker_restart_is_survived(tmp_path: Path, prefix: str) -> None:
    """The worker waits for it and goes on; no restart of the worker."""
    with LocalKafka(tmp_path / "kafka") as broker:
        stage = Stage(broker.bootstrap, prefix)
        with Worker(stage) as worker:
            stage.produce(10_000)
            # A worker that has not joined yet when Kafka goes would only be told that there is none.
            stage.wait_until_committed()
            stage.produce(10_000)
            broker.kill()
            time.sleep(3.0)
            broker.start()
            stage.produce(5_000)
            stage.wait_until_committed()
            assert worker.end() == 0
        stage.check()
