"""Every metric Shoal exposes: declared here and nowhere else, with what each label may hold.

Labels never name a customer, and take few values: each is either one of those listed or bounded by
something an operator fixed (partitions, the definition). Counts are kept per process, in columns or
per step, never per event; what is a state, such as lag, is read when somebody scrapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client import Metric as Family
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

import errors

CONTENT_TYPE = CONTENT_TYPE_LATEST
"""What `Metrics.exposition` returns is of this type."""

MetricKind = Literal["counter", "gauge", "histogram"]
Process = Literal["worker", "sink"]


@dataclass(frozen=True, slots=True)
class Label:
    """One label: `values` are all it may hold; if None, `bound` says what keeps them few."""

    name: str
    values: tuple[str, ...] | None
    bound: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """One declaration; `buckets` are the upper bounds of a histogram, without the infinite one."""

    name: str
    kind: MetricKind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    of: Process = "worker"
    """Whose it is: nobody else exposes it."""

    @property
    def series_names(self) -> tuple[str, ...]:
        """The names its series have when scraped."""
        if self.kind == "histogram":
            return tuple(self.name + ending for ending in ("_bucket", "_count", "_sum"))
        return (self.name,)


def _below(root: type[Exception]) -> Iterator[type[Exception]]:
    for each in root.__subclasses__():
        yield each
        yield from _below(each)


PARTITION = Label("partition", None, "the partitions of `events`")
DIMENSION = Label("dimension", None, "the dimensions of the definition")
VALUE = Label("value", None, "the values of the dimension in the definition")
EVENT_TYPE = Label("type", None, "the stored event types, and `unknown` where the schema is not")
RESULT = Label("result", ("applied", "duplicate", "too_old", "erased", "dead"))
CAUSE = Label(
    "cause", ("erasure", "rule_changed", "refund", "late_event", "event", "time_elapsed", "unknown")
)
CHANGE = Label("change", ("entered", "exited", "moved"))
ORIGIN = Label("origin", ("live", "backfill", "reconcile"))
STAGE = Label("stage", ("decode", "apply", "evaluate", "write", "commit"))
OUTCOME = Label("result", ("committed", "aborted", "fenced"))
STATE = Label("state", ("waiting", "fencing", "restoring", "running", "settled", "failed"))
PART = Label("part", ("columns", "ids", "runs", "pages"))
SINK = Label("sink", None, "one per process: the service it delivers to")
DELIVERED = Label("result", ("ok", "retry", "rejected", "suppressed"))
ERROR = Label("error", tuple(sorted(each.__name__ for each in _below(errors.RecordError))))

_AGES_S = (0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 6 * 3600, 86_400, 7 * 86_400)
_LATENCIES_S = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 86_400)
_STEPS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
_RESTORES_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_REQUESTS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_RECORDS = (0, 1, 10, 100, 500, 1000, 2500, 5000, 10_000, 50_000)

EVENTS = Metric(
    "shoal_events_total",
    "counter",
    "Events reflected in committed state, or set aside: what became of each.",
    (EVENT_TYPE, RESULT),
)
EVENT_AGE = Metric(
    "shoal_event_age_seconds",
    "histogram",
    "From when an event happened to when the worker read it. With the wall clock only.",
    buckets=_AGES_S,
)
CHANGE_LATENCY = Metric(
    "shoal_change_latency_seconds",
    "histogram",
    "From the instant a change is effective to its commit. With the wall clock only.",
    (CAUSE,),
    _LATENCIES_S,
)
LAG = Metric(
    "shoal_consumer_lag_records",
    "gauge",
    "Records of `events` this worker has yet to apply, as of the last look at the log's end.",
    (PARTITION,),
)
STEP = Metric(
    "shoal_step_seconds",
    "histogram",
    "What a transaction took: CPU in every stage but commit, which is the wait for Kafka.",
    (STAGE,),
    _STEPS_S,
)
STEP_RECORDS = Metric(
    "shoal_step_records", "histogram", "Records of `events` in a committed transaction.", buckets=_RECORDS
)
TRANSACTIONS = Metric(
    "shoal_transactions_total", "counter", "Transactions: committed, aborted, or fenced off.", (OUTCOME,)
)
LAST_COMMIT = Metric(
    "shoal_last_commit_timestamp_seconds",
    "gauge",
    "When the partition last committed here, Unix time; none before its first commit.",
    (PARTITION,),
)
TIMER_LAG = Metric(
    "shoal_timer_lag_seconds",
    "gauge",
    "How long ago the earliest deadline came that is not evaluated yet.",
    (PARTITION,),
)
DUE = Metric(
    "shoal_due_customers",
    "gauge",
    "Customers waiting to be evaluated: deadline come or facts new.",
    (PARTITION,),
)
CHANGES = Metric(
    "shoal_changes_total", "counter", "Changes of segments, committed.", (DIMENSION, CHANGE, CAUSE, ORIGIN)
)
MEMBERS = Metric(
    "shoal_segment_members", "gauge", "Customers that hold a value now.", (DIMENSION, VALUE, PARTITION)
)
DEAD_LETTERS = Metric(
    "shoal_dead_letters_total", "counter", "Records set aside, by what was wrong with them.", (ERROR,)
)
CUSTOMERS = Metric("shoal_customers", "gauge", "Customers in memory.", (PARTITION,))
FACTS = Metric("shoal_facts", "gauge", "Facts in memory, folded ones left out.", (PARTITION,))
STATE_BYTES = Metric(
    "shoal_state_bytes", "gauge", "Bytes of the arrays that hold customers, by part.", (PART,)
)
RESTORE = Metric(
    "shoal_restore_seconds",
    "histogram",
    "From fencing a partition to its first chunk.",
    buckets=_RESTORES_S,
)
RESTORE_ROWS = Metric("shoal_restore_rows_total", "counter", "Rows read to restore partitions.")
PARTITION_STATE = Metric(
    "shoal_partition_state", "gauge", "1 for the state a partition of this worker is in.", (PARTITION, STATE)
)
REBALANCES = Metric("shoal_rebalances_total", "counter", "Times this worker was given its partitions.")
DEFINITION = Metric(
    "shoal_definition_info",
    "gauge",
    "1 for the definition the worker holds.",
    (
        Label("version", None, "one per process"),
        Label("hash", None, "one per process; the first 12 hex digits"),
    ),
)
REFUSED = Metric(
    "shoal_definition_refused",
    "gauge",
    "1 while a partition keeps an earlier version, for the newest needs facts that are not kept.",
    (PARTITION,),
)
EPOCH = Metric(
    "shoal_partition_epoch", "gauge", "Epoch a partition is in: one more with each rebuild.", (PARTITION,)
)
UNCONVERTED = Metric(
    "shoal_unconverted_customers",
    "gauge",
    "Customers whose values are still those of an earlier version of the definition.",
    (PARTITION,),
)
CLOCK_OFFSET = Metric(
    "shoal_clock_offset_seconds", "gauge", "The worker's clock less the broker's, when last compared."
)
SINK_DELIVERIES = Metric(
    "shoal_sink_deliveries_total",
    "counter",
    "Attempts to deliver a batch: taken, to be made again, refused for good, or of nothing new to the sink.",
    (SINK, DELIVERED),
    of="sink",
)
SINK_OLDEST = Metric(
    "shoal_sink_oldest_undelivered_seconds",
    "gauge",
    "Age of the oldest change read and not delivered, by when it was written; at least how long the"
    " process has waited for the sink or Kafka, for what is written meanwhile is not read.",
    (SINK,),
    of="sink",
)
SINK_REQUEST = Metric(
    "shoal_sink_request_seconds",
    "histogram",
    "What the sink took to answer, or to fail: deliveries, rebuilds and questions alike.",
    (SINK,),
    _REQUESTS_S,
    of="sink",
)

DECLARED: tuple[Metric, ...] = tuple(each for each in list(globals().values()) if isinstance(each, Metric))
"""All of the above."""

PROCESS = (
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_virtual_memory_bytes",
)
"""What the client library adds about the process, where the system tells."""

Labels = tuple[str, ...]
Reading = tuple[Metric, float, Labels]
"""One gauge's value at the time of a scrape; labels in the order of the declaration."""


class Metrics:
    """The counts of one process. For one thread: that of the event loop.

    A label value outside the declared ones is a ValueError, as is a count of labels that is not
    the metric's. Counters with nothing but listed labels begin at 0, so that their first
    increment is seen by `rate`. What is of another process is not exposed.
    """

    def __init__(self, of: Process = "worker") -> None:
        self._declared = tuple(metric for metric in DECLARED if metric.of == of)
        self._counters: dict[Metric, dict[Labels, float]] = {}
        self._buckets: dict[Metric, dict[Labels, npt.NDArray[np.int64]]] = {}
        self._sums: dict[Metric, dict[Labels, float]] = {}
        for metric in self._declared:
            listed = [label.values for label in metric.labels if label.values is not None]
            if metric.kind == "counter" and len(listed) == len(metric.labels) <= 1:
                self._counters[metric] = dict.fromkeys(
                    [(each,) for each in listed[0]] if listed else [()], 0.0
                )

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """Add to a counter."""
        counts = self._counters.setdefault(metric, {})
        if labels not in counts:
            _check(metric, "counter", labels)
        counts[labels] = counts.get(labels, 0.0) + amount

    def observe(self, metric: Metric, seconds_or_count: float, *labels: str) -> None:
        """Add one value to a histogram."""
        self.observe_column(metric, np.array([seconds_or_count]), *labels)

    def observe_column(self, metric: Metric, values: npt.NDArray[np.float64], *labels: str) -> None:
        """Add many values to a histogram at once; negative ones count as 0."""
        buckets = self._buckets.setdefault(metric, {})
        if labels not in buckets:
            _check(metric, "histogram", labels)
            buckets[labels] = np.zeros(len(metric.buckets) + 1, np.int64)
            self._sums.setdefault(metric, {})[labels] = 0.0
        values = np.maximum(values, 0.0)
        # A value equal to a bound belongs below it: `le`.
        at = np.searchsorted(metric.buckets, values, "left")
        buckets[labels] += np.bincount(at, minlength=len(metric.buckets) + 1)
        self._sums[metric][labels] += float(values.sum())

    def exposition(self, readings: Iterable[Reading] = ()) -> bytes:
        """Return everything as text for Prometheus, with `readings` as the gauges."""
        return generate_latest(_Exposed(list(self._families(readings))))

    def _families(self, readings: Iterable[Reading]) -> Iterator[Family]:
        gauges: dict[Metric, list[tuple[Labels, float]]] = {}
        for metric, value, labels in readings:
            _check(metric, "gauge", labels)
            gauges.setdefault(metric, []).append((labels, value))
        for metric in self._declared:
            names = [label.name for label in metric.labels]
            if metric.kind == "counter":
                family: Family = CounterMetricFamily(metric.name, metric.help, labels=names)
                for labels, count in self._counters.get(metric, {}).items():
                    family.add_metric(labels, count)  # type: ignore[attr-defined]  # Each family's own.
            elif metric.kind == "gauge":
                family = GaugeMetricFamily(metric.name, metric.help, labels=names)
                for labels, value in gauges.get(metric, ()):
                    family.add_metric(labels, value)
            else:
                family = HistogramMetricFamily(metric.name, metric.help, labels=names)
                for labels, counts in self._buckets.get(metric, {}).items():
                    self._add_histogram(family, metric, labels, counts)
            yield family

    def _add_histogram(
        self, family: HistogramMetricFamily, metric: Metric, labels: Labels, counts: npt.NDArray[np.int64]
    ) -> None:
        bounds = [str(float(bound)) for bound in metric.buckets] + ["+Inf"]
        reached = list(zip(bounds, np.cumsum(counts).tolist(), strict=True))
        family.add_metric(labels, reached, self._sums[metric][labels])


class _Exposed:
    """What the client library formats: our families, then those about the process."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Family]:
        yield from self._families
        yield from ProcessCollector(registry=CollectorRegistry()).collect()


def _check(metric: Metric, kind: MetricKind, labels: Labels) -> None:
    if metric.kind != kind:
        raise ValueError(f"{metric.name} is a {metric.kind}, not a {kind}")
    if len(labels) != len(metric.labels):
        raise ValueError(f"{metric.name} has {len(metric.labels)} labels, got {labels}")
    for label, value in zip(metric.labels, labels, strict=True):
        if label.values is not None and value not in label.values:
            raise ValueError(f"{metric.name}: {label.name} is one of {label.values}, got {value!r}")
