"""Where and of what figures were taken: the commit, the machine and the command, as they go into the JSON."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.process_cpu import ROOT


def provenance() -> dict[str, Any]:
    """Return all that is needed to judge figures and to repeat them."""
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "commit": _git("rev-parse", "HEAD"),
        # What was measured may not be what the commit says; what was generated does not count.
        "dirty": bool(_git("status", "--porcelain", "--", ":!benchmarks/results", ":!docs")),
        "command": command,
        "cpu": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30), 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_at_start": list(os.getloadavg()),
    }


def cpu_model(cpuinfo: str) -> str:
    """Return the name of the first processor in the text of /proc/cpuinfo."""
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
