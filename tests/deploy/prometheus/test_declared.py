"""The dashboard and the alerts ask for what metrics.py declares, with its labels and their values."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.prometheus import __main__ as checking
from metrics import DECLARED, PROCESS, Metric

ROOT = Path(__file__).parents[3]
SERIES: dict[str, Metric | None] = {
    **{name: metric for metric in DECLARED for name in metric.series_names},
    **dict.fromkeys(PROCESS),
}
SCRAPED = {"instance", "job"}
"""Labels Prometheus adds."""
WORDS = {
    *("sum", "max", "count", "rate", "increase", "deriv", "abs", "absent", "time", "histogram_quantile"),
    *("by", "on", "and", "unless", "group_left", "offset"),
}
"""What is neither a metric nor a label; longer when somebody needs more of PromQL."""


def alerts() -> Iterator[dict[str, object]]:
    """Every alert."""
    for group in yaml.safe_load(checking.ALERTS.read_text())["groups"]:
        yield from group["rules"]


QUERIES = [str(alert["expr"]) for alert in alerts()] + list(checking.dashboard_queries())


def labels_of(name: str) -> set[str]:
    """The labels a series may be asked for."""
    metric = SERIES[name]
    declared = set() if metric is None else {label.name for label in metric.labels}
    return declared | SCRAPED | ({"le"} if name.endswith("_bucket") else set())


def complaints(query: str) -> list[str]:
    """Everything in a query that is not declared."""
    bare = re.sub(r'"[^"]*"', '""', query)
    groups = r"\b(?:by|on|group_left)\s*\(([^)]*)\)"
    outside = re.sub(groups, " ", re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", bare))
    names = set(re.findall(r"\b[a-zA-Z_][a-zA-Z0-9_]*\b", outside)) - WORDS
    wrong = sorted(names - SERIES.keys())
    names &= SERIES.keys()
    if not names:
        return [*wrong, "no metric at all"]
    known = set.union(*(labels_of(name) for name in names))
    for listed in re.findall(groups, bare):
        wrong += [label for label in re.findall(r"\w+", listed) if label not in known]
    for name, selector in re.findall(r"(\w+)\{([^}]*)\}", query):
        for label, operator, values in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', selector):
            if name in SERIES and label not in labels_of(name):
                wrong.append(f"{name}: {label}")
            wrong += unlisted(name, label, values.split("|") if "~" in operator else [values])
    return wrong


def unlisted(name: str, label: str, values: list[str]) -> list[str]:
    """The values asked for that the label can never hold."""
    metric = SERIES.get(name)
    listed = {each.name: each.values for each in metric.labels}.get(label) if metric else None
    return [] if listed is None else [f"{name}: {label}={value}" for value in values if value not in listed]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_what_is_declared(query: str) -> None:
    """Every metric is one of metrics.py, every label one it has, every listed value one it may hold."""
    assert complaints(query) == []


@pytest.mark.parametrize(
    "query",
    [
        "sum(shoal_lag_records)",
        "sum(up)",
        "sum by (topic) (shoal_consumer_lag_records)",
        'shoal_consumer_lag_records{topic="x"} > 0',
        'rate(shoal_transactions_total{result="lost"}[5m])',
        'rate(shoal_transactions_total{result=~"aborted|lost"}[5m])',
        "histogram_quantile(0.5, sum by (le) (rate(shoal_step_seconds_sum[5m])))",
        "1 > 0",
    ],
)
def test_a_query_for_what_is_not_declared_is_noticed(query: str) -> None:
    """The check itself: wrong names, labels and values are all complained of."""
    assert complaints(query)


def test_legends_name_labels_the_query_keeps() -> None:
    """`{{partition}}` in a legend shows nothing when the query sums partitions away."""
    board = checking.DASHBOARD.read_text()
    pairs = re.findall(r'"expr": "((?:[^"\\]|\\.)*)",\s*"legendFormat": "([^"]*)"', board)
    assert len(pairs) > 30
    for query, legend in pairs:
        wanted = set(re.findall(r"\{\{(\w+)\}\}", legend))
        kept = {
            label for listed in re.findall(r"\bby \(([^)]*)\)", query) for label in re.findall(r"\w+", listed)
        }
        assert wanted <= kept | ({"instance"} if " by " not in query else set()), (query, legend)


def test_every_alert_says_what_to_do() -> None:
    """Few of them, each with a severity, a summary and a text for whoever is woken by it."""
    found = list(alerts())
    assert 5 <= len(found) <= 12
    for alert in found:
        assert alert["labels"] in ({"severity": "page"}, {"severity": "ticket"})
        notes = alert["annotations"]
        assert isinstance(notes, dict) and set(notes) == {"summary", "runbook"}
        assert len(notes["runbook"]) > 100


def test_promtool_finds_no_fault_where_it_is_there() -> None:
    """`make check` asks promtool, or says that it is missing; it is never required."""
    ended = subprocess.run(
        [sys.executable, "-m", "deploy.prometheus"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    if checking.find_promtool() is None:
        assert "promtool is missing" in ended.stdout
    else:
        assert ended.stdout.count("SUCCESS") == 3


def test_a_missing_promtool_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody takes silence for a check."""
    monkeypatch.setattr(checking, "find_promtool", lambda: None)
    assert checking.check() == 0
    assert "promtool is missing" in capsys.readouterr().out
