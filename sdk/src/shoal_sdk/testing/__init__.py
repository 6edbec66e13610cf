"""For tests of applications: clients that record instead of sending, and assertions on what they hold."""

from shoal_sdk.testing.events import Event, Events
from shoal_sdk.testing.recording import RecordingAsyncShoal, RecordingShoal

__all__ = ["Event", "Events", "RecordingAsyncShoal", "RecordingShoal"]
