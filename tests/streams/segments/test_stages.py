"""The lifecycle of customers with subscriptions, against the rules read one by one from the history."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from streams.customers.entities import Standing, Subscription
from streams.segments.evaluate import Evaluator
from streams.segments.loading import default_definition
from tests.streams.segments.described import DAY, Customer, DescribedTable, Order

T0 = 1_700_000_000_000 // DAY * DAY
A, C, N, TENURE = 60 * DAY, 180 * DAY, 30 * DAY, 180 * DAY
EVALUATOR = Evaluator(default_definition())
STAGES = EVALUATOR.values[1]


def alive(sub: Subscription, now: int) -> bool:
    """Active, and not yet cancelled by the cancellation that was scheduled."""
    return sub.state == "active" and (sub.cancel_at_ms is None or now < sub.cancel_at_ms)


def ends(c: Customer, now: int) -> list[int]:
    """Ends that left none active: those on record, and scheduled ones that came while none went on."""
    found = list(c.standing.ends_ms)
    for sub in c.subscriptions:
        at = sub.cancel_at_ms
        if (
            sub.state == "active"
            and at is not None
            and at <= now
            and not any(alive(s, at) for s in c.subscriptions)
        ):
            found.append(at)
    return sorted(found)


def stage(c: Customer, now: int) -> str:
    """DESIGN 9 with rules 9 to 11, in its own words."""
    paid = sorted([order.at_ms for order in c.orders] + list(c.standing.payments_ms))
    active = [sub for sub in c.subscriptions if alive(sub, now)]
    if not paid:
        return "lead"
    gap, since_first, over = now - paid[-1], now - paid[0], ends(c, now)
    if not active and (gap >= C or any(not any(p > end for p in paid) for end in over)):
        return "churned"
    for i in range(1, len(paid)):
        if now - paid[i] < N and not active and paid[i] - paid[i - 1] >= C:
            return "reactivated"
        if now - paid[i] < N and any(paid[i - 1] <= end < paid[i] for end in over):
            return "reactivated"
    if (gap >= A and not active) or any(sub.payment_failed or sub.cancellation_scheduled for sub in active):
        return "at_risk"
    if since_first < N:
        return "new"
    bought = [order.at_ms for order in c.orders]
    recent = bool(bought) and now - max(bought) < 60 * DAY
    often = sum(now - at < 365 * DAY for at in bought) >= 6
    return "loyal" if since_first >= TENURE and recent and often else "active"


def someone(rng: random.Random) -> Customer:
    """A customer whose payments, ends and scheduled cancellations lie where rules begin and end to hold."""

    def at() -> int:
        return (
            T0
            - rng.choice((0, 1, 29, 30, 31, 59, 60, 90, 179, 180, 181, 210, 400)) * DAY
            + rng.choice((-1, 0, 0, 1))
        )

    def sub(i: int) -> Subscription:
        state = rng.choice(("active", "active", "cancelled", "paused", "trial"))
        scheduled = state == "active" and rng.random() < 0.5
        return Subscription(
            f"s{i}",
            state=state,  # type: ignore[arg-type]  # One of the states.
            payment_failed=state == "active" and rng.random() < 0.2,
            cancellation_scheduled=scheduled,
            cancel_at_ms=T0 + rng.randrange(-40, 60) * DAY if scheduled else None,
            was_active=True,
        )

    subs = tuple(sub(i) for i in range(rng.choice((1, 1, 2))))
    return Customer(
        orders=[Order(min(at(), T0), 1_000) for _ in range(rng.choice((0, 1, 3, 8)))],
        subscriptions=subs,
        standing=Standing(
            tuple(sorted({min(at(), T0) for _ in range(rng.randrange(4))})),
            tuple(sorted({min(at(), T0) for _ in range(rng.randrange(3))})),
        ),
    )


@pytest.mark.parametrize("seed", range(40))
def test_the_stage_of_a_subscriber_is_what_the_rules_say_and_its_deadline_is_never_late(seed: int) -> None:
    """At every quarter of a day of a year, and 1 ms before every deadline."""
    rng = random.Random(seed)
    people = [someone(rng) for _ in range(5)]
    table = DescribedTable(people)
    instants = T0 + np.arange(0, 400 * 4) * (DAY // 4)
    for slot, person in enumerate(people):
        out = EVALUATOR.evaluate(table, np.full(len(instants), slot), instants)
        said = [STAGES[code] for code in out.value[:, 1].tolist()]
        truth = [stage(person, now) for now in instants.tolist()]
        assert said == truth, person
        for i, due in enumerate(out.due_ms.tolist()):
            last = min((due - 1 - T0) // (DAY // 4), len(truth) - 1)
            assert truth[i : last + 1] == [truth[i]] * (last + 1 - i), (person, i, due)
            if due < instants[-1]:
                assert stage(person, due - 1) == truth[i], (person, i, due)


@pytest.mark.parametrize("seed", range(10))
def test_who_has_no_subscription_is_judged_alike_by_both_ways(seed: int) -> None:
    """Rule by rule and by the column they agree: a paused subscription that never paid changes nothing."""
    rng = random.Random(seed)
    plain = [replace(someone(rng), subscriptions=(), standing=Standing()) for _ in range(40)]
    paused = [replace(each, subscriptions=(Subscription("s", "paused"),)) for each in plain]
    instants = T0 + np.array([rng.randrange(400 * DAY) for _ in range(40)])
    both = [
        EVALUATOR.evaluate(DescribedTable(people), np.arange(40), instants).value[:, 1].tolist()
        for people in (plain, paused)
    ]
    assert both[0] == both[1]
