"""What events add to the series a definition declares: by the column, by the row only where a rule asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pyarrow as pa

from streams.columns import int64s_of, labels_of
from streams.customers.facts import Bools, Int64s, SeriesEntries, Strings
from streams.customers.hashing import KeyedHash
from streams.customers.series import MILLIONTHS, Comparison, Joined, Series, Where
from streams.properties import Properties, Property, Refuse, compare, holds
from streams.segments.currencies import EXPONENTS, Rates

VALUE_MAX = 1 << 53
"""The largest number, in millionths, a series adds up: 9,007,199,254.740991 both ways."""

LINES_MAX = (1 << 62) - 1
"""The most all lines of one order are taken to be worth, in minor units of its currency."""

_TEXTS = ("line_id", "sku", "name", "category")


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of n orders, end to end; order i has those from offsets[i] to offsets[i + 1]."""

    offsets: Int64s
    items: pa.StructArray
    quantity: Int64s
    unit_price: Int64s
    currency: list[str]
    """Of each order."""

    @property
    def order(self) -> Int64s:
        """int64[lines]: the order each line belongs to."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def sums(self, values: Int64s) -> Int64s:
        """Return int64[n]: the sum over each order's lines of `values`, one a line."""
        before = np.concatenate((np.zeros(1, values.dtype), values.cumsum()))
        total = before[self.offsets[1:]] - before[self.offsets[:-1]]
        clipped: Int64s = np.clip(total, 0, LINES_MAX).astype(np.int64)
        return clipped

    def values(self) -> Int64s:
        """Return what each line is worth; as Python's integers where int64 might be too short."""
        largest = int(np.abs(self.quantity).max()) * int(np.abs(self.unit_price).max())
        if largest * len(self.quantity) < LINES_MAX:
            return self.quantity * self.unit_price
        product: Int64s = self.quantity.astype(object) * self.unit_price.astype(object)
        return product


class SeriesReader:
    """Finds what events add to `series`. Values of `distinct` are hashed under the key of the partition."""

    def __init__(
        self, series: Sequence[Series], rates: Rates, fact_key: bytes, places: Sequence[int] | None = None
    ) -> None:
        """`places` are the numbers of the series in the table, ascending; 0, 1, ... unless given."""
        self._rates, self._hash = rates, KeyedHash(fact_key)
        numbered = list(zip(range(len(series)) if places is None else places, series, strict=True))
        self._orders = [(k, each) for k, each in numbered if each.event == "order"]
        self._activities: dict[str, list[tuple[int, Series]]] = {}
        for k, each in numbered:
            if each.event != "order" and each.name is not None:
                self._activities.setdefault(each.name, []).append((k, each))
        self._days = np.array(
            [k for k, each in numbered if each.event == "active_day" and each.name is None], np.int64
        )

    def of_sign_ups(self, count: int) -> SeriesEntries:
        """Return what `count` SignedUp add: days on which something was done."""
        return self._in_order([self._of_days(np.arange(count))])

    def of_orders(self, batch: pa.RecordBatch) -> SeriesEntries:
        """Return what Purchased add; `row` is that of the batch."""
        found = [self._of_days(np.arange(len(batch)))]
        if self._orders:
            items = batch.column("items")
            offsets = np.frombuffer(items.buffers()[1], np.int32, len(items) + 1).astype(np.int64)
            if offsets[-1]:
                found += self._of_lines(_lines(batch, items.values, offsets))
        return self._in_order(found)

    def of_activities(self, batch: pa.RecordBatch, properties: Properties, refuse: Refuse) -> SeriesEntries:
        """Return what Activity add, refusing rows with a number too large for the series that adds it up."""
        found = [self._of_days(np.arange(len(batch)))]
        if self._activities:
            names, index = labels_of(batch.column("name"))
            columns: dict[str, Int64s] = {}
            for label, name in enumerate(names):
                rows = np.arange(len(batch)) if index is None else np.flatnonzero(index == label)
                for k, series in self._activities.get(name, ()):
                    found.append(self._of_activity(k, series, rows, properties, columns, refuse))
        return self._in_order(found)

    def _of_days(self, rows: Int64s) -> SeriesEntries:
        """Return one entry of 1 for each row in every series of days whatever was done."""
        days = len(self._days)
        return _entries(np.repeat(rows, days), np.tile(self._days, len(rows)))

    def _of_activity(
        self,
        k: int,
        series: Series,
        rows: Int64s,
        properties: Properties,
        columns: dict[str, Int64s],
        refuse: Refuse,
    ) -> SeriesEntries:
        """Return what the activities of its name add to one series."""
        if series.where is None and series.value is None:
            return _entries(rows, np.full(len(rows), k))

        def value_of(row: int, field: str) -> Property | None:
            if field not in columns:
                columns[field] = properties.entries_of(field)
            entry = int(columns[field][row])
            return properties.value(entry) if entry >= 0 else None

        kept: list[tuple[int, Property]] = []
        for row in rows.tolist():
            if series.where is not None and not holds(
                series.where,
                lambda field, row=row: value_of(row, field),  # type: ignore[misc]  # Bound now.
            ):
                continue
            value = MILLIONTHS if series.value is None else value_of(row, series.value)
            if value is None or (not series.distinct and type(value) is not int):
                continue
            if series.value is not None and not series.distinct and abs(int(value)) > VALUE_MAX:
                shown = f"{series.value[:40]!r} = {Fraction(int(value), MILLIONTHS)}"
                refuse(row, f"numbers that are added up within ±{VALUE_MAX / MILLIONTHS}", shown)
                continue
            kept.append((row, value))
        at = np.array([row for row, _ in kept], np.int64)
        values = [value for _, value in kept]
        if series.distinct:
            return _entries(at, np.full(len(at), k), self._hashed(values))
        if series.value is None:
            return _entries(at, np.full(len(at), k))
        return _entries(at, np.full(len(at), k), np.array(values, np.int64))

    def _of_lines(self, lines: _Lines) -> list[SeriesEntries]:
        """Return what the lines of orders add to each series of orders."""
        found = []
        value, whole = lines.values(), None
        for k, series in self._orders:
            matching = (
                np.ones(len(value), np.bool_) if series.where is None else self._matching(series.where, lines)
            )
            if series.distinct:
                assert series.value is not None, "what is told apart is named"
                found.append(self._of_distinct(k, series.value, lines, matching))
                continue
            whole = lines.sums(value) if whole is None else whole
            rows = np.unique(lines.order[matching])
            part = lines.sums(value * matching)[rows]
            total = whole[rows]
            found.append(_entries(rows, np.full(len(rows), k), np.minimum(part, total), total))
        return found

    def _of_distinct(self, k: int, field: str, lines: _Lines, matching: Bools) -> SeriesEntries:
        """Return one entry per order and distinct value among its matching lines."""
        values = _field(lines, field)
        there = [line for line in np.flatnonzero(matching).tolist() if values[line] is not None]
        hashed = self._hashed([value for line in there if (value := values[line]) is not None])
        if not there:
            return SeriesEntries.none()
        pairs = np.unique(np.stack((lines.order[there], hashed), axis=1), axis=0)
        return _entries(pairs[:, 0], np.full(len(pairs), k), pairs[:, 1])

    def _matching(self, where: Where, lines: _Lines) -> Bools:
        """Return bool[lines]: the lines for which the condition is true."""
        if isinstance(where, Joined):
            parts = [self._matching(part, lines) for part in where.parts]
            joined: Bools = (np.logical_and if where.all else np.logical_or).reduce(parts)
            return joined
        if not isinstance(where, Comparison):
            return ~self._matching(where.part, lines)
        if where.field in _TEXTS:
            return _texts_match(where, lines.items.field(where.field))
        if where.field == "quantity":
            return _numbers_match(where, lines.quantity, Fraction(1, MILLIONTHS))
        if where.field != "unit_price":
            return np.zeros(len(lines.quantity), np.bool_)
        matching = np.zeros(len(lines.quantity), np.bool_)
        order_currency = np.array(lines.currency, object)
        for currency in sorted(set(lines.currency)):
            mine = (order_currency == currency)[lines.order]
            if currency in self._rates:
                rate = self._rates.declared.get(currency, Fraction(1))
                unit = Fraction(10 ** EXPONENTS[currency], MILLIONTHS) / rate
                matching |= mine & _numbers_match(where, lines.unit_price, unit)
        return matching

    def _hashed(self, values: Sequence[Property]) -> Int64s:
        """Return int64[n]: a keyed hash of each value and its type."""
        texts = Strings.from_list([f"{type(value).__name__}:{value}".encode() for value in values])
        return self._hash.hash(texts).view(np.int64)

    @staticmethod
    def _in_order(found: list[SeriesEntries]) -> SeriesEntries:
        found = [each for each in found if len(each)]
        if not found:
            return SeriesEntries.none()
        row, series = (np.concatenate([getattr(each, name) for each in found]) for name in ("row", "series"))
        value, whole = (
            np.concatenate([getattr(each, name) for each in found]) for name in ("value", "whole")
        )
        return SeriesEntries(row, series, value, whole).take(np.lexsort((value, series, row)))


def _entries(
    row: Int64s, series: Int64s, value: Int64s | None = None, whole: Int64s | None = None
) -> SeriesEntries:
    ones, zeros = np.ones(len(row), np.int64), np.zeros(len(row), np.int64)
    return SeriesEntries(row, series, ones if value is None else value, zeros if whole is None else whole)


def _lines(batch: pa.RecordBatch, items: pa.StructArray, offsets: Int64s) -> _Lines:
    labels, index = labels_of(batch.column("currency"))
    currency = [labels[0]] * len(batch) if index is None else [labels[label] for label in index.tolist()]
    return _Lines(
        offsets,
        items,
        int64s_of(items.field("quantity")),
        int64s_of(items.field("unit_price_minor")),
        currency,
    )


def _field(lines: _Lines, field: str) -> list[Property | None]:
    """Return a field of every line."""
    if field == "quantity":
        quantities: list[Property | None] = lines.quantity.tolist()
        return quantities
    if field == "unit_price":
        orders, prices = lines.order.tolist(), lines.unit_price.tolist()
        return [f"{price} {lines.currency[order]}" for price, order in zip(prices, orders, strict=True)]
    texts: list[Property | None] = (
        lines.items.field(field).to_pylist() if field in _TEXTS else [None] * len(lines.quantity)
    )
    return texts


def _texts_match(where: Comparison, column: pa.Array) -> Bools:
    """Compare the distinct texts of a column; a null matches nothing."""
    encoded = column.dictionary_encode()
    operands = where.operand if isinstance(where.operand, tuple) else (where.operand,)
    texts = tuple(operand for operand in operands if isinstance(operand, str))
    operand = texts if where.operator == "in" else (texts or ("",))[0]
    truths = [
        bool(texts) and compare(where.operator, text, operand) for text in encoded.dictionary.to_pylist()
    ]
    # A null has no index: it reads the last entry.
    codes = encoded.indices.fill_null(len(truths)).to_numpy(zero_copy_only=False)
    matching: Bools = np.array([*truths, False], np.bool_)[codes]
    return matching


def _numbers_match(where: Comparison, numbers: Int64s, unit: Fraction) -> Bools:
    """Compare whole numbers, exactly, with operands that are `unit` times as large in millionths."""
    operands = where.operand if isinstance(where.operand, tuple) else (where.operand,)
    edges = [operand * unit for operand in operands if type(operand) is int]
    if not edges:
        return np.zeros(len(numbers), np.bool_)
    wide = numbers.astype(object)
    if where.operator in ("in", "==", "!="):
        equal = np.zeros(len(numbers), np.bool_)
        for edge in edges:
            equal |= (wide == edge.numerator).astype(np.bool_) if edge.denominator == 1 else False
        return ~equal if where.operator == "!=" else equal
    floor, ceiling = (
        edges[0].numerator // edges[0].denominator,
        -(-edges[0].numerator // edges[0].denominator),
    )
    compared = {
        "<": lambda: wide < ceiling, "<=": lambda: wide <= floor,
        ">": lambda: wide > floor, ">=": lambda: wide >= ceiling,
    }[where.operator]()  # fmt: skip
    matching: Bools = compared.astype(np.bool_)
    return matching
