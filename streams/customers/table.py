"""The customer table of one partition: applies facts, and hands out the rows that store it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from streams.customers.arena import group_sizes, group_starts
from streams.customers.columns import (
    FACT,
    LEDGER,
    ORDERS,
    OTHERS,
    REFUNDS,
    SERIES,
    FactColumns,
    Records,
    columns_of,
    seen_keys,
)
from streams.customers.erasures import Markers
from streams.customers.facts import Bools, Facts, Int64s, Kind, TraitValue, UInt8s, UInt64s
from streams.customers.further import FurtherFacts, Result
from streams.customers.hashing import KeyedHash
from streams.customers.ledger import Fact
from streams.customers.profiles import Profile
from streams.customers.seen import SeenSet
from streams.customers.series import Series

__all__ = ["CustomerTable", "Result"]

_SINGLE_MAX = 8
"""Facts that need not be new are looked at one by one up to here, by column beyond."""

_NO_SINCE: Mapping[str, int] = MappingProxyType({})
_NO_TRAITS: Mapping[str, TraitValue] = MappingProxyType({})


class CustomerTable(FurtherFacts):
    """Customers of one partition.

    State is the same for every order, cut and repetition of the same facts above the fold line.
    """

    def __init__(
        self,
        *,
        fact_key: bytes,
        dimensions: tuple[str, ...],
        values: tuple[tuple[str, ...], ...],
        series: Sequence[Series] = (),
        complete_since_ms: Mapping[str, int] = _NO_SINCE,
    ) -> None:
        """Make an empty table that keeps `series`, complete since what their keys say, else since 0."""
        super().__init__(dimensions, values, series, complete_since_ms)
        self.erasures = Markers(fact_key)
        self._hashes = KeyedHash(fact_key)
        self._seen = SeenSet(self._live_keys)
        self._columns_of: tuple[Facts, FactColumns] | None = None
        self.conflicts = 0
        self.facts_applied = 0

    def ordering(self) -> UInt64s:
        """Return uint64[count]: a number per customer, the same after any restart, and seldom that of two."""
        return self.slots.hashed(self._hashes)

    def apply(self, facts: Facts, rows: Int64s, slots: Int64s, fold_line_ms: Int64s) -> UInt8s:
        """Apply facts as if one at a time in order; return a Result per row.

        `rows` are places in `facts` in log order, `slots` and `fold_line_ms` one per row, the
        latter never falling within a customer. Customers with an APPLIED fact become dirty and
        pending.
        """
        count = len(rows)
        assert count == len(slots) == len(fold_line_ms), "one slot and one fold line per row"
        # A slot below 0 wraps around to a very large one.
        assert not count or slots.view(np.uint64).max() < self.count, "every slot is known"
        columns = self._cached_columns(facts)
        results = np.empty(count, np.uint8)
        results.fill(Result.APPLIED)
        # Here and below counting is how to ask for any: NumPy's any() costs five times as much.
        old = columns.time[rows] < fold_line_ms
        if np.count_nonzero(old):
            results[old] = Result.TOO_OLD
        reworded: set[int] = set()
        if columns.any_wordy:
            reworded = self._merge_profiles(facts, columns, rows, slots, results)
        if not columns.core or (self.series_facts is not None and self.series_facts.follow_orders):
            return self._apply_further(facts, columns, rows, slots, fold_line_ms, results, reworded)
        if np.count_nonzero(results == Result.APPLIED) == count:
            live = None
        else:
            live = (results == Result.APPLIED).nonzero()[0]
            rows, slots, fold_line_ms = rows[live], slots[live], fold_line_ms[live]
        if not len(rows):
            return results
        records = columns.packed.take(rows).view(FACT)
        recorded = self._put_facts(columns, rows, slots, records, fold_line_ms)
        if np.count_nonzero(recorded) < len(rows):
            places = np.arange(count) if live is None else live
            known = places[~recorded].tolist()
            results[[place for place in known if place not in reworded]] = Result.DUPLICATE
            if reworded:
                worded = np.zeros(count, np.bool_)
                worded[list(reworded)] = True
                self._touch(np.unique(slots[worded[places]]))
            slots, records, fold_line_ms = slots[recorded], records[recorded], fold_line_ms[recorded]
        self._record(slots, records, fold_line_ms)
        return results

    def _apply_further(
        self,
        facts: Facts,
        columns: FactColumns,
        rows: Int64s,
        slots: Int64s,
        fold_line_ms: Int64s,
        results: UInt8s,
        reworded: set[int],
    ) -> UInt8s:
        """Do the rest of `apply` where there are other kinds of facts, or facts that add to series."""
        new = self.are_new(slots)
        live = (results == Result.APPLIED).nonzero()[0]
        rows, slots, fold_line_ms = rows[live], slots[live], fold_line_ms[live]
        kind, outcome = facts.kind[rows], np.full(len(rows), Result.DUPLICATE, np.uint8)
        outcome[kind == Kind.ACTIVITY] = Result.IDLE
        core = (kind <= Kind.REFUNDED).nonzero()[0]
        parts: list[tuple[Records, Int64s]] = []
        if self.series_facts is not None:
            self.ledger.settled = []
        if len(core):
            records = columns.packed.take(rows[core]).view(FACT)
            recorded = self._put_facts(columns, rows[core], slots[core], records, fold_line_ms[core])
            parts.append((records[recorded], core[recorded]))
            outcome[parts[0][1]] = Result.APPLIED
        if self.series_facts is not None:
            parts += self._put_series(facts, columns, rows, slots, outcome)
            self.ledger.settled = None
        self._merge_changes(facts, rows, slots, fold_line_ms, outcome)
        for _, places in parts:
            outcome[places] = Result.APPLIED
        # Any event makes a customer, be it one that nothing keeps.
        firsts = np.unique(slots, return_index=True)[1]
        made = firsts[(outcome[firsts] == Result.IDLE) & new[live][firsts]]
        outcome[made] = Result.APPLIED
        worded = np.zeros(len(results), np.bool_)
        worded[list(reworded)] = True
        outcome[worded[live] & (outcome != Result.REFUSED)] = Result.APPLIED
        results[live] = outcome
        self._touch(np.unique(slots[outcome == Result.APPLIED]))
        if parts:
            places = np.concatenate([place for _, place in parts])
            # What one fact leaves stays together, in the order of the parts.
            order = places.argsort(kind="stable")
            records, places = np.concatenate([part for part, _ in parts])[order], places[order]
            self._record(slots[places], records, fold_line_ms[places])
        return results

    def _cached_columns(self, facts: Facts) -> FactColumns:
        """Hash a chunk once however many calls apply it; only the last chunk is kept."""
        if self._columns_of is None or self._columns_of[0] is not facts:
            self._columns_of = facts, columns_of(facts, self._hashes)
        return self._columns_of[1]

    def _merge_profiles(
        self, facts: Facts, columns: FactColumns, rows: Int64s, slots: Int64s, results: UInt8s
    ) -> set[int]:
        """Merge traits and accounts in order; return the places (in `rows`) that changed something."""
        changed: set[int] = set()
        wordy = columns.wordy[rows]
        wordy &= results == Result.APPLIED
        places = wordy.nonzero()[0]
        if not len(places):
            return changed
        worded, owners = rows[places], slots[places]
        per_fact = zip(
            places.tolist(),
            worded.tolist(),
            owners.tolist(),
            columns.time[worded].tolist(),
            facts.event_id.take(worded),
            self._dirty[owners].tolist(),
            strict=True,
        )
        profiles, traits_of, accounts = self.profiles, facts.traits, facts.account_id
        for place, row, slot, time, event_id, dirty in per_fact:
            profile = profiles.get(slot)
            if profile is None:
                profile = profiles[slot] = Profile()
            before = profile.bytes_max
            merged = profile.merge(time, event_id, traits_of.get(row, _NO_TRAITS), accounts.get(row))
            if merged is None:
                results[place] = Result.REFUSED
            elif merged:
                changed.add(place)
                if dirty:
                    # The row is in the bound already, with the profile as it was.
                    self._dirty_bytes_max += max(0, profile.bytes_max - before)
        merged_into = [profiles[slot] for slot in owners.tolist()]
        self.profile_bytes_max[owners] = [profile.bytes_max for profile in merged_into]
        if accounts:
            self.has_account[owners] = [profile.account is not None for profile in merged_into]
        return changed

    def _put_facts(
        self, columns: FactColumns, rows: Int64s, slots: Int64s, records: Records, fold_line_ms: Int64s
    ) -> Bools:
        """Put facts into runs and ledger; return bool[n], True where one must go on record."""
        ids, route = columns.id[rows], columns.route[rows]
        fresh = self._seen.add(seen_keys(slots, ids))
        recorded: Bools = route != LEDGER
        recorded &= fresh
        time, value = columns.time[rows], columns.value[rows]
        if columns.any_signed_up:
            signing = columns.signed_up[rows].nonzero()[0]
            if len(signing):
                np.minimum.at(self.signed_up_ms, slots[signing], time[signing])
        blocks = slots * SERIES + route
        if np.count_nonzero(recorded) == len(rows):
            self.entries.insert(blocks, time, value, ids)
            return recorded
        plain, single = recorded.nonzero()[0], (~recorded).nonzero()[0]
        self.entries.insert(blocks[plain], time[plain], value[plain], ids[plain])
        again = single[~fresh[single]]
        if len(again) > _SINGLE_MAX:
            known = again[self._known(records[again], slots[again], route[again])]
            single = np.setdiff1d(single, known, assume_unique=True)
        self._put_singles(single, slots, records, fold_line_ms, fresh, recorded)
        return recorded

    def _put_singles(
        self,
        single: Int64s,
        slots: Int64s,
        records: Records,
        fold_line_ms: Int64s,
        fresh: Bools,
        recorded: Bools,
    ) -> None:
        """Apply the rows `single` fact by fact, setting `recorded` and their codes in `records`."""
        awaited: list[tuple[int, int]] = []
        columns = (single, slots[single], records[single], fold_line_ms[single], fresh[single])
        for row, slot, record, line, new in zip(*(column.tolist() for column in columns), strict=True):
            kept, conflict = self.ledger.apply(slot, Fact(*record), line, fresh=new)
            self.conflicts += conflict
            if kept is None:
                continue
            recorded[row] = True
            if kept.code != record[-1]:
                records["code"][row] = kept.code
            if kept.link and not self.ledger.holds_order(slot, kept.link):
                awaited.append((slot, kept.link))
        if awaited:
            # Such an order must not look new when it comes: this refund is waiting for it.
            waiting, links = zip(*awaited, strict=True)
            self._seen.add(seen_keys(np.array(waiting, np.int64), np.array(links, np.uint64)))

    def _known(self, records: Records, slots: Int64s, route: UInt8s) -> Bools:
        """Return bool[n], True for a fact the runs hold with just this content: a plain duplicate.

        False says nothing: it may share its time with another fact, or be in the ledger. A fact
        whose id comes with another content in the same call is left to be settled in order.
        """
        known = np.zeros(len(slots), np.bool_)
        for series, runs in ((ORDERS, self.orders), (REFUNDS, self.refunds), (OTHERS, self.others)):
            mine = (route == series).nonzero()[0]
            owners, wanted = slots[mine], records[mine]
            at = runs.first_after(owners, wanted["time"] - 1)
            same = at < runs.end(owners)
            same &= runs.times.take(at, mode="clip") == wanted["time"]
            same &= runs.ids.take(at, mode="clip") == wanted["id"]
            same &= runs.sum_between(owners, at, at + 1) == wanted["value"]
            known[mine] = same
        if known.any() and not known.all():
            keys = seen_keys(slots, records["id"])
            known &= ~np.isin(keys, keys[~known])
        return known

    def _record(self, slots: Int64s, records: Records, fold_line_ms: Int64s) -> None:
        """Append facts to the pages in order, and make their customers dirty and pending."""
        count = len(slots)
        if not count:
            return
        # Rounds come in order of slots, and asking is cheaper than sorting.
        if np.count_nonzero(slots[1:] < slots[:-1]):
            order = slots.argsort(kind="stable")
            slots, records, fold_line_ms = slots[order], records[order], fold_line_ms[order]
        firsts = group_starts(slots)
        owners = slots[firsts]
        self._touch(owners)
        self.facts_applied += count
        self._dirty_bytes_max += count * records.itemsize
        seals = self.pages.append(owners, group_sizes(firsts, count), records)
        for group, place in seals:
            self._fold(int(owners[group]), int(fold_line_ms[firsts[group] + place]))

    def _fold(self, slot: int, fold_line_ms: int) -> None:
        """Move facts past the fold line into the folded columns if that frees a page.

        Only windows longer than the longest could tell. Facts that explain each other (an order
        and its refunds, two contents under one id) go together or not at all.
        """
        before = fold_line_ms
        if not self.pages.droppable(slot, before):
            return
        pairs = list(self.ledger.straddles(slot))
        if self.series_facts is not None:
            pairs += self.series_facts.straddles(slot)
        while split := [earlier for earlier, later in pairs if earlier < before <= later]:
            before = min(split)
        free = self.pages.droppable(slot, before)
        if not free:
            return
        idle = self.ledger.cut(slot, before)
        times, nets = self.orders.cut(slot, before)
        if len(times):
            self.folded_first_ms[slot] = min(int(self.folded_first_ms[slot]), int(times[0]))
            self.folded_last_ms[slot] = max(int(self.folded_last_ms[slot]), int(times[-1]))
            self.folded_orders[slot] += len(times)
            self.folded_paid_minor[slot] += nets.sum()
        self.folded_refunds_minor[slot] += idle + self.refunds.cut(slot, before)[1].sum()
        self.others.cut(slot, before)
        if self.series_facts is not None:
            known = self.series_facts.folds.bytes_of(slot)
            self.series_facts.cut(slot, before)
            self._dirty_bytes_max += self.series_facts.folds.bytes_of(slot) - known
        self.folded_before_ms[slot] = max(int(self.folded_before_ms[slot]), before)
        self.pages.drop(slot, free)

    def forget_chunk(self) -> None:
        """Let go of the chunk applied last, which was kept in case more of it came."""
        self._columns_of = None

    def reload_seen(self) -> None:
        """Fill the set of seen facts from the runs and the ledger, after they were restored."""
        self._seen.rebuild()

    def _live_keys(self) -> UInt64s:
        """Return the seen keys of every fact kept, and of the orders that refunds wait for."""
        known = [runs.owners(self.count) for runs in (self.orders, self.refunds, self.others)]
        known.append(self.ledger.known_ids())
        if self.series_facts is not None:
            known.append(self.series_facts.known_ids())
        return np.concatenate([seen_keys(slots, ids) for slots, ids in known])
