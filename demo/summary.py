"""What the demo says at the end: counts that add up, the grid, what the worker cost, and the verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from demo.check import Difference
from demo.display import COLOURS, OTHER_COLOUR, Grid
from demo.oracle import Standing
from demo.purchases import Coverage
from demo.replay import Sent
from demo.worker import Figures
from streams.segments.definition import Definition
from streams.segments.grid import PROSPECT, SCORES

DIFFERENCES_SHOWN_MAX = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything the summary is made of."""

    coverage: Coverage
    sent: Sent
    seconds: float
    """From the first event sent to the last step committed."""
    causes: Counter[str]
    standings: Mapping[str, Standing]
    figures: Figures | None
    log: Path
    """The worker's."""
    differences: Sequence[Difference]
    changes_add_up: bool
    """Whether all changes, applied one after another, end at the memberships."""
    in_redis: Mapping[str, str] | None
    """Who is not the same in Redis, and what is wrong; None if there was no Redis."""

    @property
    def good(self) -> bool:
        """Whether everything that was checked is right."""
        return not self.differences and self.changes_add_up and not self.in_redis


def grid_of(definition: Definition) -> Grid:
    """Return the names of the 25 cells, R = 5 first, FM = 1 first."""
    name_of = {cell: name for name, cells in definition.grid.claims for cell in cells}
    return [[name_of[r, fm] for fm in SCORES] for r in reversed(SCORES)]


def cell_counts(definition: Definition, standings: Mapping[str, Standing]) -> Counter[tuple[int, int]]:
    """Return how many customers stand in each cell (R, FM); prospects stand in none."""
    column_of = {total: column for column, totals in definition.grid.columns for total in totals}
    scores = (standing.scores for standing in standings.values())
    return Counter((r, column_of[f + m]) for r, f, m in scores if r)


def print_summary(console: Console, definition: Definition, outcome: Outcome) -> None:
    """Print it all; the last two lines are the verdicts."""
    console.print()
    console.print(_grid_table(definition, outcome.standings))
    console.print()
    for name, text in _figures(outcome):
        console.print(f"{name:<14} {text}", highlight=False, soft_wrap=True)
    for difference in outcome.differences[:DIFFERENCES_SHOWN_MAX]:
        console.print(str(difference), style="red", highlight=False, soft_wrap=True)
    for customer_id, wrong in sorted((outcome.in_redis or {}).items())[:DIFFERENCES_SHOWN_MAX]:
        console.print(
            f"customer {customer_id} in Redis: {wrong}", style="red", highlight=False, soft_wrap=True
        )
    if not outcome.changes_add_up:
        console.print("the changes do not add up to the memberships", style="red")
    console.print()
    for line in verdicts(outcome):
        console.print(line, style="bold green" if outcome.good else "red", highlight=False)


def verdicts(outcome: Outcome) -> tuple[str, str]:
    """Return the two lines that count: the pipeline against SQL, Redis against the pipeline."""
    # A customer only SQL knows has no standing of ours, and was checked all the same.
    missing = sum(difference.actual is None for difference in outcome.differences)
    checked = len(outcome.standings) + missing
    sql = f"{checked:,} customers checked against SQL: {len(outcome.differences):,} differ"
    if outcome.in_redis is None:
        return sql, "no Redis, none checked"
    kept = len(outcome.standings.keys() | outcome.in_redis.keys())
    return sql, f"{kept:,} customers in Redis: {len(outcome.in_redis):,} differ"


def _grid_table(definition: Definition, standings: Mapping[str, Standing]) -> Table:
    grid, counts = grid_of(definition), cell_counts(definition, standings)
    # Without padding on the left the longest word fits into 80 columns.
    table = Table(
        title="Customers by recency (R) and by frequency and money (FM)",
        title_justify="left",
        padding=(0, 1, 0, 0),
    )
    table.add_column("")
    for fm in SCORES:
        table.add_column(f"FM {fm}", justify="right")
    table.add_column("all", justify="right")
    for r, row in zip(reversed(SCORES), grid, strict=True):
        cells = [
            f"[bold]{counts[r, fm]:,}[/]\n[{COLOURS.get(name, OTHER_COLOUR)}]{name.replace('_', ' ')}[/]"
            for fm, name in zip(SCORES, row, strict=True)
        ]
        table.add_row(f"R {r}", *cells, f"{sum(counts[r, fm] for fm in SCORES):,}")
    table.add_section()
    columns = (f"{sum(counts[r, fm] for r in SCORES):,}" for fm in SCORES)
    table.add_row("all", *columns, f"[bold]{counts.total():,}[/]")
    return table


def _figures(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """Yield (what, how many) line by line."""
    coverage, sent, standings = outcome.coverage, outcome.sent, outcome.standings
    dropped = ", ".join(f"{count:,} dropped ({reason})" for reason, count in coverage.dropped.items())
    yield (
        "invoice lines",
        f"{coverage.lines:,} = {coverage.lines_purchased:,} bought + {coverage.lines_refunded:,} given back"
        f" + {coverage.lines_of_zero_total:,} adding up to 0 + {dropped}",
    )
    yield (
        "events",
        f"{sent.events:,} = {sent.purchases:,} Purchased + {sent.refunds:,} Refunded,"
        f" cut by {sent.ticks:,} ticks, in {outcome.seconds:.1f} s",
    )
    never = sum(standing.rfm == PROSPECT for standing in standings.values())
    yield "customers", f"{len(standings):,} = {len(standings) - never:,} in the grid + {never:,} never bought"
    causes = " + ".join(f"{count:,} {cause}" for cause, count in outcome.causes.most_common())
    yield "changes", f"{outcome.causes.total():,} = {causes}"
    figures = outcome.figures
    if figures is not None:
        yield (
            "worker",
            f"{figures.cpu_s * 1e6 / max(sent.events, 1):,.0f} CPU µs per event, start-up included; "
            f"{figures.pieces:,} steps of {figures.piece_ms_mean:.2f} ms, "
            f"{figures.transactions:,} transactions of {figures.transaction_ms_mean:.1f} ms",
        )
        if figures.troubles:
            yield "", f"{figures.troubles:,} warnings or errors in {outcome.log}"
