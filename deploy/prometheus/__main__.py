"""`python -m deploy.prometheus`: promtool reads the alerts, tests them, and reads the dashboard's queries.

Promtool is optional: without it that is said, and the exit status is 0. `python -m deploy.prometheus fetch`
takes it out of Debian's package `prometheus`, without installing that, where there is apt.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ALERTS = HERE / "alerts.yaml"
ALERTS_TEST = HERE / "alerts_test.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
FETCHED = ROOT / "var" / "promtool"

MISSING = "promtool is missing, so it has not read deploy/prometheus; `make promtool` fetches it"


def find_promtool() -> str | None:
    """Return the program to run: the one fetched, else the one on the path."""
    fetched = FETCHED / "usr" / "bin" / "promtool"
    return str(fetched) if fetched.exists() else shutil.which("promtool")


def dashboard_queries() -> Iterator[str]:
    """Yield every query of the dashboard, with Grafana's variables replaced by something PromQL can read."""
    board = json.loads(DASHBOARD.read_text())
    for query in _expressions(board):
        yield query.replace("$__rate_interval", "5m").replace("$instance", ".*")


def _expressions(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("expr"), str):
            yield node["expr"]
        for each in node.values():
            yield from _expressions(each)
    elif isinstance(node, list):
        for each in node:
            yield from _expressions(each)


def check() -> int:
    """Run promtool over everything; return 0 if it finds no fault, or is not there."""
    promtool = find_promtool()
    if promtool is None:
        click.echo(MISSING)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        queries = Path(folder) / "queries.json"
        # Promtool reads rules, not queries: so each query is made one. YAML contains JSON.
        rules = [{"record": f"query_{n}", "expr": query} for n, query in enumerate(dashboard_queries())]
        queries.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
        commands = [("check", "rules", ALERTS, queries), ("test", "rules", ALERTS_TEST)]
        return max(subprocess.run([promtool, *command], check=False).returncode for command in commands)


def fetch() -> int:
    """Put promtool into var/promtool; return 0 if it is there then."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        click.echo("there is no apt here: put a promtool on the path instead", err=True)
        return 1
    FETCHED.mkdir(parents=True, exist_ok=True)
    downloaded = subprocess.run(["apt-get", "download", "prometheus"], cwd=FETCHED, check=False)
    packages = sorted(FETCHED.glob("prometheus_*.deb"))
    if downloaded.returncode or not packages:
        click.echo("apt-get download prometheus failed; apt-get update may help", err=True)
        return 1
    subprocess.run(["dpkg-deb", "-x", packages[-1], FETCHED], check=True)
    for package in packages:
        package.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(fetch() if sys.argv[1:] == ["fetch"] else check())
