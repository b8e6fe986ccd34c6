"""How a sweep stands: counts and the time left, as a bar on a terminal, as lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from privhier.process.heartbeat import SilenceBreaker, heartbeat


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
def show_standing(console: Console) -> Iterator[Show]:
    """A line with a bar on a terminal; elsewhere a line whenever a point ends, and each silent minute."""
    if not console.is_terminal:
        lines = StandingLines(lambda text: console.print(text, markup=False, soft_wrap=True))
        with heartbeat(lines.beat):
            yield lines
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        line = bar.add_task("starting", total=None)

        def show(standing: Standing) -> None:
            ended = standing.done + standing.failed
            bar.update(line, description=str(standing), completed=ended, total=standing.total)

        yield show


class StandingLines(SilenceBreaker):
    """A sweep's standing as lines: one at first, one whenever a point has ended, one each silent minute.

    Args:
        write: Takes a line.
        clock: Seconds from any moment on.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(write, clock)
        self._standing: Standing | None = None

    def __call__(self, standing: Standing) -> None:
        """Take the present standing."""
        with self._lock:
            before, self._standing = self._standing, standing
            if before is None or (before.done, before.failed) != (standing.done, standing.failed):
                self._said = self._clock()
                self._write(str(standing))

    def _still(self, now: float) -> str | None:
        """The last standing."""
        if self._standing is None:
            return None
        return f"still: {self._standing}, {_span(now - self._began)} so far"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
