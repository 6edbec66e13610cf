"""The mapping from invoice lines to events, on the whole data set and on tables made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo.purchases import Coverage, Invoices, Line, Purchase, Refund

Row = tuple[str, str, int, str, float, int | None]


def ms(text: str) -> int:
    """Return a UTC time in milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def written(folder: Path, rows: Sequence[Row]) -> Path:
    """Write (invoice, sku, quantity, time, price, customer) rows the way the committed file holds them."""
    names = ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")
    columns = list(zip(*rows, strict=True))
    types = (pa.string(), pa.string(), pa.int32(), pa.timestamp("ms"), pa.float64(), pa.int32())
    times = [datetime.fromisoformat(str(text)) for text in columns[3]]
    arrays = [
        pa.array(times if name == "InvoiceDate" else column, type_)
        for name, column, type_ in zip(names, columns, types, strict=True)
    ]
    path = folder / "lines.parquet"
    pq.write_table(pa.table(arrays, names=list(names)), path)
    return path


@pytest.fixture(scope="module")
def invoices() -> Invoices:
    """The whole data set."""
    return Invoices()


def test_every_line_of_the_data_set_is_accounted_for(invoices: Invoices) -> None:
    """Mapped and dropped lines, by reason, add up to the 1,044,847 lines of the file."""
    assert invoices.coverage == Coverage(
        lines=1_044_847,
        lines_purchased=791_105,
        lines_refunded=18_446,
        lines_of_zero_total=9,
        dropped={"no customer": 235_287},
    )


def test_the_data_set_makes_the_known_events(invoices: Invoices) -> None:
    """44,876 invoices of 5,942 customers: 36,969 purchases, 6 of nothing, 7,901 refunds."""
    events = list(invoices.events())
    refunds = [event for event in events if isinstance(event, Refund)]
    nothing = [event for event in events if isinstance(event, Purchase) and event.amount_minor == 0]

    assert (len(invoices), len(events), invoices.customers) == (44_876, 44_876, 5_942)
    assert (len(refunds), len(nothing)) == (7_901, 6)
    assert all(event.amount_minor > 0 for event in refunds)


def test_events_come_by_time_then_invoice(invoices: Invoices) -> None:
    """The order of the replay is total and does not depend on the order of the file."""
    keys = [
        (event.occurred_at_ms, event.order_id if isinstance(event, Purchase) else event.refund_id)
        for event in invoices.events()
    ]

    assert keys == sorted(keys)
    assert invoices.first_ms == keys[0][0] == ms("2009-12-01 07:45")


def test_the_great_purchase_and_its_cancellation(invoices: Invoices) -> None:
    """Customer 12346 bought for 77,183.60 and cancelled it 16 minutes later, unlinked."""
    *_, bought, cancelled = invoices.events(frozenset({"12346"}))

    assert bought == Purchase(
        ms("2011-01-18 10:01"), "12346", "541431", 7_718_360, (Line("23166", 74_215, 104),)
    )
    assert cancelled == Refund(ms("2011-01-18 10:17"), "12346", "C541433", 7_718_360)


def test_an_invoice_is_one_event_at_its_first_time_with_every_line(tmp_path: Path) -> None:
    """Lines at several times make one purchase at the first of them; exact duplicates and negatives count."""
    rows: list[Row] = [
        ("500001", "B", 2, "2010-05-01 09:31", 1.25, 7),
        ("500001", "A", 3, "2010-05-01 09:30", 2.00, 7),
        ("500001", "B", 2, "2010-05-01 09:31", 1.25, 7),
        ("500001", "C", -1, "2010-05-01 09:30", 4.00, 7),
    ]

    (event,) = Invoices(written(tmp_path, rows)).events()

    lines = (Line("B", 2, 125), Line("A", 3, 200), Line("B", 2, 125), Line("C", -1, 400))
    assert event == Purchase(ms("2010-05-01 09:30"), "7", "500001", 700, lines)


@pytest.mark.parametrize(
    ("price", "quantity", "amount_minor"),
    [(0.001, 1, 0), (0.001, 5, 0), (0.001, 6, 1), (0.001, 15, 2), (0.001, 25, 2), (0.015, 1, 2)],
)
def test_totals_round_half_to_even_once(
    tmp_path: Path, price: float, quantity: int, amount_minor: int
) -> None:
    """The exact sum of thousandths is rounded, not each line; a tie goes to the even penny."""
    rows: list[Row] = [("500001", "A", 1, "2010-05-01 09:30", price, 7)] * quantity

    (event,) = Invoices(written(tmp_path, rows)).events()

    assert event.amount_minor == amount_minor


def test_a_negative_total_is_a_refund_whatever_the_number_says(tmp_path: Path) -> None:
    """An invoice without the C that adds up to less than nothing gives money back."""
    rows: list[Row] = [
        ("500001", "A", 1, "2010-05-01 09:30", 5.00, 7),
        ("500001", "B", -2, "2010-05-01 09:30", 4.00, 7),
        ("C50002", "A", -1, "2010-05-01 10:00", 5.00, 7),
        ("500003", "D", 1, "2010-05-01 11:00", 0.00, 8),
    ]

    invoices = Invoices(written(tmp_path, rows))

    assert list(invoices.events()) == [
        Refund(ms("2010-05-01 09:30"), "7", "500001", 300),
        Refund(ms("2010-05-01 10:00"), "7", "C50002", 500),
        Purchase(ms("2010-05-01 11:00"), "8", "500003", 0, (Line("D", 1, 0),)),
    ]
    assert invoices.coverage == Coverage(4, 0, 3, 1, {"no customer": 0})


def test_lines_without_a_customer_are_dropped_and_counted(tmp_path: Path) -> None:
    """What has no customer becomes no event, and the count says so."""
    rows: list[Row] = [
        ("500001", "A", 1, "2010-05-01 09:30", 5.00, None),
        ("500002", "A", 1, "2010-05-01 09:30", 5.00, 7),
    ]

    invoices = Invoices(written(tmp_path, rows))

    assert [event.customer_id for event in invoices.events()] == ["7"]
    assert invoices.coverage.dropped == {"no customer": 1}


def test_a_cancellation_that_pays_is_refused(tmp_path: Path) -> None:
    """There is no rule for a C invoice above zero, so it is named instead of guessed at."""
    rows: list[Row] = [("C50001", "A", 1, "2010-05-01 09:30", 5.00, 7)]

    with pytest.raises(ValueError, match="C50001"):
        Invoices(written(tmp_path, rows))


def test_a_price_finer_than_a_thousandth_is_refused(tmp_path: Path) -> None:
    """Totals could not be exact, so the file is refused."""
    rows: list[Row] = [("500001", "A", 1, "2010-05-01 09:30", 0.0005, 7)]

    with pytest.raises(ValueError, match="thousandth"):
        Invoices(written(tmp_path, rows))


def test_a_coverage_that_loses_a_line_cannot_be_made() -> None:
    """The figures must add up, or there is no report."""
    with pytest.raises(ValueError, match="every line"):
        Coverage(10, 5, 1, 1, {"no customer": 2})
