"""The closing report: counts that add up, what the worker's log says, and a verdict that cannot flatter."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from demo.check import compare
from demo.oracle import Standing
from demo.purchases import Coverage
from demo.replay import Sent
from demo.summary import Outcome, cell_counts, grid_of, print_summary, verdicts
from demo.worker import Figures, figures
from streams.segments.loading import default_definition

BEST = Standing(1_000, 20, 200_000, (5, 5, 5), "champions", "loyal")
LOST = Standing(10**11, 0, 0, (1, 1, 1), "lost", "churned")
NEVER = Standing(None, 0, -500, (0, 0, 0), "prospect", "lead")
STANDINGS = {"1": BEST, "2": BEST, "3": LOST, "4": NEVER}


def outcome(expected: dict[str, Standing]) -> Outcome:
    """The outcome of a run that found STANDINGS where `expected` was right."""
    return Outcome(
        coverage=Coverage(100, 60, 30, 2, {"no customer": 8}),
        sent=Sent(purchases=40, refunds=10, ticks=7),
        seconds=12.34,
        causes=Counter({"event": 5, "time_elapsed": 2}),
        standings=STANDINGS,
        figures=Figures(78, 0.5, 10, 1.5, 4, 6.25, troubles=3),
        log=Path("worker.log"),
        differences=compare(expected, STANDINGS),
        changes_add_up=True,
        in_redis={},
    )


def printed(result: Outcome) -> list[str]:
    """The lines of the summary, off a terminal."""
    console = Console(file=io.StringIO(), width=200)
    print_summary(console, default_definition(), result)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_cells_hold_everybody_who_has_bought() -> None:
    """Each customer stands in the cell of R and of the column F and M add up to; prospects in none."""
    assert cell_counts(default_definition(), STANDINGS) == Counter({(5, 5): 2, (1, 1): 1})


def test_the_grid_on_screen_is_the_definitions() -> None:
    """R = 5 comes first and FM = 1 first within it."""
    grid = grid_of(default_definition())

    assert [len(row) for row in grid] == [5] * 5
    assert (grid[0][0], grid[0][4], grid[4][0], grid[4][4]) == ("new", "champions", "lost", "cant_lose")


def test_the_summary_says_everything_and_ends_with_the_verdict() -> None:
    """Lines dropped by reason, events, customers, changes by cause, the worker's cost; then the verdict."""
    lines = printed(outcome(STANDINGS))
    text = "\n".join(lines)

    for expected in (
        "100 = 60 bought + 30 given back + 2 adding up to 0 + 8 dropped (no customer)",
        "50 = 40 Purchased + 10 Refunded, cut by 7 ticks, in 12.3 s",
        "4 = 3 in the grid + 1 never bought",
        "7 = 5 event + 2 time_elapsed",
        "10,000 CPU µs per event",
        "10 steps of 1.50 ms, 4 transactions of 6.2 ms",
        "3 warnings or errors in worker.log",
    ):
        assert expected in text
    assert lines[-2:] == ["4 customers checked against SQL: 0 differ", "4 customers in Redis: 0 differ"]


def test_differences_are_shown_and_counted() -> None:
    """A customer who differs, one who is missing and one who should not be there are three differences."""
    wrong = {"1": replace(BEST, orders=19), "2": BEST, "3": LOST, "5": LOST}
    result = outcome(wrong)

    assert not result.good
    assert verdicts(result)[0] == "5 customers checked against SQL: 3 differ"
    assert sum("customer " in line and ":" in line for line in printed(result)) == 3


def test_customers_who_differ_in_redis_are_not_good() -> None:
    """Who is wrong, missing or unexpected there is named and counted; SQL's verdict stands beside it."""
    result = replace(outcome(STANDINGS), in_redis={"1": "missing", "9": "unexpected"})

    assert not result.good
    assert verdicts(result)[1] == "5 customers in Redis: 2 differ"
    assert "customer 9 in Redis: unexpected" in printed(result)
    assert verdicts(replace(result, in_redis=None))[1] == "no Redis, none checked"


def test_changes_that_do_not_add_up_are_not_good() -> None:
    """A change lost or sent twice fails the demo even when every state is right, and is said."""
    result = replace(outcome(STANDINGS), changes_add_up=False)

    assert outcome(STANDINGS).good
    assert not result.good
    assert "the changes do not add up to the memberships" in printed(result)


def test_the_workers_figures_are_added_up_over_its_log() -> None:
    """Means are weighted; a quiet interval adds its CPU; other lines are passed over."""
    log = """\
[2026-11-21 22:00:00] [INFO] partition 0 starts at 0: fenced in 12 ms, 0 rows restored in 3 ms
2026-11-21 22:00:01,450 WARNING streams.kafka.owner: partition 0 failed, to be restored
2026-11-21 22:00:02,450 ERROR aiokafka.consumer.group_coordinator: not one of ours
[2026-11-21 22:00:05] 1000 events in 5.0 s, 200.00 CPU µs/event, 10 pieces of 2.00 ms, \
5 transactions of 4.0 ms, 0 partitions pending
[2026-11-21 22:00:10] 0 events in 5.0 s, 0.30 CPU s, 0 pieces of 0.00 ms, \
0 transactions of 0.0 ms, 0 partitions pending
[2026-11-21 22:00:15] 3000 events in 5.0 s, 100.00 CPU µs/event, 30 pieces of 1.00 ms, \
15 transactions of 8.0 ms, 1 partitions pending
"""

    added = figures(log)

    assert added is not None
    assert (added.records, added.pieces, added.transactions, added.troubles) == (4_000, 40, 20, 1)
    assert (added.cpu_s, added.piece_ms_mean, added.transaction_ms_mean) == pytest.approx((0.8, 1.25, 7.0))


def test_a_log_without_reports_has_no_figures() -> None:
    """Nothing is made up when the worker said nothing."""
    assert figures("nothing of the kind\n") is None


def test_the_report_a_worker_writes_is_the_one_that_is_read() -> None:
    """The pattern follows the worker's own words, so a change of wording there fails here."""
    from streams.kafka.progress import Progress

    progress = Progress()
    progress.piece(0.002)
    progress.transaction(25, 0.004)

    added = figures(progress.line(pending=0, stage_ms={"apply": 1.0}))

    assert added is not None
    assert (added.records, added.pieces, added.transactions) == (25, 1, 1)
    quiet = figures(progress.line(pending=0, stage_ms={"apply": 1.0}))
    assert quiet is not None
    assert quiet.records == 0
