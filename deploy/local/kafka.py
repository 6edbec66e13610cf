"""One real broker on this machine: formatted, started, waited for, stopped, killed, started again.

A combined broker and controller (KRaft), everything replicated once. Its ports and data outlive a
stop, so a fault test can kill it and bring it back at the same address.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from deploy.local import jars
from deploy.local.child import STOP_S_MAX, Child, run
from errors import LocalKafkaFailed

HOST = "127.0.0.1"
READY_S_MAX = 60.0
"""Readiness takes 3 s on an idle machine; a busy one with two cores gets twenty times that."""
PORT_TRIES_MAX = 50
# A client that redials a closed port from the ephemeral range can be handed that very port as its
# own source and connect to itself, which then keeps the broker from coming back: stay below it.
PORTS = range(10_000, 30_000)
CLUSTER_ID = "c2hvYWwtbG9jYWwta2Fma2"

# Kafka's clients are polite about restarts; these make one small broker behave like a real one
# without its size. The cleaner's buffer alone would take a quarter of the heap. After a kill the
# controller lets the broker back in only when its old session has run out: 9 s by default.
SERVER = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=BROKER://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=BROKER://{host}:{port}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
log.dirs={data}
num.network.threads=2
num.io.threads=4
background.threads=2
num.recovery.threads.per.data.dir=2
auto.create.topics.enable=false
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=33554432
log.cleaner.threads=1
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"""

LISTENERS = {"listeners", "advertised.listeners", "listener.security.protocol.map"}

JVM = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
# Everything goes to standard error, with the time of day; see LOG_BYTES_MAX for the bound.
LOGGING = ("defaultLogLevel=info", "showDateTime=true", "dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS")
LOG_BYTES_MAX = 10 << 20
"""A longer log of earlier runs is put aside at the next start, over the one put aside before."""


class LocalKafka:
    """A broker whose properties, data and logs live in `folder`; not for use from several threads.

    `port` is the wanted port; None picks a free one. A folder used before keeps its ports and data.
    With `detached` the broker outlives this process; otherwise it dies with it, however it ends.
    `properties` add to the server's, listeners to its listeners, anything else in place of its own;
    `format_arguments` go to the formatting of the storage, as for the first users.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        detached: bool = False,
        properties: Mapping[str, str] | None = None,
        format_arguments: Sequence[str] = (),
    ) -> None:
        self.folder = folder.resolve()
        self._log = self.folder / "kafka.log"
        self._wanted_port = port
        self._detached = detached
        self._properties = dict(properties or {})
        self._format_arguments = tuple(format_arguments)
        self._child: Child | None = None
        self._detached_pid: int | None = None
        self._port = _port_in(self.folder / "server.properties")

    @property
    def bootstrap(self) -> str:
        """host:port for clients; LocalKafkaFailed before the first start."""
        if self._port is None:
            raise LocalKafkaFailed(f"the Kafka in {self.folder} was never started: it has no address yet")
        return f"{HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id of the broker this object started, while it runs."""
        if self._detached_pid is not None:
            return self._detached_pid if _runs(self._detached_pid) else None
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Format the storage if it is new, start the broker and wait until it answers.

        Raises LocalKafkaFailed, with the errors in the log, if it ends or stays silent for 60 s.
        """
        if self.pid:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES_MAX:
            self._log.replace(self._log.with_suffix(".old"))
        classpath = jars.classpath()
        if self._port is None:
            self._format(classpath)
        command = self._java(classpath, "kafka.Kafka", str(self.folder / "server.properties"))
        if self._detached:
            self._detached_pid = self._run_apart(command)
        else:
            self._child = Child(command, self._log)
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask the broker to end, and end it if it has not within 20 s; data and ports stay."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the broker at once, as a crash would; data and ports stay."""
        self._end(signal.SIGKILL)

    def remove(self) -> None:
        """Stop and delete the folder with everything in it."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._port = None

    def log_excerpt(self, lines_max: int = 20) -> str:
        """Return the first lines of the log that speak of an error, then its end; empty if it never ran."""
        if not self._log.exists():
            return ""
        lines = self._log.read_text(errors="replace").splitlines()
        wrong = [line for line in lines if " ERROR " in line or "Exception" in line]
        return "\n".join([str(self._log), *wrong[:lines_max], "...", *lines[-lines_max:]])

    def __enter__(self) -> LocalKafka:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _end(self, how: signal.Signals) -> None:
        pid, self._detached_pid = self._detached_pid, None
        if pid is not None:
            end_by_pid(pid, how)
        child, self._child = self._child, None
        if child is not None:
            child.end(how)

    def _format(self, classpath: str) -> None:
        """Choose ports, write the properties and format the data folder; the ports come last.

        A folder without a complete format has no port, so an interrupted one is begun again.
        """
        port = self._wanted_port if self._wanted_port is not None else free_port()
        controller_port = free_port()
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        properties = self.folder / "server.properties.new"
        server = SERVER.format(
            host=HOST, port=port, controller_port=controller_port, data=self.folder / "data"
        )
        properties.write_text(_extended(server, self._properties))
        arguments = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)]
        arguments += self._format_arguments
        code = run(self._java(classpath, *arguments), self._log).wait(READY_S_MAX)
        if code != 0:
            raise LocalKafkaFailed(f"formatting {self.folder} ended with {code}\n{self.log_excerpt()}")
        properties.rename(self.folder / "server.properties")
        self._port = port

    def _java(self, classpath: str, *arguments: str) -> list[str]:
        logging = [f"-Dorg.slf4j.simpleLogger.{each}" for each in LOGGING]
        return [str(jars.java()), *JVM, *logging, "-cp", classpath, *arguments]

    def _run_apart(self, command: Sequence[str]) -> int:
        """Start it as the child of a shell that is gone at once: it is not ours to wait for."""
        script = '"$@" </dev/null >>"$0" 2>&1 & echo $!'
        done = subprocess.run(
            ["/bin/sh", "-c", script, str(self._log), *command],
            stdout=subprocess.PIPE,
            start_new_session=True,
            check=True,
        )
        return int(done.stdout)

    def _wait_until_ready(self) -> None:
        assert self._port is not None
        deadline = time.monotonic() + READY_S_MAX
        while time.monotonic() < deadline:
            if self.pid is None:
                raise LocalKafkaFailed(f"Kafka ended while starting\n{self.log_excerpt()}")
            if answers(HOST, self._port):
                return
            time.sleep(0.05)
        raise LocalKafkaFailed(
            f"Kafka gave no answer at {self.bootstrap} for {READY_S_MAX} s\n{self.log_excerpt()}"
        )


def answers(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Ask for ApiVersions (key 18, version 0): True if a broker answers without an error.

    A broker opens its port before it may serve; it answers only once it is registered and unfenced.
    """
    body = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(struct.pack(">i", len(body)) + body)
            with connection.makefile("rb") as stream:
                head = stream.read(10)
    except OSError:
        return False
    if len(head) < 10:
        return False
    _, correlation, error = struct.unpack(">iih", head)
    return (correlation, error) == (1, 0)


def free_port() -> int:
    """Return a port of 127.0.0.1 nobody listens on, below the range clients dial from."""
    for _ in range(PORT_TRIES_MAX):
        port = random.choice(PORTS)
        if is_free(port):
            return port
    raise LocalKafkaFailed(f"no free port found in {PORT_TRIES_MAX} tries between {PORTS[0]} and {PORTS[-1]}")


def is_free(port: int) -> bool:
    """Tell whether a broker could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        # As Java does: a connection of the last broker that lingers closed must not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _extended(server: str, properties: Mapping[str, str]) -> str:
    """Return the properties with more of them; listeners come before ours, whose port is read back."""
    lines = dict(line.split("=", 1) for line in server.splitlines())
    for name, value in properties.items():
        ours = lines.get(name) if name in LISTENERS else None
        lines[name] = value if ours is None else f"{value},{ours}"
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _port_in(properties: Path) -> int | None:
    if not properties.exists():
        return None
    for line in properties.read_text().splitlines():
        if line.startswith("advertised.listeners="):
            return int(line.rsplit(":", 1)[1])
    return None


def end_by_pid(pid: int, how: signal.Signals = signal.SIGTERM, seconds_max: float = STOP_S_MAX) -> None:
    """End a process that is not our child: signal, wait, then insist. One that is gone is no error."""
    deadline = time.monotonic() + seconds_max
    try:
        os.kill(pid, how)
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
