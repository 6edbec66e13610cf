"""What declared series keep of a partition's facts: put in, taken out, put on record.

Three sorts of series, as streams/customers/series.py says. An *activity* makes at most one entry in
each; under one event id the least (instant, entries) stands, of the contents that make any. A *day*
is an entry once anything happened on it, whatever becomes of the event. *Orders* follow their order:
what its lines say is kept beside what its net makes of it, so that a refund can change the latter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from streams.customers.arena import group_starts
from streams.customers.columns import DAY, ENTRY, FIRST, Records
from streams.customers.facts import Bools, Int64s, SeriesEntries, UInt64s
from streams.customers.ledger import Ledger
from streams.customers.runs import Runs
from streams.customers.series import Folded, Series
from streams.customers.series_folds import Folds
from streams.customers.series_layout import Content, Layout
from streams.customers.series_orders import OrderSeries
from streams.customers.series_runs import DayRun, SeriesRun

DAY_MS = 86_400_000


class SeriesFacts:
    """The runs of all declared series of a partition, and what is behind those of orders."""

    def __init__(
        self, series: Sequence[Series], since_ms: Mapping[str, int], orders: Runs, ledger: Ledger
    ) -> None:
        self.layout = layout = Layout(series, since_ms)
        self._runs = layout.runs
        self.orders = OrderSeries(layout, orders, ledger)
        self._activities = frozenset(np.flatnonzero(layout.is_activity).tolist())
        self._histories = tuple(
            (DayRun if each.event == "active_day" else SeriesRun)(self._runs, k)
            for k, each in enumerate(series)
        )
        self.folds = Folds(layout)
        # Slot to activity id to the latest time of a content that is on record but lost.
        self._lost: dict[int, dict[int, int]] = {}

    @property
    def follow_orders(self) -> bool:
        """Whether a refund, or another content of an order, may change a series."""
        return bool(self.layout.orders)

    @property
    def declared(self) -> int:
        """How many series are declared."""
        return len(self._histories)

    @property
    def rows(self) -> int:
        """Entries kept."""
        return self._runs.rows

    @property
    def nbytes(self) -> int:
        """Bytes of every array."""
        return self._runs.nbytes

    def __getitem__(self, key: str) -> SeriesRun:
        return self._histories[self.layout.place[key]]

    def folded(self, key: str, slots: Int64s) -> Folded:
        """Return what was folded away of a declared series."""
        return self.folds.of(self.layout.place[key], slots)

    def later_than(self, slots: Int64s, at_ms: int) -> Bools:
        """Return bool[n]: whether anything in any series happened after an instant."""
        later = np.zeros(len(slots), np.bool_)
        for history in self._histories:
            start, end = history.start(slots), history.end(slots)
            last = history.times.take(end - 1, mode="clip") * (end > start)
            if isinstance(history, DayRun):
                last = history.first_ms(start, end)
            later |= last > at_ms
        return later

    def of_activities(self, entries: SeriesEntries) -> Int64s:
        """Return the places of the entries in series of activities."""
        places: Int64s = np.flatnonzero(self.layout.is_activity[entries.series])
        return places

    def of_days(self, entries: SeriesEntries) -> Int64s:
        """Return the places of the entries in series of days."""
        places: Int64s = np.flatnonzero(self.layout.is_day[entries.series])
        return places

    def of_orders(self, entries: SeriesEntries) -> Int64s:
        """Return the places of the entries in series of orders."""
        places: Int64s = np.flatnonzero(self.layout.is_order[entries.series])
        return places

    # -- activities ------------------------------------------------------------------------

    def put_activities(
        self, entries: SeriesEntries, slots: Int64s, times: Int64s, ids: UInt64s, fresh: Bools
    ) -> tuple[Records, Int64s, Bools, int]:
        """Put activities in; return their records, the row of each, bool[n] whether it was put, conflicts.

        `entries.row` are places in the other columns, which are one per activity; all have an entry.
        """
        row = entries.row
        records = self.layout.records(entries, times[row], ids[row], ENTRY)
        records["code"][group_starts(row)] |= FIRST
        put = fresh.copy()
        new = fresh[row]
        at = row[new]
        self._runs.insert(slots[at], entries.series[new], times[at], entries.value[new], ids[at])
        conflicts = 0
        bounds = np.append(group_starts(row), len(row)).tolist()
        for start, end in pairwise(bounds):
            place = int(row[start])
            if fresh[place]:
                continue
            slot, fact_id = int(slots[place]), int(ids[place])
            content = self.layout.content(entries, start, end, int(times[place]))
            put[place], conflict = self._put_activity(slot, fact_id, content)
            conflicts += conflict
        kept = put[row]
        return records[kept], row[kept], put, conflicts

    def _put_activity(self, slot: int, fact_id: int, content: Content) -> tuple[bool, bool]:
        """Let a content stand if it is the least under its id; return whether it does, and a conflict."""
        held = self._held_activity(slot, fact_id)
        if held is not None:
            if content >= held:
                return False, content != held
            for series, block in self._runs.of_slot(slot).items():
                if series in self._activities:
                    self._runs.runs.remove(block, fact_id)
            self.note_lost(slot, fact_id, held.time)
        self._insert(slot, fact_id, content)
        return True, held is not None

    def _held_activity(self, slot: int, fact_id: int) -> Content | None:
        found, time = [], 0
        for series, block in self._runs.of_slot(slot).items():
            if series in self._activities:
                at = self._runs.runs.position(block, fact_id)
                if at >= 0:
                    time, value = self._runs.runs.entry(block, at)
                    found.append((int(self.layout.link[series]), value, 0))
        return Content(time, tuple(sorted(found))) if found else None

    def _insert(self, slot: int, fact_id: int, content: Content) -> None:
        series = np.array([self.layout.series_of_link[link] for link, _, _ in content.entries], np.int64)
        count = len(series)
        self._runs.insert(
            np.full(count, slot),
            series,
            np.full(count, content.time),
            np.array([value for _, value, _ in content.entries], np.int64),
            np.full(count, fact_id, np.uint64),
        )

    # -- days ------------------------------------------------------------------------------

    def put_days(self, entries: SeriesEntries, slots: Int64s, times: Int64s) -> tuple[Records, Int64s]:
        """Put days in; return the records of those that were not known, or earlier, and the row of each.

        `entries.row` are places in `slots` and `times`.
        """
        row = entries.row
        midnight = times[row] // DAY_MS * DAY_MS
        order = np.lexsort((row, midnight, entries.series, slots[row]))
        row, series, midnight = row[order], entries.series[order], midnight[order]
        since_ms = times[row] - midnight
        first = np.ones(len(row), np.bool_)
        first[1:] = (slots[row][1:] != slots[row][:-1]) | (series[1:] != series[:-1])
        first[1:] |= midnight[1:] != midnight[:-1]
        day, start = first.cumsum() - 1, np.flatnonzero(first)
        held_ms = self._held_days(slots[row[start]], series[start], midnight[start])
        # News is what is earlier than all before it of its day; days take turns so far apart that
        # the minimum starts over with each.
        depth = np.concatenate(([DAY_MS], since_ms - day * 2 * DAY_MS))
        news = depth[1:] < np.minimum.accumulate(depth)[:-1]
        news &= since_ms < held_ms[day]
        row, series, midnight, since_ms = row[news], series[news], midnight[news], since_ms[news]
        back = np.argsort(row, kind="stable")
        row, series, midnight, since_ms = row[back], series[back], midnight[back], since_ms[back]
        ids = (midnight // DAY_MS + 1).view(np.uint64)
        self._set_days(slots[row], series, midnight, since_ms, ids)
        kept = SeriesEntries(row, series, since_ms, np.zeros_like(row))
        return self.layout.records(kept, midnight, ids, DAY), row

    def _held_days(self, slots: Int64s, series: Int64s, midnight: Int64s) -> Int64s:
        """Return int64[n]: how long after midnight the first thing happened on known days, else a day."""
        blocks, runs = self._runs.blocks(slots, series), self._runs.runs
        at = runs.first_after(blocks, midnight - 1)
        known = (at < runs.end(blocks)) & (runs.times.take(at, mode="clip") == midnight)
        return np.where(known, runs.sum_between(blocks, at, at + known), DAY_MS)

    def _set_days(
        self, slots: Int64s, series: Int64s, midnight: Int64s, since_ms: Int64s, ids: UInt64s
    ) -> None:
        """Put days in: by the column those that are new, one by one those that began earlier than known."""
        known = self._held_days(slots, series, midnight) < DAY_MS
        order = np.lexsort((midnight, series, slots))
        again = np.zeros(len(order), np.bool_)
        again[1:] = (slots[order][1:] == slots[order][:-1]) & (series[order][1:] == series[order][:-1])
        again[1:] &= midnight[order][1:] == midnight[order][:-1]
        known[order[again]] = True
        new = ~known
        self._runs.insert(slots[new], series[new], midnight[new], since_ms[new], ids[new])
        places = np.flatnonzero(known)
        blocks = self._runs.blocks(slots[places], series[places]).tolist()
        for place, block in zip(places.tolist(), blocks, strict=True):
            self._runs.runs.put(block, int(midnight[place]), int(since_ms[place]), int(ids[place]))

    # -- folding and putting back -----------------------------------------------------------

    def known_ids(self) -> tuple[Int64s, UInt64s]:
        """Return (slot, id) of every activity kept, as two columns."""
        return self._runs.owners(np.array(sorted(self._activities), np.int64))

    def straddles(self, slot: int) -> Iterator[tuple[int, int]]:
        """Yield (earlier, later) times of facts that may only be folded together."""
        for fact_id, lost_ms in self._lost.get(slot, {}).items():
            held = self._held_activity(slot, fact_id)
            if held is not None:
                yield min(held.time, lost_ms), max(held.time, lost_ms)

    def cut(self, slot: int, before_ms: int) -> None:
        """Forget what happened before an instant, but for what remains of each series in `folded`."""
        for series, block in self._runs.of_slot(slot).items():
            times, values = self._runs.runs.cut(block, before_ms)
            if len(times) and series < len(self._histories):
                self.folds.add(slot, series, times, values)
        lost = {i: time for i, time in self._lost.pop(slot, {}).items() if time >= before_ms}
        if lost:
            self._lost[slot] = lost

    def forget(self, slot: int) -> None:
        """Let go of everything about one customer."""
        self._runs.forget(slot)
        self.folds.forget(slot)
        self._lost.pop(slot, None)

    def latest_ms(self, slot: int) -> int | None:
        """Return when the latest thing happened that any series keeps of a customer; None for nothing."""
        slots = np.array([slot])
        latest = []
        for history in self._histories:
            start, end = history.start(slots), history.end(slots)
            if end[0] > start[0]:
                last = history.first_ms(start, end) if isinstance(history, DayRun) else history.times[end - 1]
                latest.append(int(last[0]))
        return max([*latest, *self._lost.get(slot, {}).values()], default=None)

    def put_days_back(self, owners: Int64s, series: Int64s, records: Records) -> None:
        """Put days back that are on record once each."""
        self._runs.insert(owners, series, records["time"], records["value"], records["id"])

    def note_lost(self, slot: int, fact_id: int, time: int) -> None:
        """Remember that a content of an activity which lost is still on record, for folding."""
        lost = self._lost.setdefault(slot, {})
        lost[fact_id] = max(time, lost.get(fact_id, time))
