"""What every part of the checker shares: places, literals, and how a refusal is worded."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction

from streams.customers.series import MILLIONTHS, Series
from streams.segments.syntax import DURATIONS_MS, Refused, Syntax
from streams.segments.view import EVER_MS

DAY_MS = 86_400_000
WINDOW_MAX_MS = 3_650 * DAY_MS
NUMBER_MAX = 1 << 59
"""A threshold, in the unit it is compared in, stays below this."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What an expression may speak of beside the words of the language."""

    exponent: int
    """Decimals of the reporting currency."""
    traits: Mapping[str, str] = field(default_factory=dict)
    """Trait to its declared type."""
    exclusive: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Exclusive dimension to its values; `rfm` is written rfm.segment."""
    segments: frozenset[str] = frozenset()
    """The keys of custom segments."""
    unsettled: frozenset[str] = frozenset()
    """Those whose membership is more than their rule: with a dwell or a cooldown."""
    events: Mapping[str, Mapping[str, str]] | None = None
    """Activity to its properties and their types; None: any is accepted."""


class Reader:
    """A parsed expression on its way to a rule; `series` collects what it needs kept."""

    def __init__(self, syntax: Syntax, vocabulary: Vocabulary) -> None:
        self.syntax, self.vocabulary = syntax, vocabulary
        self.series: dict[str, Series] = {}
        self.members: set[str] = set()
        """The segments and dimensions it reads."""

    def refusal(self, node: ast.expr, expected: str, got: str | None = None) -> Refused:
        """Return the error that refuses the expression at a node."""
        shown = f"`{self._short(node)}`" if got is None else got
        return Refused(self.syntax.at(node), f"expected {expected}, got {shown}")

    def unknown(self, node: ast.expr, what: str, name: str, known: Iterable[str]) -> Refused:
        """Return the error for a name nobody knows, with the nearest that somebody does."""
        listed = sorted(set(known))
        near = difflib.get_close_matches(name, listed, n=1)
        some = ", ".join(listed[:12]) + (", ..." if len(listed) > 12 else "")
        hint = f"did you mean {near[0]}?" if near else f"known are {some}" if listed else "there is none"
        return self.refusal(node, what, f"`{name[:60]}` ({hint})")

    def keep(self, series: Series) -> str:
        """Note that a series is read; return its key."""
        key = series.key
        self.series[key] = series
        return key

    def is_name(self, node: ast.expr, name: str) -> bool:
        """Tell whether a node is this one word."""
        return isinstance(node, ast.Name) and node.id == name

    def text(self, node: ast.expr, expected: str) -> str:
        """Return the text a node is."""
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if not node.value or len(node.value.encode("utf-8", "surrogatepass")) > 256:
                raise self.refusal(node, f"{expected} of 1 to 256 bytes")
            return node.value
        raise self.refusal(node, expected)

    def literal(self, node: ast.expr) -> str | Fraction | bool | Duration | None:
        """Return the text, number, truth or duration a node is, None when it is something else."""
        if isinstance(node, ast.Name) and node.id in ("true", "false"):
            return node.id == "true"
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self.literal(node.operand)
            if isinstance(value, Fraction):
                return -value
            raise self.refusal(node.operand, "a number after -")
        if not isinstance(node, ast.Constant):
            return None
        if isinstance(node.value, bool | str):
            return node.value
        written = self.syntax.written(node)
        if isinstance(node.value, complex):
            return Duration(int(written[:-1]) * DURATIONS_MS[written[-1]])
        return Fraction(written)

    def duration(self, node: ast.expr, expected: str) -> int:
        """Return a duration in ms."""
        value = self.literal(node)
        if not isinstance(value, Duration):
            raise self.refusal(node, expected)
        if not 0 < value.ms <= WINDOW_MAX_MS:
            raise self.refusal(node, "a duration above 0 and up to 10 years (3650d)")
        return value.ms

    def window(self, node: ast.expr, function: str) -> int:
        """Return a window in ms, EVER_MS for `ever`."""
        if self.is_name(node, "ever"):
            return EVER_MS
        return self.duration(node, f"a window such as 90d, or ever, in {function}()")

    def millionths(self, node: ast.expr, value: Fraction) -> int:
        """Return a number in millionths."""
        scaled = value * MILLIONTHS
        if scaled.denominator != 1 or abs(scaled) >= NUMBER_MAX:
            raise self.refusal(node, "a number with at most 6 decimals, below 576 thousand million")
        return int(scaled)

    def instant_ms(self, node: ast.expr, text: str) -> int:
        """Return an instant written as text, in UTC unless it says otherwise."""
        expected = 'an instant such as "2026-01-31" or "2026-01-31T09:00:00Z"'
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            raise self.refusal(node, expected) from None
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return epoch_ms(at)

    def _short(self, node: ast.expr) -> str:
        written = " ".join(self.syntax.written(node).split())
        return written if len(written) <= 60 else f"{written[:57]}..."


@dataclass(frozen=True, slots=True)
class Duration:
    """A literal such as 90d."""

    ms: int


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def epoch_ms(at: datetime) -> int:
    """Return UTC ms of an aware instant, exactly; a part of a millisecond is dropped."""
    past = at - _EPOCH
    return (past.days * 86_400 + past.seconds) * 1_000 + past.microseconds // 1_000
