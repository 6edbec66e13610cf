"""`shoal explain`: which instant is asked for."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from commands.explain import explain_command


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("2026-01-31", 1_769_817_600_000),
        ("2026-01-31T12:00:00.123Z", 1_769_860_800_123),
        ("2026-01-31T12:00:00.123+02:00", 1_769_853_600_123),
    ],
)
def test_an_instant_is_taken_to_the_millisecond(text: str, at_ms: int) -> None:
    """In UTC unless it says otherwise; nothing is rounded."""
    (option,) = [each for each in explain_command.params if each.name == "at_ms"]
    assert option.type.convert(text, option, None) == at_ms


def test_what_is_no_instant_is_refused_before_anything_is_asked() -> None:
    """What was expected, what is there, exit 2."""
    done = CliRunner().invoke(explain_command, ["ada", "--at", "yesterday"])
    assert done.exit_code == 2
    assert "expected an instant such as 2026-01-31T12:00:00Z, got yesterday" in done.stderr
