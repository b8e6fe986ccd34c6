"""How a sweep stands: counts and the time left, for a terminal or for nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


@dataclass(frozen=True)
class Standing:
    """A sweep at a moment.

    Attributes:
        total: Points the sweep names.
        done: Finished, now or earlier.
        running: Being worked on.
        failed: Kept their error.
        seconds_left: Estimate; None before the first point of this start has ended.
    """

    total: int
    done: int
    running: int
    failed: int
    seconds_left: float | None

    def __str__(self) -> str:
        text = f"{self.total} points: {self.done} done, {self.running} running, {self.failed} failed"
        return text if self.seconds_left is None else f"{text}, about {_span(self.seconds_left)} left"


Show = Callable[[Standing], None]


@contextmanager
def show_standing(console: Console) -> Iterator[Show | None]:
    """A line with a bar on a terminal; None elsewhere."""
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        line = bar.add_task("starting", total=None)

        def show(standing: Standing) -> None:
            ended = standing.done + standing.failed
            bar.update(line, description=str(standing), completed=ended, total=standing.total)

        yield show


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
