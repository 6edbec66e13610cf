"""Whether a partition keeps the facts that another definition needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streams.customers.table import CustomerTable
from streams.segments.definition import DAY_MS, Definition
from streams.segments.literals import WINDOW_MAX_MS
from streams.segments.rules import BOOKS

NAMED_MAX = 5
"""Reasons that are told; how many more there are is said."""


def missing_facts(
    before: Definition,
    after: Definition,
    table: CustomerTable,
    clock_ms: int,
    fold_line_ms: int,
    complete_since_ms: Mapping[str, int],
) -> str | None:
    """Return why a definition cannot be computed from the facts that are kept, None if it can.

    `complete_since_ms` says since when what is kept, 0: from the first, and of what it does not name
    nothing is; `fold_line_ms` is how far back subscriptions and tickets are. Of nobody everything is known.
    """
    if not table.count:
        return None
    if after.reporting_currency != before.reporting_currency:
        found = [
            f"counts in {after.reporting_currency}, and what is kept was counted in"
            f" {before.reporting_currency}"
        ]
        return _refusal(after, found, "keep the currency")
    found = list(_lacking(after, table, clock_ms, fold_line_ms, complete_since_ms))
    return _refusal(after, found, "do with shorter windows and what is kept") if found else None


def _lacking(
    after: Definition,
    table: CustomerTable,
    clock_ms: int,
    fold_line_ms: int,
    complete_since_ms: Mapping[str, int],
) -> Iterator[str]:
    """Yield what a definition reads that is not kept, or not so far back; the longest look first."""
    folded_ms = int(table.folded_before_ms[: table.count].max(initial=0))
    lost_ms = max(complete_since_ms["orders"], complete_since_ms["refunds"], folded_ms)
    for name, length_ms in sorted(after.needs_ms.items(), key=lambda need: (-need[1], need[0])):
        if name == BOOKS:
            complete_ms = max(lost_ms, fold_line_ms) if table.books else 0
        elif name in complete_since_ms:
            complete_ms = max(lost_ms, complete_since_ms[name])
        else:
            yield f"reads {_described(name)}, which is not kept so far"
            continue
        needed_ms = clock_ms - length_ms + 1
        if complete_ms <= 0 or needed_ms >= complete_ms:
            continue
        if length_ms >= WINDOW_MAX_MS:
            yield f"reads all there ever was of {_described(name)}, of which the first is not kept"
            continue
        lacking = -((needed_ms - complete_ms) // DAY_MS)
        looks = f"looks back {length_ms / DAY_MS:g} days at {_described(name)}"
        yield f"{looks}, of which the first {lacking} are not kept whole"


def _described(name: str) -> str:
    if name == BOOKS:
        return "subscriptions and tickets"
    return name if name in ("orders", "refunds") else f"the series {name}"


def _refusal(definition: Definition, found: list[str], instead: str) -> str:
    told = found[:NAMED_MAX] + ([f"{len(found) - NAMED_MAX} more"] if len(found) > NAMED_MAX else [])
    return f"definition {definition.version} {'; '.join(told)}; run `shoal rebuild FILE`, or {instead}"
