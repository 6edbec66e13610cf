"""A client that was used, then forked: each process delivers what it accepted, and nothing else."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.kafka import free_port
from shoal_sdk import Money, Shoal

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
]

Run = Callable[..., subprocess.CompletedProcess[str]]
Orders = Callable[[str, str], list[tuple[str, str]]]

BEGIN = """
import os, sys, threading, time
from shoal_sdk import *
client = Shoal(sys.argv[1], app="shop", prefix=sys.argv[2], linger_s=60)
def buy(customer, numbers):
    return [client.purchased(customer, order_id=f"{customer}-{n}", amount=Money(1, "EUR")) for n in numbers]
def finish(pid):
    assert os.waitpid(pid, 0)[1] == 0, "the child failed"
"""


def numbered(*customers: str, until: int = 100) -> Counter[tuple[str, str]]:
    """Return the purchases of `buy(customer, range(until))`, each once."""
    return Counter((customer, f"{customer}-{n}") for customer in customers for n in range(until))


def test_parent_and_child_deliver_their_own(
    kafka: str, prefix: str, run_script: Run, orders_in: Orders
) -> None:
    """Events waiting at the fork are the parent's; the child begins with nothing and flushes at exit."""
    code = (
        BEGIN
        + """
buy("first", range(1)); assert client.flush(20) == 0
waiting = buy("parent", range(100))
pid = os.fork()
if pid == 0:
    assert client.counters == Counters(0, 0, 0, 0) and client.waiting == 0
    assert not waiting[0].wait(), "a receipt of the parent's keeps the child waiting"
    buy("child", range(100))
    sys.exit()
finish(pid)
buy("later", range(100))
assert client.waiting == 200
assert client.close(20) == 0
assert client.counters == Counters(201, 201, 0, 0)
"""
    )
    done = run_script(code, kafka, prefix)
    assert (done.returncode, done.stderr) == (0, "")
    expected = numbered("first", until=1) + numbered("parent", "child", "later")
    assert Counter(orders_in(kafka, prefix)) == expected


def test_a_lock_held_elsewhere_at_the_fork_does_not_stop_the_child(
    kafka: str, prefix: str, run_script: Run, orders_in: Orders
) -> None:
    """The thread that held it does not exist in the child, nor do the client's own threads."""
    code = (
        BEGIN
        + """
buy("first", range(1)); assert client.flush(20) == 0
held, release = threading.Event(), threading.Event()
def hold():
    with client._transport.outbox._lock, client._transport._lock, client._ids._lock:
        held.set(); release.wait()
holder = threading.Thread(target=hold); holder.start(); held.wait()
pid = os.fork()
if pid == 0:
    client.identify("child", {})
    buy("child", range(100))
    assert client.flush(20) == 0
    os._exit(0)
release.set(); holder.join()
finish(pid)
"""
    )
    done = run_script(code, kafka, prefix)
    assert (done.returncode, done.stderr) == (0, "")
    assert Counter(orders_in(kafka, prefix)) == numbered("first", until=1) + numbered("child")


def test_a_child_of_multiprocessing_delivers_when_it_ends(
    kafka: str, prefix: str, run_script: Run, orders_in: Orders
) -> None:
    """It ends without the interpreter's exit handlers, and its children may fork again."""
    code = (
        BEGIN
        + """
import multiprocessing
fork = multiprocessing.get_context("fork")
def grandchild():
    buy("grandchild", range(100))
def child():
    buy("child", range(50))
    process = fork.Process(target=grandchild); process.start(); process.join()
    buy("child", range(50, 100))
    sys.exit(process.exitcode)
buy("parent", range(50))
process = fork.Process(target=child); process.start(); process.join()
buy("parent", range(50, 100))
sys.exit(process.exitcode)
"""
    )
    done = run_script(code, kafka, prefix)
    assert (done.returncode, done.stderr) == (0, "")
    assert Counter(orders_in(kafka, prefix)) == numbered("parent", "child", "grandchild")


def test_a_child_holds_no_connection_of_its_parent(kafka: str, prefix: str, run_script: Run) -> None:
    """Kafka sees the parent's connections close when the parent closes them; the parent's go on working."""
    code = (
        BEGIN
        + """
import contextlib, stat
def sockets():
    found = 0
    for fd in range(256):
        with contextlib.suppress(OSError):
            found += stat.S_ISSOCK(os.fstat(fd).st_mode)
    return found
assert sockets() == 0
buy("first", range(1)); assert client.flush(20) == 0
assert sockets() >= 3, "two ends of the thread's own wake-up, and a connection"
pid = os.fork()
if pid == 0:
    assert sockets() == 1, sockets()  # The end nobody can read from.
    os._exit(0)
finish(pid)
delivered = buy("second", range(1))[0].wait(20)
sys.exit(not delivered)
"""
    )
    done = run_script(code, kafka, prefix)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_client_stays_closed_in_the_child(run_script: Run) -> None:
    """And a child that never used an open one ends at once, without a thread."""
    code = (
        BEGIN
        + """
other = Shoal("127.0.0.1:9", app="shop")
client.close()
pid = os.fork()
if pid == 0:
    assert not buy("child", range(1))[0].accepted
    assert threading.active_count() == 1
    assert other.close() == 0
    sys.exit()
finish(pid)
"""
    )
    done = run_script(code, "127.0.0.1:9", "none")
    assert (done.returncode, done.stderr) == (0, "")


APPLICATION = """
import os, sys
from shoal_sdk import Money, Shoal
client = Shoal.from_env()
client.purchased("imported", order_id="0", amount=Money(1, "EUR"))
def app(environ, start_response):
    client.purchased(f"worker-{os.getpid()}", order_id=environ["QUERY_STRING"], amount=Money(1, "EUR"))
    start_response("200 OK", [("Connection", "close")])
    return [str(os.getpid()).encode()]
"""


@pytest.fixture
def gunicorn(kafka: str, prefix: str, tmp_path: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """An application in three forked workers, its client made before: its port, and how to end it."""
    (tmp_path / "shop.py").write_text(APPLICATION)
    port = free_port()
    env = os.environ | {
        "PYTHONPATH": ":".join([str(tmp_path), *sys.path]),
        "SHOAL_SDK_BOOTSTRAP": kafka,
        "SHOAL_SDK_APP": "shop",
        "SHOAL_SDK_PREFIX": prefix,
    }
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--no-control-socket"]
    command += ["--worker-tmp-dir", str(tmp_path), "--bind", f"127.0.0.1:{port}"]
    # A worker told to stop while it boots misses that, and idles until gunicorn's patience (30 s) is over.
    command += ["--graceful-timeout", "15", "shop:app"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log)

    def stop() -> None:
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        log = (tmp_path / "log").read_text()
        assert code == 0 and "Traceback" not in log, log

    yield port, stop
    process.kill()
    process.wait()


def ask(port: int, query: str) -> str | None:
    """Return the answer of a worker, None if none listens yet."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", f"/?{query}")
        return connection.getresponse().read().decode()
    except ConnectionError:
        return None
    finally:
        connection.close()


def test_gunicorn_with_a_preloaded_application(
    kafka: str, prefix: str, gunicorn: tuple[int, Callable[[], None]], orders_in: Orders
) -> None:
    """What several workers and the master sent arrives once each, the last when they are told to stop."""
    port, stop = gunicorn
    for _ in range(1500):
        if ask(port, "up"):
            break
        threading.Event().wait(0.02)
    answered = []
    for number in range(300):
        answered.append((f"worker-{ask(port, str(number))}", str(number)))
        if number >= 60 and len({worker for worker, _ in answered}) > 1:
            break
    assert len({worker for worker, _ in answered}) > 1
    stop()
    found = Counter(orders_in(kafka, prefix))
    found.pop(next(event for event in found if event[1] == "up"))
    assert found == Counter([*answered, ("imported", "0")])


def test_forking_costs_no_thread_before_the_first_event() -> None:
    """So that a master which only imports an application forks without one, as Python wants."""
    before = threading.active_count()
    client = Shoal("127.0.0.1:9", app="shop")
    assert threading.active_count() == before
    client.purchased("c1", order_id="1", amount=Money(1, "EUR"))
    assert threading.active_count() == before + 1
    client.close(0.0)
