"""What every customer must be at one instant, in SQL over the invoice lines.

It shares no code with the pipeline nor with the mapping the replay uses: it reads the file again and states
the rules again, so that a mistake must be made twice to go unseen.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import duckdb

# Integer arithmetic throughout: prices are whole thousandths, so a total is exact, and abs() lets the
# half-even rounding ignore which way the engine's division truncates.
SQL = """
with lines as (
    select CustomerID as customer, InvoiceNo as invoice, epoch_ms(InvoiceDate) as at_ms,
           Quantity::bigint * round(UnitPrice * 1000)::bigint as total_milli
    from read_parquet($source)
    where CustomerID is not null
),
exact_totals as (
    select customer, invoice, min(at_ms) as at_ms, sum(total_milli)::bigint as total_milli
    from lines group by customer, invoice
),
invoices as (
    select customer, invoice, at_ms, sign(total_milli)::bigint * (
               abs(total_milli) // 10
               + case when abs(total_milli) % 10 > 5 then 1
                      when abs(total_milli) % 10 = 5 then (abs(total_milli) // 10) % 2
                      else 0 end) as total_minor
    from exact_totals
    where at_ms <= $at_ms
),
orders as (
    select customer, invoice, at_ms, total_minor as paid_minor
    from invoices where total_minor > 0 and invoice not like 'C%'
),
refunds as (
    select customer, at_ms, -total_minor as refunded_minor
    from invoices where total_minor < 0 or invoice like 'C%'
),
gaps as (
    select customer, at_ms, at_ms - lag(at_ms) over (partition by customer order by at_ms, invoice) as gap_ms
    from orders
),
lifetimes as (
    select customer, min(at_ms) as first_ms, max(at_ms) as last_ms,
           coalesce(bool_or(at_ms > $at_ms - 30 * 86400000::bigint
                            and gap_ms >= 180 * 86400000::bigint), false) as came_back
    from gaps group by customer
),
bought as (
    select customer, count(*) as orders, sum(paid_minor) as paid_minor
    from orders where at_ms > $at_ms - 365 * 86400000::bigint group by customer
),
returned as (
    select customer, sum(refunded_minor) as refunded_minor
    from refunds where at_ms > $at_ms - 365 * 86400000::bigint group by customer
),
measures as (
    select customer, first_ms, last_ms, came_back,
           ($at_ms - last_ms) / 86400000.0 as recency_days, $at_ms - first_ms as tenure_ms,
           coalesce(orders, 0) as orders,
           (coalesce(paid_minor, 0) - coalesce(refunded_minor, 0))::bigint as net_minor
    from (select distinct customer from invoices)
    left join lifetimes using (customer)
    left join bought using (customer)
    left join returned using (customer)
),
scored as (
    select *,
           case when last_ms is null then 0 when recency_days < $fresh_days then 5
                when recency_days < 60 then 4 when recency_days < 90 then 3
                when recency_days < 180 then 2 else 1 end as r,
           case when last_ms is null then 0 when orders >= 12 then 5 when orders >= 6 then 4
                when orders >= 3 then 3 when orders >= 2 then 2 else 1 end as f,
           case when last_ms is null then 0 when net_minor >= 100000 then 5 when net_minor >= 50000 then 4
                when net_minor >= 25000 then 3 when net_minor >= 10000 then 2 else 1 end as m
    from measures
),
placed as (
    select *, case when f + m <= 3 then 1 when f + m <= 5 then 2 when f + m <= 7 then 3
                   when f + m = 8 then 4 else 5 end as fm
    from scored
)
select customer::varchar, case when last_ms is not null then $at_ms - last_ms end, orders, net_minor, r, f, m,
       case when last_ms is null then 'prospect'
            when r = 5 then ['new', 'potential_loyalist', 'potential_loyalist', 'champions', 'champions'][fm]
            when r = 4 then ['promising', 'potential_loyalist', 'potential_loyalist', 'loyal', 'loyal'][fm]
            when r = 3 then ['about_to_sleep', 'about_to_sleep', 'need_attention', 'loyal', 'loyal'][fm]
            when r = 2 then ['hibernating', 'hibernating', 'at_risk', 'at_risk', 'cant_lose'][fm]
            else ['lost', 'lost', 'at_risk', 'at_risk', 'cant_lose'][fm] end,
       case when last_ms is null then 'lead'
            when recency_days >= 180 then 'churned'
            when came_back then 'reactivated'
            when recency_days >= 60 then 'at_risk'
            when tenure_ms < 30 * 86400000::bigint then 'new'
            when tenure_ms >= 180 * 86400000::bigint and r >= 4 and f >= 4 then 'loyal'
            else 'active' end
from placed order by customer
"""


FRESH_DAYS = 30
"""Under so many days since the last order R is 5, by the default definitions."""


@dataclass(frozen=True, slots=True)
class Standing:
    """One customer at one instant: the three measures, their scores and the two memberships."""

    recency_ms: int | None
    """Since the last order; None for who never bought."""
    orders: int
    net_minor: int
    scores: tuple[int, int, int]
    """R, F and M, 1 to 5 each; all 0 for who never bought."""
    rfm: str
    lifecycle: str


def standings(source: Path, at_ms: int, fresh_days: int = FRESH_DAYS) -> dict[str, Standing]:
    """Return every customer with an invoice at `at_ms` or before, by the default definitions.

    `fresh_days`, at most 60, is the one rule of them that can be another.
    """
    with duckdb.connect() as database:
        rows = database.execute(
            SQL, {"source": str(source), "at_ms": at_ms, "fresh_days": fresh_days}
        ).fetchall()
    return {
        customer: Standing(recency_ms, orders, net_minor, (r, f, m), rfm, lifecycle)
        for customer, recency_ms, orders, net_minor, r, f, m, rfm, lifecycle in rows
    }
