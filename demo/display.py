"""What the demo shows while it runs: a live screen on a terminal, a line per month anywhere else."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

Grid = Sequence[Sequence[str]]
"""Segment names by row, R = 5 first, and within it by FM = 1 to 5."""

LATEST_CHANGES_MAX = 8
REFRESHES_PER_SECOND = 8
CELL_WIDTH = 15

COLOURS = {
    "champions": "#1b7837",
    "loyal": "#5aae61",
    "potential_loyalist": "#3690c0",
    "new": "#02818a",
    "promising": "#67a9cf",
    "need_attention": "#b58b00",
    "about_to_sleep": "#cc7a00",
    "at_risk": "#d7301f",
    "cant_lose": "#99000d",
    "hibernating": "#737373",
    "lost": "#525252",
}
OTHER_COLOUR = "#6a51a3"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one customer's value, as far as a person wants to see it."""

    effective_at_ms: int
    customer_id: str
    dimension: str
    before: str | None
    after: str | None
    cause: str


class Scene:
    """Everything there is to show; its size does not grow with the replay.

    `elapsed_s` gives seconds from any fixed point: the rate is events per second of it since the first tick.
    """

    def __init__(
        self, grid: Grid, first_ms: int, last_ms: int, elapsed_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.grid = grid
        self.first_ms = first_ms
        self.last_ms = last_ms
        self.sent_ms = self.applied_ms = first_ms
        self.events = 0
        self.members: Counter[str] = Counter()
        """Segment of the RFM grid (and "prospect") to customers in it."""
        self.causes: Counter[str] = Counter()
        self.latest: deque[Change] = deque(maxlen=LATEST_CHANGES_MAX)
        self._elapsed_s = elapsed_s
        self._started_s = elapsed_s()

    @property
    def changes(self) -> int:
        """Changes seen so far, in all dimensions."""
        return self.causes.total()

    @property
    def in_grid(self) -> int:
        """Customers who have bought."""
        return self.members.total() - self.members["prospect"]

    @property
    def events_per_second(self) -> float:
        """Events sent per second since the scene was made."""
        return self.events / max(self._elapsed_s() - self._started_s, 1e-9)

    def sent(self, at_ms: int, events: int) -> None:
        """Everything before `at_ms` is on the topic, `events` events in all."""
        self.sent_ms, self.events = at_ms, events

    def applied(self, at_ms: int) -> None:
        """The slowest partition's clock has come to `at_ms`."""
        self.applied_ms = max(self.applied_ms, at_ms)

    def changed(self, change: Change) -> None:
        """Move one customer."""
        self.causes[change.cause] += 1
        self.latest.append(change)
        if change.dimension == "rfm":
            if change.before is not None:
                self.members[change.before] -= 1
            if change.after is not None:
                self.members[change.after] += 1


class Screen(Protocol):
    """Shows a scene between entering and leaving; `update` says that the scene is another one."""

    def __enter__(self) -> Self:
        """Begin to show."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as a terminal should be left."""
        ...

    def update(self) -> None:
        """Look at the scene again."""
        ...


def screen_for(scene: Scene, console: Console) -> Screen:
    """Return a live screen for a terminal, plain lines for anything else."""
    return LiveScreen(scene, console) if console.is_terminal else PlainLines(scene, console)


class PlainLines:
    """One line whenever the pipeline's clock has entered another month."""

    def __init__(self, scene: Scene, console: Console) -> None:
        self._scene = scene
        self._console = console
        self._month = _day(scene.first_ms)[:7]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return None

    def update(self) -> None:
        """Print a line if the month has changed since the last one."""
        scene = self._scene
        month = _day(scene.applied_ms)[:7]
        if month == self._month:
            return
        self._month = month
        self._console.print(
            f"{_day(scene.applied_ms)}  {scene.events:>6,} events sent  {scene.changes:>6,} changes  "
            f"{scene.in_grid:>5,} in the grid  {scene.members['champions']:>4,} champions  "
            f"{scene.members['at_risk']:>4,} at risk  {scene.members['lost']:>5,} lost",
            highlight=False,
            soft_wrap=True,
        )


class LiveScreen:
    """Two bars, the grid as a map of its segments, and the latest changes; redrawn a few times a second."""

    def __init__(self, scene: Scene, console: Console) -> None:
        self._scene = scene
        span_ms = scene.last_ms - scene.first_ms
        self._bars = Progress(
            TextColumn("{task.description:>8}"),
            BarColumn(46),
            TextColumn("{task.fields[day]}"),
            console=console,
        )
        self._sent = self._bars.add_task("sent", total=span_ms, day=_day(scene.first_ms))
        self._applied = self._bars.add_task("applied", total=span_ms, day=_day(scene.first_ms))
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=REFRESHES_PER_SECOND)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._live.stop()

    def update(self) -> None:
        """Do nothing: the screen looks at the scene by itself, at its own pace."""

    def _draw(self) -> RenderableType:
        scene = self._scene
        for task, at_ms in ((self._sent, scene.sent_ms), (self._applied, scene.applied_ms)):
            self._bars.update(task, completed=at_ms - scene.first_ms, day=_day(at_ms))
        figures = Text(
            f"{scene.events:,} events ({scene.events_per_second:,.0f}/s)   {scene.changes:,} changes   "
            f"{scene.in_grid:,} in the grid   {scene.members['prospect']:,} prospects"
        )
        return Group(self._bars, figures, Text(), grid_map(scene.grid, scene.members), Text(), _ticker(scene))


def grid_map(grid: Grid, members: Counter[str]) -> Text:
    """Draw the grid, each segment in one colour with its name and number in the first cell it owns."""
    lines = [Text("    " + "".join(f"{f'FM {fm}':^{CELL_WIDTH}}" for fm in range(1, 6)))]
    named: set[str] = set()
    for score, row in zip((5, 4, 3, 2, 1), grid, strict=True):
        names, numbers = Text(f"R {score} "), Text("    ")
        for name, width in _runs(row):
            first = name not in named
            named.add(name)
            # The gap of one keeps neighbours apart on a terminal with few colours.
            room = width * CELL_WIDTH - 1
            style = f"bold white on {COLOURS.get(name, OTHER_COLOUR)}"
            names.append(f"{name.replace('_', ' ') if first else '':^{room}}"[:room], style).append(" ")
            numbers.append(f"{f'{members[name]:,}' if first else '':^{room}}", style).append(" ")
        lines += [names, numbers]
    return Text("\n").join(lines)


def _runs(row: Sequence[str]) -> list[tuple[str, int]]:
    """Return (name, number of cells side by side) from left to right."""
    runs: list[tuple[str, int]] = []
    for name in row:
        if runs and runs[-1][0] == name:
            runs[-1] = (name, runs[-1][1] + 1)
        else:
            runs.append((name, 1))
    return runs


def _ticker(scene: Scene) -> Table:
    table = Table.grid(padding=(0, 2))
    for change in scene.latest:
        table.add_row(
            Text(f"{_day(change.effective_at_ms)} {_minute(change.effective_at_ms)}", style="dim"),
            f"customer {change.customer_id}",
            Text(change.dimension, style="dim"),
            f"{change.before or '-'} → {change.after or '-'}",
            Text(change.cause, style="dim"),
        )
    for _ in range(LATEST_CHANGES_MAX - len(scene.latest)):
        table.add_row("")
    return table


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")


def _minute(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M")
