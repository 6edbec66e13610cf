"""The last ten lines of the demo."""

from __future__ import annotations

import metrics
from demo.exposed import SHOWN, chosen, scrape


def test_the_demo_shows_ten_lines_of_declared_metrics() -> None:
    """Each name is one a worker exposes."""
    declared = {name for metric in metrics.DECLARED for name in metric.series_names} | set(metrics.PROCESS)
    assert len(SHOWN) == 10 and set(SHOWN) <= declared


def test_one_line_of_each_metric_is_chosen() -> None:
    """The first with the whole name; comments, longer names and others are passed over."""
    lines = ["# HELP shoal_customers x", "shoal_customers_x 1", "other 2", 'shoal_customers{partition="0"} 3']
    assert chosen("\n".join([*lines, "shoal_customers 4"])) == lines[3:]


async def test_a_worker_that_names_no_address_is_not_asked() -> None:
    """The demo's verdict does not depend on its metrics."""
    assert await scrape("nothing of the kind") is None
    assert await scrape("INFO streams.web: metrics at http://127.0.0.1:1/metrics") is None
