"""What a process spent, told by the kernel and not by the process: CPU of all its threads, peak memory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from errors import ShoalError

ROOT = Path(__file__).resolve().parents[1]
STOP_S_MAX = 30.0
POLL_S = 0.02
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class MeasuredEnded(ShoalError):
    """A measured process ended by itself, or in bad order; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Mark:
    """An instant in a process's life: how long it lives, and what it has spent."""

    wall_s: float
    cpu_s: float
    """User and system time of all threads, those that ended included; in steps of 10 ms."""


def cpu_s_of(stat: str) -> float:
    """Return user and system seconds from the text of /proc/PID/stat; a name may hold anything."""
    fields = stat.rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def peak_mib_of(status: str) -> float:
    """Return VmHWM in MiB from the text of /proc/PID/status."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise ValueError("no VmHWM in this status")
    return int(found[1]) / 1024


def cpu_s(pid: int) -> float:
    """User and system seconds of all threads of a process so far."""
    return cpu_s_of(Path(f"/proc/{pid}/stat").read_text())


def peak_mib(pid: int) -> float:
    """The most memory a process has been resident with so far."""
    return peak_mib_of(Path(f"/proc/{pid}/status").read_text())


class Measured:
    """A process with its output in a file; use as `with`, which ends it."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str]) -> None:
        """Start it with no SHOAL_ or BENCH_ variables but those of `env`."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SHOAL_", "BENCH_"))}
        self.log = log
        self._ended: tuple[int, float] | None = None
        with log.open("wb") as output:
            self._began_s = time.monotonic()
            self._process = subprocess.Popen(
                command, cwd=ROOT, env={**inherited, **env}, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, process_group=0,
            )  # fmt: skip

    def __enter__(self) -> Measured:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._ended is None:
            self._process.kill()
            self._wait()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def mark(self) -> Mark:
        """Return what it has spent so far; MeasuredEnded if it lives no more."""
        if self._ended is None and self._exited():
            raise self._failed("ended by itself")
        return Mark(time.monotonic() - self._began_s, cpu_s(self.pid))

    def mark_when(self, said: re.Pattern[str], times: int, seconds_max: float) -> Mark:
        """Return the mark at which its log first holds `said` so many times."""
        deadline_s = time.monotonic() + seconds_max
        while time.monotonic() < deadline_s:
            mark = self.mark()
            if len(said.findall(self.text)) >= times:
                return mark
            time.sleep(POLL_S)
        raise self._failed(f"did not say {said.pattern!r} {times} times within {seconds_max:g} s")

    def refuse(self, said: re.Pattern[str]) -> None:
        """Raise MeasuredEnded if its log holds `said`."""
        found = said.search(self.text)
        if found is not None:
            raise self._failed(f"said {found[0]!r}")

    def stop(self) -> float:
        """Ask it to leave in good order; return the CPU seconds of its whole life."""
        if self._ended is None:
            self._process.terminate()
            deadline_s = time.monotonic() + STOP_S_MAX
            while not self._exited():
                if time.monotonic() > deadline_s:
                    raise self._failed(f"did not stop within {STOP_S_MAX:g} s")
                time.sleep(POLL_S)
        assert self._ended is not None
        code, spent_s = self._ended
        if code not in (0, -signal.SIGTERM):
            raise self._failed(f"ended with {code}")
        return spent_s

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._wait()

    def _exited(self) -> bool:
        """Reap it if it ended: only the reaper is told what its whole life cost."""
        return self._ended is not None or self._wait(os.WNOHANG)

    def _wait(self, options: int = 0) -> bool:
        pid, status, usage = os.wait4(self.pid, options)
        if pid == 0:
            return False
        self._process.returncode = code = os.waitstatus_to_exitcode(status)
        self._ended = code, usage.ru_utime + usage.ru_stime
        return True

    def _failed(self, what: str) -> MeasuredEnded:
        tail = "\n".join(self.text.splitlines()[-20:])
        return MeasuredEnded(f"{self._process.args!r} {what}; {self.log} ends with:\n{tail}")
