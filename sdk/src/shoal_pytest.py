"""Fixtures for pytest, found through the entry point of shoal-sdk; nothing happens unless asked for.

A module beside the package, for pytest imports it in every run on a machine that has the SDK: here
that costs nothing, as the SDK itself is imported by the first test that asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from shoal_sdk.testing import RecordingAsyncShoal, RecordingShoal


@pytest.fixture
def shoal() -> Iterator[RecordingShoal]:
    """A client that records what the application sends, and asserts on it."""
    from shoal_sdk.testing import RecordingShoal

    with RecordingShoal() as client:
        yield client


@pytest.fixture
def async_shoal() -> RecordingAsyncShoal:
    """The same for an application that holds an AsyncShoal."""
    from shoal_sdk.testing import RecordingAsyncShoal

    return RecordingAsyncShoal()
