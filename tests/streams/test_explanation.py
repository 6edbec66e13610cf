"""A customer explained from a partition's state, against what the engine did and what it does next."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from streams.customer_card import card_of
from streams.explanation import MOVEMENTS_MAX, Explained, explained_by
from streams.explanation_report import as_json, as_text
from streams.segments.settling import SHADOW_SUFFIX
from tests.simulation import SimulatedPartition
from tests.streams.segments.custom import defined
from tests.streams.steps.streams_of_events import DAY, T0, Entry, random_log
from tests.streams.steps.test_conversion import BOUGHT, edit, partition_of, write
from tests.streams.steps.test_engine import purchase, tick

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)

SECTIONS = """traits:
  plan_wanted: string
segments:
  buyers: {when: orders(20d) >= 1}
  patient: {when: orders(20d) >= 1, dwell_enter: 3d, dwell_exit: 5d, cooldown: 15d}
  big:
    when: spend(60d) >= 100 and not lifecycle == "churned"
    state: shadow
dimensions:
  worth:
    values:
      gold: spend(60d) >= 150
      silver: spend(60d) >= 50
    otherwise: bronze
"""


def running(log: list[Entry], sections: str = SECTIONS) -> SimulatedPartition:
    """A partition of the core and these sections that has read this log."""
    partition = SimulatedPartition(defined(sections))
    write(partition, log)
    partition.run(itertools.repeat(50))
    return partition


def explained(partition: SimulatedPartition, customer: str, at_ms: int | None = None) -> Explained:
    """What is said of a customer who is known."""
    found = explained_by(partition.engine, customer, at_ms)
    assert found is not None
    return found


def card_text(partition: SimulatedPartition, customer: str, at_ms: int | None = None) -> str:
    """What an operator reads of a customer."""
    return as_text(explained(partition, customer, at_ms))


@given(seed=st.integers(0, 10**9))
@settings(max_examples=20, phases=PHASES, deadline=None)
def test_the_next_change_comes_when_it_says_and_values_are_those_held(seed: int) -> None:
    """Of every customer: values as the engine holds them, delays and shadows too; letting time pass makes
    exactly the next change of each dimension that was foretold."""
    rng = random.Random(seed)
    partition = running(random_log(rng, 80, customers=6))
    engine = partition.engine
    table = engine.table
    foretold = {}
    for slot in range(table.count):
        name = table.slots.id_of(slot).decode()
        told = explained(partition, name)
        held = {
            dimension.removesuffix(SHADOW_SUFFIX): table.values[d][code] if code >= 0 else None
            for d, (dimension, code) in enumerate(
                zip(table.dimensions, table.value[slot].tolist(), strict=True)
            )
            if engine.evaluator.counted[d]
        }
        assert {each.dimension: each.value for each in told.explanations} == held
        lifecycle = told.explanations[1].clauses
        assert [clause.holds for clause in lifecycle] == [False] * (len(lifecycle) - 1) + [True]
        for coming in told.coming:
            foretold[name, coming.dimension] = coming
    count = len(partition.changes)
    # A value that comes and goes between two ticks is none; at a tick of its own it shows.
    write(partition, [tick(at_ms) for at_ms in sorted({c.at_ms for c in foretold.values()})])
    partition.run(itertools.repeat(50))
    first: dict[tuple[str, str], Mapping[str, Any]] = {}
    for change in partition.changes[count:]:
        first.setdefault((change["customer_id"], change["dimension"]), change)
    assert {key: (c["from"], c["to"], c["effective_at"]) for key, c in first.items()} == {
        key: (c.before, c.after, c.at_ms) for key, c in foretold.items() if key[1] != "big"
    }


@given(seed=st.integers(0, 10**9))
@settings(max_examples=10, phases=PHASES, deadline=None)
def test_the_past_is_what_was_held_then(seed: int) -> None:
    """At any earlier tick, if nothing came late: what the engine held there, without what follows delays."""
    rng = random.Random(seed)
    log = [
        entry
        for entry in random_log(rng, 60, customers=4)
        if entry[0] in ("Purchased", "Tick", "SignedUp", "ProfileUpdated")
    ]
    ordered = in_time(log)
    partition = running([])
    seen: dict[int, dict[str, dict[str, str]]] = {}
    for kind, customer, fields in ordered:
        write(partition, [(kind, customer, fields)])
        partition.run(itertools.repeat(50))
        if kind == "Tick":
            seen[fields["at"]] = values_of(partition)
    for at_ms, values in seen.items():
        for customer, held in values.items():
            told = explained(partition, customer, at_ms)
            assert {
                each.dimension: each.value
                for each in told.explanations
                if each.value is not None and each.dimension not in ("patient", "big")
            } == {name: value for name, value in held.items() if name != "patient"}


def in_time(log: list[Entry]) -> list[Entry]:
    """The log with every event before the first Tick at or behind it, none late and none from the future."""
    ticks = sorted({fields["at"] for kind, _, fields in log if kind == "Tick"})
    events = [entry for entry in log if entry[0] != "Tick" and entry[2]["occurred_at"] <= ticks[-1]]
    entries = [(entry[2]["occurred_at"], 0, entry) for entry in events]
    entries += [(at_ms, 1, ("Tick", "", {"at": at_ms})) for at_ms in ticks]
    return [entry for _, _, entry in sorted(entries, key=lambda each: each[:2])]


def values_of(partition: SimulatedPartition) -> dict[str, dict[str, str]]:
    """What has been told of every customer."""
    values: dict[str, dict[str, str]] = {}
    for change in partition.changes:
        mine = values.setdefault(change["customer_id"], {})
        mine.pop(change["dimension"], None)
        if change["to"] is not None:
            mine[change["dimension"]] = change["to"]
    return values


def test_figures_edges_and_the_cell_are_in_the_text() -> None:
    """One order of 60.00, 20 days ago: why R is 5, F and M are 1, and which name that makes."""
    partition = partition_of([purchase("a", T0, 6_000), tick(T0 + 20 * DAY)])
    partition.run(itertools.repeat(50))
    text = card_text(partition, "c")
    for line in (
        "rfm: new since 2020-09-13 12:26:40 UTC",
        "  prospect, who has never bought: no, last order 20d ago",
        "  R 5, days_since(last()) under 30d: yes, 20d; may change 2020-10-13 12:26:40 UTC",
        "  F 1, orders(365d) under 2: yes, 1",
        "    - order of 60.00 GBP at 2020-09-13 12:26:40 UTC, counts until 2021-09-13 12:26:40 UTC",
        "  M 1, net(365d) under 100.00 GBP: yes, 60.00 GBP",
        "  new, cell R5 FM1 of the grid: yes, F + M = 2",
        "  next: promising at 2020-10-13 12:26:40 UTC, if nothing else happens",
        "  new, first paid less than 30d ago: yes, first order 20d ago",
        "facts are kept from the beginning",
    ):
        assert line in text, text
    told = as_json(explained(partition, "c"))
    assert told["dimensions"]["rfm"]["next"]["value"] == "promising"
    assert told["dimensions"]["lifecycle"]["clauses"][-1]["holds"] is True
    assert told["revenue"] is None and told["kept_since"] == {"orders": None, "refunds": None}
    assert explained_by(partition.engine, "nobody") is None


def test_a_segment_of_ones_own_is_told_with_its_delay_and_a_shadow_as_what_it_is() -> None:
    """Who fulfils a rule for a day of three waits; the shadow says that nobody is told."""
    partition = running([purchase("a", T0, 16_000), tick(T0), tick(T0 + DAY)])
    text = card_text(partition, "c")
    for line in (
        "buyers: buyers since 2020-09-13 12:26:40 UTC",
        "patient: (none)",
        "  dwell_enter 3d is over: no, the rule holds since 2020-09-13 12:26:40 UTC; may change"
        " 2020-09-16 12:26:40 UTC",
        "  next: patient at 2020-09-16 12:26:40 UTC, if nothing else happens",
        "big (shadow: nobody is told): big since 2020-09-13 12:26:40 UTC",
        "worth: gold since 2020-09-13 12:26:40 UTC",
        "  gold, spend(60d) >= 150: yes, 160.00 GBP; may change 2020-11-12 12:26:40 UTC",
    ):
        assert line in text, text
    told = explained(partition, "c")
    assert "big" in told.since_ms and "big" not in told.seqs
    json = as_json(told)["dimensions"]
    assert json["big"]["shadow"] and json["patient"]["next"]["value"] == "patient"
    assert "delays are left out" in card_text(partition, "c", T0 + DAY // 2)
    card = card_of(partition.engine, "c")
    assert card is not None and card.next_ms == T0 + 3 * DAY, "the delay is over before any rule turns"


def test_another_instant_is_judged_by_the_facts_up_to_then() -> None:
    """Before the second order, between, and in days to come; what is stored is not said to be of then."""
    partition = partition_of(
        [purchase("a", T0, 6_000), purchase("b", T0 + 40 * DAY, 6_000), tick(T0 + 50 * DAY)]
    )
    partition.run(itertools.repeat(50))
    before = card_text(partition, "c", T0 + 35 * DAY)
    assert "orders(365d) under 2: yes, 1" in before and "rfm: promising\n" in before
    now = card_text(partition, "c")
    assert "orders(365d) at least 2 and under 3: yes, 2" in now and "note:" not in now
    later = card_text(partition, "c", T0 + 300 * DAY)
    assert "lifecycle: churned\n" in later and "note: that is to come" in later


PLANS = """traits: {country: string}
segments:
  pros: {when: plan == "pro" or country == "DE"}
  busy: {when: tickets_open >= 1}
"""


def plan(change: str, at_ms: int, mrr: int | None = None, **fields: Any) -> Entry:
    """A PlanChanged of the customer c."""
    event = {"event_id": f"{change}-{at_ms}", "occurred_at": at_ms, "subscription_id": "s1", "change": change}
    money = {} if mrr is None else {"mrr_minor": mrr, "currency": "GBP"}
    return "PlanChanged", "c", {**event, **money, **fields}


def test_subscriptions_tickets_and_traits_are_those_of_the_instant_asked_for() -> None:
    """Before an upgrade, an open ticket and a trait; the trait's own past is said not to be kept."""
    ticket = {"event_id": "t", "occurred_at": T0 + 10 * DAY, "ticket_id": "t1", "change": "opened"}
    profile = {
        "event_id": "p",
        "occurred_at": T0 + 10 * DAY,
        "traits": {"country": "DE"},
    }
    partition = running(
        [
            plan("started", T0, 1_000, plan="basic"),
            tick(T0 + DAY),
            plan("upgraded", T0 + 10 * DAY, 3_000, plan="pro"),
            ("TicketChanged", "c", ticket),
            ("ProfileUpdated", "c", profile),
            tick(T0 + 11 * DAY),
        ],
        PLANS,
    )
    now, then = explained(partition, "c"), explained(partition, "c", T0 + 5 * DAY)
    assert [each.value for each in now.explanations[2:]] == ["pros", "busy"]
    assert [each.value for each in then.explanations[2:]] == [None, None]
    assert now.revenue is not None and then.revenue is not None
    assert [(m.kind, m.amount_minor) for m in now.revenue.movements] == [("new", 1_000), ("expansion", 2_000)]
    assert (now.revenue.mrr_minor, then.revenue.mrr_minor, len(then.revenue.movements)) == (3_000, 1_000, 1)
    text = as_text(now)
    assert "revenue of a month: 30.00 GBP\n  new +10.00 GBP at 2020-09-13" in text
    assert '    plan == "pro": yes, pro' in text and "ticket t1, opened at 2020-09-23" in text
    assert "- country set at 2020-09-23 12:26:40 UTC" in text
    past = as_text(then)
    assert '    plan == "pro": no, basic' in past and '    country == "DE": no, not set' in past
    assert "note: country was set 2020-09-23 12:26:40 UTC: what it was before is not kept" in past
    assert as_json(now)["revenue"]["movements"][1]["amount"] == "20.00"


def test_movements_shown_are_bounded_and_add_up() -> None:
    """Only the latest are shown, how many more there are is said; all of them come to the revenue."""
    changes = [plan("started", T0, 1_000)]
    changes += [plan("upgraded", T0 + n * DAY, 1_000 + 100 * n) for n in range(1, 20)]
    partition = running([*changes, tick(T0 + 30 * DAY)], PLANS)
    told = explained(partition, "c")
    assert told.revenue is not None
    assert len(told.revenue.movements) == MOVEMENTS_MAX and told.revenue.more == 10
    book = partition.engine.table.books[0]
    assert told.revenue.mrr_minor == sum(m.amount_minor for m in book.movements(told.at_ms)) == 2_900
    assert "after 10 earlier movements" in as_text(told)


def test_a_series_says_since_when_its_facts_are_kept() -> None:
    """One that is kept from some instant on only is named with it."""
    partition = running(
        [purchase("a", T0, 6_000), tick(T0)], "segments:\n  s: {when: 'count(\"x\", 9d) > 0'}\n"
    )
    partition.engine.complete_since_ms['activity "x"'] = T0
    assert 'but for\n  activity "x", since 2020-09-13 12:26:40 UTC' in card_text(partition, "c")
    assert as_json(explained(partition, "c"))["kept_since"]['activity "x"'].startswith("2020-09-13T12:26:40")


def test_a_customer_that_waits_for_its_conversion_is_said_to() -> None:
    """The clauses are the new version's, and a note says that the stored values are not."""
    partition = partition_of(BOUGHT)
    partition.run(itertools.repeat(50))
    edit(partition, ("    potential_loyalist: ", "    stars: "))
    partition.convert(slices=0)
    partition.engine.convert()
    partition.engine.table.evaluated_by[5] = 1
    partition.engine.table.value[5, 0] = 0
    name = partition.engine.table.slots.id_of(5).decode()
    assert "note: its stored values are those of definition 1" in card_text(partition, name)


def test_events_no_tick_has_judged_are_said_to_wait() -> None:
    """What an unjudged order makes of the values is told, and that what is stored follows."""
    partition = running([purchase("a", T0, 6_000), tick(T0), purchase("b", T0 + 60_000, 20_000)])
    assert "note: it has events that are not judged yet" in card_text(partition, "c")
