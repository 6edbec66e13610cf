"""The lifecycle of who has subscriptions, one customer at a time; everybody else costs nothing here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from streams.customers.entities import Standing, Subscription
from streams.customers.facts import Int64s
from streams.segments.choices import FirstMatch
from streams.segments.definition import Lifecycle
from streams.segments.scores import Rfm
from streams.segments.standing import Settled, Subscriptions
from streams.segments.view import FAR_MS, ORDERS, View, Window

VALUES = ("lead", "churned", "reactivated", "at_risk", "new", "loyal", "active")


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides where a customer stands."""

    now_ms: int
    paid_ms: tuple[int, ...]
    """Every time the customer paid, ascending; of those before the fold line the first and the last."""
    subscriptions: tuple[Subscription, ...]
    """As they are now."""
    standing: Standing
    recency: int
    frequency: int

    @property
    def active(self) -> list[Subscription]:
        """The subscriptions that are active now."""
        return [each for each in self.subscriptions if each.active]

    @property
    def gap_ms(self) -> int:
        """How long ago the last payment was; 0 for one dated ahead."""
        return max(0, self.now_ms - self.paid_ms[-1])

    @property
    def tenure_ms(self) -> int:
        """How long ago the first payment was; 0 for one dated ahead."""
        return max(0, self.now_ms - self.paid_ms[0])


def stage(situation: Situation, constants: Lifecycle) -> str:
    """Return one of VALUES: the first rule that holds."""
    return next(value for value, holds in judged(situation, constants) if holds)


def judged(situation: Situation, constants: Lifecycle) -> Iterator[tuple[str, bool]]:
    """Yield VALUES in order, each with whether its rule holds; none behind the first that does is asked."""
    active = situation.active
    yield "lead", not situation.paid_ms
    end_ms = situation.standing.last_end_ms
    ended = end_ms is not None and situation.paid_ms[-1] <= end_ms
    yield "churned", not active and (ended or situation.gap_ms >= constants.churned_ms)
    yield "reactivated", _returned(situation, constants, bool(active))
    silent = not active and situation.gap_ms >= constants.at_risk_ms
    yield "at_risk", silent or any(each.payment_failed or each.cancellation_scheduled for each in active)
    yield "new", situation.tenure_ms < constants.recent_ms
    loyal = situation.recency >= constants.loyal_recency and situation.frequency >= constants.loyal_frequency
    yield "loyal", loyal and situation.tenure_ms >= constants.loyal_tenure_ms
    yield "active", True


def _returned(situation: Situation, constants: Lifecycle, active: bool) -> bool:
    """Tell whether a recent payment came after a long silence, or after an end since the one before it.

    Within one instant an end comes after a payment.
    """
    ends = situation.standing.ends_ms
    for before, paid in pairwise(situation.paid_ms):
        if paid + constants.recent_ms > situation.now_ms:
            silent = not active and paid - before >= constants.churned_ms
            if silent or any(before <= end < paid for end in ends):
                return True
    return False


def candidates(situation: Situation, constants: Lifecycle) -> Iterable[int]:
    """Yield every instant at which time alone may change the stage; some change nothing."""
    if situation.paid_ms:
        first, last = situation.paid_ms[0], situation.paid_ms[-1]
        yield from (last + constants.at_risk_ms, last + constants.churned_ms)
        yield from (first + constants.recent_ms, first + constants.loyal_tenure_ms)
        yield from (paid + constants.recent_ms for paid in situation.paid_ms)


class Stages:
    """The lifecycle dimension: the vectorised rules, and for who has subscriptions the rules one by one."""

    def __init__(
        self,
        plain: FirstMatch,
        subscriptions: Subscriptions,
        rfm: Rfm,
        constants: Lifecycle,
    ) -> None:
        self.plain, self.subscriptions = plain, subscriptions
        self._rfm, self.constants = rfm, constants

    def windows(self) -> Iterable[Window]:
        """Return the windows of the rules."""
        return self.plain.windows()

    def evaluate(self, view: View) -> Int64s:
        """Return int64[n] codes, indices into VALUES."""
        codes: Int64s = view.value(self.plain)
        found: Settled = view.value(self.subscriptions)
        if not len(found.places):
            return codes
        codes = codes.copy()
        stages = [stage(each, self.constants) for each in self._situations(view, found)]
        codes[found.places] = [VALUES.index(each) for each in stages]
        return codes

    def due(self, view: View) -> Int64s:
        """Return the next instant > now at which the stage could differ."""
        due = view.due(self.plain)
        found: Settled = view.value(self.subscriptions)
        if not len(found.places):
            return due
        rfm = self._rfm
        scored = np.minimum(view.due(rfm.recency), view.due(rfm.frequency))[found.places]
        due = due.copy()
        due[found.places] = [
            min(
                (at for at in candidates(each, self.constants) if at > each.now_ms),
                default=FAR_MS,
            )
            for each in self._situations(view, found)
        ]
        due[found.places] = np.minimum(due[found.places], np.minimum(scored, found.next_stop_ms))
        return due

    def situation(self, view: View) -> Situation | None:
        """Return that of the only customer in a view; None for one who is judged by orders alone."""
        found: Settled = view.value(self.subscriptions)
        return self._situations(view, found)[0] if len(found.places) else None

    def _situations(self, view: View, found: Settled) -> list[Situation]:
        places = found.places
        span, folded = view.span(ORDERS), view.folded(ORDERS)
        columns = (span.start[places], span.end[places], folded.first_ms[places], folded.last_ms[places])
        # Who never bought has no scores, which counts as the lowest.
        bought = view.value(self._rfm.paid)[places]
        scores = (view.value(score)[places] * bought for score in (self._rfm.recency, self._rfm.frequency))
        rows = zip(*(column.tolist() for column in (view.now_ms[places], *columns, *scores)), strict=True)
        situations = []
        for (now_ms, start, end, first, last, r, f), subscriptions, standing in zip(
            rows, found.subscriptions, found.standings, strict=True
        ):
            paid = {*span.times[start:end].tolist(), *standing.payments_ms}
            paid.update(at for at in (first, last) if -FAR_MS < at < FAR_MS)
            situations.append(Situation(now_ms, tuple(sorted(paid)), subscriptions, standing, r, f))
        return situations
