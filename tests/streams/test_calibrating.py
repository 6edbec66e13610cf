"""Proposed thresholds: fifths where the customers allow it, and always a file that loads."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import TooFewCustomers
from streams.calibrating import Figures, edges, figures_of, joined, proposal
from streams.segments.definition import DAY_MS
from streams.segments.loading import default_definition, load
from tests.streams.segments.edits import TEXT
from tests.streams.steps.test_conversion import BOUGHT, partition_of

DEFINITION = default_definition()


def put_into(text: str, fragment: str) -> str:
    """The file with the proposed sections in place of its own."""
    for name, section in re.findall(r"  (\w+):  #[^\n]*\n((?:    \d: [^\n]*\n)+)", fragment):
        text, count = re.subn(rf"(  {name}:\n)(    \d: \S+\n)+", rf"\g<1>{section}", text)
        assert count == 1
    return text


def test_equal_shares_where_every_customer_differs() -> None:
    """A thousand different values: a fifth of them each."""
    rising = edges(np.arange(1, 1001), least=1)
    counts = np.bincount(np.searchsorted(rising, np.arange(1, 1001), "right"))
    assert (abs(counts - 200) <= 1).all()


def test_a_value_most_customers_share_cannot_be_cut() -> None:
    """Nine of ten have one order: the edges still rise, each by at least one."""
    assert edges(np.array([1] * 90 + [2] * 10), least=1) == [2, 3, 4, 5]


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3000 * DAY_MS), st.integers(0, 500), st.integers(-(10**9), 10**9)),
        min_size=5,
        max_size=60,
    )
)
@settings(max_examples=50)
def test_a_proposal_always_loads(rows: list[tuple[int, int, int]]) -> None:
    """Whatever the customers are like, refunds above purchases included."""
    columns = [np.array(column, np.int64) for column in zip(*rows, strict=True)]
    fragment = proposal(Figures(*columns), DEFINITION)
    load(put_into(TEXT, fragment), "proposal")


def test_the_figures_are_those_of_the_state_of_all_partitions() -> None:
    """Age, orders and net at the clock; who never bought is left out; shares are said."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    figures = joined([figures_of(partition.engine), Figures()])
    assert len(figures.orders) == 40 and figures.orders.sum() == 60
    assert figures.age_ms.min() == 19 * DAY_MS
    fragment = proposal(figures, DEFINITION)
    assert fragment.startswith("# From 40 customers who have bought.") and "    5: " in fragment
    definition = load(put_into(TEXT, fragment), "proposal")
    assert definition.hash != DEFINITION.hash


def test_too_few_customers_are_said() -> None:
    """Four cannot fill five scores."""
    few = np.arange(4)
    with pytest.raises(TooFewCustomers, match="4 customers have bought"):
        proposal(Figures(few, few, few), DEFINITION)
