from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.local import kafka as module
from deploy.local.kafka import LocalKafka, answers, end_by_pid, free_port, is_free
from errors import LocalKafkaFailed

pytestmark = pytest.mark.kafka
ROOT = Path(module.__file__).parents[2]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[LocalKafka]:
    with LocalKafka(tmp_path / "kafka") as started:
        yield started


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """One broker for the tests that only look at it."""
    with LocalKafka(tmp_path_factory.mktemp("kafka")) as started:
        yield started


def runs(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    shown = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(shown.stdout.strip()) and not shown.stdout.strip().startswith("Z")


async def write_committed(bootstrap: str, topic: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="t")
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait(topic, value)
    await producer.stop()


async def read_committed(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    await consumer.start()
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    await consumer.seek_to_beginning(partition)
    values = [(await consumer.getone()).value for _ in range(count)]
    await consumer.stop()
    return values


async def test_data_and_address_outlive_a_stop_and_a_kill(broker: LocalKafka) -> None:
    """Transactions work, and what was committed is read after a clean end and after a crash."""
    address = broker.bootstrap
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic("t", 1, 1)])
    await admin.close()
    await write_committed(address, "t", b"before")
    first = broker.pid
    broker.stop()
    assert broker.pid is None
    assert is_free(int(address.rsplit(":", 1)[1]))
    broker.start()
    assert broker.bootstrap == address
    assert broker.pid != first
    await write_committed(address, "t", b"between")
    broker.kill()
    broker.start()
    assert broker.bootstrap == address
    await write_committed(address, "t", b"after")
    assert await read_committed(address, "t", 3) == [b"before", b"between", b"after"]


def test_starting_twice_is_one_broker(running: LocalKafka) -> None:
    """The second start finds the first."""
    pid = running.pid
    running.start()
    assert running.pid == pid


def test_it_listens_on_this_machine_only(running: LocalKafka) -> None:
    """Nobody else on the network reaches a broker without passwords."""
    host, port = running.bootstrap.split(":")
    assert host == "127.0.0.1"
    # All of 127/8 is this machine: a listener on every address would answer here too.
    assert answers(host, int(port))
    assert not answers("127.0.0.2", int(port))


def test_a_broker_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The errors in its log are in ours, and no process is left."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        broker = LocalKafka(tmp_path / "kafka", port=taken.getsockname()[1])
        # Whoever holds the port accepts and says nothing, which is no answer of a broker.
        with pytest.raises(LocalKafkaFailed, match=r"(?s)ended while starting.*Address already in use"):
            broker.start()
    assert broker.pid is None


def test_removing_leaves_no_file(tmp_path: Path) -> None:
    """A folder that was never started can be removed as well."""
    broker = LocalKafka(tmp_path / "kafka")
    broker.folder.mkdir()
    broker.remove()
    assert not broker.folder.exists()


def test_an_unstarted_broker_has_no_address(tmp_path: Path) -> None:
    """Its ports are chosen at the first start."""
    with pytest.raises(LocalKafkaFailed, match="never started"):
        _ = LocalKafka(tmp_path).bootstrap


def test_the_broker_ends_when_its_starter_is_killed(tmp_path: Path) -> None:
    """A killed test run leaves no broker behind: the kernel closes a pipe the watcher reads."""
    code = (
        "import sys, time; from pathlib import Path; from deploy.local.kafka import LocalKafka\n"
        "k = LocalKafka(Path(sys.argv[1])); k.start(); print(k.pid, flush=True); time.sleep(600)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=ROOT)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    assert runs(pid)
    starter.kill()
    starter.communicate()
    give_up = time.monotonic() + 30
    try:
        while runs(pid) and time.monotonic() < give_up:
            time.sleep(0.1)
        assert not runs(pid)
    finally:
        end_by_pid(pid)


def test_a_process_that_ignores_the_request_is_ended() -> None:
    """Stopping by pid asks first and insists after the bound."""
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(1, flush=True); time.sleep(600)"
    )
    stubborn = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    end_by_pid(stubborn.pid, seconds_max=0.3)
    stubborn.communicate()
    assert stubborn.returncode == -signal.SIGKILL


def test_ending_a_process_that_is_gone_is_no_error() -> None:
    """It may have crashed before somebody asked it to stop."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    end_by_pid(gone.pid)
    assert gone.returncode == 0, "it ended by itself"


def test_ports_lie_below_the_range_clients_dial_from() -> None:
    """A client redialling a closed port there could connect to itself and keep the broker out."""
    assert all(10_000 <= free_port() < 30_000 for _ in range(20))


def test_a_taken_port_is_not_free() -> None:
    """Somebody listening is found before the broker is."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert not is_free(taken.getsockname()[1])


@pytest.mark.parametrize("reply", [b"", b"\0" * 9, b"\0\0\0\6\0\0\0\1\0\43", b"\0\0\0\6\0\0\0\2\0\0"])
def test_only_a_broker_without_an_error_counts_as_ready(reply: bytes) -> None:
    """An end of stream, a short answer, an error code and another's answer are all no."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        assert not answers("127.0.0.1", server.getsockname()[1])
        thread.join()


def test_the_heap_is_small(running: LocalKafka) -> None:
    """Demo and tests run beside other things on a laptop."""
    shown = subprocess.run(
        ["ps", "-ww", "-o", "args=", "-p", str(running.pid)], capture_output=True, text=True
    )
    assert "-Xmx512m" in shown.stdout
    assert os.getpgid(running.pid or 0) != os.getpgid(0)
