"""The columns of the customer table: what is kept per customer, how it grows, what can be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from streams.customers.arena import enlarged
from streams.customers.change_book import ChangeBook
from streams.customers.columns import ORDERS, OTHERS, REFUNDS, SERIES
from streams.customers.entities import NOTHING, Standing, Subscription, Ticket
from streams.customers.facts import NEVER_MS, Bools, Int64s, TraitValue, UInt8s
from streams.customers.held import HeldColumn, HeldValues
from streams.customers.ledger import Ledger
from streams.customers.pages import Pages
from streams.customers.profiles import Profile
from streams.customers.runs import Entries, Runs
from streams.customers.series import Folded, Series
from streams.customers.series_facts import SeriesFacts
from streams.customers.series_runs import SeriesRun
from streams.customers.slots import Slots

ANY_FLIPS = 1 << 16
"""More values than there are dimensions: what a fact may change that was first seen under other rules."""

NOT_YET_MS = -(1 << 63)
"""Stands for `never` where a maximum is taken."""

_FILLS = {
    "due_ms": NEVER_MS,
    "signed_up_ms": NEVER_MS,
    "pending_at_ms": NEVER_MS,
    "folded_before_ms": NOT_YET_MS,
    "folded_first_ms": NEVER_MS,
    "folded_last_ms": NOT_YET_MS,
    "erased_ms": NOT_YET_MS,
}


class EventIds(dict[int, bytes]):
    """Slot to the event that made it pending; counts the bytes written, for the row bound."""

    def __init__(self) -> None:
        super().__init__()
        self.written_bytes = 0
        self.longest = 0
        """No less than the longest held."""

    def __setitem__(self, slot: int, event_id: bytes) -> None:
        self.written_bytes += len(event_id)
        self.longest = max(self.longest if self else 0, len(event_id))
        super().__setitem__(slot, event_id)


class CustomerState:
    """Customers of one partition. Every column has `slots.capacity` rows: use [:count].

    Columns are replaced when the table grows: read the attribute again after adding slots.
    """

    due_ms: Int64s
    """When the customer must next be evaluated; PENDING_MS after a fact, NEVER_MS for a new slot."""
    scores: UInt8s
    """[capacity, 3]: r, f, m; 0 is none."""
    profile_bytes_max: npt.NDArray[np.int32]
    """No less than the bytes of the customer's encoded profile."""
    has_account: Bools
    evaluated_by: npt.NDArray[np.uint32]
    """The version of the definition that gave the values; 0 before the first evaluation."""
    pending_cause: UInt8s
    pending_at_ms: Int64s
    pending_flips: npt.NDArray[np.uint32]
    """How many values the facts that no tick has seen may change at most; of no meaning without any."""
    signed_up_ms: Int64s
    folded_before_ms: Int64s
    """Facts before this were moved into the folded columns."""
    folded_first_ms: Int64s
    folded_last_ms: Int64s
    folded_orders: Int64s
    folded_paid_minor: Int64s
    folded_refunds_minor: Int64s
    erased_ms: Int64s
    """What happened up to then is not applied: an earlier customer of this id was erased. In no row but the
    marker (erasures.py)."""

    def __init__(
        self,
        dimensions: tuple[str, ...],
        values: tuple[tuple[str, ...], ...],
        series: Sequence[Series],
        complete_since_ms: Mapping[str, int],
    ) -> None:
        if len(dimensions) != len(values):
            raise ValueError(f"{len(dimensions)} dimensions, but literals for {len(values)}")
        self.dimensions, self.values = dimensions, values
        self.entries = Entries()
        self.orders = Runs(self.entries, ORDERS, SERIES)
        self.refunds = Runs(self.entries, REFUNDS, SERIES)
        self.others = Runs(self.entries, OTHERS, SERIES)
        self.ledger = Ledger(self.orders, self.refunds, self.others)
        self.series_facts = (
            SeriesFacts(series, complete_since_ms, self.orders, self.ledger) if series else None
        )
        """What declared series keep; None when none is declared, which then costs nothing."""
        self.pages = Pages()
        self.profiles: dict[int, Profile] = {}
        self.books: dict[int, ChangeBook] = {}
        self.pending_event_id = EventIds()
        self.held = HeldValues(values)
        """What everybody is in each dimension; `value`, `since_ms` and `value_seq` show it as columns."""
        self._make_columns()
        self.slots = Slots(on_growth=self._hold)
        self._hold(self.slots.capacity)

    def _make_columns(self) -> None:
        """Give every column its dtype and no rows."""
        for name in ("due_ms", "pending_at_ms", "signed_up_ms", "folded_before_ms", "folded_first_ms"):
            setattr(self, name, np.zeros(0, np.int64))
        for name in ("folded_last_ms", "folded_orders", "folded_paid_minor", "folded_refunds_minor"):
            setattr(self, name, np.zeros(0, np.int64))
        self.scores = np.zeros((0, 3), np.uint8)
        self.erased_ms = np.zeros(0, np.int64)
        self.profile_bytes_max = np.zeros(0, np.int32)
        self.has_account = np.zeros(0, np.bool_)
        self.evaluated_by = np.zeros(0, np.uint32)
        self.pending_cause = np.zeros(0, np.uint8)
        self.pending_flips = np.zeros(0, np.uint32)
        self._dirty = np.zeros(0, np.bool_)

    def _hold(self, capacity: int) -> None:
        """Grow every column to `capacity` rows."""
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray):
                setattr(self, name, enlarged(column, capacity, _FILLS.get(name, 0)))
        self.held.hold(capacity)
        self.entries.hold_slots(SERIES * capacity)
        self.pages.hold_slots(capacity)

    def _empty(self, slot: int) -> None:
        """Let one row of every column be that of a slot nobody has."""
        for name, column in vars(self).items():
            if isinstance(column, np.ndarray):
                column[slot] = _FILLS.get(name, 0)
        self.held.clear(slot)

    def relayout(self, dimensions: tuple[str, ...], values: tuple[tuple[str, ...], ...]) -> None:
        """Hold values of these dimensions and literals from now on; what has the same name stays.

        A dimension or literal that is left out must be held by nobody.
        """
        before = dict(zip(self.dimensions, enumerate(self.values), strict=True))
        held, was = HeldValues(values), [before.get(name) for name in dimensions]
        held.hold(self.slots.capacity)
        held.take_over(self.held, self.count, was, values)
        self.held = held
        self.dimensions, self.values = dimensions, values

    @property
    def value(self) -> HeldColumn:
        """[capacity, dimensions]: index into the dimension's literals, -1 is null."""
        return HeldColumn(self.held, 0, self.slots.capacity)

    @property
    def since_ms(self) -> HeldColumn:
        """[capacity, dimensions]: since when each value is held."""
        return HeldColumn(self.held, 1, self.slots.capacity)

    @property
    def value_seq(self) -> HeldColumn:
        """[capacity, dimensions]: the change that set each value."""
        return HeldColumn(self.held, 2, self.slots.capacity)

    @property
    def count(self) -> int:
        """Slots in the table: rows of every column that may be somebody's."""
        return len(self.slots)

    @property
    def customers(self) -> int:
        """Customers in the table."""
        return self.slots.held

    @property
    def facts_kept(self) -> int:
        """Facts in the runs, the ledger and the series."""
        in_ledger = sum(len(entry.refunds) for entry in self.ledger.entries.values())
        in_series = self.series_facts.rows if self.series_facts is not None else 0
        return self.entries.rows + in_ledger + in_series

    def state_bytes(self) -> dict[str, int]:
        """Return bytes by part, without what Python objects take."""
        columns = sum(c.nbytes for c in vars(self).values() if isinstance(c, np.ndarray))
        columns += self.held.nbytes
        ids, runs, pages = self.slots.nbytes, self.entries.nbytes, self.pages.nbytes
        runs += self.series_facts.nbytes if self.series_facts is not None else 0
        return {"columns": columns, "ids": ids, "runs": runs, "pages": pages}

    def customers_due(self, at_ms: int) -> Int64s:
        """Return the slots with due_ms <= at_ms, ascending."""
        return np.flatnonzero(self.due_ms[: self.count] <= at_ms)

    def first_paid_ms(self, slots: Int64s) -> Int64s:
        """Return int64[n]: time of the first order with net > 0, NEVER_MS when there is none."""
        runs = self.orders
        first = runs.times.take(runs.starts[slots], mode="clip")
        first = np.where(runs.lengths[slots] > 0, first, NEVER_MS)
        return np.minimum(first, self.folded_first_ms[slots])

    def last_paid_ms(self, slots: Int64s) -> Int64s:
        """Return int64[n]: time of the last order with net > 0, NEVER_MS when there is none."""
        runs = self.orders
        lengths = runs.lengths[slots]
        last = runs.times.take(runs.starts[slots] + lengths - 1, mode="clip")
        last = np.maximum(np.where(lengths > 0, last, NOT_YET_MS), self.folded_last_ms[slots])
        last[last == NOT_YET_MS] = NEVER_MS
        return last

    def lifetime(self, slots: Int64s) -> tuple[Int64s, Int64s, Int64s]:
        """Return int64[n] each: orders with net > 0, their nets, refunds that reduced none of them."""
        orders = self.folded_orders[slots] + self.orders.lengths[slots]
        paid = self.folded_paid_minor[slots] + self.orders.total(slots)
        refunds = self.folded_refunds_minor[slots] + self.refunds.total(slots)
        if self.ledger.entries:
            refunds += [self.ledger.without_effect(slot) for slot in slots.tolist()]
        return orders, paid, refunds

    def put_profile(self, slot: int, profile: Profile) -> None:
        """Let a profile, new or changed, be the customer's."""
        self.profiles[slot] = profile
        self.profile_bytes_max[slot] = len(profile)
        self.has_account[slot] = profile.account is not None

    def account_id(self, slot: int) -> str | None:
        """Return the account the customer last acted for."""
        profile = self.profiles.get(slot)
        return str(profile.account[2]) if profile and profile.account else None

    def traits(self, slot: int) -> dict[str, TraitValue]:
        """Return the traits that are set."""
        profile = self.profiles.get(slot)
        return profile.values() if profile else {}

    def booked(self, slots: Int64s) -> Int64s:
        """Return int64[k], ascending: the places in `slots` of who may have subscriptions or tickets."""
        if not self.books:
            return np.empty(0, np.int64)
        return np.array([place for place, slot in enumerate(slots.tolist()) if slot in self.books], np.int64)

    def folded(self, series: str, slots: Int64s) -> Folded:
        """Return what lies before the fold line of `orders`, `refunds` (their total alone) or a series."""
        if series == "orders":
            return Folded(
                self.folded_orders[slots],
                self.folded_paid_minor[slots],
                self.folded_first_ms[slots],
                self.folded_last_ms[slots],
            )
        if series != "refunds":
            if self.series_facts is None:
                raise KeyError(series)
            return self.series_facts.folded(series, slots)
        none = np.zeros(len(slots), np.int64)
        return Folded(none, self.folded_refunds_minor[slots], none + NEVER_MS, none + NOT_YET_MS)

    def series(self, key: str) -> SeriesRun:
        """Return the runs of a declared series; a KeyError when none has this key."""
        if self.series_facts is None:
            raise KeyError(key)
        return self.series_facts[key]

    def trait(self, name: str, slots: Int64s) -> list[TraitValue]:
        """Return one trait of each customer, None where it is not set."""
        found = (self.profiles.get(slot) for slot in slots.tolist())
        return [profile.value(name) if profile else None for profile in found]

    def subscriptions(self, slots: Int64s) -> list[tuple[Subscription, ...]]:
        """Return the subscriptions of each customer, by id; entities.settled() says what of them is left."""
        found = (self.books.get(slot) for slot in slots.tolist())
        return [book.known().subscriptions if book else () for book in found]

    def standings(self, slots: Int64s) -> list[Standing]:
        """Return what follows from all subscriptions of each customer together."""
        found = (self.books.get(slot) for slot in slots.tolist())
        return [book.known().standing if book else NOTHING for book in found]

    def tickets(self, slots: Int64s) -> list[tuple[Ticket, ...]]:
        """Return the tickets of each customer, by id."""
        found = (self.books.get(slot) for slot in slots.tolist())
        return [book.known().tickets if book else () for book in found]

    def ids(self, slots: Int64s) -> list[bytes]:
        """Return the ids of customers."""
        return self.slots.ids_of(slots)
