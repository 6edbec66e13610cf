"""Definitions with any number of custom segments that share windows, and events of customers they divide."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product, zip_longest
from pathlib import Path

import numpy as np

from benchmarks.synthetic import DAY_MS, HOUR_MS, START_MS, ZIPF_EXPONENT, Encoder, Keyed
from schemas.events import encode_tick
from streams.customers.facts import Strings
from streams.customers.hashing import partitions_of

CORE = Path(__file__).resolve().parents[1] / "segments.yaml"
COUNTRIES = ("DE", "GB", "FR", "US", "AT", "CH", "SE", "JP")
FEATURES = ("export", "share", "search", "import")
TRAITS = "traits: {country: string, company_size: number, newsletter: boolean}\n"
_WINDOWS = ("7d", "30d", "90d", "365d")


def rules() -> list[str]:
    """Return over 200 rules: every kind of question once, then again with other windows and thresholds."""
    kinds = [
        [f"orders({w}) >= {k}" for k, w in product((2, 1, 3, 5, 8), _WINDOWS)],
        [f"spend({w}) > {x}" for x, w in product((250, 100, 50, 500, 1000), _WINDOWS)],
        [f"days_since(last()) > {d}" for d in (60, 30, 14, 45, 90, 120, 180)],
        [f'count("feature_used", {w}) >= {k}' for k, w in product((3, 1, 5, 10, 20), _WINDOWS[:3])],
        [
            f'count("feature_used", {w} where feature == "export") >= {k}'
            for k, w in product((2, 1, 4, 8), _WINDOWS[:3])
        ],
        [f"days_active({w}) >= {k}" for k, w in product((3, 2, 5, 7), ("28d", "7d"))],
        [f'days_since("login") > {d} and spend(365d) > {x}' for d, x in product((14, 7, 30), (50, 250, 500))],
        [f'country == "{c}" and orders(90d) >= {k}' for k, c in product((1, 2, 3), COUNTRIES)],
        [f"company_size >= {s} and spend(90d) > {x}" for s, x in product((100, 500, 20), (100, 500, 50))],
        [
            f'rfm.segment in ("champions", "loyal") and count("login", {w}) >= {k}'
            for k, w in product((1, 3, 5), _WINDOWS[:3])
        ],
        [f'lifecycle == "{s}" and newsletter' for s in ("at_risk", "new", "churned", "reactivated", "loyal")],
        [f"avg(spend, 365d) >= {x}" for x in (80, 120, 160, 40)],
        [f"orders(90d) == 0 and days_since(last()) < {d}" for d in (180, 120, 365)],
        [f"refunds({w}) > {x}" for x, w in product((0, 20), ("90d", "365d"))],
        [f"net({w}) >= {x}" for x, w in product((200, 400, 800), ("90d", "365d"))],
        [f"tenure >= {d}d and orders(30d) >= {k}" for d, k in product((30, 60), (1, 2))],
        [f'newsletter and not count("login", {w}) >= 1' for w in _WINDOWS[:3]],
        [f"spend({w}) > 100 and days_active(28d) >= {k}" for w, k in product(("30d", "90d"), (2, 4))],
        [f'ever("login") and orders({w}) == 0' for w in _WINDOWS],
        [f'country in ("DE", "AT", "CH") and spend({w}) > {x}' for x, w in product((100, 400), _WINDOWS)],
        [f'orders(30d) >= 1 and count("feature_used", 30d) >= {k}' for k in (1, 5, 10)],
        [f"orders(365d) >= {k} and days_since(last()) > 45" for k in (2, 4, 6)],
        [f"spend(30d) > {x} or orders(7d) >= 3" for x in (300, 600)],
        [f'country == "{c}" and newsletter and spend(365d) > 100' for c in COUNTRIES],
        [f'country == "{c}" and days_since("login") > 30' for c in COUNTRIES],
        [f'count("login", {w}) >= {k}' for k, w in product((2, 4, 6, 10), _WINDOWS[:3])],
        [f"company_size >= {s} and orders({w}) == 0" for s, w in product((500, 100), _WINDOWS[1:])],
    ]
    return [rule for turn in zip_longest(*kinds) for rule in turn if rule is not None]


def definition_text(segments: int) -> str:
    """Return segments.yaml with so many custom segments, the first of every kind first."""
    found = rules()
    if segments > len(found):
        raise ValueError(f"{segments} segments; there are rules for {len(found)}")
    core = CORE.read_text("utf-8").split("\n# -- optional")[0]
    lines = "".join(f"  segment_{at:03}:\n    when: {rule!r}\n" for at, rule in enumerate(found[:segments]))
    return f"{core}\n{TRAITS}" + (f"segments:\n{lines}" if segments else "")


def edited_text(segments: int) -> str:
    """Return the definition after one rule is edited: the first segment's, without any the lifecycle."""
    text = definition_text(segments)
    before, after = (
        ("orders(7d) >= 2'", "orders(7d) >= 3'") if segments else ("at_risk_after: 60d", "at_risk_after: 50d")
    )
    assert before in text, "the rule that is edited is there"
    return text.replace(before, after, 1)


def log(
    *,
    customers: int,
    events: int,
    partitions: int,
    days: int,
    tick_ms: int = HOUR_MS,
    start_ms: int = START_MS,
) -> Iterator[Keyed]:
    """Yield (partition, key, value) in event time, with a Tick to every partition each `tick_ms`.

    Everybody comes once among the first `customers` events; the others are of customers who differ in
    zeal. 36 % purchases, 4 % refunds, 50 % activities, 10 % sign-ups and profiles. The same arguments
    give the same bytes.
    """
    rng, draws = random.Random(11), np.random.default_rng(11)
    ids = [b"customer-%07d" % i for i in range(customers)]
    home = partitions_of(Strings.from_list(ids), partitions).tolist()
    weights = np.arange(1, customers + 1) ** -ZIPF_EXPONENT
    later = draws.choice(customers, max(0, events - customers), p=weights / weights.sum())
    who = np.concatenate((draws.permutation(customers), draws.permutation(customers)[later]))[:events]
    times = np.sort(draws.integers(0, days * DAY_MS, events)) + start_ms
    encode, next_tick = Encoder("Purchased", "Refunded", "SignedUp", "ProfileUpdated", "Activity"), start_ms
    for i, (customer, at) in enumerate(zip(who.tolist(), times.tolist(), strict=True)):
        while at >= next_tick:
            value = encode_tick(next_tick)
            yield from ((p, b"%d" % p, value) for p in range(partitions))
            next_tick += tick_ms
        fields = {
            "event_id": f"event-{i}",
            "occurred_at": at,
            "customer_id": ids[customer].decode(),
            "context": None,
        }
        yield home[customer], ids[customer], encode(*_event(rng, i, fields))
    value = encode_tick(start_ms + days * DAY_MS)
    yield from ((p, b"%d" % p, value) for p in range(partitions))


def _event(rng: random.Random, i: int, fields: dict[str, object]) -> tuple[str, dict[str, object]]:
    draw = rng.random()
    if draw < 0.36:
        money = {"order_id": f"order-{i}", "amount_minor": int(rng.expovariate(1 / 6_000)), "currency": "GBP"}
        return "Purchased", {**fields, **money}
    if draw < 0.40:
        given = {"refund_id": f"refund-{i}", "kind": "refund", "amount_minor": rng.randrange(1, 5_000)}
        return "Refunded", {**fields, **given, "currency": "GBP"}
    if draw < 0.90:
        name = "feature_used" if draw < 0.65 else "login"
        properties = {"feature": rng.choice(FEATURES)} if name == "feature_used" else {}
        return "Activity", {**fields, "name": name, "properties": properties}
    traits = {
        "country": rng.choice(COUNTRIES),
        "company_size": int(rng.paretovariate(0.5)),
        "newsletter": rng.random() < 0.3,
    }
    return ("SignedUp" if draw < 0.93 else "ProfileUpdated"), {**fields, "traits": traits}
