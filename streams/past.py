"""A partition's customers as they were at an instant, as far as that is known: to be asked, not for steps."""

from __future__ import annotations

from dataclasses import dataclass

from streams.customers.changes import Known
from streams.customers.entities import Standing, Subscription, Ticket
from streams.customers.facts import Int64s, TraitValue
from streams.customers.table import CustomerTable
from streams.steps.as_of import TableAsOf

_NOTHING = Known()


class Past(TableAsOf):
    """What was known to have happened by an instant, one row per (slot, instant); a slot may come often.

    Orders, refunds and series are cut there, and subscriptions and tickets are what their changes up to then
    come to. Of a trait only the latest value is kept: one that was set later is as if it had never been,
    unless `traits_as_now`. What was folded away, was folded away (see `forgotten`).
    """

    def __init__(
        self, table: CustomerTable, slots: Int64s, as_of_ms: Int64s, *, traits_as_now: bool = False
    ) -> None:
        super().__init__(table, slots, as_of_ms)
        self._at = as_of_ms.tolist()
        self._traits_as_now = traits_as_now
        # A row per place: the places somebody asks about may be some of them only.
        self._known: dict[tuple[int, int], Known] = {}

    def trait(self, name: str, slots: Int64s) -> list[TraitValue]:
        """Return one trait of each row, None where it is not set, or was set later."""
        if self._traits_as_now:
            return super().trait(name, slots)
        found: list[TraitValue] = []
        for slot, at_ms in zip(slots.tolist(), self._at, strict=True):
            profile = self._table.profiles.get(slot)
            stamped = profile.traits.get(name) if profile else None
            found.append(stamped[2] if stamped is not None and stamped[0] <= at_ms else None)
        return found

    def subscriptions(self, slots: Int64s) -> list[tuple[Subscription, ...]]:
        """Return the subscriptions of some of the rows, by id."""
        return [known.subscriptions for known in self._of(slots)]

    def standings(self, slots: Int64s) -> list[Standing]:
        """Return what follows from all subscriptions of each together."""
        return [known.standing for known in self._of(slots)]

    def tickets(self, slots: Int64s) -> list[tuple[Ticket, ...]]:
        """Return the tickets of some of the rows, by id."""
        return [known.tickets for known in self._of(slots)]

    def _of(self, slots: Int64s) -> list[Known]:
        """Return what was known; who is asked for are the booked ones among all rows, in their order."""
        places = self.booked(self._slots).tolist()
        asked = slots.tolist()
        assert asked == [int(self._slots[place]) for place in places], "the booked among all rows"
        return [self._known_of(slot, self._at[place]) for slot, place in zip(asked, places, strict=True)]

    def _known_of(self, slot: int, at_ms: int) -> Known:
        found = self._known.get((slot, at_ms))
        if found is None:
            book = self._table.books.get(slot)
            found = self._known[slot, at_ms] = _NOTHING if book is None else book.known_at(at_ms)
        return found


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What cannot be told any more of a customer at an instant; instants in UTC ms."""

    facts_before_ms: int | None = None
    """Orders and entries of series before this are kept in sum only."""
    changes_before_ms: int | None = None
    """Changes of subscriptions and tickets before this are kept only as what they left."""
    traits_ms: tuple[tuple[str, int], ...] = ()
    """Traits set after the instant, and when: what they were before is not kept."""


def forgotten(
    table: CustomerTable, slot: int, at_ms: int, looks_back_ms: int, fold_line_ms: int
) -> Forgotten:
    """Return what is not kept of what decided about a customer at `at_ms`, looking back so far from there."""
    folded_ms = int(table.folded_before_ms[slot])
    book, profile = table.books.get(slot), table.profiles.get(slot)
    traits = profile.traits if profile else {}
    return Forgotten(
        folded_ms if folded_ms > at_ms - looks_back_ms else None,
        fold_line_ms if book is not None and book.has_folded and at_ms < fold_line_ms else None,
        tuple((name, stamp[0]) for name, stamp in sorted(traits.items()) if stamp[0] > at_ms),
    )
