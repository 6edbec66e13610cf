"""Logs of every type of event, in the words random rules ask for, and files of such rules."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from tests.streams.segments import brute_force
from tests.streams.segments.brute_force import HOUR, T0, TRAITS
from tests.streams.segments.custom import with_sections

DAY = 24 * HOUR
Entry = tuple[str, str, dict[str, Any]]
"""(type, customer, fields); a Tick has no customer and one field, `at`."""


def random_log(rng: random.Random, entries: int, start: int = 0, now: int = T0) -> list[Entry]:
    """Mostly in order, with late and doubled events, ticks in between and one at the end."""
    log: list[Entry] = []
    for i in range(start, start + entries):
        now += rng.choice((1, 60_000, HOUR, HOUR, 8 * HOUR, DAY))
        at = now - (rng.choice((HOUR // 2, 2 * HOUR, 3 * DAY)) if rng.random() < 0.2 else 0)
        if rng.random() < 0.25:
            log.append(("Tick", "", {"at": now}))
        elif rng.random() < 0.1 and (sent := [entry for entry in log[-20:] if entry[1]]):
            log.append(rng.choice(sent))
        else:
            type_name, fields = _event(rng, i, at)
            fields |= {"event_id": f"e{i}", "occurred_at": at}
            log.append((type_name, f"c{rng.randrange(8)}", fields))
    log.append(("Tick", "", {"at": now + rng.choice((0, HOUR))}))
    return log


def _event(rng: random.Random, i: int, at: int) -> tuple[str, dict[str, Any]]:
    kind = rng.choice(
        ("Activity",) * 4
        + ("Purchased",) * 3
        + ("Refunded", "PlanChanged", "TicketChanged", "ProfileUpdated", "SignedUp")
    )
    if kind == "Activity":
        properties = {
            "feature": rng.choice(("export", "share", "print")),
            "size": rng.choice((-1, 0, 1, 2.5, 3, 3.333333, 7)),
            "beta": rng.random() < 0.5,
        }
        kept = {name: value for name, value in properties.items() if rng.random() < 0.8}
        return kind, {"name": rng.choice(("login", "feature_used")), "properties": kept}
    if kind == "Purchased":
        items = [
            {
                "sku": rng.choice("xyz"),
                "category": rng.choice(("books", "toys", "food", None)),
                "quantity": rng.randrange(1, 5),
                "unit_price_minor": rng.choice((0, 1, 333, 500)),
            }
            for _ in range(rng.randrange(4))
        ]
        paid = {"amount_minor": rng.choice((0, 1, 333, 999, 3_000)), "currency": "GBP"}
        return kind, {"order_id": f"o{rng.randrange(i // 3 + 1)}", "items": items, **paid}
    if kind == "Refunded":
        order = f"o{rng.randrange(i // 3 + 1)}" if rng.random() < 0.6 else None
        refund = {"refund_id": f"r{i}", "order_id": order, "amount_minor": 700, "currency": "GBP"}
        return kind, {**refund, "kind": rng.choice(("refund", "cancellation"))}
    if kind == "PlanChanged":
        change = ("started", "trial_started", "renewed", "payment_failed", "cancellation_scheduled", "ended")
        return kind, {
            "subscription_id": rng.choice("st"),
            "product": rng.choice(("crm", "mail")),
            "plan": rng.choice(("pro", "basic")),
            "tier": rng.choice(("gold", "silver")),
            "seats": rng.choice((None, 1, 3, 5)),
            "mrr_minor": rng.choice((None, 0, 1_000)),
            "currency": "GBP",
            "cancel_at": at + DAY,
            "trial_ends_at": at + 3 * DAY,
            "renews_at": at + 2 * DAY,
            "change": rng.choice(change),
        }
    if kind == "TicketChanged":
        return kind, {
            "ticket_id": rng.choice("pq"),
            "change": rng.choice(("opened", "replied", "closed", "reopened", "rated")),
            "author": rng.choice(("customer", "agent")),
            "rating": rng.randrange(1, 6),
        }
    traits = {
        "company_size": rng.choice((1, 2.5, 10, 250)),
        "country": rng.choice(("DE", "AT", "FR")),
        "vip": rng.random() < 0.5,
        "apps": rng.choice((["slack"], ["jira", "slack"])),
    }
    return kind, {"traits": {name: value for name, value in traits.items() if rng.random() < 0.5}}


@dataclass(frozen=True)
class Edit:
    """One version of a file: its text, and which segments of it settle with a delay."""

    text: str


def rules_of(rng: random.Random, count: int) -> list[str]:
    """So many random rules."""
    return [brute_force.rule(rng, depth=1).text for _ in range(count)]


def first_version(rules: list[str]) -> str:
    """A file that keeps all these rules ask for, and tells nobody."""
    return _file({f"kept{i}": {"when": rule, "state": "shadow"} for i, rule in enumerate(rules)}, {})


def random_version(rng: random.Random, rules: list[str], *, delays: bool, keeps: bool) -> str:
    """A file with some segments and dimensions of these rules, in any state.

    Their keys are few, so that they come, change and come back; with `keeps` all rules stay shadows too,
    so that nothing is forgotten that a later version may ask for.
    """
    segments: dict[str, dict[str, str]] = {}
    for key in ("alpha", "beta", "gamma", "delta"):
        if rng.random() < 0.3:
            continue
        fields = {"when": rng.choice(rules), "state": rng.choice(("live", "live", "live", "shadow", "draft"))}
        plain = sorted(
            key for key, each in segments.items() if each.keys() <= {"when", "state", "valid_from"}
        )
        if plain and rng.random() < 0.2:
            other = rng.choice(plain)
            fields["when"] = f'({fields["when"]}) or in_segment("{other}")'
        if rng.random() < 0.2:
            fields["when"] = f"({fields['when']}) and rfm.r >= {rng.randrange(1, 6)}"
        if delays and rng.random() < 0.7:
            for name in rng.sample(("dwell_enter", "dwell_exit", "cooldown"), rng.randrange(1, 4)):
                fields[name] = rng.choice(("6h", "1d", "3d"))
        if rng.random() < 0.15:
            fields["valid_from"] = f"2023-11-{rng.randrange(14, 30)}T00:00:00Z"
        segments[key] = fields
    if keeps:
        segments |= {f"kept{i}": {"when": rule, "state": "shadow"} for i, rule in enumerate(rules)}
    dimensions = {}
    for key in ("value_tier", "persona"):
        if rng.random() < 0.5:
            values = rng.sample(("gold", "silver", "tin"), rng.randrange(1, 4))
            dimensions[key] = {value: rng.choice(rules) for value in values}
    text = _file(segments, dimensions)
    if rng.random() < 0.4:
        text = text.replace("    5: 30d", f"    5: {rng.randrange(2, 50)}d")
    if rng.random() < 0.4:
        text = text.replace("recent_for: 30d", f"recent_for: {rng.randrange(1, 30)}d")
    if rng.random() < 0.3:
        text = text.replace("    potential_loyalist: ", "    stars: ")
    return text


def _file(segments: dict[str, dict[str, str]], dimensions: dict[str, dict[str, str]]) -> str:
    lines = ["traits:", *(f"  {name}: {kind}" for name, kind in TRAITS.items())]
    if segments:
        lines.append("segments:")
    for key, fields in segments.items():
        lines.append(f"  {key}:")
        lines += [f"    {name}: {_quoted(text)}" for name, text in fields.items()]
    if dimensions:
        lines.append("dimensions:")
    for key, values in dimensions.items():
        lines += [f"  {key}:", "    values:"]
        lines += [f"      {value}: {_quoted(rule)}" for value, rule in values.items()]
        lines.append("    otherwise: rest")
    return with_sections("\n".join(lines) + "\n")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
