"""Files nobody should be able to apply, through the commands: refused at once, before Kafka is asked."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from commands.definitions import apply_command, plan_command
from tests.commands.bad_files import BAD_FILES, BadFile


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.name)
@pytest.mark.parametrize("command", [plan_command, apply_command], ids=["plan", "apply"])
def test_a_bad_file_is_refused_with_its_place_and_reason(
    command: click.Command, bad: BadFile, tmp_path: Path
) -> None:
    """File, line, in a rule the column, what was expected and what is there; exit 2, Kafka not asked."""
    path = tmp_path / "mine.yaml"
    path.write_text(bad.text)
    nowhere = {"SHOAL_KAFKA": "127.0.0.1:1", "SHOAL_KAFKA_WAIT_S_MAX": "1"}
    done = CliRunner().invoke(command, [str(path)], env=nowhere)
    assert done.exit_code == 2, done.output
    lines = done.stderr.splitlines()
    assert any(bad.is_told_by(line, "mine.yaml") for line in lines), lines
    assert done.stdout == ""
