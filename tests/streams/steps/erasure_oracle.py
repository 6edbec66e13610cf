"""What a log with erasures comes to, said by a log without: the events that are left, and who reads them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np

from streams.customers.facts import Strings
from tests.simulation import SimulatedPartition
from tests.streams.steps.streams_of_events import Entry

COLUMNS = (
    "value", "since_ms", "scores", "due_ms", "signed_up_ms", "pending_cause", "pending_at_ms",
    "folded_before_ms", "folded_first_ms", "folded_last_ms", "folded_orders", "folded_paid_minor",
    "folded_refunds_minor", "has_account",
)  # fmt: skip


def write(partition: SimulatedPartition, log: list[Entry]) -> SimulatedPartition:
    """Append these entries."""
    for type_name, customer, fields in log:
        if type_name == "Tick":
            partition.tick(fields["at"])
        else:
            partition.event(type_name, customer, fields)
    return partition


def with_erasures(rng: random.Random, log: list[Entry], share: float = 0.08) -> list[Entry]:
    """The log with erasures in between: mostly of now, some dated back, some told twice or of nobody."""
    mixed: list[Entry] = []
    now = 0
    for entry in log:
        mixed.append(entry)
        now = max(now, entry[2].get("at", entry[2].get("occurred_at", 0)))
        if rng.random() < share:
            told = [each for each in mixed if each[0] == "Erased"]
            if told and rng.random() < 0.2:
                mixed.append(rng.choice(told))
                continue
            customers = sorted({each[1] for each in mixed if each[1]} | {"nobody"})
            at = now - (rng.choice((1, 3_600_001, 86_400_000, 90 * 86_400_000)) if rng.random() < 0.3 else 0)
            fields = {"event_id": f"x{len(mixed)}", "occurred_at": max(0, at)}
            mixed.append(("Erased", rng.choice(customers), fields))
    return [*mixed, log[-1]]


def what_is_left(log: list[Entry], **options: Any) -> tuple[list[Entry], dict[str, int]]:
    """Remove every erasure and the events it removes, one at a time; and up to when who is erased.

    An erasure that is news removes all there is of its customer so far, and all that comes later in the
    log and had happened by then, or by the latest of what was known and is gone.
    """
    left: list[Entry] = []
    erased: dict[str, int] = {}
    for type_name, customer, fields in log:
        at = fields.get("occurred_at", 0)
        if type_name == "Tick":
            left.append((type_name, customer, fields))
        elif at <= erased.get(customer, -1):
            continue
        elif type_name == "Erased":
            known = write(SimulatedPartition(**options), left)
            known.run(itertools.repeat(1_000))
            slot = int(known.engine.table.slots.find(Strings.from_list([customer.encode()]))[0])
            latest = known.engine.table.latest_ms(slot) if slot >= 0 else 0
            erased[customer] = max(at, latest)
            left = [entry for entry in left if entry[1] != customer]
        else:
            left.append((type_name, customer, fields))
    return left, erased


def state(partition: SimulatedPartition) -> dict[bytes, Any]:
    """Everything that is known of everybody, slot numbers, sequence numbers and hashes aside."""
    table = partition.engine.table
    slots = np.array([slot for slot in range(table.count) if table.slots.lengths_of(np.array([slot]))[0]])
    known = {}
    for slot in slots.tolist():
        one = np.array([slot])
        if table.are_new(one)[0]:
            continue
        runs = {}
        for name in ("orders", "refunds", "others"):
            run = getattr(table, name)
            start, end = (int(bound[0]) for bound in run.bounds(one))
            runs[name] = sorted(run.entry(slot, at) for at in range(start, end))
        for series in partition.evaluator.series:
            history = table.series(series.key)
            start, end = int(history.start(one)[0]), int(history.end(one)[0])
            values = np.diff(history.sums[start:end], prepend=0).tolist()
            pairs = zip(history.times[start:end].tolist(), values, strict=True)
            runs[series.key] = sorted((time, 0 if series.distinct else value) for time, value in pairs)
            runs["folded " + series.key] = [each.tolist() for each in _columns(table, series.key, one)]
        entry = table.ledger.entries.get(slot)
        known[table.slots.id_of(slot)] = {
            **{name: getattr(table, name)[slot].tolist() for name in COLUMNS},
            **runs,
            "ledger": None
            if entry is None
            else sorted(entry.orders.values()) + sorted(fact.time for fact in entry.refunds.values()),
            "profile": table.profiles[slot].encoded() if slot in table.profiles else None,
            "book": table.books[slot].encoded() if slot in table.books else None,
            "pending": table.pending_event_id.get(slot),
            "pages": (int(table.pages.sealed[slot]), int(table.pages.lengths[slot])),
        }
    return known


def _columns(table: Any, key: str, one: Any) -> tuple[Any, ...]:
    folded = table.folded(key, one)
    return folded.entries, folded.first_ms, folded.last_ms


def reachable(root: object) -> Iterator[object]:
    """Every object a value leads to, code and modules aside."""
    seen: set[int] = set()
    stack: list[object] = [root]
    while stack:
        each = stack.pop()
        if id(each) in seen or isinstance(each, type) or (callable(each) and not hasattr(each, "__dict__")):
            continue
        seen.add(id(each))
        yield each
        if isinstance(each, dict):
            stack += [*each.keys(), *each.values()]
        elif isinstance(each, (list, tuple, set, frozenset)):
            stack += list(each)
        elif not isinstance(each, (str, bytes, int, float, np.ndarray)):
            stack += list(vars(each).values()) if hasattr(each, "__dict__") else []
            slots = [name for kind in type(each).__mro__ for name in getattr(kind, "__slots__", ())]
            stack += [getattr(each, name) for name in slots if hasattr(each, name)]


def holders(root: object, text: bytes) -> list[str]:
    """What holds these bytes: texts, byte strings, and columns by their raw memory."""
    found = []
    for each in reachable(root):
        raw = each.tobytes() if isinstance(each, np.ndarray) and each.dtype != object else each
        raw = raw.encode("utf-8", "surrogateescape") if isinstance(raw, str) else raw
        if isinstance(raw, bytes) and text in raw:
            found.append(f"{type(each).__name__}: {raw[:200]!r}")
    return found
