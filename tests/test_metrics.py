"""The declarations of the metrics, and the counts behind them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

import errors
import metrics
from metrics import DECLARED, Metrics


def series(counts: Metrics, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Every series of one name: its labels, sorted, to its value."""
    families = text_string_to_metric_families(counts.exposition().decode())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {tuple(sorted(sample.labels.items())): sample.value for sample in samples}


def test_names_follow_the_conventions() -> None:
    """One prefix, a counter ends in _total, no two alike, and each says in a sentence what it is."""
    names = [metric.name for metric in DECLARED]
    assert len(set(names)) == len(names)
    for metric in DECLARED:
        assert re.fullmatch(r"shoal_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))


def test_every_label_is_bounded_and_none_names_a_customer() -> None:
    """A label lists its values or says what bounds them; no id is among them."""
    for metric in DECLARED:
        for label in metric.labels:
            assert label.values or label.bound
            assert not re.search("customer|account|event_id|order", label.name)


def test_every_record_error_is_a_value_of_the_error_label() -> None:
    """A dead letter is counted under its class, also when the class is a subclass of another."""
    assert "WrongKey" in (metrics.ERROR.values or ())
    assert len(metrics.ERROR.values or ()) >= len(errors.RecordError.__subclasses__())


def test_counters_add_up_by_their_labels() -> None:
    """Each combination of labels is a series of its own."""
    counts = Metrics()
    counts.add(metrics.EVENTS, 3, "Purchased", "applied")
    counts.add(metrics.EVENTS, 4, "Purchased", "applied")
    counts.add(metrics.EVENTS, 1, "Purchased", "dead")
    assert series(counts, "shoal_events_total") == {
        (("result", "applied"), ("type", "Purchased")): 7,
        (("result", "dead"), ("type", "Purchased")): 1,
    }


def test_counters_whose_labels_are_listed_begin_at_0() -> None:
    """The first abort is an increase, not a new series that rate() cannot see."""
    assert series(Metrics(), "shoal_transactions_total") == {
        (("result", result),): 0 for result in ("committed", "aborted", "fenced")
    }
    assert series(Metrics(), "shoal_rebalances_total") == {(): 0}


def test_a_column_is_counted_as_its_values_one_by_one_would_be() -> None:
    """A value on a bound belongs to its bucket; negative ones are 0; buckets are cumulative."""
    at_once, one_by_one = Metrics(), Metrics()
    values = [-3.0, 0.0, 0.05, 0.051, 86_400.0, 1e9]
    at_once.observe_column(metrics.CHANGE_LATENCY, np.array(values), "event")
    for value in values:
        one_by_one.observe(metrics.CHANGE_LATENCY, value, "event")
    for ending in ("_bucket", "_count", "_sum"):
        name = f"shoal_change_latency_seconds{ending}"
        assert series(at_once, name) == series(one_by_one, name)
    buckets = {
        dict(labels)["le"]: n for labels, n in series(at_once, "shoal_change_latency_seconds_bucket").items()
    }
    assert (buckets["0.05"], buckets["0.1"], buckets["86400.0"], buckets["+Inf"]) == (3, 4, 5, 6)


def test_what_is_not_declared_is_refused() -> None:
    """A label value outside the list, a label too few and a metric of another kind are mistakes."""
    counts = Metrics()
    with pytest.raises(ValueError, match="result is one of"):
        counts.add(metrics.TRANSACTIONS, 1, "lost")
    with pytest.raises(ValueError, match="has 2 labels"):
        counts.add(metrics.EVENTS, 1, "Purchased")
    with pytest.raises(ValueError, match="is a gauge"):
        counts.add(metrics.LAG, 1, "0")
    with pytest.raises(ValueError, match="state is one of"):
        counts.exposition([(metrics.PARTITION_STATE, 1.0, ("0", "lost"))])
