"""What is new about the definition in force, for customers an earlier one was in force for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streams.customers.facts import Bools, Int64s


@dataclass(frozen=True, slots=True)
class Edits:
    """How customers of earlier versions come to be judged by this one, and since when it is in force.

    `floor_ms` is int64[dimensions]: what is new or edited was not in force before, so no change of it is
    true earlier; None: nothing is that new. `gone` are the places of dimensions that are no more.
    """

    version: int
    delays: int
    """How many memberships follow their rules with a delay."""
    floor_ms: Int64s | None = None
    gone: Int64s = field(default_factory=lambda: np.empty(0, np.int64))
    begun: Mapping[int, Bools] = field(default_factory=dict)
    """Earlier version to bool[delays]: whether the segment was edited since, or new, and begins afresh."""

    def afresh(self, by: npt.NDArray[np.uint32]) -> Bools:
        """Return bool[n, delays] for customers last evaluated by these versions."""
        found = np.zeros((len(by), self.delays), np.bool_)
        for version, begun in self.begun.items():
            found[by == version] = begun
        return found
