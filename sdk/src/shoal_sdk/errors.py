"""What the SDK raises besides ValueError: only with strict=True, never otherwise."""

from __future__ import annotations


class ShoalError(Exception):
    """The root of what a strict client raises instead of dropping an event."""


class BufferFull(ShoalError):
    """There is no room for the event: Kafka is away or slower than the application."""


class ClientClosed(ShoalError):
    """The client was closed before the event came."""
