"""What rows say of values, put into a table: all customers and dimensions at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np

from errors import DefinitionMismatch
from streams.customers.facts import Int64s
from streams.customers.row_format import decode_literals
from streams.customers.state import CustomerState

_ROWS_AT_ONCE = 5_000
"""Rows whose values are spread over all dimensions at once, which takes memory."""

_GONE = -1, -1
"""Dimension and code of what no definition knows any more, and nobody holds."""

Pair = tuple[str, str | None]


def restore_values(table: CustomerState, slots: Int64s, literals: Sequence[bytes], stamps: bytes) -> None:
    """Let distinct customers hold what their rows say; what a row does not name stays as it is.

    `literals` is one encoded list of dimensions and values a customer, `stamps` all their since_ms and seq,
    end to end. DefinitionMismatch if one holds a value the table does not know.
    """
    codes_of = {
        (dimension, value): (at, code)
        for at, (dimension, texts) in enumerate(zip(table.dimensions, table.values, strict=True))
        for value, code in ((None, -1), *((value, code) for code, value in enumerate(texts)))
    }
    known = {each: _codes(decode_literals(each), codes_of, table.dimensions) for each in set(literals)}
    stamped = np.frombuffer(stamps, np.int64).reshape(-1, 2)
    pairs = [known[each] for each in literals]
    row = np.arange(len(literals)).repeat(list(map(len, pairs)))
    coded = np.array(list(chain.from_iterable(pairs)), np.int64).reshape(-1, 2)
    known_here = coded[:, 0] >= 0
    if not known_here.all():
        coded, stamped, row = coded[known_here], stamped[known_here], row[known_here]
    dimension, value = coded[:, 0], coded[:, 1]
    for start in range(0, len(literals), _ROWS_AT_ONCE):
        first, last = row.searchsorted((start, start + _ROWS_AT_ONCE))
        some = slots[start : start + _ROWS_AT_ONCE]
        at = row[first:last] - start, dimension[first:last]
        held = table.held.take(some)
        held.value[at] = value[first:last]
        held.since_ms[at], held.seq[at] = stamped[first:last].T
        table.held.put(some, held)
    table.held.entries_added = 0


def _codes(
    pairs: list[Pair], codes_of: Mapping[Pair, tuple[int, int]], dimensions: Sequence[str]
) -> list[tuple[int, int]]:
    """Return dimension and code of each pair; DefinitionMismatch if a value is not known."""
    for dimension, value in pairs:
        # Null is left by who held a value in a dimension that is gone since.
        if (dimension, value) in codes_of or (value is None and dimension not in dimensions):
            continue
        if dimension not in dimensions:
            raise DefinitionMismatch(f"the state holds dimension {dimension!r}, the definition does not")
        raise DefinitionMismatch(f"the state holds {dimension}={value!r}, the definition does not")
    return [codes_of.get(pair, _GONE) for pair in pairs]
