"""Subscriptions and tickets are what a walk through time, instant by instant, makes of their changes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.customers.change_book import BOOK_BYTES_MAX, FOLD_FROM, ChangeBook, Merged
from streams.customers.changes import PLAN_CHANGES, TICKET_CHANGES, Change, PlanChange, TicketChange
from streams.customers.entities import settled
from streams.customers.revenue import mrr_minor

END = 12
"""Times in these tests go from 0 to this."""

TIMES = st.integers(0, END - 1)
MAYBE_TIMES = st.none() | st.integers(0, END + 3)
PLANS = st.builds(
    PlanChange,
    at_ms=TIMES,
    event_id=st.integers(0, 40).map(lambda number: f"e{number}".encode()),
    subscription=st.sampled_from(["s1", "s2", "s3"]),
    change=st.sampled_from(PLAN_CHANGES),
    plan=st.sampled_from([None, "pro", "basic"]),
    mrr_minor=st.sampled_from([None, 0, 5, 9]),
    cancel_at_ms=MAYBE_TIMES,
    trial_ends_at_ms=MAYBE_TIMES,
)
TICKETS = st.builds(
    TicketChange,
    at_ms=TIMES,
    event_id=st.integers(50, 80).map(lambda number: f"e{number}".encode()),
    ticket=st.sampled_from(["t1", "t2"]),
    change=st.sampled_from(TICKET_CHANGES),
    author=st.sampled_from([None, "customer", "agent", "bot"]),
    rating=st.sampled_from([None, 1, 5]),
)
CHANGES = st.lists(PLANS | TICKETS, max_size=25)

STARTS = {"started", "upgraded", "downgraded", "renewed", "resumed"}


@dataclass
class Sub:
    """A subscription, as the rules say it in words."""

    state: str = "none"
    price: int = 0
    plan: str | None = None
    failed: bool = False
    scheduled: bool = False
    cancel_at: int | None = None
    trial_ends: int | None = None
    was_active: bool = False

    def stop(self, word: str) -> bool:
        """Stop; tell whether that is an end: what was never active has not ended."""
        is_end = self.was_active
        self.state = word if is_end else "none"
        self.failed = self.scheduled = self.was_active = False
        self.cancel_at = self.trial_ends = None
        return is_end


@dataclass
class Walk:
    """A walk through time, one instant after the other: first what is said, then what stops by itself."""

    subs: dict[str, Sub] = field(default_factory=dict)
    payments: set[int] = field(default_factory=set)
    ends: set[int] = field(default_factory=set)
    mrr: list[int] = field(default_factory=list)
    """The MRR after each instant."""

    def to(self, end: int, changes: list[PlanChange]) -> Walk:
        """Walk from 0 to `end`, that instant too."""
        for now in range(end + 1):
            ending = False
            for change in sorted((c for c in changes if c.at_ms == now), key=lambda c: c.order):
                ending |= self._hear(now, change)
            for sub in self.subs.values():
                trial_over = sub.state == "trial" and sub.trial_ends is not None and sub.trial_ends <= now
                due = sub.cancel_at is not None and sub.cancel_at <= now
                if trial_over or (due and sub.state in ("active", "paused", "trial")):
                    ending |= sub.stop("cancelled")
            if ending and not any(sub.state == "active" for sub in self.subs.values()):
                self.ends.add(now)
            self.mrr.append(sum(sub.price for sub in self.subs.values() if sub.state == "active"))
        return self

    def _hear(self, now: int, change: PlanChange) -> bool:
        what = change.change
        sub = self.subs.setdefault(change.subscription, Sub())
        goes_on = sub.state in ("active", "trial", "paused")
        if not goes_on and (what in STARTS or what in ("trial_started", "paused")):
            sub = self.subs[change.subscription] = Sub()
        sub.price = sub.price if change.mrr_minor is None else change.mrr_minor
        sub.plan = sub.plan if change.plan is None else change.plan
        if what in ("started", "renewed") and sub.price > 0:
            self.payments.add(now)
        too_late = sub.cancel_at is not None and sub.cancel_at <= now
        if what in ("started", "upgraded", "renewed", "resumed") and not too_late:
            sub.scheduled, sub.cancel_at = False, None
        if what in ("renewed", "resumed"):
            sub.failed = False
        if what in STARTS:
            sub.state, sub.was_active, sub.trial_ends = "active", True, None
        elif what == "trial_started":
            sub.state, sub.trial_ends = "trial", change.trial_ends_at_ms
        elif what == "paused":
            sub.state, sub.trial_ends = "paused", None
        elif what in ("cancelled", "ended") and goes_on:
            return sub.stop(what)
        elif what == "trial_ended" and sub.state == "trial":
            return sub.stop("ended")
        elif what == "payment_failed" and goes_on:
            sub.failed = True
        elif what == "cancellation_scheduled" and goes_on:
            sub.scheduled, sub.cancel_at = True, change.cancel_at_ms
        return False


def winners(changes: list[Change]) -> list[Change]:
    """Of several contents under one event id the earliest, then any one as long as it is always the same."""
    kept: dict[bytes, Change] = {}
    for change in sorted(changes, key=lambda c: (c.at_ms, _text(c))):
        kept.setdefault(change.event_id, change)
    return list(kept.values())


def _text(change: Change) -> str:
    from streams.customers.change_book import _encoded

    return _encoded(change)


def book_of(changes: list[Change], fold_line_ms: int = -1) -> ChangeBook:
    book = ChangeBook()
    for change in changes:
        book.merge(change, fold_line_ms)
    return book


def seen(book: ChangeBook, now: int = END) -> dict[str, Any]:
    """What is known at an instant, in the oracle's words."""
    known = book.known()
    subscriptions, standing = settled(known.subscriptions, known.standing, now)
    return {
        "subs": {
            each.id: (
                each.state,
                each.price_minor,
                each.plan,
                each.payment_failed,
                each.cancellation_scheduled,
            )
            for each in subscriptions
        },
        "payments": set(standing.payments_ms),
        "ends": set(standing.ends_ms),
        "mrr": mrr_minor(subscriptions),
    }


def walked(changes: list[Change], now: int = END) -> dict[str, Any]:
    """The same, by walking."""
    walk = Walk().to(now, [change for change in changes if isinstance(change, PlanChange)])
    return {
        "subs": {
            name: (sub.state, sub.price, sub.plan, sub.failed, sub.scheduled)
            for name, sub in walk.subs.items()
        },
        "payments": walk.payments,
        "ends": walk.ends,
        "mrr": walk.mrr[-1],
    }


@settings(max_examples=150)
@given(st.data(), CHANGES)
def test_subscriptions_are_what_a_walk_through_time_makes_of_them(
    data: st.DataObject, changes: list[Change]
) -> None:
    """Whatever order, however often, with a restart anywhere: one state, the oracle's."""
    again = data.draw(
        st.permutations(changes + data.draw(st.lists(st.sampled_from(changes))) if changes else [])
    )
    wanted = walked(winners(changes))
    book, other = book_of(changes), ChangeBook()
    for change in again:
        other.merge(change, -1)
        if data.draw(st.booleans()):
            assert len(other) - 1 <= len(other.encoded()) <= len(other)
            other = ChangeBook.decode(other.encoded())
    assert seen(book) == wanted
    assert seen(other) == wanted
    assert book.known() == other.known()
    assert book.encoded() == other.encoded()


@settings(max_examples=200)
@given(CHANGES, st.integers(0, END), st.integers(0, END))
def test_folding_what_is_past_the_fold_line_changes_nothing_after_it(
    changes: list[Change], line: int, now: int
) -> None:
    """Once those before the line are replaced by what they left, every later instant says the same."""
    changes = winners(changes)
    book = book_of(changes)
    book._fold(line)
    book = ChangeBook.decode(book.encoded())
    now = max(now, *(change.at_ms for change in changes), line) if changes else now
    wanted = walked(changes, now)
    found = seen(book, now)
    going = {name: sub for name, sub in wanted["subs"].items() if sub[0] in ("active", "trial", "paused")}
    assert {name: found["subs"].get(name) for name in going} == going
    assert not found["subs"].keys() - wanted["subs"].keys()
    assert found["mrr"] == wanted["mrr"]
    assert {at for at in found["payments"] if at >= line} == {at for at in wanted["payments"] if at >= line}
    assert {at for at in found["ends"] if at >= line} == {at for at in wanted["ends"] if at >= line}
    for name in ("payments", "ends"):
        assert max(found[name], default=None) == max(wanted[name], default=None)
    assert min(found["payments"], default=None) == min(wanted["payments"], default=None)


@settings(max_examples=200)
@given(CHANGES, st.integers(0, END))
def test_mrr_at_the_end_is_that_at_the_start_and_the_movements(changes: list[Change], until: int) -> None:
    """For every step: the movements up to each instant add up to the MRR then, each called by its name."""
    changes = winners(changes)
    steps = Walk().to(END + 4, [c for c in changes if isinstance(c, PlanChange)]).mrr
    found = book_of(changes).movements(END + 4)
    moved = {movement.at_ms: movement for movement in found}
    assert len(moved) == len(found)
    had = 0
    for now, (before, after) in enumerate(zip([0, *steps], steps, strict=False)):
        name = moved[now].kind if now in moved else None
        assert (moved[now].amount_minor if now in moved else 0) == after - before
        expected = None
        if before != after:
            ways = {(False, True): "reactivation" if had else "new", (True, False): "churn"}
            grown = "expansion" if after > before else "contraction"
            expected = ways.get((before > 0, after > 0), grown)
        assert name == expected
        had = max(had, after)
    assert sum(m.amount_minor for m in book_of(changes).movements(until)) == steps[until]


def plan(at: int, change: str, subscription: str = "s", **said: Any) -> PlanChange:
    return PlanChange(at, f"{subscription}-{change}-{at}".encode(), subscription, change, **said)


@pytest.mark.parametrize(("at", "state"), [(9, "active"), (10, "cancelled"), (11, "active")])
def test_a_clearing_change_at_cancel_at_itself_is_too_late(at: int, state: str) -> None:
    """Before it the schedule is cleared, at it the end comes after, later the subscription begins anew."""
    changes: list[Change] = [
        plan(1, "started", mrr_minor=5),
        plan(2, "cancellation_scheduled", cancel_at_ms=10),
        plan(at, "renewed"),
    ]
    book = book_of(changes)
    known = book.known()
    subscriptions, standing = settled(known.subscriptions, known.standing, 12)
    assert subscriptions[0].state == state
    assert standing.ends_ms == (() if at < 10 else (10,))
    assert not subscriptions[0].cancellation_scheduled


def test_an_end_that_leaves_another_active_is_not_kept() -> None:
    """Only the end of the last one counts, and it is kept when a new one starts."""
    book = book_of([plan(1, "started", "a"), plan(2, "started", "b"), plan(3, "ended", "a")])
    assert book.known().standing.last_end_ms is None
    book.merge(plan(4, "cancelled", "b"), -1)
    book.merge(plan(5, "started", "c"), -1)
    assert book.known().standing.last_end_ms == 4


def test_a_switch_within_one_instant_is_no_end() -> None:
    """The new subscription counts before the old one ends, in whatever order they are told."""
    changes = [plan(1, "started", "a"), plan(5, "ended", "a"), plan(5, "started", "b")]
    assert book_of(changes).known().standing.ends_ms == ()


def test_a_trial_only_stops() -> None:
    """Neither its own end, nor being cancelled, nor an end told afterwards is an end."""
    for change in ("trial_ended", "cancelled", "ended"):
        book = book_of([plan(1, "trial_started", trial_ends_at_ms=9), plan(3, change), plan(4, "ended")])
        assert book.known().standing.ends_ms == ()
        assert book.known().subscriptions[0].state == "none"


def ticket(at: int, change: str, author: str | None = None, **said: Any) -> TicketChange:
    return TicketChange(at, f"{change}-{at}".encode(), "t", change, author, **said)


@settings(max_examples=150)
@given(st.lists(TICKETS, max_size=20))
def test_tickets_are_what_their_changes_say(changes: list[Change]) -> None:
    """Open, first reply, close after the last opening, reopenings and rating, from the sorted list."""
    mine = sorted(
        (c for c in winners(changes) if isinstance(c, TicketChange) and c.ticket == "t1"),
        key=lambda c: c.order,
    )
    found = {each.id: each for each in book_of(changes).known().tickets}
    assert ("t1" in found) == bool(mine)
    if not mine:
        return
    openings = [i for i, c in enumerate(mine) if c.change in ("opened", "reopened")]
    opened = [i for i, c in enumerate(mine) if c.change == "opened"]
    closes = [c.at_ms for c in mine[openings[-1] if openings else 0 :] if c.change == "closed"]
    replies = [
        c.at_ms
        for c in mine[opened[0] if opened else len(mine) :]
        if c.change == "replied" and c.author in ("agent", "bot")
    ]
    ratings = [c for c in mine if c.change == "rated"]
    ticket = found["t1"]
    assert ticket.is_open == (bool(openings) and not closes)
    assert ticket.opened_ms == (mine[opened[0]].at_ms if opened else None)
    assert ticket.closed_ms == (closes[0] if closes else None)
    assert ticket.first_reply_ms == (replies[0] if replies else None)
    assert ticket.reopened_ms == tuple(c.at_ms for c in mine if c.change == "reopened")
    assert ticket.rated_ms == (ratings[-1].at_ms if ratings else None)
    assert ticket.rating == next((c.rating for c in reversed(ratings) if c.rating is not None), None)


def test_the_bound_on_bytes_refuses_and_folding_makes_room() -> None:
    """Beyond the bound a change is refused and leaves nothing; what is past the fold line makes room."""
    book, number = ChangeBook(), 0
    while book.merge(plan(100 + number, "upgraded", tier="x" * 500), 0) is Merged.NEW:
        number += 1
    before = book.encoded()
    assert BOOK_BYTES_MAX - 700 < len(before) <= BOOK_BYTES_MAX
    assert book.merge(plan(99, "upgraded", tier="x" * 500), 0) is Merged.REFUSED
    assert book.encoded() == before
    assert book.merge(plan(900, "renewed", tier="x" * 500), 150) is Merged.NEW
    assert len(book.encoded()) < len(before)


def test_contents_under_one_event_id_are_told_apart() -> None:
    """The same is known, the greater lost, the lesser replaces: each has its name, for the counters."""
    book = ChangeBook()
    one, other = PlanChange(5, b"e", "s", "started"), PlanChange(4, b"e", "s", "paused")
    assert [book.merge(change, 0) for change in (one, one, other, one)] == [
        Merged.NEW, Merged.KNOWN, Merged.REPLACED, Merged.LOST,
    ]  # fmt: skip
    assert book.known().subscriptions[0].state == "paused"


def test_few_changes_are_not_folded() -> None:
    """Below FOLD_FROM the changes themselves are kept, so that a row says what happened."""
    book = ChangeBook()
    for number in range(FOLD_FROM):
        book.merge(plan(number, "renewed", mrr_minor=1), 20)
    assert book.encoded().count(b'"renewed"') == FOLD_FROM
    book.merge(plan(40, "renewed", mrr_minor=1), 20)
    assert book.encoded().count(b'"renewed"') == FOLD_FROM + 1 - 20
    assert book.known().standing.payments_ms == (0, 19, *range(20, FOLD_FROM), 40)
