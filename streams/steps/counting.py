"""What a step came to, counted by the column: the engine's part of the metrics. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from streams.customers.facts import Kind, UInt8s
from streams.customers.table import Result
from streams.kafka.seam import Tally
from streams.segments.settling import SHADOW_SUFFIX
from streams.steps.moves import LABELS, Moves
from streams.steps.rounds import RESULTS

TYPE_NAMES = {kind: kind.name.title().replace("_", "") for kind in Kind}
"""Kind to the record type of its events."""

_RESULT_NAMES = {result: result.name.lower() for result in Result} | {Result.IDLE: "applied"}
"""An activity nothing keeps has been dealt with as much as one that is kept."""

_CHANGES = ("entered", "moved", "exited")


def count_facts(tally: Tally, counts: Counter[str], results: Mapping[int, int]) -> None:
    """Count facts by type and result; `results` maps RESULTS * kind + Result to how many."""
    for code, count in results.items():
        if count:
            kind, result = divmod(code, RESULTS)
            name = _RESULT_NAMES[Result(result)]
            counts[name] += count
            # A refused fact is a dead letter, and counted there.
            if result != Result.REFUSED:
                tally.events[TYPE_NAMES[Kind(kind)], name] += count


def count_dropped(tally: Tally, counts: Counter[str], kinds: UInt8s, result: str) -> None:
    """Count events that reached no customer: too old to make one, or erased; `kinds` is uint8[n]."""
    counts[result] += len(kinds)
    for kind, count in enumerate(np.bincount(kinds).tolist()):
        if count:
            tally.events[TYPE_NAMES[Kind(kind)], result] += count


def count_moves(
    tally: Tally, moves: Moves, dimensions: Sequence[str], *, live: bool, origin: str = "live"
) -> None:
    """Count changes by dimension, kind of change and cause; with `live`, keep when each is effective."""
    change = 1 - (moves.before < 0).astype(np.int64) + (moves.after < 0)
    cause = moves.cause.astype(np.int64)
    codes = (moves.dimension * len(_CHANGES) + change) * len(LABELS) + cause
    for code, count in enumerate(np.bincount(codes).tolist()):
        if count:
            rest, label = divmod(code, len(LABELS))
            dimension, kind = divmod(rest, len(_CHANGES))
            name = dimensions[dimension].removesuffix(SHADOW_SUFFIX)
            tally.changes[name, _CHANGES[kind], LABELS[label], origin] += count
    if live:
        for label in np.flatnonzero(np.bincount(cause)).tolist():
            tally.effective_at_ms.append((LABELS[label], moves.effective_at_ms[cause == label]))
