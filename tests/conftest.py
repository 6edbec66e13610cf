"""What every test may ask for: a real Kafka, a topic prefix of its own, a bounded search for examples."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from deploy.local.cluster import kafka_for

# Times differ between machines, so no example may fail for being slow; CI tries the same examples
# every time, so that a red build is a change's fault.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits for brokers and workers, so that no long test is left over for the end."""
    items.sort(key=lambda item: item.get_closest_marker("kafka") is None)


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The bootstrap address of a real Kafka: SHOAL_KAFKA's, or one started for this session."""
    with kafka_for() as bootstrap:
        yield bootstrap


@pytest.fixture
def prefix() -> str:
    """A topic prefix no other test uses, so that tests share a broker without meeting."""
    return f"t{uuid.uuid4().hex[:12]}"
