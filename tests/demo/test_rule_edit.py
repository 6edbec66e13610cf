"""The second act: who had to move by SQL, who did, and a verdict that sees whatever is wrong with that."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from demo.check import compare
from demo.oracle import Standing, standings
from demo.purchases import INVOICE_LINES
from demo.rule_edit import EDIT, EDITED_FRESH_DAYS, Edited, moved_by, print_edited
from demo.worker import WorkerEnded, said
from streams.segments.loading import DEFAULT_PATH, load_path

FINAL_MS = 1_323_475_200_000
CHAMPION = Standing(22 * 86_400_000, 20, 200_000, (5, 5, 5), "champions", "loyal")
LOYAL = Standing(22 * 86_400_000, 20, 200_000, (4, 5, 5), "loyal", "loyal")
PAIR = ("champions", "loyal")


def edited(moves: dict[str, list[tuple[str, str]]], after: dict[str, Standing]) -> Edited:
    """What became of an edit that had to move ada and nobody else."""
    return Edited(moves, {"ada": PAIR}, compare({"ada": LOYAL, "bob": CHAMPION}, after), 2, 1.0)


def test_who_has_another_value_had_to_move() -> None:
    """By SQL before and after; who stays does not count."""
    before, after = {"ada": CHAMPION, "bob": CHAMPION}, {"ada": LOYAL, "bob": CHAMPION}
    assert moved_by(before, after) == {"ada": PAIR}


def test_one_move_each_and_the_right_ends_are_good() -> None:
    """The verdict says how many moved and how many had to."""
    result = edited({"ada": [PAIR]}, {"ada": LOYAL, "bob": CHAMPION})
    assert result.good
    assert result.verdicts[0].startswith("1 customers moved by the edit, 1 had to by SQL: 0 wrong")
    assert result.verdicts[1] == "2 customers checked against SQL again: 0 differ"


@pytest.mark.parametrize(
    "moves",
    [
        {},
        {"ada": [PAIR, PAIR]},
        {"ada": [("champions", "new")]},
        {"ada": [PAIR], "bob": [PAIR]},
    ],
    ids=["missing", "doubled", "wrong", "not asked for"],
)
def test_any_other_move_is_seen(moves: dict[str, list[tuple[str, str]]]) -> None:
    """A move too few, too many, elsewhere, or of somebody who had to stay."""
    result = edited(moves, {"ada": LOYAL, "bob": CHAMPION})
    assert not result.good and len(result.wrong) == 1
    console = Console(file=io.StringIO(), width=200)
    print_edited(console, result)
    assert isinstance(console.file, io.StringIO)
    assert f"customer {result.wrong[0]} moved" in console.file.getvalue()


def test_a_wrong_end_is_seen() -> None:
    """The changes are right, but somebody's state is not what SQL says."""
    result = edited({"ada": [PAIR]}, {"ada": LOYAL, "bob": LOYAL})
    assert not result.good
    assert result.verdicts[1] == "2 customers checked against SQL again: 1 differ"


def test_the_edit_is_one_line_and_a_definition(tmp_path: Path) -> None:
    """What the demo writes is read without a problem and means something else."""
    text = DEFAULT_PATH.read_text()
    assert text.count(EDIT[0]) == 1
    path = tmp_path / "edited.yaml"
    path.write_text(text.replace(*EDIT))
    assert load_path(path).hash != load_path(DEFAULT_PATH).hash


def test_the_oracle_knows_the_edited_rule() -> None:
    """An order 21 to 30 days ago is fresh by the one rule and not by the other."""
    before, after = (standings(INVOICE_LINES, FINAL_MS, days) for days in (30, EDITED_FRESH_DAYS))
    changed = {customer for customer in before if before[customer].scores != after[customer].scores}
    ages = [before[customer].recency_ms or 0 for customer in changed]
    assert len(changed) > 100
    assert min(ages) >= 21 * 86_400_000 and max(ages) < 30 * 86_400_000
    assert {before[customer].scores[0] - after[customer].scores[0] for customer in changed} == {1}


async def test_what_a_failing_command_says_is_told() -> None:
    """Its last lines are in the error."""
    with pytest.raises(WorkerEnded, match="No such command"):
        await said({}, "plann")
