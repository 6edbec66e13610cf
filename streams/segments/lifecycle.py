"""The lifecycle dimension: where a customer stands, the first rule that matches wins."""

from __future__ import annotations

from streams.segments.choices import FirstMatch
from streams.segments.conditions import And, Compare, Condition, Not, Returned
from streams.segments.definition import Lifecycle
from streams.segments.measures import Age, PaidAt
from streams.segments.scores import Rfm
from streams.segments.stages import VALUES, Stages
from streams.segments.standing import Subscriptions


def build(constants: Lifecycle, rfm: Rfm, subscriptions: Subscriptions) -> Stages:
    """Build the rules; the code of each is its place in VALUES.

    What is built here judges by orders alone; who has subscriptions is judged by stages.stage().
    """
    tenure = Age(PaidAt("first"))
    rules: dict[str, Condition] = {
        "lead": Not(rfm.paid),
        "churned": Compare(rfm.silence, ">=", constants.churned_ms),
        "reactivated": Returned(constants.recent_ms, constants.churned_ms),
        "at_risk": Compare(rfm.silence, ">=", constants.at_risk_ms),
        "new": Compare(tenure, "<", constants.recent_ms),
        "loyal": And(
            Compare(tenure, ">=", constants.loyal_tenure_ms),
            Compare(rfm.recency, ">=", constants.loyal_recency),
            Compare(rfm.frequency, ">=", constants.loyal_frequency),
        ),
    }
    cases = [(rule, VALUES.index(name)) for name, rule in rules.items()]
    plain = FirstMatch(cases, otherwise=VALUES.index("active"))
    return Stages(plain, subscriptions, rfm, constants)
