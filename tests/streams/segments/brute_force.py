"""Rules in pairs: the text a person writes, and the truth of it by plain loops over what a customer did.

Nothing here knows of nodes, windows, prefix sums or deadlines.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from streams.customers.entities import NOTHING, Standing, Subscription, Ticket, stops_ms
from tests.streams.segments.described import DAY, Customer, Did, Order

HOUR = DAY // 24
T0 = 1_700_000_000_000 // DAY * DAY
SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
TRAITS = {
    "company_size": "number",
    "country": "string",
    "vip": "boolean",
    "contract_end": "timestamp",
    "apps": "set",
}

Truth = Callable[[Customer, int], bool]
Number = Callable[[Customer, int], Any]
Scope = tuple[str, Callable[[dict[str, Any]], bool]]


@dataclass(frozen=True)
class Rule:
    text: str
    holds: Truth


def window(rng: random.Random) -> tuple[str, int]:
    hours = rng.choice((6, 12, 24, 30, 48, 72, 168))
    return (f"{hours // 24}d" if hours % 24 == 0 else f"{hours}h"), hours * HOUR


def inside(at_ms: int, length_ms: int, now_ms: int) -> bool:
    return now_ms < at_ms + length_ms


def property_scope(rng: random.Random) -> Scope:
    """A where clause on an Activity, missing fields included."""
    draw = rng.randrange(7)
    if draw == 0:
        return ' where feature == "export"', lambda p: p.get("feature") == "export"
    if draw == 1:
        return ' where feature != "export"', lambda p: "feature" in p and p["feature"] != "export"
    if draw == 2:
        return ' where not feature == "export"', lambda p: p.get("feature") != "export"
    if draw == 3:
        return " where size >= 2.5", lambda p: "size" in p and p["size"] >= 2.5
    if draw == 4:
        return (
            ' where feature in ("export", "share") and size < 3',
            lambda p: p.get("feature") in ("export", "share") and "size" in p and p["size"] < 3,
        )
    if draw == 5:
        return " where beta", lambda p: p.get("beta") is True
    return "", lambda p: True


def line_scope(rng: random.Random) -> Scope:
    draw = rng.randrange(4)
    if draw == 0:
        return ' where category == "books"', lambda p: p.get("category") == "books"
    if draw == 1:
        return (
            ' where not category == "books" or quantity > 2',
            lambda p: p.get("category") != "books" or p.get("quantity", 0) > 2,
        )
    return "", lambda p: True


def average(found: list[Any]) -> Fraction | None:
    return Fraction(sum(found), len(found)) if found else None


def pounds(found: Callable[[Customer, int], Any]) -> Number:
    def read(c: Customer, now: int) -> Any:
        amount = found(c, now)
        return None if amount is None else Fraction(amount) / 100

    return read


SMALL, MONEY = [0, 1, 2, 3], [0, "0.01", 5, "9.99", 10, "10.005", 30]
SIZES = [-1, 0, 1, "2.5", 3, "3.333333", 7]
Drawn = tuple[str, Number, list[Any]]
"""A number about a customer: its text, itself (None when missing), and what is worth comparing it with."""


def of_orders(rng: random.Random) -> Drawn:
    """Numbers orders and refunds decide."""
    text, length = window(rng)
    lines, fits = line_scope(rng)

    def orders(c: Customer, now: int, length_ms: int = length) -> list[int]:
        found = []
        for order in c.orders:
            if not inside(order.at_ms, length_ms, now):
                continue
            if not lines:
                found.append(order.net)
                continue
            kept = [value for fields, value in order.lines if fits(dict(fields))]
            whole = sum(value for _, value in order.lines)
            if kept:
                found.append(order.net * sum(kept) // whole if whole else 0)
        return found

    def categories(c: Customer, now: int) -> int:
        kept = [
            fields
            for order in c.orders
            if inside(order.at_ms, length, now)
            for fields, _ in order.lines
            if fits(dict(fields))
        ]
        return len({fields["category"] for fields in kept if "category" in fields})

    def refunds(c: Customer, now: int) -> int:
        return sum(amount for at, amount in c.refunds if inside(at, length, now))

    def net(c: Customer, now: int) -> int:
        return sum(o.net for o in c.orders if inside(o.at_ms, length, now)) - refunds(c, now)

    def highest(c: Customer, now: int) -> int | None:
        return max(orders(c, now), default=None)

    means = [0, "3.33", "3.34", 5, 10]
    return rng.choice(
        (
            (f"orders({text}{lines})", lambda c, now: len(orders(c, now)), SMALL),
            (f"spend({text}{lines})", pounds(lambda c, now: sum(orders(c, now))), MONEY),
            (f"orders(ever{lines})", lambda c, now: len(orders(c, now, 1 << 60)), SMALL),
            (f"refunds({text})", pounds(refunds), MONEY),
            (f"net({text})", pounds(net), [-5, *MONEY]),
            (f"avg(spend, {text}{lines})", pounds(lambda c, now: average(orders(c, now))), means),
            (f"max(spend, {text}{lines})", pounds(highest), MONEY[:5]),
            (f"distinct(category, {text}{lines})", categories, SMALL),
        )
    )


def of_events(rng: random.Random) -> Drawn:
    """Numbers Activities decide."""
    text, length = window(rng)
    name = rng.choice(("login", "feature_used"))
    scope, fits = property_scope(rng)
    length_days = rng.choice((1, 2, 3, 7))

    def done(c: Customer, now: int, length_ms: int = length) -> list[dict[str, Any]]:
        named = [d for d in c.did if d.name == name and inside(d.at_ms, length_ms, now)]
        return [dict(d.properties) for d in named if fits(dict(d.properties))]

    def sizes(c: Customer, now: int) -> list[Fraction]:
        # A number is kept in millionths, half of one rounded to even: no double is 3.333333.
        kept = (round(Fraction(each["size"]) * 10**6) for each in done(c, now) if "size" in each)
        return [Fraction(each, 10**6) for each in kept]

    def features(c: Customer, now: int) -> int:
        return len({each["feature"] for each in done(c, now) if "feature" in each})

    def days(c: Customer, now: int, only: str | None) -> int:
        times = [d.at_ms for d in c.did if only in (None, d.name)]
        times += [] if only else [o.at_ms for o in c.orders]
        return len({at // DAY for at in times if at // DAY > now // DAY - length_days})

    what = f'("{name}", size, {text}{scope})'
    return rng.choice(
        (
            (f'count("{name}", {text}{scope})', lambda c, now: len(done(c, now)), SMALL),
            (f'count("{name}", ever{scope})', lambda c, now: len(done(c, now, 1 << 60)), SMALL),
            (f"sum{what}", lambda c, now: sum(sizes(c, now)), SIZES),
            (f"avg{what}", lambda c, now: average(sizes(c, now)), SIZES),
            (f"max{what}", lambda c, now: max(sizes(c, now), default=None), SIZES),
            (f"min{what}", lambda c, now: min(sizes(c, now), default=None), SIZES),
            (f'distinct("{name}", feature, {text}{scope})', features, SMALL),
            (f"days_active({length_days}d)", lambda c, now: days(c, now, None), SMALL),
            (f'days_active("{name}", {length_days}d)', lambda c, now: days(c, now, name), SMALL),
        )
    )


EDGES = [0, "0.5", 1, 2, "2.25", 3, 7]
"""Days worth comparing a time with."""


def since_instants(rng: random.Random) -> Drawn:
    """Times since something, in days."""
    name = rng.choice(("login", "feature_used"))
    scope, fits = property_scope(rng)

    def did(c: Customer) -> list[int]:
        return [d.at_ms for d in c.did if d.name == name and fits(dict(d.properties))]

    def bought(c: Customer) -> list[int]:
        return [o.at_ms for o in c.orders]

    def paid(c: Customer) -> list[int]:
        return [*bought(c), *c.standing.payments_ms]

    def since(times: Callable[[Customer], list[int]], pick: Callable[[list[int]], int]) -> Number:
        return lambda c, now: Fraction(max(0, now - pick(times(c))), DAY) if times(c) else None

    def since_trait(c: Customer, now: int) -> Fraction | None:
        at = contract_end(c)
        return None if at is None or at > now else Fraction(now - at, DAY)

    return rng.choice(
        (
            (f'days_since("{name}"{scope})', since(did, max), EDGES),
            (f'days_since(first("{name}"{scope}))', since(did, min), EDGES),
            ("days_since(last())", since(bought, max), EDGES),
            ("tenure", since(paid, min), EDGES),
            ("days_since(contract_end)", since_trait, EDGES),
        )
    )


def contract_end(c: Customer) -> int | None:
    value = c.traits.get("contract_end")
    return value[0] if isinstance(value, tuple) and value and isinstance(value[0], int) else None


def until_instants(rng: random.Random) -> Drawn:
    """Times until something, and mean times of tickets, in days."""
    text, length = window(rng)

    def until(c: Customer, now: int, at: int | None) -> Fraction | None:
        return None if at is None or at <= now else Fraction(at - now, DAY)

    def coming(c: Customer, now: int, which: str) -> int | None:
        found = []
        for sub in c.subscriptions:
            stop = stops_ms(sub)
            if stop is not None and stop <= now:
                continue
            at = sub.renews_at_ms if which == "renews_at" else sub.trial_ends_at_ms
            if sub.state == ("active" if which == "renews_at" else "trial") and at is not None and at > now:
                found.append(at)
        return min(found, default=None)

    def mean(c: Customer, now: int, entries: Callable[[Ticket], list[tuple[int, int]]]) -> Fraction | None:
        found = [value for t in c.tickets for at, value in entries(t) if inside(at, length, now)]
        return Fraction(sum(found), len(found)) / DAY if found else None

    def replied(t: Ticket) -> list[tuple[int, int]]:
        known = t.opened_ms is not None and t.first_reply_ms is not None
        return [(t.opened_ms, t.first_reply_ms - t.opened_ms)] if known else []

    def closed(t: Ticket) -> list[tuple[int, int]]:
        known = t.opened_ms is not None and t.closed_ms is not None
        return [(t.closed_ms, t.closed_ms - t.opened_ms)] if known else []

    times = ["0.25", "0.5", 1]
    return rng.choice(
        (
            ("days_until(contract_end)", lambda c, now: until(c, now, contract_end(c)), EDGES),
            ("days_until(renews_at)", lambda c, now: until(c, now, coming(c, now, "renews_at")), EDGES),
            (
                "days_until(trial_ends_at)",
                lambda c, now: until(c, now, coming(c, now, "trial_ends_at")),
                EDGES,
            ),
            (f"first_reply_time({text})", lambda c, now: mean(c, now, replied), times),
            (f"close_time({text})", lambda c, now: mean(c, now, closed), times),
        )
    )


def active(c: Customer, now: int) -> list[Subscription]:
    return [
        s for s in c.subscriptions if s.state == "active" and ((stop := stops_ms(s)) is None or stop > now)
    ]


def of_entities(rng: random.Random) -> tuple[str, Number, list[Any]]:
    """Sums over subscriptions and tickets."""
    text, length = window(rng)

    def rating(c: Customer, now: int) -> Fraction | None:
        found = [t.rating for t in c.tickets if t.rating is not None and inside(t.rated_ms, length, now)]
        return Fraction(sum(found), len(found)) if found else None

    return rng.choice(
        (
            ("mrr", lambda c, now: Fraction(sum(s.mrr_minor for s in active(c, now)), 100), [0, 10, "19.99"]),
            (
                "arr",
                lambda c, now: Fraction(12 * sum(s.mrr_minor for s in active(c, now)), 100),
                [0, 120, 240],
            ),
            ("seats", lambda c, now: sum(s.seats or 0 for s in active(c, now)), [0, 1, 5]),
            ("tickets_open", lambda c, now: sum(t.is_open for t in c.tickets), [0, 1, 2]),
            (
                f"tickets({text})",
                lambda c, now: sum(
                    t.opened_ms is not None and inside(t.opened_ms, length, now) for t in c.tickets
                ),
                [0, 1, 2],
            ),
            (
                f"reopened({text})",
                lambda c, now: sum(inside(at, length, now) for t in c.tickets for at in t.reopened_ms),
                [0, 1, 2],
            ),
            (f"rating({text})", rating, [1, "2.5", 3]),
            (
                "company_size",
                lambda c, now: (
                    None if c.traits.get("company_size") is None else Fraction(c.traits["company_size"])
                ),
                [1, "2.5", 10],
            ),
        )
    )


def plain(rng: random.Random) -> Rule:
    """A rule without a number."""
    name = rng.choice(("login", "feature_used"))
    scope, fits = property_scope(rng)
    text, length = window(rng)

    def any_active(fit: Callable[[Subscription], bool]) -> Truth:
        return lambda c, now: any(map(fit, active(c, now)))

    return rng.choice(
        (
            Rule(
                f'ever("{name}"{scope})',
                lambda c, now: any(d.name == name and fits(dict(d.properties)) for d in c.did),
            ),
            Rule(
                f'has(avg("{name}", size, {text}))',
                lambda c, now: any(
                    d.name == name and "size" in d.properties and inside(d.at_ms, length, now) for d in c.did
                ),
            ),
            Rule("has(contract_end)", lambda c, now: "contract_end" in c.traits),
            Rule(
                "has(days_until(contract_end))",
                lambda c, now: "contract_end" in c.traits and c.traits["contract_end"][0] > now,
            ),
            Rule('country in ("DE", "AT")', lambda c, now: c.traits.get("country") in ("DE", "AT")),
            Rule('country != "DE"', lambda c, now: c.traits.get("country") not in (None, "DE")),
            Rule('not country == "DE"', lambda c, now: c.traits.get("country") != "DE"),
            Rule("vip", lambda c, now: c.traits.get("vip") is True),
            Rule("vip == false", lambda c, now: c.traits.get("vip") is False),
            Rule('"slack" in apps', lambda c, now: "slack" in c.traits.get("apps", ())),
            Rule('plan == "pro"', any_active(lambda s: s.plan == "pro")),
            Rule('plan != "pro"', any_active(lambda s: s.plan is not None and s.plan != "pro")),
            Rule('tier in ("gold", "silver")', any_active(lambda s: s.tier in ("gold", "silver"))),
            Rule("subscribed()", any_active(lambda s: True)),
            Rule(
                'subscribed(product == "crm" and seats > 2)',
                any_active(lambda s: s.product == "crm" and s.seats is not None and s.seats > 2),
            ),
            Rule("has(plan)", any_active(lambda s: s.plan is not None)),
            Rule("ticket_open", lambda c, now: any(t.is_open for t in c.tickets)),
            Rule(
                f'last("{name}") >= "2023-11-16"',
                lambda c, now: max((d.at_ms for d in c.did if d.name == name), default=0) >= T0 + 2 * DAY,
            ),
            Rule("true", lambda c, now: True),
        )
    )


NUMBERS = (of_orders, of_orders, of_events, of_events, since_instants, until_instants, of_entities)


def rule(rng: random.Random, depth: int = 2) -> Rule:
    """A rule of any shape."""
    draw = rng.random()
    if depth and draw < 0.3:
        parts = [rule(rng, depth - 1) for _ in range(rng.choice((2, 3)))]
        both = rng.random() < 0.5
        text = (" and " if both else " or ").join(f"({part.text})" for part in parts)
        return Rule(text, lambda c, now: (all if both else any)(part.holds(c, now) for part in parts))
    if depth and draw < 0.4:
        inner = rule(rng, depth - 1)
        return Rule(f"not ({inner.text})", lambda c, now: not inner.holds(c, now))
    if draw < 0.55:
        return plain(rng)
    text, number, edges = rng.choice(NUMBERS)(rng)
    sign, edge = rng.choice(list(SIGNS)), rng.choice(edges)
    compare, threshold = SIGNS[sign], Fraction(str(edge))
    if text.startswith("avg(spend") and threshold.denominator > 100:
        threshold, edge = Fraction(5), 5

    def holds(c: Customer, now: int) -> bool:
        value = number(c, now)
        return value is not None and compare(value, threshold)

    return Rule(f"{text} {sign} {edge}", holds)


def customer(rng: random.Random) -> Customer:
    """Somebody who did a few things within ten days around T0, most of them at full hours."""

    def at(low: int = -10, high: int = 0) -> int:
        return T0 + rng.randrange(low * 24, high * 24 + 1) * HOUR + rng.choice((0, 0, 0, 1, -1, 1_234_567))

    def order() -> Order:
        lines = tuple(
            (
                {
                    k: v
                    for k, v in (
                        ("category", rng.choice(("books", "toys", "food"))),
                        ("quantity", rng.randrange(1, 5)),
                    )
                    if rng.random() < 0.9
                },
                rng.choice((0, 1, 333, 500)),
            )
            for _ in range(rng.randrange(4))
        )
        return Order(at(), rng.choice((1, 333, 500, 999, 1_000, 3_000)), lines)

    def did() -> Did:
        found = {
            "feature": rng.choice(("export", "share", "print")),
            "size": rng.choice((-1, 0, 1, 2.5, 3, 3.333333, 7)),
            "beta": rng.random() < 0.5,
        }
        return Did(
            at(),
            rng.choice(("login", "feature_used")),
            {k: v for k, v in found.items() if rng.random() < 0.8},
        )

    traits = {
        "company_size": rng.choice((1, 2.5, 10, 250)),
        "country": rng.choice(("DE", "AT", "FR")),
        "vip": rng.random() < 0.5,
        "contract_end": (at(-3, 12),),
        "apps": rng.choice(((), ("slack",), ("jira", "slack"))),
    }
    plans = tuple(_subscription(rng, i, at) for i in range(rng.choice((0, 0, 1, 2))))
    return Customer(
        orders=[order() for _ in range(rng.randrange(6))],
        refunds=[(at(), rng.choice((1, 500, 1_500))) for _ in range(rng.randrange(3))],
        did=[did() for _ in range(rng.randrange(9))],
        traits={k: v for k, v in traits.items() if rng.random() < 0.6},
        subscriptions=plans,
        standing=_standing(rng, at) if plans else NOTHING,
        tickets=tuple(_ticket(rng, i, at) for i in range(rng.choice((0, 0, 1, 3)))),
    )


def _standing(rng: random.Random, at: Callable[..., int]) -> Standing:
    times = sorted(at() for _ in range(rng.randrange(4)))
    ends = sorted(at() for _ in range(rng.randrange(3)))
    return Standing(tuple(times), tuple(ends))


def _subscription(rng: random.Random, i: int, at: Callable[..., int]) -> Subscription:
    state = rng.choice(("active", "active", "trial", "paused", "cancelled", "none"))
    scheduled = state in ("active", "paused") and rng.random() < 0.4
    return Subscription(
        f"s{i}",
        state=state,  # type: ignore[arg-type]  # One of the states.
        product=rng.choice(("crm", "mail", None)),
        plan=rng.choice(("pro", "basic", None)),
        tier=rng.choice(("gold", "silver", None)),
        seats=rng.choice((None, 1, 3, 5)),
        price_minor=rng.choice((0, 1_000, 1_999)),
        payment_failed=rng.random() < 0.2,
        cancellation_scheduled=scheduled,
        cancel_at_ms=at(-2, 12) if scheduled else None,
        trial_ends_at_ms=at(-2, 12) if state == "trial" else None,
        renews_at_ms=at(-2, 12) if state == "active" and rng.random() < 0.7 else None,
        changed_ms=T0 - 10 * DAY,
    )


def _ticket(rng: random.Random, i: int, at: Callable[..., int]) -> Ticket:
    opened = at()
    is_open = rng.random() < 0.4
    rated = rng.random() < 0.5
    return Ticket(
        f"t{i}",
        is_open=is_open,
        opened_ms=opened if rng.random() < 0.9 else None,
        reopened_ms=tuple(sorted(at() for _ in range(rng.randrange(3)))),
        first_reply_ms=opened + rng.choice((1, HOUR, 12 * HOUR, DAY)) if rng.random() < 0.6 else None,
        closed_ms=None if is_open else opened + rng.choice((HOUR, DAY)),
        rating=rng.randrange(1, 6) if rated else None,
        rated_ms=at() if rated else None,
    )
