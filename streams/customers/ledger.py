"""What the runs cannot say: linked refunds, orders worth nothing, conflicting contents, fact by fact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from streams.customers.columns import KIND_MASK, REFUND_KIND_SHIFT, STALE
from streams.customers.facts import Int64s, Kind, RefundKind, UInt64s
from streams.customers.runs import Runs

_NO_TIME = -(1 << 63)


class Fact(NamedTuple):
    """One fact as a page keeps it; `link` is 0 unless a refund names its order."""

    time: int
    value: int
    id: int
    link: int
    code: int

    @property
    def kind(self) -> int:
        """The Kind."""
        return self.code & KIND_MASK

    @property
    def rank(self) -> tuple[int, int, bool, int, int]:
        """Of several contents under one id the least rank wins; all the state depends on is in it."""
        if not self.link:
            return (self.time, self.value, False, 0, 0)
        return (self.time, self.value, True, self.code & ~STALE, self.link)


@dataclass(slots=True)
class Entry:
    """One customer's exceptions."""

    orders: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Order id to (time, paid), for orders that are worth nothing or have linked refunds."""
    refunds: dict[int, Fact] = field(default_factory=dict)
    """Linked refunds, waiting ones too, and refunds of nothing."""
    linked: dict[int, list[int]] = field(default_factory=dict)
    """Order id to the refunds that name it."""
    lost: dict[int, int] = field(default_factory=dict)
    """Fact id to the latest time of a content that is in a page but lost."""

    def __bool__(self) -> bool:
        return bool(self.orders or self.refunds or self.lost)


class Ledger:
    """Applies single facts, keeping the runs equal to what all facts together say.

    An order's net is max(0, paid - its linked refunds), 0 once cancelled; the orders run holds
    orders with net > 0 only. Memory: one entry per customer that has an exception, none else.
    """

    def __init__(self, orders: Runs, refunds: Runs, others: Runs) -> None:
        self._orders, self._refunds, self._others = orders, refunds, others
        self.entries: dict[int, Entry] = {}
        self.settled: list[tuple[int, int]] | None = None
        """While it is a list: (slot, order id) of every order that was put or whose net may have changed."""

    def apply(self, slot: int, fact: Fact, fold_line_ms: int, *, fresh: bool) -> tuple[Fact | None, bool]:
        """Apply one fact; return what must be put on record, if anything, and whether it conflicted.

        `fresh` promises that its id is new to the customer.
        """
        held = None if fresh else self.find(slot, fact)
        if held is not None:
            if fact.rank >= held.rank:
                return None, fact.rank != held.rank
            self._take_out(slot, held)
        order = self.order(slot, fact.link) if fact.link else None
        if order is not None and order[0] < fold_line_ms:
            # The order is past the fold line: the refund reduces nothing.
            fact = fact._replace(code=fact.code | STALE)
        if fact.link:
            self._link(slot, fact, order)
        else:
            self._put(slot, fact)
        if held is not None:
            self.note_lost(slot, held)
        return fact, held is not None

    def place(self, slot: int, fact: Fact) -> None:
        """Put back a fact that was on record and did not lose; for restoring."""
        self._put(slot, fact)

    def note_lost(self, slot: int, fact: Fact) -> None:
        """Remember that a content which lost is still on record, for folding."""
        lost = self._entry(slot).lost
        lost[fact.id] = max(fact.time, lost.get(fact.id, _NO_TIME))

    def find(self, slot: int, fact: Fact) -> Fact | None:
        """Return the content held under the fact's id, None when there is none."""
        entry = self.entries.get(slot)
        if fact.kind == Kind.PURCHASED:
            known = self.order(slot, fact.id)
            return Fact(*known, fact.id, 0, Kind.PURCHASED) if known else None
        if fact.kind == Kind.REFUNDED:
            if entry and fact.id in entry.refunds:
                return entry.refunds[fact.id]
            return self._in_run(self._refunds, slot, fact.id, Kind.REFUNDED)
        return self._in_run(self._others, slot, fact.id, fact.code)

    def known_ids(self) -> tuple[Int64s, UInt64s]:
        """Return (slot, id) of every fact held and every order a refund names, as two columns."""
        pairs = [
            (slot, fact_id)
            for slot, entry in self.entries.items()
            for fact_id in (*entry.orders, *entry.refunds, *entry.linked)
        ]
        slots, ids = zip(*pairs, strict=True) if pairs else ((), ())
        return np.array(slots, np.int64), np.array(ids, np.uint64)

    def holds_order(self, slot: int, order_id: int) -> bool:
        """Tell whether an order that has a linked refund has come itself, and is not folded."""
        entry = self.entries.get(slot)
        return entry is not None and order_id in entry.orders

    def order(self, slot: int, order_id: int) -> tuple[int, int] | None:
        """Return (time, paid) of an order, None when it is unknown."""
        entry = self.entries.get(slot)
        if entry and order_id in entry.orders:
            return entry.orders[order_id]
        at = self._orders.position(slot, order_id)
        return self._orders.entry(slot, at) if at >= 0 else None

    def instants(self, slot: int) -> list[int]:
        """Return when everything about one customer happened that is in the ledger."""
        entry = self.entries.get(slot)
        if entry is None:
            return []
        orders, refunds = entry.orders.values(), entry.refunds.values()
        return [*(time for time, _ in orders), *(fact.time for fact in refunds), *entry.lost.values()]

    def without_effect(self, slot: int) -> int:
        """Return the sum of linked refunds that reduce no order: waiting, or too late for theirs."""
        entry = self.entries.get(slot)
        if entry is None:
            return 0
        return sum(f.value for f in entry.refunds.values() if not self._takes_effect(entry, f))

    def straddles(self, slot: int) -> Iterator[tuple[int, int]]:
        """Yield (earlier, later) times of facts that may only be folded together."""
        entry = self.entries.get(slot)
        if entry is None:
            return
        for refund in entry.refunds.values():
            if self._takes_effect(entry, refund):
                times = entry.orders[refund.link][0], refund.time
                yield min(times), max(times)
        for fact_id, lost_time in entry.lost.items():
            held = self._held_time(slot, entry, fact_id)
            if held is not None:
                yield min(held, lost_time), max(held, lost_time)

    def cut(self, slot: int, before_ms: int) -> int:
        """Forget facts with time < before_ms; return the refunds among them that reduced no order."""
        entry = self.entries.get(slot)
        if entry is None:
            return 0
        gone = [f for f in entry.refunds.values() if f.time < before_ms]
        idle = sum(f.value for f in gone if not self._takes_effect(entry, f))
        for refund in gone:
            self._unlink(entry, refund)
        entry.orders = {i: order for i, order in entry.orders.items() if order[0] >= before_ms}
        entry.lost = {i: time for i, time in entry.lost.items() if time >= before_ms}
        if not entry:
            del self.entries[slot]
        return idle

    @staticmethod
    def _takes_effect(entry: Entry, refund: Fact) -> bool:
        return bool(refund.link) and not refund.code & STALE and refund.link in entry.orders

    def _held_time(self, slot: int, entry: Entry, fact_id: int) -> int | None:
        if fact_id in entry.orders:
            return entry.orders[fact_id][0]
        if fact_id in entry.refunds:
            return entry.refunds[fact_id].time
        for run in (self._orders, self._refunds, self._others):
            at = run.position(slot, fact_id)
            if at >= 0:
                return int(run.times[at])
        return None

    def _entry(self, slot: int) -> Entry:
        entry = self.entries.get(slot)
        if entry is None:
            entry = self.entries[slot] = Entry()
        return entry

    @staticmethod
    def _in_run(run: Runs, slot: int, fact_id: int, code: int) -> Fact | None:
        at = run.position(slot, fact_id)
        return Fact(*run.entry(slot, at), fact_id, 0, code) if at >= 0 else None

    def _put(self, slot: int, fact: Fact) -> None:
        if fact.kind == Kind.PURCHASED:
            self._set_order(slot, fact.id, fact.time, fact.value)
        elif fact.kind != Kind.REFUNDED:
            self._others.put(slot, fact.time, 0, fact.id)
        elif not fact.link and fact.value:
            self._refunds.put(slot, fact.time, fact.value, fact.id)
        elif not fact.link:
            self._entry(slot).refunds[fact.id] = fact
        else:
            self._link(slot, fact, self.order(slot, fact.link))

    def _link(self, slot: int, refund: Fact, order: tuple[int, int] | None) -> None:
        """Put a linked refund, and what it leaves of its order if that has come."""
        entry = self._entry(slot)
        entry.refunds[refund.id] = refund
        entry.linked.setdefault(refund.link, []).append(refund.id)
        if order:
            self._set_order(slot, refund.link, *order)

    def _take_out(self, slot: int, held: Fact) -> None:
        """Undo a content that is about to be replaced."""
        if held.kind == Kind.PURCHASED:
            return  # _set_order replaces it.
        entry = self.entries.get(slot)
        if entry and held.id in entry.refunds:
            self._unlink(entry, held)
            if held.link:
                self._resettle(slot, held.link)
        elif held.kind == Kind.REFUNDED:
            self._refunds.remove(slot, held.id)
        else:
            self._others.remove(slot, held.id)

    @staticmethod
    def _unlink(entry: Entry, refund: Fact) -> None:
        del entry.refunds[refund.id]
        if refund.link:
            entry.linked[refund.link].remove(refund.id)
            if not entry.linked[refund.link]:
                del entry.linked[refund.link]

    def _resettle(self, slot: int, order_id: int) -> None:
        order = self.order(slot, order_id)
        if order:
            self._set_order(slot, order_id, *order)

    def _set_order(self, slot: int, order_id: int, time: int, paid: int) -> None:
        """Make the ledger and the run say that this order was paid so much at that time."""
        if self.settled is not None:
            self.settled.append((slot, order_id))
        entry = self.entries.get(slot)
        refunds = [entry.refunds[i] for i in entry.linked.get(order_id, ())] if entry else []
        if refunds or not paid:
            self._entry(slot).orders[order_id] = (time, paid)
        elif entry:
            entry.orders.pop(order_id, None)
        net = _net(paid, refunds)
        if net:
            self._orders.put(slot, time, net, order_id)
        else:
            self._orders.remove(slot, order_id)


def _net(paid: int, refunds: list[Fact]) -> int:
    """Return what is left of an order after its linked refunds; never less than nothing."""
    for refund in refunds:
        if refund.code & STALE:
            continue
        if refund.code >> REFUND_KIND_SHIFT == RefundKind.CANCELLATION:
            return 0
        paid -= refund.value
    return max(0, paid)
