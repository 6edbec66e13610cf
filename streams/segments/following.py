"""What a customer becomes when only time passes, memberships with the delays they follow included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from streams.customers.facts import Int64s
from streams.segments.clauses import Clause, instant, span
from streams.segments.evaluate import Evaluator
from streams.segments.rules import Segment
from streams.segments.settling import Delay, Held, Int16s, settle
from streams.segments.view import FAR_MS, Table, View


@dataclass(frozen=True, slots=True)
class Stored:
    """What a customer was at some instant, as it is stored: one entry per dimension of the evaluator."""

    at_ms: int
    value: Int16s
    since_ms: Int64s


@dataclass(frozen=True, slots=True)
class Following:
    """A membership that follows its rule with a delay, at one instant."""

    at_ms: int
    membership: Held
    rule: Held
    due_ms: int
    """When the membership changes if the rule's truth stays, FAR_MS if never."""


class Course:
    """The course of one customer's values in time, from the facts a table shows."""

    def __init__(self, evaluator: Evaluator, table: Table, slot: int) -> None:
        self._evaluator, self._table, self._slot = evaluator, table, slot

    def view(self, at_ms: int) -> View:
        """Return a sight of the customer at an instant."""
        return self._evaluator.view(self._table, np.array([self._slot]), np.array([at_ms]))

    def walk(self, node: Any, at_ms: int) -> Iterator[tuple[int, int]]:
        """Yield the code of a node now and at each of its deadlines; a condition's is 0 or -1."""
        while at_ms < FAR_MS:
            view = self.view(at_ms)
            yield at_ms, _code(view.value(node)[0])
            at_ms = FAR_MS if getattr(node, "timeless", False) else int(view.due(node)[0])

    def follow(self, delay: Delay, node: Any, stored: Stored, now_ms: int) -> Iterator[Following]:
        """Yield what a membership with a delay is at each of its deadlines from what is stored on.

        Those before `now_ms` and the last of them together are one, at `now_ms`.
        """
        membership, rule = (
            Held(stored.value[place : place + 1], stored.since_ms[place : place + 1])
            for place in (delay.membership, delay.rule)
        )
        at_ms, told = stored.at_ms, False
        while at_ms < FAR_MS:
            if at_ms > now_ms and not told:
                # A stretch without deadlines: as it was at the last of them.
                told, due_ms = True, int(settle(delay, membership, rule, rule, np.array([now_ms]))[1][0])
                yield Following(now_ms, membership, rule, due_ms)
            view = self.view(at_ms)
            code = np.array([_code(view.value(node)[0])], np.int16)
            turned = code[0] != rule.code[0]
            after = Held(code, np.array([at_ms]) if turned else rule.since_ms)
            membership, due = settle(delay, membership, rule, after, np.array([at_ms]))
            rule = after
            if at_ms >= now_ms:
                told = True
                yield Following(at_ms, membership, rule, int(due[0]))
            at_ms = min(int(due[0]), int(view.due(node)[0]))
        if not told:
            yield Following(now_ms, membership, rule, FAR_MS)


def waits(segment: Segment, delay: Delay, now: Following, now_ms: int) -> Iterator[Clause]:
    """Yield the delays a membership waits for, or has waited for, and when they are over.

    When each alone would be over is asked of what settles memberships, with the others left out.
    """
    member, holds = now.membership.code[0] >= 0, now.rule.code[0] >= 0
    left_ms = int(now.membership.since_ms[0])
    rule_ms = int(now.rule.since_ms[0])
    since = f"the rule {'holds' if holds else 'does not hold'} since {instant(rule_ms)}"
    if not rule_ms:
        since = "the rule has never held"
    at = np.array([now_ms])
    if holds and not member:
        for name, length_ms, alone in (
            ("dwell_enter", segment.dwell_enter_ms, replace(delay, cooldown_ms=0)),
            ("cooldown", segment.cooldown_ms, replace(delay, enter_ms=0)),
        ):
            if length_ms and (name == "dwell_enter" or left_ms):
                _, due = settle(alone, now.membership, now.rule, now.rule, at)
                over = int(due[0]) >= FAR_MS
                figure = since if name == "dwell_enter" else f"left {instant(left_ms)}"
                until_ms = None if over else int(due[0])
                yield Clause(f"{name} {span(length_ms)} is over", over, figure, until_ms)
    elif member and not holds:
        text = f"still in for dwell_exit {span(segment.dwell_exit_ms)}"
        yield Clause(text, True, since, now.due_ms if now.due_ms < FAR_MS else None)
    elif not member and left_ms and segment.cooldown_ms and left_ms + segment.cooldown_ms > now_ms:
        text = f"cooldown {span(segment.cooldown_ms)} is over"
        yield Clause(text, False, f"left {instant(left_ms)}", left_ms + segment.cooldown_ms)


def _code(value: Any) -> int:
    """Return the code of a value: a truth is 0 for in, -1 for out."""
    return int(value) - 1 if isinstance(value, bool | np.bool_) else int(value)
