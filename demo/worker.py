"""The worker and the sink the demo drives: processes of their own, logs in files, figures read from there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from errors import ShoalError

FINISH_S_MAX = 120.0
"""How long a command that ends by itself may take."""
STOP_S_MAX = 20.0
"""How long a worker may take to commit and leave; then it is killed."""
LOG_TAIL_LINES = 20

# What streams.kafka.progress writes every few seconds.
_LINE = re.compile(
    r"(?P<records>\d+) events in [\d.]+ s, "
    r"(?:(?P<per_record_us>[\d.]+) CPU µs/event|(?P<cpu_s>[\d.]+) CPU s), "
    r"(?P<pieces>\d+) pieces of (?P<piece_ms>[\d.]+) ms, "
    r"(?P<transactions>\d+) transactions of (?P<transaction_ms>[\d.]+) ms"
)


_TROUBLE = re.compile(r" (?:WARNING|ERROR) (?:streams|agents)\.")


class WorkerEnded(ShoalError):
    """It ended before the replay was done, or in bad order; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What a worker reported over its life."""

    records: int
    """Events and ticks."""
    cpu_s: float
    pieces: int
    piece_ms_mean: float
    transactions: int
    transaction_ms_mean: float
    troubles: int
    """Warnings and errors of ours; every result may be right all the same, but the run was not ordinary."""


def figures(log: str) -> Figures | None:
    """Add up the reports in a worker's log; None if it holds none."""
    lines = list(_LINE.finditer(log))
    if not lines:
        return None
    records = sum(int(line["records"]) for line in lines)
    pieces = sum(int(line["pieces"]) for line in lines)
    transactions = sum(int(line["transactions"]) for line in lines)
    return Figures(
        records=records,
        cpu_s=sum(
            float(line["cpu_s"])
            if line["cpu_s"]
            else int(line["records"]) * float(line["per_record_us"]) / 1e6
            for line in lines
        ),
        pieces=pieces,
        piece_ms_mean=sum(int(line["pieces"]) * float(line["piece_ms"]) for line in lines) / max(pieces, 1),
        transactions=transactions,
        transaction_ms_mean=sum(int(line["transactions"]) * float(line["transaction_ms"]) for line in lines)
        / max(transactions, 1),
        troubles=len(_TROUBLE.findall(log)),
    )


class Worker:
    """A running worker, or another command; see `running`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, command: str) -> None:
        self._process, self._command = process, command
        self.log = log

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Raise WorkerEnded, with the end of the log, unless the worker is still running."""
        code = self._process.returncode
        if code is not None:
            raise self._ended(code)

    async def finish(self) -> None:
        """Wait for a command that ends by itself; WorkerEnded if it fails, or takes over FINISH_S_MAX."""
        try:
            code = await asyncio.wait_for(self._process.wait(), FINISH_S_MAX)
        except TimeoutError as error:
            raise self._ended(None) from error
        if code != 0:
            raise self._ended(code)

    async def stop(self) -> None:
        """Ask it to leave, and kill it if it has not within STOP_S_MAX seconds; done twice, it does nothing.

        Raises WorkerEnded if it did not leave in good order.
        """
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            code = await asyncio.wait_for(self._process.wait(), STOP_S_MAX)
        except TimeoutError:
            self._process.kill()
            code = await self._process.wait()
        if code != 0:
            raise self._ended(code)

    def _ended(self, code: int | None) -> WorkerEnded:
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        how = f"did not end within {FINISH_S_MAX:g} s" if code is None else f"ended with {code}"
        return WorkerEnded(f"`shoal {self._command}` {how}; its log, {self.log}, ends with:\n{tail}")


async def said(settings: Mapping[str, str], *command: str) -> list[str]:
    """Run a `shoal` command with these SHOAL_ settings (and none of ours); return the lines it printed.

    Raises WorkerEnded with what it said when it fails, or takes over FINISH_S_MAX.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", *command,
        cwd=Path(__file__).parents[1],
        env=_environment(settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(FINISH_S_MAX):
            output, _ = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    lines = output.decode(errors="replace").splitlines()
    if process.returncode != 0:
        tail = "\n".join(lines[-LOG_TAIL_LINES:])
        raise WorkerEnded(f"`shoal {' '.join(command)}` ended with {process.returncode}:\n{tail}")
    return lines


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SHOAL_")}
    return {**inherited, **settings}


@asynccontextmanager
async def running(
    log: Path, settings: Mapping[str, str], command: Sequence[str] = ("worker",)
) -> AsyncIterator[Worker]:
    """Run `shoal worker` with these SHOAL_ settings (and none of ours); stop it when the block is left."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as sink:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli", *command,
            cwd=Path(__file__).parents[1],
            env=_environment(settings),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=asyncio.subprocess.STDOUT,
            # A group of its own: Ctrl-C reaches us, and we stop the worker in an orderly way.
            process_group=0,
        )  # fmt: skip
    worker = Worker(process, log, " ".join(command))
    try:
        yield worker
    except BaseException:
        with contextlib.suppress(WorkerEnded):
            await worker.stop()
        raise
    else:
        await worker.stop()
