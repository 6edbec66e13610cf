"""Rules as typed trees: what an expression means, once it is read and checked, before it is compiled.

Trees are compared by value: two rules that ask the same question hold equal trees, and are compiled
to one node. Numbers are whole: counts, minor units of the reporting currency, millionths, or ms.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from streams.customers.series import Where

Operator = Literal[">=", ">", "<", "<=", "==", "!="]
Extreme = Literal["first", "last"]


@dataclass(frozen=True, slots=True)
class Counted:
    """How many entries of a series lie in a window."""

    series: str
    length_ms: int


@dataclass(frozen=True, slots=True)
class Totalled:
    """The sum of a series over a window; `rising`: no value is negative."""

    series: str
    length_ms: int
    rising: bool


@dataclass(frozen=True, slots=True)
class Netted:
    """Spend minus unlinked refunds over a window."""

    length_ms: int


@dataclass(frozen=True, slots=True)
class Averaged:
    """The mean of a series over a window, rounded down, or up with `up`; missing without entries."""

    series: str
    length_ms: int
    up: bool


@dataclass(frozen=True, slots=True)
class Outermost:
    """The largest or the smallest value of a series in a window; missing without entries."""

    series: str
    length_ms: int
    largest: bool


@dataclass(frozen=True, slots=True)
class Varied:
    """How many different values a series has in a window."""

    series: str
    length_ms: int


@dataclass(frozen=True, slots=True)
class Paid:
    """When the first or last order with a net above 0 was, of all time."""

    which: Extreme


@dataclass(frozen=True, slots=True)
class FirstPaid:
    """When the customer first paid: by an order, or for a subscription."""


@dataclass(frozen=True, slots=True)
class Happened:
    """When the first or last entry of a series was, of all time."""

    series: str
    which: Extreme


@dataclass(frozen=True, slots=True)
class TraitTime:
    """A trait that is an instant."""

    name: str


@dataclass(frozen=True, slots=True)
class SubscriptionTime:
    """The next renewal, or end of a trial, that is still to come."""

    which: Literal["renews_at", "trial_ends_at"]


Moment = Paid | FirstPaid | Happened | TraitTime | SubscriptionTime


@dataclass(frozen=True, slots=True)
class Elapsed:
    """Time since an instant. Facts dated ahead have age 0; a `declared` instant is missing until it comes."""

    since: Moment
    declared: bool


@dataclass(frozen=True, slots=True)
class Remaining:
    """Time until an instant; missing once it has come."""

    until: Moment


@dataclass(frozen=True, slots=True)
class Score:
    """One of the three scores; missing for who never bought."""

    letter: Literal["r", "f", "m"]


@dataclass(frozen=True, slots=True)
class TraitNumber:
    """A trait that is a number, in millionths."""

    name: str


@dataclass(frozen=True, slots=True)
class Bucket:
    """A whole number in 0..99 that a salt and the customer's id decide."""

    salt: str


@dataclass(frozen=True, slots=True)
class SubscriptionSum:
    """A sum over the active subscriptions: minor units a month, or seats."""

    of: Literal["mrr", "seats"]
    times: int = 1


@dataclass(frozen=True, slots=True)
class OpenTickets:
    """How many tickets are open."""


@dataclass(frozen=True, slots=True)
class TicketCount:
    """How many tickets were opened, or how often one was reopened, in a window."""

    of: Literal["opened", "reopened"]
    length_ms: int


@dataclass(frozen=True, slots=True)
class TicketMean:
    """A mean over tickets in a window, rounded down or up; times in ms, ratings in millionths."""

    of: Literal["first_reply_time", "close_time", "rating"]
    length_ms: int
    up: bool


Measure = (
    Counted
    | Totalled
    | Netted
    | Averaged
    | Outermost
    | Varied
    | Moment
    | Elapsed
    | Remaining
    | Score
    | TraitNumber
    | Bucket
    | SubscriptionSum
    | OpenTickets
    | TicketCount
    | TicketMean
)


@dataclass(frozen=True, slots=True)
class Compared:
    """A measure against a whole number; false when it is missing."""

    measure: Measure
    operator: Operator
    threshold: int


@dataclass(frozen=True, slots=True)
class Known:
    """Whether a measure is not missing."""

    measure: Measure


@dataclass(frozen=True, slots=True)
class TraitSet:
    """Whether a trait has a value of its declared type."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class TraitText:
    """Whether a trait that is text is one of some texts, or with `other` is set and none of them."""

    name: str
    texts: tuple[str, ...]
    other: bool


@dataclass(frozen=True, slots=True)
class TraitTruth:
    """Whether a trait that is a truth is this one."""

    name: str
    truth: bool


@dataclass(frozen=True, slots=True)
class TraitHolds:
    """Whether a trait that is a set of texts holds one."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Valued:
    """Whether the customer's value in an exclusive dimension is one of these."""

    dimension: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """Whether the rule of another segment holds."""

    segment: str


@dataclass(frozen=True, slots=True)
class Subscribed:
    """Whether any active subscription fits."""

    where: Where | None


@dataclass(frozen=True, slots=True)
class During:
    """Whether the instant lies in [from, until)."""

    from_ms: int | None
    until_ms: int | None


@dataclass(frozen=True, slots=True)
class Always:
    """A truth nothing changes."""

    truth: bool


@dataclass(frozen=True, slots=True)
class Opposite:
    """The opposite of a rule."""

    rule: Rule


@dataclass(frozen=True, slots=True)
class Every:
    """Whether all rules hold."""

    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """Whether any rule holds."""

    rules: tuple[Rule, ...]


Rule = (
    Compared
    | Known
    | TraitSet
    | TraitText
    | TraitTruth
    | TraitHolds
    | Valued
    | Member
    | Subscribed
    | During
    | Always
    | Opposite
    | Every
    | Some
)
