"""R, F, M and the scores of every CDNOW customer, through the real table, against SQL."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pytest

from streams.customers.facts import Facts, Kind, Strings
from streams.customers.table import CustomerTable, Result
from streams.segments.definition import DAY_MS, Definition
from streams.segments.evaluate import Evaluator

SOURCE = Path(__file__).parents[2] / "data" / "cdnow" / "orders.csv.gz"
DATES = ("1997-02-01", "1997-04-01", "1997-09-15", "1998-01-01", "1998-03-31", "1998-07-01")

# Written from the definition's prose, not from the nodes: windows and ages are compared directly.
SQL = """
with known as (select * from orders where at_ms < $now),
paid as (select * from known where cents > 0),
customer as (
    select c.customer,
        (select max(at_ms) from paid p where p.customer = c.customer) as last,
    from (select distinct customer from known) c
),
rolling as (
    select customer, count(*) as f, sum(cents) as m
    from paid where at_ms > $now - $d365 group by customer
)
select customer, last, coalesce(f, 0), coalesce(m, 0),
    case when last is null then 0
         when $now - last < $d30 then 5 when $now - last < $d60 then 4
         when $now - last < $d90 then 3 when $now - last < $d180 then 2 else 1 end,
    case when last is null then 0 when f >= 12 then 5 when f >= 6 then 4 when f >= 3 then 3
         when f >= 2 then 2 else 1 end,
    case when last is null then 0 when m >= 100000 then 5 when m >= 50000 then 4
         when m >= 25000 then 3 when m >= 10000 then 2 else 1 end
from customer left join rolling using (customer) order by customer
"""


def _orders() -> np.ndarray:
    """Read int64[n, 3]: customer, UTC ms, cents."""
    days: dict[str, int] = {}
    rows = []
    with gzip.open(SOURCE, "rt", encoding="ascii", newline="") as file:
        for row in csv.DictReader(file):
            date = row["date"]
            if date not in days:
                days[date] = _at_ms(f"{date[:4]}-{date[4:6]}-{date[6:]}")
            rows.append((int(row["customer"]), days[date], int(row["cents"])))
    return np.array(rows, np.int64)


def _at_ms(date: str) -> int:
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()) * 1000


def _facts(orders: np.ndarray, lines: np.ndarray) -> Facts:
    """Make one Purchased of each line; its number is the order's id."""
    n = len(lines)
    ids = Strings.from_list(b"%d" % line for line in lines.tolist())
    return Facts(
        position=np.arange(n),
        kind=np.full(n, Kind.PURCHASED, np.uint8),
        customer=Strings.from_list(b"%05d" % customer for customer in orders[lines, 0].tolist()),
        event_id=ids,
        occurred_at_ms=orders[lines, 1],
        natural_id=ids,
        order_id=Strings.from_list([b""] * n),
        refund_kind=np.zeros(n, np.uint8),
        amount_minor=orders[lines, 2],
        traits={},
        account_id={},
    )


@pytest.mark.timeout(120)
def test_cdnow_equals_sql_at_six_dates(definition: Definition, evaluator: Evaluator) -> None:
    """Shuffled within each period and one line in twenty sent twice, 0 of all figures differ."""
    orders = _orders()
    assert (len(orders), orders[:, 2].sum()) == (69_659, 250_031_563)
    table = CustomerTable(
        fact_key=b"0123456789abcdef", dimensions=evaluator.dimensions, values=evaluator.values
    )
    database = duckdb.connect()
    customer, at_ms, cents = orders.T.copy()
    database.register("orders", {"customer": customer, "at_ms": at_ms, "cents": cents})
    random = np.random.default_rng(97)
    days = {f"d{count}": count * DAY_MS for count in (30, 60, 90, 180, 365)}
    before, compared = 0, 0
    for now in map(_at_ms, DATES):
        lines = random.permutation(np.flatnonzero((at_ms >= before) & (at_ms < now)))
        resent = lines[::20]
        lines = np.concatenate((lines, resent))
        facts = _facts(orders, lines)
        slots = table.slots.find_or_add(facts.customer)
        fold_line = np.full(len(lines), now - definition.longest_window_ms - 500 * DAY_MS)
        results = table.apply(facts, np.arange(len(lines)), slots, fold_line)
        assert (results == Result.DUPLICATE).sum() == len(resent)
        before = now

        expected = database.execute(SQL, {"now": now} | days).fetchall()
        rows = [(c, -1 if last is None else now - last, *rest) for c, last, *rest in expected]
        known = table.slots.find(Strings.from_list(b"%05d" % row[0] for row in rows))
        out = evaluator.evaluate(table, known, np.full(len(known), now))
        recency = np.where(out.scores[:, 0] > 0, now - out.last_purchase_ms, -1)
        found = np.column_stack((recency, out.orders, out.net_minor, out.scores))
        assert (found != np.array([row[1:] for row in rows], np.int64)).sum() == 0
        assert len(rows) == table.count
        compared += len(rows)
    assert compared == 125_696
