"""A server as a child of this process: its output in a file, ended with us however we end."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

STOP_S_MAX = 20.0
"""How long a server may take to end when asked to, before it is killed."""

# The kernel closes our end of the pipe however this process ends, also when it is killed. The server is
# continued first, for a frozen one does not see the request to end.
_WATCH = 'read -r _; kill -CONT "$1"; kill "$1"'


def run(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process whose output is added to `log`; it is not stopped with us."""
    with log.open("ab") as out:
        # Its own session, so that an interrupt at the terminal reaches us first and we stop it.
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )


class Child:
    """A server that runs until `end`, or until this process ends."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._process = run(command, log)
        self._watch = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "watch", str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return self._process.pid if self._process.poll() is None else None

    def end(self, how: signal.Signals) -> None:
        """Send a signal, frozen or not, and kill it if it has not ended within 20 s. Again is no error."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_S_MAX)
        # It must be gone before the server's pid can be given to another process.
        self._watch.kill()
        self._watch.communicate()
