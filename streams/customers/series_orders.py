"""Series of orders: what the lines of an order say, and what the order's net makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

from streams.customers.arena import group_starts
from streams.customers.columns import ENTRY, FACT, LINES, Records
from streams.customers.facts import Bools, Int64s, SeriesEntries, UInt64s
from streams.customers.ledger import Ledger
from streams.customers.runs import Runs
from streams.customers.series_layout import Content, Layout


class OrderSeries:
    """Keeps what the lines of orders said beside what the orders' nets make of it.

    So a refund, or another content under an order's id, changes or takes away the entries of a
    series, and what undoes it brings them back.
    """

    def __init__(self, layout: Layout, orders: Runs, ledger: Ledger) -> None:
        self._layout, self._runs = layout, layout.runs
        self._orders_run, self._ledger = orders, ledger

    def put(
        self,
        entries: SeriesEntries,
        slots: Int64s,
        times: Int64s,
        ids: UInt64s,
        paid: Int64s,
        plain: Bools,
        settled: Iterable[tuple[int, int]],
    ) -> tuple[Records, Int64s]:
        """Let the series of orders follow; return the records of what lines said, and the row of each.

        `entries.row` are places in the other columns, one per order with entries; `plain` are those
        just put whose id is new and no refund's. `settled` are the (slot, order id) whose order may
        have changed otherwise.
        """
        row = entries.row
        new = plain[row]
        if new.any():
            self._put_plain(entries.take(np.flatnonzero(new)), slots, times, ids, paid)
        candidates: dict[tuple[int, int], list[tuple[int, int, Content]]] = {each: [] for each in settled}
        bounds = np.append(group_starts(row), len(row)).tolist() if len(row) else [0]
        put = plain.copy()
        for start, end in pairwise(bounds):
            place = int(row[start])
            if not plain[place]:
                content = self._layout.content(entries, start, end, int(times[place]))
                order = int(slots[place]), int(ids[place])
                candidates.setdefault(order, []).append((place, int(paid[place]), content))
        for (slot, order_id), contents in candidates.items():
            for place in self._follow(slot, order_id, contents):
                put[place] = True
        kept = put[row]
        if not kept.any():
            return np.empty(0, FACT), np.empty(0, np.int64)
        return self._order_records(entries.take(np.flatnonzero(kept)), times, ids, paid)

    def _order_records(
        self, entries: SeriesEntries, times: Int64s, ids: UInt64s, paid: Int64s
    ) -> tuple[Records, Int64s]:
        """Return a LINES record for each order, and after it its entries."""
        row = entries.row
        heads = group_starts(row)
        head = np.zeros(len(heads), FACT)
        orders = row[heads]
        head["time"], head["id"], head["code"] = times[orders], ids[orders], LINES
        head["value"] = np.maximum.reduceat(entries.whole, heads)
        head["link"] = paid[orders].view(np.uint64)
        records = np.insert(self._layout.records(entries, times[row], ids[row], ENTRY), heads, head)
        return records, np.insert(row, heads, orders)

    def _put_plain(
        self, entries: SeriesEntries, slots: Int64s, times: Int64s, ids: UInt64s, paid: Int64s
    ) -> None:
        """Put orders whose net is what was paid, by the column."""
        row, heads = entries.row, group_starts(entries.row)
        orders = row[heads]
        for behind, value in (
            (self._layout.paid, paid[orders]),
            (self._layout.whole, np.maximum.reduceat(entries.whole, heads)),
        ):
            self._runs.insert(slots[orders], behind, times[orders], value, ids[orders])
        self._runs.insert(slots[row], self._layout.said[entries.series], times[row], entries.value, ids[row])
        worth = self._worth(entries.series, entries.value, entries.whole, paid[row])
        there = paid[row] > 0
        at = row[there]
        self._runs.insert(slots[at], entries.series[there], times[at], worth[there], ids[at])

    def _worth(self, series: Int64s, value: Int64s, whole: Int64s, net: Int64s) -> Int64s:
        """Return int64[n]: floor(net * value / whole), 0 where that is 0; a hash stays what it is."""
        shares = [
            part if not share else paid * part // total if total else 0
            for share, part, total, paid in zip(
                self._layout.is_share[series].tolist(),
                value.tolist(),
                whole.tolist(),
                net.tolist(),
                strict=True,
            )
        ]
        return np.array(shares, np.int64)

    def _follow(
        self, slot: int, order_id: int, contents: Sequence[tuple[int, int, Content]]
    ) -> Iterator[int]:
        """Make the series say what the order is worth now; yield the places of contents that were let in."""
        order = self._ledger.order(slot, order_id)
        held = self._held_lines(slot, order_id)
        stands: Content | None = None
        if held is not None:
            paid, stands = held
            if order != (stands.time, paid):
                self._take_out(slot, order_id)
                stands = None
        for place, paid, content in contents:
            if order == (content.time, paid) and (stands is None or content < stands):
                self._take_out(slot, order_id)
                self._say(slot, order_id, paid, content)
                stands = content
                yield place
        if stands is not None:
            self._show(slot, order_id, stands)

    def _held_lines(self, slot: int, order_id: int) -> tuple[int, Content] | None:
        """Return what was paid for an order and what its lines said, None when they said nothing."""
        runs, blocks = self._runs.runs, self._runs.of_slot(slot)
        at = runs.position(blocks[self._layout.paid], order_id) if self._layout.paid in blocks else -1
        if at < 0:
            return None
        time, paid = runs.entry(blocks[self._layout.paid], at)
        whole = runs.entry(blocks[self._layout.whole], runs.position(blocks[self._layout.whole], order_id))[1]
        found = []
        for k in self._layout.orders:
            block = blocks.get(int(self._layout.said[k]))
            if block is not None:
                total = whole if self._layout.is_share[k] else 0
                found += [
                    (int(self._layout.link[k]), value, total) for value in self._values(block, order_id)
                ]
        return paid, Content(time, tuple(sorted(found)))

    def _values(self, block: int, fact_id: int) -> list[int]:
        """Return the values of all entries of one id in a run: a distinct series may have several."""
        runs = self._runs.runs
        one = np.array([block])
        start, end = int(runs.start(one)[0]), int(runs.end(one)[0])
        places = start + np.flatnonzero(runs.ids[start:end] == np.uint64(fact_id))
        return [runs.entry(block, place)[1] for place in places.tolist()]

    def _take_out(self, slot: int, order_id: int) -> None:
        """Forget what the lines of an order said."""
        hidden = {*self._layout.said.tolist(), self._layout.paid, self._layout.whole, *self._layout.orders}
        for series, block in self._runs.of_slot(slot).items():
            if series in hidden:
                while self._runs.runs.remove(block, order_id):
                    pass

    def _say(self, slot: int, order_id: int, paid: int, content: Content) -> None:
        """Keep what the lines of an order say."""
        whole = max(whole for _, _, whole in content.entries)
        layout = self._layout
        said = [int(layout.said[layout.series_of_link[link]]) for link, _, _ in content.entries]
        series = [layout.paid, layout.whole, *said]
        values = [paid, whole, *(value for _, value, _ in content.entries)]
        count = len(series)
        self._runs.insert(
            np.full(count, slot),
            np.array(series),
            np.full(count, content.time),
            np.array(values, np.int64),
            np.full(count, order_id, np.uint64),
        )

    def _show(self, slot: int, order_id: int, content: Content) -> None:
        """Make the series of orders say what the order's net makes of its lines; nothing if that is 0."""
        blocks = self._runs.of_slot(slot)
        for k in self._layout.orders:
            while k in blocks and self._runs.runs.remove(blocks[k], order_id):
                pass
        at = self._orders_run.position(slot, order_id)
        if at < 0:
            return
        net = self._orders_run.entry(slot, at)[1]
        series = np.array([self._layout.series_of_link[link] for link, _, _ in content.entries], np.int64)
        value = np.array([value for _, value, _ in content.entries], np.int64)
        whole = np.array([whole for _, _, whole in content.entries], np.int64)
        count = len(series)
        worth = self._worth(series, value, whole, np.full(count, net))
        times, ids = np.full(count, content.time), np.full(count, order_id, np.uint64)
        self._runs.insert(np.full(count, slot), series, times, worth, ids)
