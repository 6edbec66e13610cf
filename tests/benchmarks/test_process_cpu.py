"""What /proc says of a process, and what the kernel says when it ends."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from benchmarks.process_cpu import Measured, MeasuredEnded, cpu_s_of, peak_mib_of

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def test_cpu_is_user_and_system_time_whatever_the_process_is_called() -> None:
    """A name with spaces and brackets moves no field."""
    stat = (
        f"42 (a ) name (x) R 1 42 42 0 -1 4194304 9 0 0 0 {3 * TICKS_PER_SECOND} {TICKS_PER_SECOND} 7 7 20 0"
    )
    assert cpu_s_of(stat) == 4.0


def test_peak_memory_is_the_high_water_mark() -> None:
    """VmHWM, not VmPeak nor VmRSS, in MiB."""
    assert peak_mib_of("VmPeak:\t 9999 kB\nVmHWM:\t  2048 kB\nVmRSS:\t 1024 kB\n") == 2.0


def test_a_status_without_a_high_water_mark_is_an_error() -> None:
    """A process that is gone has none."""
    with pytest.raises(ValueError, match="VmHWM"):
        peak_mib_of("Name:\tpython\nState:\tZ (zombie)\n")


def test_a_process_is_marked_by_what_it_says_and_charged_for_its_whole_life(tmp_path: Path) -> None:
    """The CPU of the whole life holds what is spent after the last mark."""
    script = (
        "import time\nprint('begun', flush=True)\nwhile time.process_time() < 0.3: pass\n"
        "print('done', flush=True)\ntime.sleep(60)"
    )
    with Measured([sys.executable, "-c", script], tmp_path / "log", {}) as process:
        begun = process.mark_when(re.compile("begun"), 1, 30)
        done = process.mark_when(re.compile("done"), 1, 30)
        whole_s = process.stop()
    assert begun.cpu_s < done.cpu_s <= whole_s + 1 / TICKS_PER_SECOND
    assert whole_s >= 0.3


def test_a_process_that_ends_by_itself_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    """Nobody waits for a mark that cannot come."""
    command = [sys.executable, "-c", "print('no Kafka'); raise SystemExit(3)"]
    with Measured(command, tmp_path / "log", {}) as process, pytest.raises(MeasuredEnded, match="no Kafka"):
        process.mark_when(re.compile("never"), 1, 30)


def test_variables_of_the_caller_do_not_reach_what_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SHOAL_ variable somebody exported would change what is measured."""
    monkeypatch.setenv("SHOAL_CHUNK_RECORDS_MAX", "1")
    script = "import os; print(sorted(n for n in os.environ if n.startswith('SHOAL_')), flush=True); input()"
    script = script.replace("input()", "import time; time.sleep(60)")
    with Measured([sys.executable, "-c", script], tmp_path / "log", {"SHOAL_PREFIX": "x"}) as process:
        process.mark_when(re.compile(re.escape("['SHOAL_PREFIX']")), 1, 30)
        process.kill()
