"""Rebuilds a customer table from the rows of the customers topic."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from errors import StateCorrupt
from streams.customers.arena import Column
from streams.customers.change_book import ChangeBook
from streams.customers.columns import ENTRY, FACT, KIND_MASK, Records, seen_keys
from streams.customers.facts import Bools, Int64s, Kind, Strings
from streams.customers.ledger import Fact
from streams.customers.pages import FACTS_PER_PAGE
from streams.customers.profiles import Profile
from streams.customers.row_format import (
    CUSTOMER_ROW,
    ERASURE_ROW,
    FORMAT_VERSION,
    HEAD,
    HEAD_PAGE,
    STAMP_BYTES,
    STORED_COLUMNS,
    RowKey,
    decode_key,
    decode_literals,
    encode_key,
)
from streams.customers.series_restore import restore as restore_series
from streams.customers.state import ANY_FLIPS
from streams.customers.table import CustomerTable
from streams.customers.value_restore import restore_values

__all__ = ["CUSTOMER_ROW", "Restorer", "RowKey", "decode_key", "encode_key"]


class Restorer:
    """Takes rows in log order, newest last, and builds the table in one go.

    Holds every row once until `finish`; a later row of a key replaces the earlier.
    """

    def __init__(self, table: CustomerTable) -> None:
        if table.count:
            raise ValueError("rows are restored into an empty table")
        self._table = table
        self._rows: dict[bytes, bytes] = {}

    def add(self, key: bytes, value: bytes | None) -> None:
        """Take one row of a customer or an erasure; None is a tombstone."""
        if key[0] == ERASURE_ROW:
            self._table.erasures.restore(key, value)
        elif value is None:
            self._rows.pop(key, None)
        else:
            self._rows[key] = value

    def finish(self, *, mixed: bool = False) -> int:
        """Build the table; return the customers restored. StateCorrupt if the rows contradict themselves.

        With `mixed`, rows may hold dimensions and values the table was not made for: it takes them in,
        behind its own. Otherwise such a row is a DefinitionMismatch.
        """
        ids: list[bytes] = []
        heads: list[bytes] = []
        pages: dict[bytes, dict[int, bytes]] = {}
        for key, value in self._rows.items():
            if key[-4:] == HEAD_PAGE:
                ids.append(key[3:-4])
                heads.append(value)
            else:
                _, identity, page = decode_key(key)
                pages.setdefault(identity, {})[page] = value
        self._rows = {}
        if pages.keys() - set(ids):
            raise StateCorrupt("a page of facts belongs to no customer row")
        if ids:
            _Restoration(self._table, ids, heads, pages, mixed).run()
            self._table.recall_erasures()
        return len(ids)


class _Restoration:
    """One run over all rows, column by column."""

    def __init__(
        self,
        table: CustomerTable,
        ids: list[bytes],
        heads: list[bytes],
        pages: dict[bytes, dict[int, bytes]],
        mixed: bool,
    ) -> None:
        self._table, self._ids, self._rows, self._pages = table, ids, heads, pages
        self._mixed = mixed
        if any(len(row) < HEAD.itemsize or row[0] != FORMAT_VERSION for row in heads):
            raise StateCorrupt(f"a customer row is not of format {FORMAT_VERSION}")
        self._head = np.frombuffer(b"".join([row[: HEAD.itemsize] for row in heads]), HEAD)
        self._slots = table.slots.find_or_add(Strings.from_list(ids))

    def run(self) -> None:
        for name in STORED_COLUMNS:
            getattr(self._table, name)[self._slots] = self._head[name]
        self._table.pending_flips[self._slots] = ANY_FLIPS
        self._restore_facts(self._read_variable_parts())

    def _read_variable_parts(self) -> list[bytes]:
        """Read memberships, event ids, profiles and changes; return the bytes of each open page."""
        head, table = self._head, self._table
        stamps_end = HEAD.itemsize + STAMP_BYTES * head["dimensions"].astype(np.int64)
        textsend = stamps_end + head["literal_bytes"]
        events_end = textsend + head["event_id_bytes"]
        profiles_end = events_end + head["profile_bytes"]
        changes_end = profiles_end + head["changes_bytes"]
        folds_end = changes_end + head["folds_bytes"]
        ends = (stamps_end, textsend, events_end, profiles_end, changes_end, folds_end)
        bounds = [end.tolist() for end in ends]
        literals, facts = [], []
        slots = self._slots.tolist()
        for row, (value, a, b, c, d, e, f) in enumerate(zip(self._rows, *bounds, strict=True)):
            literals.append(value[a:b])
            if c > b:
                table.pending_event_id[slots[row]] = value[b:c]
            if d > c:
                table.put_profile(slots[row], Profile.decode(value[c:d]))
            if e > d:
                table.books[slots[row]] = ChangeBook.decode(value[d:e])
            if f > e and table.series_facts is not None:
                table.series_facts.folds.decode(slots[row], value[e:f])
            facts.append(value[f:])
        table.pending_event_id.written_bytes = 0
        if self._mixed:
            groups: dict[bytes, list[int]] = {}
            for row, each in enumerate(literals):
                groups.setdefault(each, []).append(row)
            self._take_in({each: np.array(members, np.int64) for each, members in groups.items()})
        stamps = b"".join(row[HEAD.itemsize : end] for row, end in zip(self._rows, bounds[0], strict=True))
        restore_values(table, self._slots, literals, stamps)
        return facts

    def _take_in(self, groups: Mapping[bytes, Int64s]) -> None:
        """Add the dimensions and literals of rows from before a change of the definition.

        A dimension in which nobody has or left a value is none: rows may be as old as their latest change.
        """
        held = {
            name: list(literals)
            for name, literals in zip(self._table.dimensions, self._table.values, strict=True)
        }
        for literals, rows in groups.items():
            pairs = decode_literals(literals)
            for place, (dimension, value) in enumerate(pairs):
                if value is not None and value not in held.setdefault(dimension, []):
                    held[dimension].append(value)
                elif dimension not in held and self._stamps(rows, len(pairs))[:, place, 0].any():
                    # Nobody has a value, but a dimension has one at least.
                    held[dimension] = [dimension]
        layout = tuple(held), tuple(map(tuple, held.values()))
        if layout != (self._table.dimensions, self._table.values):
            self._table.relayout(*layout)

    def _stamps(self, rows: Int64s, dimensions: int) -> Int64s:
        """Return int64[n, dimensions, 2]: since_ms and value_seq of rows with as many dimensions."""
        width = STAMP_BYTES * dimensions
        stamps = b"".join([self._rows[row][HEAD.itemsize : HEAD.itemsize + width] for row in rows.tolist()])
        return np.frombuffer(stamps, np.int64).reshape(len(rows), dimensions, 2)

    def _restore_facts(self, open_pages: list[bytes]) -> None:
        """Restore pages, runs and ledger from the facts on record."""
        parts = list(open_pages)
        sizes = np.array([len(page) for page in open_pages], np.int64)
        if (sizes % FACT.itemsize).any() or (sizes >= FACTS_PER_PAGE * FACT.itemsize).any():
            raise StateCorrupt("an open page is not a whole number of facts below a full page")
        counts = sizes // FACT.itemsize
        held = np.flatnonzero(counts)
        opened = np.frombuffer(b"".join(open_pages), FACT)
        self._table.pages.append(self._slots[held], counts[held], opened)
        paged = np.flatnonzero((self._head["sealed"] > 0) | (self._head["dropped"] > 0))
        for row in paged.tolist():
            sealed = self._sealed_pages(row)
            parts[row] = b"".join((*sealed, open_pages[row]))
            counts[row] = len(parts[row]) // FACT.itemsize
        if len(self._pages) and len(paged) == 0:
            raise StateCorrupt("a page of facts is unknown to its customer row")
        records = np.frombuffer(b"".join(parts), FACT) if len(paged) else opened
        self._place(np.repeat(self._slots, counts), records)
        self._table.reload_seen()

    def _sealed_pages(self, row: int) -> list[bytes]:
        sealed, dropped = int(self._head["sealed"][row]), int(self._head["dropped"][row])
        pages = self._pages.get(self._ids[row], {})
        live = [pages.get(page, b"") for page in range(dropped + 1, sealed + 1)]
        if any(len(page) != FACTS_PER_PAGE * FACT.itemsize for page in live):
            raise StateCorrupt(f"a customer row names {len(live)} pages of facts, not all are there and full")
        latest = [int(np.frombuffer(page, FACT)["time"].max()) for page in live]
        self._table.pages.put_back(int(self._slots[row]), sealed, dropped, latest)
        return live

    def _place(self, owners: Int64s, records: Records) -> None:
        """Put facts where they belong: the plain ones by column, the others one by one."""
        table = self._table
        kept = records["time"] >= table.folded_before_ms[owners]
        if not kept.all():
            owners, records = owners[kept], records[kept]
        kind = records["code"] & KIND_MASK
        of_series = kind >= ENTRY
        if of_series.any():
            self._place_events(owners[~of_series], records[~of_series], kind[~of_series])
            if table.series_facts is not None:
                restore_series(table.series_facts, table.ledger, owners[of_series], records[of_series])
        else:
            self._place_events(owners, records, kind)

    def _place_events(self, owners: Int64s, records: Records, kind: Column) -> None:
        table = self._table
        keys = seen_keys(owners, records["id"])
        linked = records["link"] != 0
        plain = ~linked & ((records["value"] > 0) | (kind <= Kind.PROFILE_UPDATED)) & ~_repeated(keys)
        if linked.any():
            plain &= ~np.isin(keys, seen_keys(owners[linked], records["link"][linked]))
        for runs, mine in (
            (table.orders, plain & (kind == Kind.PURCHASED)),
            (table.refunds, plain & (kind == Kind.REFUNDED)),
            (table.others, plain & (kind <= Kind.PROFILE_UPDATED)),
        ):
            chosen = records[mine]
            runs.insert(owners[mine], chosen["time"], chosen["value"], chosen["id"])
        self._place_exceptions(owners[~plain], records[~plain])

    def _place_exceptions(self, owners: Int64s, records: Column) -> None:
        contents: dict[tuple[int, int], list[Fact]] = {}
        for slot, record in zip(owners.tolist(), records.tolist(), strict=True):
            contents.setdefault((slot, record[2]), []).append(Fact(*record))
        for (slot, _), facts in contents.items():
            winner, *lost = sorted(facts, key=lambda fact: fact.rank)
            self._table.ledger.place(slot, winner)
            for fact in lost:
                self._table.ledger.note_lost(slot, fact)


def _repeated(keys: Column) -> Bools:
    """Return bool[n], True for every key that is there more than once."""
    ordered = np.sort(keys)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    return np.isin(keys, repeated) if len(repeated) else np.zeros(len(keys), np.bool_)
