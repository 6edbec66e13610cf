"""The comparison the demo ends with: what the pipeline says of every customer against what SQL says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from demo.oracle import Standing


@dataclass(frozen=True, slots=True)
class Difference:
    """One customer who is not what SQL says, with every field that differs."""

    customer_id: str
    wrong: tuple[str, ...]
    """Fields of Standing; ("missing",) or ("unexpected",) when only one side knows the customer."""
    expected: Standing | None
    actual: Standing | None

    def __str__(self) -> str:
        if self.expected is None or self.actual is None:
            return f"customer {self.customer_id}: {self.wrong[0]}"
        parts = (
            f"{name} {getattr(self.actual, name)}, SQL says {getattr(self.expected, name)}"
            for name in self.wrong
        )
        return f"customer {self.customer_id}: {'; '.join(parts)}"


def compare(expected: Mapping[str, Standing], actual: Mapping[str, Standing]) -> list[Difference]:
    """Return who differs, by customer id; empty when both sides agree on every field of everybody."""
    differences = []
    for customer_id in sorted(expected.keys() | actual.keys()):
        want, have = expected.get(customer_id), actual.get(customer_id)
        if want is None:
            wrong: tuple[str, ...] = ("unexpected",)
        elif have is None:
            wrong = ("missing",)
        else:
            names = (field.name for field in fields(Standing))
            wrong = tuple(name for name in names if getattr(want, name) != getattr(have, name))
        if wrong:
            differences.append(Difference(customer_id, wrong, want, have))
    return differences
