"""The SQL oracle against figures worked out by hand, so that the judge is judged too."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from demo.oracle import Standing, standings

DAY_MS = 86_400_000
AT = "2011-06-30 00:00:00"
AT_MS = 1_309_392_000_000

# invoice, quantity, time, price, customer
LINES = [
    # 1 bought twice, 10 and 40 days before; a refund takes M from 130.00 to 99.99.
    ("1001", 2, "2011-06-20 00:00", 40.0, 1),
    ("1002", 10, "2011-05-21 00:00", 5.0, 1),
    ("C103", -1, "2011-06-21 00:00", 30.01, 1),
    # 2 bought exactly 365 days before: outside the window, still the last order.
    ("1004", 1, "2010-06-30 00:00", 5000.0, 2),
    # 3 bought one minute later than that: inside.
    ("1005", 1, "2010-06-30 00:01", 5000.0, 3),
    # 4 only ever gave money back.
    ("C106", -1, "2011-06-01 00:00", 12.5, 4),
    # 5 bought exactly 30 days before (R=4) after a pause of 200 days.
    ("1007", 1, "2011-05-31 00:00", 250.0, 5),
    ("1008", 1, "2010-11-12 00:00", 250.0, 5),
    # 6 came back 29 days before, after exactly 180 days.
    ("1009", 1, "2011-06-01 00:00", 100.0, 6),
    ("1010", 1, "2010-12-03 00:00", 0.005, 6),
    ("1010", 1, "2010-12-03 00:00", 0.01, 6),
    # 7 has an invoice of nothing only; 8 buys after the instant asked for; 9 is nobody.
    ("1011", 1, "2011-06-01 00:00", 0.0, 7),
    ("1012", 1, "2011-06-30 00:01", 10.0, 8),
    ("1013", 1, "2011-06-01 00:00", 10.0, None),
]

EXPECTED = {
    "1": Standing(10 * DAY_MS, 2, 9_999, (5, 2, 1), "new", "active"),
    "2": Standing(365 * DAY_MS, 0, 0, (1, 1, 1), "lost", "churned"),
    "3": Standing(365 * DAY_MS - 60_000, 1, 500_000, (1, 1, 5), "at_risk", "churned"),
    "4": Standing(None, 0, -1_250, (0, 0, 0), "prospect", "lead"),
    "5": Standing(30 * DAY_MS, 2, 50_000, (4, 2, 4), "potential_loyalist", "active"),
    "6": Standing(29 * DAY_MS, 2, 10_002, (5, 2, 2), "potential_loyalist", "reactivated"),
    "7": Standing(None, 0, 0, (0, 0, 0), "prospect", "lead"),
}


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """The invoice lines above, as the committed file holds its own."""
    path = tmp_path / "lines.parquet"
    with duckdb.connect() as database:
        database.execute(
            "create table lines (InvoiceNo text, StockCode text, Quantity int, InvoiceDate timestamp,"
            " UnitPrice double, CustomerID int)"
        )
        database.executemany(
            "insert into lines values (?, 'A', ?, ?, ?, ?)",
            LINES,
        )
        database.execute(f"copy lines to '{path}' (format parquet)")
    return path


@pytest.mark.parametrize("customer", sorted(EXPECTED))
def test_the_oracle_agrees_with_figures_worked_out_by_hand(lines: Path, customer: str) -> None:
    """Window edges, ties in rounding, refunds, prospects and lifecycle come out as worked out on paper."""
    assert standings(lines, AT_MS)[customer] == EXPECTED[customer]


def test_the_oracle_knows_who_has_an_invoice_by_then_and_nobody_else(lines: Path) -> None:
    """Later customers are not there yet, and a line without a customer makes none."""
    assert standings(lines, AT_MS).keys() == EXPECTED.keys()
    assert standings(lines, AT_MS + 60_000).keys() == EXPECTED.keys() | {"8"}
