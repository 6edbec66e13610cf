"""Files with custom segments of every kind, edited at random, and logs that move what they ask for."""

from __future__ import annotations

import random
from typing import Any

from streams.segments.versions import Version
from tests.streams.segments.custom import with_sections
from tests.streams.segments.edits import version
from tests.streams.steps.streams_of_events import DAY, Entry, random_log

RULES = (
    "orders(20d) >= 1",
    "orders(200d) >= 2",
    "spend(60d) >= 100 and net(300d) < 4000",
    'country == "DE" or company_size > 2',
    'count("login", 40d) >= 1',
    'days_since("login") > 30',
    'days_active(60d) >= 2 and not country == "DE"',
    "tickets_open >= 1 or tickets(90d) >= 2",
    'plan == "pro" or mrr >= 10',
    'lifecycle in ("at_risk", "churned")',
    "rfm.r >= 3",
    'worth == "gold"',
    'bucket("a") < 50',
    'in_segment("base")',
)
DELAYS = ("", ", dwell_enter: 5d", ", dwell_exit: 9d", ", dwell_enter: 2d, cooldown: 60d")
STATES = ("", "", "", ", state: shadow", ", state: draft")

KEPT = """  base: {when: 'spend(365d) >= 200'}
  keeps:
    when: count("login", 40d) >= 9 and days_since("login") > 30 and days_active(60d) >= 50
"""
"""In every file, so that what any rule reads is kept; and a segment others may ask for."""


def sections(rng: random.Random) -> str:
    """Traits, some segments with delays and states, and a dimension."""
    text = "traits: {country: string, company_size: number}\nsegments:\n" + KEPT
    for number in sorted(rng.sample(range(8), rng.randrange(1, 7))):
        rule, delay, state = rng.choice(RULES), rng.choice(DELAYS), rng.choice(STATES)
        text += f"  s{number}: {{when: '{rule}'{delay}{state}}}\n"
    least = rng.randrange(100, 900)
    return (
        text + f"dimensions:\n  worth:\n    values: {{gold: 'spend(300d) >= {least}'}}\n    otherwise: rest\n"
    )


def file(rng: random.Random) -> str:
    """A whole file."""
    return with_sections(sections(rng))


def custom_version(number: int, rng: random.Random) -> Version:
    """An applied version of such a file."""
    return version(number, file(rng))


def log_of(rng: random.Random, entries: int, customers: int) -> list[Entry]:
    """Orders, refunds, logins, traits, subscriptions and tickets; event times mostly rise."""
    found = []
    for number, entry in enumerate(random_log(rng, entries, customers)):
        found.append(entry)
        if entry[0] != "Tick" and rng.random() < 0.6:
            found.append(_further(rng, number, entry[1], entry[2]["occurred_at"]))
    return found


def _further(rng: random.Random, number: int, customer: str, at_ms: int) -> Entry:
    fields: dict[str, Any] = {"event_id": f"x{number}", "occurred_at": at_ms}
    draw = rng.random()
    if draw < 0.3:
        return "Activity", customer, {**fields, "name": "login"}
    if draw < 0.5:
        traits = {"country": rng.choice(("DE", "FR")), "company_size": rng.randrange(5)}
        return "ProfileUpdated", customer, {**fields, "traits": traits}
    if draw < 0.75:
        change = rng.choice(("started", "upgraded", "paused", "cancelled", "cancellation_scheduled"))
        said = {"subscription_id": "s", "change": change, "plan": rng.choice(("pro", "basic"))}
        if change in ("started", "upgraded"):
            said |= {"mrr_minor": rng.choice((0, 500, 1_500)), "currency": "GBP"}
        if change == "cancellation_scheduled":
            said |= {"cancel_at": at_ms + 20 * DAY}
        return "PlanChanged", customer, {**fields, **said}
    change = rng.choice(("opened", "closed", "reopened"))
    return "TicketChanged", customer, {**fields, "ticket_id": f"t{number % 3}", "change": change}
