"""Changes by when the event behind them was sent: before, during or after a conversion."""

from __future__ import annotations

import pytest

from benchmarks.latency_phases import Seen, by_phase, table


def test_a_change_belongs_to_the_phase_its_event_was_sent_in() -> None:
    """However late it is read; both ends of the conversion are in it."""
    seen = [Seen(99, 250), Seen(100, 130), Seen(200, 260), Seen(201, 206)]
    found = by_phase(seen, 100, 200)
    assert [found[phase]["changes"] for phase in ("before", "during", "after")] == [1, 2, 1]
    assert [found[phase]["max_ms"] for phase in ("before", "during", "after")] == [151, 60, 5]


def test_latency_is_from_sent_to_read_by_its_percentiles() -> None:
    """Of changes that took 0 to 100 ms, in any order, half took 50 or less, one in a hundred over 99."""
    seen = [Seen(1_000 + i, 1_000 + i + (i * 37) % 101) for i in range(101)]
    assert by_phase(seen, 0, 5_000)["during"] == pytest.approx(
        {"changes": 101, "p50_ms": 50, "p99_ms": 99, "max_ms": 100}
    )


def test_a_phase_without_changes_has_no_latency() -> None:
    """No figure is made up for it, and the table shows that there is none."""
    phases = by_phase([Seen(1, 2)], 100, 200)
    assert phases["during"] == {"changes": 0}
    run = {"segments": 20, "converting_s": 1.25, "phases": phases}
    _, before, during, after = table([run])
    assert before == ("20", "1.2", "before", "1", "1", "1", "1")
    assert during == ("20", "1.2", "during", "0", "-", "-", "-")
    assert after[2:4] == ("after", "0")
