"""Records of one partition to facts, ticks and dead letters: the first stage of a step. Pure CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Protocol

import numpy as np

import errors
from schemas.decoding import decode
from streams import checks as checking
from streams.change_reading import changes_of
from streams.checks import Checks, Record
from streams.columns import empty_strings, int64s_of, joined, span_of, strings_of
from streams.customers.changes import Change
from streams.customers.facts import Erasures, Facts, Int64s, Kind, SeriesEntries, Strings, TraitValue, UInt8s
from streams.properties import ENCODED_BYTES_MAX as PROPERTY_BYTES_MAX
from streams.properties import NAME_BYTES_MAX, Properties
from streams.segments.currencies import Rates
from streams.series_reading import SeriesReader
from streams.traits import ENCODED_BYTES_MAX, encoded_bytes, traits_of

SIGN_UP_SOURCE = "signup_source"
"""The trait that holds SignedUp.source, unless the event sets one of that name itself."""

_KINDS = {
    "SignedUp": Kind.SIGNED_UP,
    "ProfileUpdated": Kind.PROFILE_UPDATED,
    "Purchased": Kind.PURCHASED,
    "Refunded": Kind.REFUNDED,
    "PlanChanged": Kind.PLAN_CHANGED,
    "TicketChanged": Kind.TICKET_CHANGED,
    "Activity": Kind.ACTIVITY,
}
_NATURAL_IDS = {Kind.PURCHASED: "order_id", Kind.REFUNDED: "refund_id"}
_ENTITY_IDS = {Kind.PLAN_CHANGED: "subscription_id", Kind.TICKET_CHANGED: "ticket_id"}


_NO_ENTRIES = SeriesEntries.none()
_ENTRY_COLUMNS = ("row", "series", "value", "whole")


class Priced(Protocol):
    """What is asked of a definition."""

    @property
    def rates(self) -> Rates:
        """The currencies that have a rate, and their conversion."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What n records say. Every position (an index into the records) is in exactly one part."""

    facts: Facts
    """In log order."""
    tick_position: Int64s
    """Ascending."""
    tick_ms: Int64s
    """The event time each tick says has been reached, in log order; not checked to be ascending."""
    dead: tuple[tuple[int, errors.RecordError], ...]
    """(position, why), in log order."""
    erasures: Erasures


@dataclass(frozen=True, slots=True)
class _Rows:
    """The good rows of one type, in log order: Facts, but with sparse columns by position."""

    position: Int64s
    kind: UInt8s
    customer: Strings
    event_id: Strings
    occurred_at_ms: Int64s
    natural_id: Strings
    order_id: Strings
    refund_kind: UInt8s
    amount_minor: Int64s
    traits: dict[int, Mapping[str, TraitValue]]
    account_id: dict[int, str]
    changes: dict[int, Change]
    entries: SeriesEntries
    """By position."""


def read(
    records: Sequence[Record], *, partition: int, definition: Priced, series: SeriesReader | None = None
) -> Reading:
    """Decode and check records of one partition.

    A record that fails is dead, for the first check it fails: a value; framing, fingerprint,
    decoding, UTF-8; ids of 1 to 256 bytes; the key equal to the customer id (a Tick's: to the
    partition's number); amount and currency; refund kind; traits; subscription or ticket; activity
    and properties; time. The message names place, field, value and fix. Amounts are converted with
    `definition.rates`. `series` finds what the events add to declared series; None: there are none.
    Never raises for what a record holds.
    """
    decoded = decode(list(map(attrgetter("value"), records)))
    dead = {failure.position: failure.error for failure in decoded.failures}
    read_rows: list[_Rows] = []
    ticks: list[tuple[Int64s, Int64s]] = []
    erased: list[Erasures] = []
    for group in decoded.groups:
        checks = Checks(group, records, partition)
        if group.type in _KINDS:
            read_rows.append(_events(checks, _KINDS[group.type], definition.rates, series))
        elif group.type == "Tick":
            ticks.append(_ticks(checks))
        elif group.type == "Erased":
            erased.append(_erasures(checks))
        else:
            checks.refuse(range(len(checks)), "value", "an event", lambda _: "none", "write it elsewhere")
        if checks.failed:
            rows = group.rows.tolist()
            dead |= {rows[row]: error for row, error in checks.failed.items()}
    tick_position, tick_ms = _in_order(ticks)
    return Reading(
        _facts(read_rows),
        tick_position,
        tick_ms,
        tuple((at, _placed(dead[at], records[at], partition)) for at in sorted(dead)),
        _erasures_in_order(erased),
    )


def _events(checks: Checks, kind: Kind, rates: Rates, series: SeriesReader | None) -> _Rows:
    batch, count = checks.group.batch, len(checks)
    customer, event_id = strings_of(batch.column("customer_id")), strings_of(batch.column("event_id"))
    ids = {"customer_id": customer, "event_id": event_id}
    natural, order = event_id, empty_strings(count)
    if kind in _NATURAL_IDS:
        natural = ids[_NATURAL_IDS[kind]] = strings_of(batch.column(_NATURAL_IDS[kind]))
    if kind in _ENTITY_IDS:
        ids[_ENTITY_IDS[kind]] = strings_of(batch.column(_ENTITY_IDS[kind]))
    checking.check_ids(checks, ids)
    if kind is Kind.REFUNDED:
        order = checking.optional_id(checks, "order_id")
    checking.optional_id(checks, "account_id")
    checking.check_keys(checks, customer)
    amount, refund_kind = np.zeros(count, np.int64), np.zeros(count, np.uint8)
    traits: dict[int, Mapping[str, TraitValue]] = {}
    changes: dict[int, Change] = {}
    if kind in (Kind.PURCHASED, Kind.REFUNDED):
        amount = checking.amounts(checks, rates)
        if kind is Kind.REFUNDED:
            refund_kind = checking.refund_kinds(checks)
    elif kind in _ENTITY_IDS:
        changes = changes_of(checks, kind, rates)
    elif kind is not Kind.ACTIVITY:
        traits = _traits(checks, kind)
    entries = _series_entries(checks, kind, series)
    times = int64s_of(batch.column("occurred_at"))
    checking.check_times(checks, "occurred_at", times, future_ms_max=checking.FUTURE_MS_MAX)
    rows = _Rows(
        checks.group.rows, np.full(count, kind, np.uint8), customer, event_id, times, natural, order,
        refund_kind, amount, traits, _accounts(checks), changes, entries,
    )  # fmt: skip
    return rows if not checks.failed else _take(rows, checks.good())


def _series_entries(checks: Checks, kind: Kind, series: SeriesReader | None) -> SeriesEntries:
    """Return what the events add to series, by position; refuse activities that are out of bounds."""
    batch, found = checks.group.batch, _NO_ENTRIES
    if kind is Kind.ACTIVITY:
        properties = _properties(checks)

        def refuse(row: int, expected: str, got: str) -> None:
            checks.refuse([row], "properties", expected, lambda _: got, "send it in a larger unit")

        found = _NO_ENTRIES if series is None else series.of_activities(batch, properties, refuse)
    elif series is not None and kind is Kind.PURCHASED:
        found = series.of_orders(batch)
    elif series is not None and kind is Kind.SIGNED_UP:
        found = series.of_sign_ups(len(batch))
    if not len(found):
        return _NO_ENTRIES
    return SeriesEntries(checks.group.rows[found.row], found.series, found.value, found.whole)


def _properties(checks: Checks) -> Properties:
    """Return the properties of activities, refusing those that are out of bounds."""
    batch = checks.group.batch
    checking.check_names(checks, "name", NAME_BYTES_MAX)
    properties = Properties(batch.column("properties"))

    def refuse(row: int, expected: str, got: str) -> None:
        checks.refuse([row], "properties", expected, lambda _: got, "keep bulky or nested data elsewhere")

    properties.check(refuse)
    for row, record in enumerate(checks.records):
        # Properties are never longer than the record they came in, so only a long one is measured.
        if len(record.value or b"") > PROPERTY_BYTES_MAX:
            size = properties.encoded_bytes(row)
            if size > PROPERTY_BYTES_MAX:
                refuse(row, f"at most {PROPERTY_BYTES_MAX} bytes in all", f"{size}")
    return properties


def _traits(checks: Checks, kind: Kind) -> dict[int, Mapping[str, TraitValue]]:
    """Return position to the traits set, for the events that set any, refusing those out of bounds."""
    batch = checks.group.batch

    def refuse(row: int, expected: str, got: str) -> None:
        checks.refuse([row], "traits", expected, lambda _: got, "keep bulky or nested data elsewhere")

    traits = traits_of(batch.column("traits"), refuse)
    sources = batch.column("source").to_pylist() if kind is Kind.SIGNED_UP else None
    found: dict[int, Mapping[str, TraitValue]] = {}
    for row, position in enumerate(checks.group.rows.tolist()):
        named = traits.of(row)
        if sources is not None and sources[row] is not None:
            named.setdefault(SIGN_UP_SOURCE, sources[row])
        # Traits are never longer than the record they came in, so only a long record is measured.
        if len(checks.records[row].value or b"") > ENCODED_BYTES_MAX:
            size = encoded_bytes(named)
            if size > ENCODED_BYTES_MAX:
                refuse(row, f"at most {ENCODED_BYTES_MAX} bytes in all", f"{size}")
        if named:
            found[position] = named
    return found


def _accounts(checks: Checks) -> dict[int, str]:
    column = checks.group.batch.column("account_id")
    if column.null_count == len(column):
        return {}
    positions = checks.group.rows.tolist()
    return {
        position: account
        for position, account in zip(positions, column.to_pylist(), strict=True)
        if account is not None
    }


def _take(rows: _Rows, good: Int64s) -> _Rows:
    position = rows.position[good]
    kept = frozenset(position.tolist())
    return _Rows(
        position,
        rows.kind[good],
        rows.customer.take(good),
        rows.event_id.take(good),
        rows.occurred_at_ms[good],
        rows.natural_id.take(good),
        rows.order_id.take(good),
        rows.refund_kind[good],
        rows.amount_minor[good],
        {at: traits for at, traits in rows.traits.items() if at in kept},
        {at: account for at, account in rows.account_id.items() if at in kept},
        {at: change for at, change in rows.changes.items() if at in kept},
        rows.entries.take(np.flatnonzero(np.isin(rows.entries.row, position)))
        if len(rows.entries)
        else rows.entries,
    )


def _facts(parts: list[_Rows]) -> Facts:
    """Merge the rows of each type into log order."""
    parts = [part for part in parts if len(part.position)]
    if not parts:
        none, strings = np.zeros(0, np.int64), empty_strings(0)
        flags = np.zeros(0, np.uint8)
        return Facts(none, flags, strings, strings, none, strings, strings, flags, none, {}, {})
    merged = parts[0] if len(parts) == 1 else _merged(parts)
    position = merged.position
    # The row of a position: they are ascending, and every key is one of them.
    with_traits = np.searchsorted(position, np.fromiter(merged.traits, np.int64)).tolist()
    with_account = np.searchsorted(position, np.fromiter(merged.account_id, np.int64)).tolist()
    changed = np.searchsorted(position, np.fromiter(merged.changes, np.int64)).tolist()
    entries = merged.entries
    if len(entries):
        row = np.searchsorted(position, entries.row)
        entries = SeriesEntries(row, entries.series, entries.value, entries.whole)
    return Facts(
        position,
        merged.kind,
        merged.customer,
        merged.event_id,
        merged.occurred_at_ms,
        merged.natural_id,
        merged.order_id,
        merged.refund_kind,
        merged.amount_minor,
        dict(zip(with_traits, merged.traits.values(), strict=True)),
        dict(zip(with_account, merged.account_id.values(), strict=True)),
        dict(zip(changed, merged.changes.values(), strict=True)),
        entries,
    )


def _merged(parts: list[_Rows]) -> _Rows:
    position = np.concatenate([part.position for part in parts])
    order = np.argsort(position)
    # All four columns of text as one, because a few long operations are cheaper than many short ones.
    texts = joined(
        [part.customer for part in parts]
        + [part.event_id for part in parts]
        + [part.natural_id for part in parts]
        + [part.order_id for part in parts]
    )
    count = len(position)
    starts = range(0, 4 * count, count)
    texts = texts.take((order + np.array(starts)[:, None]).ravel())
    customer, event_id, natural_id, order_id = (span_of(texts, at, count) for at in starts)
    return _Rows(
        position[order],
        np.concatenate([part.kind for part in parts])[order],
        customer,
        event_id,
        np.concatenate([part.occurred_at_ms for part in parts])[order],
        natural_id,
        order_id,
        np.concatenate([part.refund_kind for part in parts])[order],
        np.concatenate([part.amount_minor for part in parts])[order],
        {at: traits for part in parts for at, traits in part.traits.items()},
        {at: account for part in parts for at, account in part.account_id.items()},
        {at: change for part in parts for at, change in part.changes.items()},
        _merged_entries([part.entries for part in parts if len(part.entries)]),
    )


def _merged_entries(parts: list[SeriesEntries]) -> SeriesEntries:
    """Merge the entries of each type into log order; those of one position stay as they are."""
    if not parts:
        return _NO_ENTRIES
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in _ENTRY_COLUMNS]
    order = np.argsort(columns[0], kind="stable")
    return SeriesEntries(*(column[order] for column in columns))


def _erasures(checks: Checks) -> Erasures:
    """Return the good erasures of one schema version, with the checks of any event."""
    batch = checks.group.batch
    customer, event_id = strings_of(batch.column("customer_id")), strings_of(batch.column("event_id"))
    checking.check_ids(checks, {"customer_id": customer, "event_id": event_id})
    checking.optional_id(checks, "account_id")
    checking.check_keys(checks, customer)
    times = int64s_of(batch.column("occurred_at"))
    checking.check_times(checks, "occurred_at", times, future_ms_max=checking.FUTURE_MS_MAX)
    erasures = Erasures(checks.group.rows, customer, event_id, times)
    return erasures if not checks.failed else erasures.take(checks.good())


def _erasures_in_order(parts: list[Erasures]) -> Erasures:
    """Merge the erasures of each schema version into log order."""
    if len(parts) < 2:
        return parts[0] if parts else Erasures.none()
    position = np.concatenate([part.position for part in parts])
    return Erasures(
        position,
        joined([part.customer for part in parts]),
        joined([part.event_id for part in parts]),
        np.concatenate([part.occurred_at_ms for part in parts]),
    ).take(np.argsort(position))


def _ticks(checks: Checks) -> tuple[Int64s, Int64s]:
    """Return (positions, times) of the good ticks of one schema version."""
    times = int64s_of(checks.group.batch.column("at"))
    checking.check_tick_keys(checks)
    checking.check_times(checks, "at", times, future_ms_max=None)
    if not checks.failed:
        return checks.group.rows, times
    good = checks.good()
    return checks.group.rows[good], times[good]


def _in_order(ticks: list[tuple[Int64s, Int64s]]) -> tuple[Int64s, Int64s]:
    if len(ticks) == 1:
        return ticks[0]
    if not ticks:
        none = np.zeros(0, np.int64)
        return none, none
    position = np.concatenate([at for at, _ in ticks])
    order = np.argsort(position)
    return position[order], np.concatenate([times for _, times in ticks])[order]


def _placed(error: errors.RecordError, record: Record, partition: int) -> errors.RecordError:
    """Return the error with its place in front: a message is often read without its headers."""
    return type(error)(f"partition {partition} offset {record.offset}: {error}")
