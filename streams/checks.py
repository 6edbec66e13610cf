"""The checks a decoded event must pass: each names the field, what was expected and got, and the fix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Protocol

import numpy as np

import errors
from schemas.decoding import Group
from streams.columns import empty_strings, int64s_of, labels_of, strings_of, valid_of
from streams.customers.facts import Bools, Int64s, RefundKind, Strings, UInt8s
from streams.segments.currencies import Rates

ID_BYTES_MAX = 256
AMOUNT_LIMIT_MINOR = 1 << 53
"""Amounts stay below this, so that a reader whose numbers are doubles still sees them exactly."""
TIME_LIMIT_MS = 253_402_300_800_000
"""Year 10000, UTC."""
FUTURE_MS_MAX = 300_000
"""How far an event may be ahead of the broker's append time."""

_REFUND_KINDS = {kind.name.lower(): kind for kind in RefundKind if kind is not RefundKind.NONE}
_SHOWN_MAX = 40


class Record(Protocol):
    """What is read of a consumed record; aiokafka's ConsumerRecord is one."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """When the broker appended it, UTC ms; below 0 when the broker does not say."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


class Checks:
    """The rows of one group that failed a check so far, each with its first error."""

    def __init__(self, group: Group, records: Sequence[Record], partition: int) -> None:
        self.group = group
        self.partition = partition
        if len(group.rows) == len(records):
            self.records = records
        else:
            self.records = [records[row] for row in group.rows.tolist()]
        self.failed: dict[int, errors.RecordError] = {}

    def __len__(self) -> int:
        return len(self.records)

    def refuse(
        self,
        rows: Iterable[int],
        field: str,
        expected: str,
        got: Callable[[int], str],
        fix: str,
        error: type[errors.RecordError] = errors.InvalidField,
    ) -> None:
        """Fail `rows`, unless they have failed already."""
        for row in rows:
            if row not in self.failed:
                self.failed[row] = error(
                    f"{self.group.type}.{field}: expected {expected}, got {got(row)}; {fix}"
                )

    def refuse_where(
        self,
        failing: Bools,
        field: str,
        expected: str,
        got: Callable[[int], str],
        fix: str,
        error: type[errors.RecordError] = errors.InvalidField,
    ) -> None:
        """Fail the rows where `failing` is set, unless they have failed already."""
        if failing.any():
            self.refuse(np.flatnonzero(failing).tolist(), field, expected, got, fix, error)

    def good(self) -> Int64s:
        """Return the rows that passed every check, ascending."""
        passed = np.ones(len(self), np.bool_)
        passed[list(self.failed)] = False
        return np.flatnonzero(passed)


def check_ids(checks: Checks, ids: Mapping[str, Strings]) -> None:
    """Refuse ids (by field) of 0 or more than ID_BYTES_MAX bytes."""
    # One comparison for all ids and both ends: 0 - 1 wraps around to the largest number.
    lengths = np.concatenate([each.offsets[1:] - each.offsets[:-1] for each in ids.values()])
    if int((lengths - 1).view(np.uint64).max()) < ID_BYTES_MAX:
        return
    for field, each in ids.items():
        error = errors.InvalidCustomerId if field == "customer_id" else errors.InvalidField
        _refuse_ids(checks, field, each, (each.lengths == 0) | (each.lengths > ID_BYTES_MAX), error)


def optional_id(checks: Checks, field: str) -> Strings:
    """Return a nullable column, null as empty, refusing ids that are there but empty or too long."""
    column = checks.group.batch.column(field)
    if column.null_count == len(column):
        return empty_strings(len(column))
    ids = strings_of(column)
    lengths = ids.lengths
    wrong = ((lengths == 0) & valid_of(column)) | (lengths > ID_BYTES_MAX)
    _refuse_ids(checks, field, ids, wrong, errors.InvalidField)
    return ids


def _refuse_ids(
    checks: Checks, field: str, ids: Strings, wrong: Bools, error: type[errors.RecordError]
) -> None:
    checks.refuse_where(
        wrong,
        field,
        f"1 to {ID_BYTES_MAX} bytes of UTF-8",
        lambda row: _shown(ids[row]),
        "write the id itself, or a hash of it when it is longer",
        error,
    )


def check_keys(checks: Checks, customer: Strings) -> None:
    """Refuse records whose key is not their customer id: their order across partitions is lost."""
    keys = [key or b"" for key in map(attrgetter("key"), checks.records)]
    # Equal bytes end to end and equal lengths make equal keys, in two comparisons for all rows.
    if b"".join(keys) == customer.data.tobytes() and list(map(len, keys)) == customer.lengths.tolist():
        return
    rows = [row for row, (key, wanted) in enumerate(zip(keys, customer, strict=True)) if key != wanted]
    checks.refuse(
        rows,
        "customer_id",
        "the record's key",
        lambda row: f"{_shown(customer[row])} under key {_shown_key(checks.records[row].key)}",
        "write the record with its customer id as the key",
        errors.WrongKey,
    )


def check_names(checks: Checks, field: str, bytes_max: int) -> None:
    """Refuse rows whose text in a column without nulls has 0 or more than `bytes_max` bytes."""
    names = strings_of(checks.group.batch.column(field))
    checks.refuse_where(
        # 0 - 1 wraps around to the largest number.
        (names.lengths - 1).view(np.uint64) >= bytes_max,
        field,
        f"1 to {bytes_max} bytes of UTF-8",
        lambda row: _shown(names[row]),
        "a name is short; put what varies into properties",
    )


def amounts(checks: Checks, rates: Rates) -> Int64s:
    """Return int64[n] amounts in minor units of the reporting currency; 0 for rows refused."""
    batch = checks.group.batch
    amount = int64s_of(batch.column("amount_minor"))
    if int(amount.view(np.uint64).max()) >= AMOUNT_LIMIT_MINOR:
        wrong = amount.view(np.uint64) >= AMOUNT_LIMIT_MINOR
        _refuse_amounts(checks, amount, wrong, f"0 to {AMOUNT_LIMIT_MINOR - 1}")
    labels, index = labels_of(batch.column("currency"))
    converted = np.zeros(len(amount), np.int64)
    for label, currency in enumerate(labels):
        rows = np.arange(len(amount)) if index is None else np.flatnonzero(index == label)
        if currency not in rates:
            _refuse_currency(checks, rows, currency, rates)
            continue
        limit = rates.limit_minor(currency)
        if int(amount[rows].max()) > limit:
            above = np.zeros(len(amount), np.bool_)
            above[rows] = amount[rows] > limit
            _refuse_amounts(checks, amount, above, f"at most {limit} in {currency}")
        if checks.failed:
            rows = rows[~np.isin(rows, list(checks.failed))]
        converted[rows] = rates.convert(amount[rows], currency)
    return converted


def _refuse_amounts(checks: Checks, amount: Int64s, wrong: Bools, expected: str) -> None:
    checks.refuse_where(
        wrong,
        "amount_minor",
        f"{expected} (minor units)",
        lambda row: str(amount[row]),
        "money given back is a Refunded with a positive amount",
    )


def _refuse_currency(checks: Checks, rows: Int64s, currency: str, rates: Rates) -> None:
    checks.refuse(
        rows.tolist(),
        "currency",
        f"one with a rate ({', '.join(sorted({rates.reporting_currency, *rates.declared}))})",
        lambda _: _shown(currency.encode()),
        "declare its rate in segments.yaml, then replay the dead letter",
        errors.CurrencyWithoutRate,
    )


def refund_kinds(checks: Checks) -> UInt8s:
    """Return uint8[n] RefundKind; a kind the writer's schema does not say is refused, never guessed."""
    labels, index = labels_of(checks.group.batch.column("kind"))
    codes = np.array([_REFUND_KINDS.get(label, RefundKind.NONE) for label in labels], np.uint8)
    kinds = np.full(len(checks), codes[0]) if index is None else codes[index]
    checks.refuse_where(
        kinds == RefundKind.NONE,
        "kind",
        " or ".join(_REFUND_KINDS),
        lambda _: "'unknown'",
        "upgrade the workers if the kind is new, else write one of these",
    )
    return kinds


def check_times(checks: Checks, field: str, times_ms: Int64s, *, future_ms_max: int | None) -> None:
    """Refuse times outside 1970..9999, and further than `future_ms_max` after the append time."""
    if int(times_ms.view(np.uint64).max()) >= TIME_LIMIT_MS:
        checks.refuse_where(
            times_ms.view(np.uint64) >= TIME_LIMIT_MS,
            field,
            "a time from 1970 to 9999 in UTC ms",
            lambda row: str(times_ms[row]),
            "check the unit: milliseconds, not seconds or microseconds",
        )
    if future_ms_max is None:
        return
    latest = int(times_ms.max()) - future_ms_max
    if latest <= min(map(attrgetter("timestamp"), checks.records)):
        return
    appended = np.fromiter(map(attrgetter("timestamp"), checks.records), np.int64, len(checks))
    checks.refuse_where(
        (times_ms - future_ms_max > appended) & (appended >= 0),
        field,
        f"at most {future_ms_max} ms after the record was appended",
        lambda row: f"{times_ms[row]} in a record appended at {appended[row]}",
        "set the clock of the writer, which is ahead",
    )


def check_tick_keys(checks: Checks) -> None:
    """Refuse ticks whose key is not the partition's number: they were meant for another partition."""
    wanted = str(checks.partition).encode()
    checks.refuse(
        [row for row, record in enumerate(checks.records) if record.key != wanted],
        "key",
        f"the partition's number {_shown(wanted)}",
        lambda row: _shown_key(checks.records[row].key),
        "write one tick to each partition, keyed by its number",
        errors.WrongKey,
    )


def _shown(text: bytes) -> str:
    """Return the start of a text for a message."""
    start = text[:_SHOWN_MAX].decode("utf-8", "replace")
    return f"{start!r}{'…' if len(text) > _SHOWN_MAX else ''} ({len(text)} bytes)"


def _shown_key(key: bytes | None) -> str:
    return "null" if key is None else _shown(key)
