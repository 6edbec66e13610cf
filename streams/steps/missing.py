"""Whether a partition keeps the facts that another definition needs."""

from __future__ import annotations

from collections.abc import Mapping

from streams.customers.table import CustomerTable
from streams.segments.definition import DAY_MS, Definition
from streams.segments.literals import WINDOW_MAX_MS
from streams.segments.rules import BOOKS


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
        return _refusal(
            after,
            f"counts in {after.reporting_currency}, and what is kept was counted in"
            f" {before.reporting_currency}",
            "or keep the currency",
        )
    folded_ms = int(table.folded_before_ms[: table.count].max(initial=0))
    lost_ms = max(complete_since_ms["orders"], complete_since_ms["refunds"], folded_ms)
    for name, length_ms in sorted(after.needs_ms.items(), key=lambda need: -need[1]):
        if name == BOOKS:
            complete_ms = max(lost_ms, fold_line_ms) if table.books else 0
        elif name in complete_since_ms:
            complete_ms = max(lost_ms, complete_since_ms[name])
        else:
            return _refusal(after, f"reads {_described(name)}, which is not kept so far", "or do without it")
        needed_ms = clock_ms - length_ms + 1
        if complete_ms <= 0 or needed_ms >= complete_ms:
            continue
        if length_ms >= WINDOW_MAX_MS:
            what = f"reads all there ever was of {_described(name)}, of which the first is not kept"
        else:
            lacking = -((needed_ms - complete_ms) // DAY_MS)
            what = f"looks back {length_ms / DAY_MS:g} days, of which the first {lacking} are not kept whole"
        return _refusal(after, what, "or apply one with shorter windows")
    return None


def _described(name: str) -> str:
    return name if name in ("orders", "refunds") else f"the series {name}"


def _refusal(definition: Definition, what: str, instead: str) -> str:
    return f"definition {definition.version} {what}; run `shoal rebuild FILE`, {instead}"
