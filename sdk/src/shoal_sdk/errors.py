"""What the SDK raises beside ValueError: SettingsError when set up, the others only with strict=True."""

from __future__ import annotations


class ShoalError(Exception):
    """The root of what the SDK raises beside plain ValueErrors."""


class BufferFull(ShoalError):
    """There is no room for the event: Kafka is away or slower than the application."""


class ClientClosed(ShoalError):
    """The client was closed before the event came."""


class SettingsError(ShoalError, ValueError):
    """The environment does not say how to set up a client; `problems` has a line for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
