"""Where and how an event happened: optional, checked once when built, then free to reuse."""

from __future__ import annotations

from dataclasses import dataclass, fields


def _check_texts(owner: object, *skipped: str) -> None:
    """Raise a ValueError naming the first field that is neither None nor text."""
    for field in fields(owner):  # type: ignore[arg-type]  # Both callers are dataclasses.
        value = getattr(owner, field.name)
        if field.name not in skipped and value is not None and not isinstance(value, str):
            name = f"{type(owner).__name__.lower()}.{field.name}"
            raise ValueError(f"{name}={value!r}: expected text or None, got {type(value).__name__}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What brought the customer here, as in UTM parameters. Anything but text is a ValueError."""

    source: str | None = None
    medium: str | None = None
    name: str | None = None
    term: str | None = None
    content: str | None = None

    def __post_init__(self) -> None:
        _check_texts(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where and how an event happened. Anything but text (and a Campaign) is a ValueError."""

    channel: str | None = None
    campaign: Campaign | None = None
    referrer: str | None = None
    device: str | None = None
    os: str | None = None
    app_version: str | None = None
    country: str | None = None
    region: str | None = None
    city: str | None = None
    locale: str | None = None
    timezone: str | None = None

    def __post_init__(self) -> None:
        _check_texts(self, "campaign")
        if self.campaign is not None and not isinstance(self.campaign, Campaign):
            raise ValueError(f"context.campaign={self.campaign!r}: expected a Campaign or None")
