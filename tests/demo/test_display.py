"""The display: counts that follow the changes, bounded memory, and plain lines off a terminal."""

from __future__ import annotations

import io
import sys
from collections import Counter

from rich.console import Console

from demo.display import LATEST_CHANGES_MAX, Change, LiveScreen, PlainLines, Scene, grid_map, screen_for

GRID = (
    ("new", "potential_loyalist", "potential_loyalist", "champions", "champions"),
    ("promising", "potential_loyalist", "potential_loyalist", "loyal", "loyal"),
    ("about_to_sleep", "about_to_sleep", "need_attention", "loyal", "loyal"),
    ("hibernating", "hibernating", "at_risk", "at_risk", "cant_lose"),
    ("lost", "lost", "at_risk", "at_risk", "cant_lose"),
)
DAY_MS = 86_400_000
FIRST_MS = 1_259_625_600_000  # 2009-12-01


def scene() -> Scene:
    """A scene of 100 days, one second after its start."""
    seconds = iter((0.0, 1.0))
    return Scene(GRID, FIRST_MS, FIRST_MS + 100 * DAY_MS, lambda: next(seconds, 1.0))


def change(before: str | None, after: str | None, *, dimension: str = "rfm", cause: str = "event") -> Change:
    """A change on the first day."""
    return Change(FIRST_MS + 61_000, "12346", dimension, before, after, cause)


def drawn(console: Console) -> str:
    """What was written to a console made on a StringIO."""
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_members_follow_the_changes_of_the_grid_only() -> None:
    """Entering, moving and leaving move the counts; the lifecycle dimension does not."""
    shown = scene()
    for each in (
        change(None, "new"),
        change(None, "prospect"),
        change("new", "lost", cause="time_elapsed"),
        change(None, "active", dimension="lifecycle"),
    ):
        shown.changed(each)

    assert +shown.members == Counter({"lost": 1, "prospect": 1})
    assert (shown.in_grid, shown.changes) == (1, 4)
    assert shown.causes == Counter({"event": 3, "time_elapsed": 1})


def test_the_list_of_latest_changes_is_bounded() -> None:
    """However many changes come, only the last few are kept."""
    shown = scene()
    for _ in range(10 * LATEST_CHANGES_MAX):
        shown.changed(change(None, "new"))

    assert len(shown.latest) == LATEST_CHANGES_MAX


def test_off_a_terminal_there_is_one_line_per_month() -> None:
    """Daily updates over 100 days from 1 December print one line for January, February and March."""
    shown = scene()
    console = Console(file=io.StringIO(), width=40)
    screen = screen_for(shown, console)
    shown.changed(change(None, "champions"))
    with screen:
        for day in range(101):
            shown.sent(FIRST_MS + day * DAY_MS, 1_000 + day)
            shown.applied(FIRST_MS + day * DAY_MS)
            screen.update()

    assert isinstance(screen, PlainLines)
    lines = drawn(console).splitlines()
    assert [line[:10] for line in lines] == ["2010-01-01", "2010-02-01", "2010-03-01"]
    assert lines[0].split() == (
        [
            "2010-01-01",
            "1,031",
            "events",
            "sent",
            "1",
            "changes",
            "1",
            "in",
            "the",
            "grid",
            "1",
            "champions",
            "0",
            "at",
            "risk",
            "0",
            "lost",
        ]
    )
    assert "\x1b" not in drawn(console)


def test_the_live_screen_shows_bars_map_and_latest_changes() -> None:
    """On a terminal the last frame holds the day, the rate, the segment counts and the ticker."""
    shown = scene()
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=40)
    shown.sent(FIRST_MS + 50 * DAY_MS, 2_000)
    shown.changed(change("prospect", "potential_loyalist"))
    with screen_for(shown, console) as screen:
        screen.update()

    assert isinstance(screen, LiveScreen)
    text = drawn(console)
    for expected in ("2010-01-20", "2,000 events (2,000/s)", "potential loyalist", "customer 12346", "00:01"):
        assert expected in text


def test_the_map_names_and_numbers_each_segment_once() -> None:
    """A segment of several cells shows its number once, so that the numbers on screen add up."""
    names = sorted({name for row in GRID for name in row})
    members = Counter({name: 101 + index for index, name in enumerate(names)})

    lines = grid_map(GRID, members).plain.splitlines()

    assert sorted(" ".join(lines[2::2]).split()) == sorted(str(members[name]) for name in names)
    named = " ".join(line[4:] for line in lines[1::2])
    assert sorted(named.split()) == sorted(" ".join(names).replace("_", " ").split())
    assert {len(line) for line in lines} == {79}


def test_a_console_on_standard_output_decides_by_itself() -> None:
    """Under a test there is no terminal, so plain lines are chosen."""
    assert isinstance(screen_for(scene(), Console(file=sys.__stdout__, force_terminal=False)), PlainLines)
