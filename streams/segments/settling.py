"""Membership that follows a rule with a delay: dwell before entering or leaving, and a pause after leaving.

The memory is two stored values per segment, each with the instant since when it holds: the truth of the
rule (a dimension of its own, that nobody is told of) and the membership. What becomes of the membership is
a function of these and of the time; nothing else is remembered, so a restart changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streams.customers.facts import Bools, Int64s
from streams.segments.view import FAR_MS

Int16s = npt.NDArray[np.int16]

Values = tuple[Int16s, Int64s]
"""int16[n, dimensions] codes and int64[n, dimensions] instants since when they hold."""

RULE_SUFFIX = " (rule)"
"""What the name of a dimension ends with that holds the truth of a rule; no key can."""

SHADOW_SUFFIX = " (shadow)"
"""What the name of a dimension ends with that is computed and counted, and that nobody is told of."""


def is_hidden(dimension: str) -> bool:
    """Whether a dimension of this name is one that nobody is told of."""
    return dimension.endswith((RULE_SUFFIX, SHADOW_SUFFIX))


@dataclass(frozen=True, slots=True)
class Delay:
    """How the membership in one segment follows its rule; both are dimensions, by their places."""

    membership: int
    rule: int
    enter_ms: int
    exit_ms: int
    cooldown_ms: int


@dataclass(frozen=True, slots=True)
class Held:
    """n customers: code 0 is true or in, -1 is not; 0 as an instant stands for `never was otherwise`."""

    code: Int16s
    since_ms: Int64s


def follow(
    delays: Sequence[Delay], before: Values, after: Values, now_ms: Int64s
) -> tuple[Int16s, dict[int, Int64s], Int64s]:
    """Return all values at `now_ms`, since when each membership holds, and the next instant one changes.

    `before` is what was stored, `after` what the rules say now and since when. Only memberships differ from
    `after`.
    """
    value, instants = after[0].copy(), {}
    due_ms = np.full(len(now_ms), FAR_MS)
    for delay in delays:
        m, r = delay.membership, delay.rule
        held, next_ms = settle(
            delay,
            Held(before[0][:, m], before[1][:, m]),
            Held(before[0][:, r], before[1][:, r]),
            Held(after[0][:, r], after[1][:, r]),
            now_ms,
        )
        value[:, m], instants[m] = held.code, held.since_ms
        due_ms = np.minimum(due_ms, next_ms)
    return value, instants, due_ms


def begin_afresh(
    delays: Sequence[Delay], afresh: Bools, before: Values, after: Values, now_ms: Int64s
) -> Values:
    """Return `before` as if those memberships of which `afresh` (bool[n, delays]) is true had no past.

    They are what their rules say now: nothing is waited for.
    """
    code, since_ms = before[0].copy(), before[1].copy()
    for place, delay in enumerate(delays):
        rows = afresh[:, place].nonzero()[0]
        m, r = delay.membership, delay.rule
        truth = after[0][rows, r]
        turned = code[rows, m] != truth
        since_ms[rows, m] = np.where(turned, now_ms[rows], since_ms[rows, m])
        code[rows, m] = code[rows, r] = truth
        since_ms[rows, r] = after[1][rows, r]
    return code, since_ms


def forget_stages(
    delays: Sequence[Delay],
    afresh: Bools,
    held: Int16s,
    value: Int16s,
    now_ms: Int64s,
    since_ms: Int64s,
    who: Int64s,
) -> None:
    """Leave, in `since_ms` (at `who`), no trace of what memberships that began afresh were before.

    Who is out has not left: no pause runs. But nobody comes back before the instant of being put out, so
    the rule's truth is taken to hold since then.
    """
    for place, delay in enumerate(delays):
        m, r = delay.membership, delay.rule
        rows = afresh[:, place].nonzero()[0]
        turned = rows[held[rows, m] != value[rows, m]]
        since_ms[who[turned], r] = now_ms[turned]
        since_ms[who[rows[value[rows, m] < 0]], m] = 0


def settle(delay: Delay, membership: Held, before: Held, after: Held, now_ms: Int64s) -> tuple[Held, Int64s]:
    """Return the membership at `now_ms`, and when it changes next if the rule's truth stays (or FAR_MS).

    `before` is the rule's truth as it was stored, `after` as it is now: up to after.since_ms the one held,
    from then on the other. Each membership begins at the very instant its delay is over.
    """
    turned: Bools = before.code != after.code
    until_ms = np.where(turned, np.minimum(after.since_ms, now_ms), now_ms)
    membership = _follow(delay, membership, before, until_ms)
    membership = _follow(delay, membership, after, now_ms)
    due_ms = _changes_ms(delay, membership, after)
    return membership, np.where(membership.code == after.code, FAR_MS, due_ms)


def _follow(delay: Delay, membership: Held, rule: Held, until_ms: Int64s) -> Held:
    """Let the membership become what the rule says, if the delay is over by `until_ms`."""
    at_ms = _changes_ms(delay, membership, rule)
    moves = (membership.code != rule.code) & (at_ms <= until_ms)
    return Held(np.where(moves, rule.code, membership.code), np.where(moves, at_ms, membership.since_ms))


def _changes_ms(delay: Delay, membership: Held, rule: Held) -> Int64s:
    """Return when the membership becomes what the rule says, if the rule goes on saying it."""
    # Who was never in has no instant of leaving, and need not wait.
    left = membership.since_ms != 0
    free_ms = np.where(left, membership.since_ms + delay.cooldown_ms, membership.since_ms)
    enters_ms = np.maximum(rule.since_ms + delay.enter_ms, free_ms)
    leaves_ms = np.maximum(rule.since_ms + delay.exit_ms, membership.since_ms)
    return np.where(rule.code >= 0, enters_ms, leaves_ms)
