"""The invoice lines of Online Retail II as purchases and refunds, every line accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Int64s = npt.NDArray[np.int64]

INVOICE_LINES = Path(__file__).parent / "data" / "online_retail_ii.parquet"
CURRENCY = "GBP"
COLUMNS = ("InvoiceNo", "StockCode", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID")


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an invoice; the quantity may be negative."""

    sku: str
    quantity: int
    unit_price_minor: int


@dataclass(frozen=True, slots=True)
class Purchase:
    """An invoice of 0 or more; a total of 0 makes the customer known and counts for nothing."""

    occurred_at_ms: int
    customer_id: str
    order_id: str
    amount_minor: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Refund:
    """An invoice that gave money back; nothing in the source says for which order."""

    occurred_at_ms: int
    customer_id: str
    refund_id: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """What became of every line of the source: the figures add up to `lines`."""

    lines: int
    lines_purchased: int
    lines_refunded: int
    lines_of_zero_total: int
    dropped: dict[str, int]
    """Reason to lines left out."""

    def __post_init__(self) -> None:
        mapped = self.lines_purchased + self.lines_refunded + self.lines_of_zero_total
        if mapped + sum(self.dropped.values()) != self.lines:
            raise ValueError(f"{self} does not account for every line")


class Invoices:
    """Invoices of identified customers, in order of (time, invoice).

    Held as columns (about 40 MB for the whole data set); the events are made one at a time. An invoice
    happened at the first of its timestamps. Totals are exact sums of thousandths, rounded half-even to minor
    units. A ValueError when the source holds what the mapping has no rule for: a price finer than a
    thousandth, or a cancellation that adds up to a payment.
    """

    def __init__(self, source: Path = INVOICE_LINES) -> None:
        table = pq.read_table(source, columns=list(COLUMNS))
        identified = table.filter(pc.is_valid(table["CustomerID"]))
        self._quantities: Int64s = identified["Quantity"].to_numpy().astype(np.int64)
        prices_milli = _thousandths(identified["UnitPrice"].to_numpy())
        self._prices_minor = _minor_units(prices_milli)
        skus = identified["StockCode"].combine_chunks().dictionary_encode()
        self._sku_names: list[str] = skus.dictionary.to_pylist()
        self._skus = skus.indices.to_numpy()
        times_ms = identified["InvoiceDate"].cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy()
        codes = identified["InvoiceNo"].combine_chunks().dictionary_encode()
        customers: Int64s = identified["CustomerID"].to_numpy().astype(np.int64)

        # One group per (invoice, customer): an order is identified within its customer.
        pairs = codes.indices.to_numpy().astype(np.int64) << 32 | customers
        groups, group_of_line = np.unique(pairs, return_inverse=True)
        first_ms = np.full(len(groups), np.iinfo(np.int64).max, np.int64)
        np.minimum.at(first_ms, group_of_line, times_ms)
        totals_milli = np.zeros(len(groups), np.int64)
        np.add.at(totals_milli, group_of_line, self._quantities * prices_milli)
        numbers = np.asarray(codes.dictionary.to_pylist())[groups >> 32]

        order = np.lexsort((groups & 0xFFFFFFFF, numbers, first_ms))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        # Stable, so that the lines of an invoice keep the order of the source.
        self._lines = np.argsort(rank[group_of_line], kind="stable")
        self._starts = np.zeros(len(order) + 1, np.int64)
        np.cumsum(np.bincount(rank[group_of_line], minlength=len(order)), out=self._starts[1:])
        self._numbers = numbers[order]
        self._customers = (groups & 0xFFFFFFFF)[order]
        self._times_ms = first_ms[order]
        self._totals_minor = _minor_units(totals_milli[order])
        self._refunds = _refunds(self._numbers, self._totals_minor)
        self.coverage = self._cover(len(table))

    def __len__(self) -> int:
        return len(self._times_ms)

    @property
    def first_ms(self) -> int:
        """When the first invoice happened; an IndexError if there is none."""
        return int(self._times_ms[0])

    @property
    def customers(self) -> int:
        """How many customers the invoices name."""
        return len(np.unique(self._customers))

    def events(self, customers: frozenset[str] | None = None) -> Iterator[Purchase | Refund]:
        """Yield the invoices (of the named customers only, if given) by (time, invoice)."""
        for at, (number, customer) in enumerate(zip(self._numbers, self._customers, strict=True)):
            customer_id = str(customer)
            if customers is not None and customer_id not in customers:
                continue
            when, total = int(self._times_ms[at]), int(self._totals_minor[at])
            if self._refunds[at]:
                yield Refund(when, customer_id, str(number), -total)
            else:
                yield Purchase(when, customer_id, str(number), total, self._lines_of(at))

    def _lines_of(self, at: int) -> tuple[Line, ...]:
        rows = self._lines[self._starts[at] : self._starts[at + 1]]
        skus = (self._sku_names[code] for code in self._skus[rows].tolist())
        return tuple(map(Line, skus, self._quantities[rows].tolist(), self._prices_minor[rows].tolist()))

    def _cover(self, lines: int) -> Coverage:
        sizes = np.diff(self._starts)
        nothing = ~self._refunds & (self._totals_minor == 0)
        return Coverage(
            lines=lines,
            lines_purchased=int(sizes[~self._refunds & ~nothing].sum()),
            lines_refunded=int(sizes[self._refunds].sum()),
            lines_of_zero_total=int(sizes[nothing].sum()),
            dropped={"no customer": lines - len(self._quantities)},
        )


def _refunds(numbers: npt.NDArray[np.str_], totals_minor: Int64s) -> npt.NDArray[np.bool_]:
    """Return which invoices gave money back: a number that starts with C, or a negative total."""
    cancelled = np.char.startswith(numbers, "C")
    wrong = numbers[cancelled & (totals_minor > 0)]
    if len(wrong):
        raise ValueError(f"cancellations that add up to a payment: {', '.join(wrong[:5])}")
    refunds: npt.NDArray[np.bool_] = cancelled | (totals_minor < 0)
    return refunds


def _thousandths(prices: npt.NDArray[np.float64]) -> Int64s:
    """Return prices in whole thousandths, the finest the source uses."""
    scaled = prices * 1000
    whole = np.rint(scaled)
    if np.any(np.abs(scaled - whole) > 1e-4):
        raise ValueError("a price is finer than a thousandth")
    thousandths: Int64s = whole.astype(np.int64)
    return thousandths


def _minor_units(thousandths: Int64s) -> Int64s:
    """Round thousandths to hundredths, half to even."""
    whole, rest = np.divmod(thousandths, 10)
    up = (rest > 5) | ((rest == 5) & (whole % 2 == 1))
    rounded: Int64s = whole + up
    return rounded
