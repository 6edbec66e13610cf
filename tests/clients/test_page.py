"""What docs/other-clients.md tells the writers of other clients."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from shoal_sdk.partitioning import partition_of
from tests.clients.test_other_clients import PARTITIONS, read_as_a_worker_does
from tests.streams.test_reading import Consumed

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "other-clients.md").read_text()
ORDERED_MS = 1_772_368_200_000
"""When the order on the page was placed."""


def test_the_known_answer_is_right() -> None:
    """Whoever checks a client with it is not led astray."""
    found = re.search(r"of (\d+) partitions, the key\s+`([^`]+)` belongs to number (\d+)", PAGE)
    assert found is not None
    partitions, key, number = found.groups()
    assert partition_of(key.encode(), int(partitions)) == int(number)
    assert int(partitions) == PARTITIONS


def test_what_the_page_encodes_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines without the SDK make an order a worker takes, from the repository's root."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/other-clients.md", "exec"), names)
    record = Consumed(names["value"], b"customer-1", timestamp=ORDERED_MS)
    work = read_as_a_worker_does(partition_of(b"customer-1", PARTITIONS), [record])
    assert [letter.message for letter in work.dead_letters] == []
    assert list(work.facts.customer) == [b"customer-1"]


def test_every_version_the_page_points_to_is_there() -> None:
    """The schema it opens is the newest of its type."""
    (path,) = re.findall(r'Path\("([^"]+)"', PAGE)
    versions = sorted((ROOT / path).parent.glob("purchased.v*.avsc"))
    assert versions[-1] == ROOT / path
