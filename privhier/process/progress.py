"""How far something is: a bar on a terminal, a line in a notebook; lines in a file where asked for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console

from privhier.process.heartbeat import SilenceBreaker, heartbeat

Report = Callable[[str, int, int], None]
"""Called with a description, steps done and steps in all."""
_PAUSE = 0.2
"""Seconds between two changes of a notebook's line: each is a message to a browser."""
BATCHES = ": batches"
"""How a report on what is inside an epoch ends: too much for a line each."""
_PATIENCE = 5.0
"""Seconds before the first line: what is over by then needs none."""
_QUIET = 30.0
"""Seconds between two lines on the same work where no terminal is: a redirected run is read afterwards."""


@contextmanager
def shown_progress(console: Console | None = None, *, lines: bool = False) -> Iterator[Report | None]:
    """What to report to while the block runs; None where nobody watches.

    Args:
        console: Where a bar is drawn; None: stderr.
        lines: Where there is neither notebook nor terminal, write a line a phase, attack and half minute,
            and one each minute while nothing is reported.
    """
    if in_notebook():
        with _line() as report:
            yield report
        return
    console = console if console is not None else Console(stderr=True, highlight=False, emoji=False)
    if not console.is_terminal:
        if not lines:
            yield None
            return
        written = Lines(lambda text: console.print(text, markup=False, soft_wrap=True))
        with heartbeat(written.beat):
            yield written
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),  # a path may hold brackets
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        job = bar.add_task("starting", total=None)

        def update(text: str, done: int, total: int) -> None:
            bar.update(job, description=text, completed=done, total=total)

        yield update


class Lines(SilenceBreaker):
    """Reports as lines: one when other work begins, one every half minute of the same, none at first.

    Args:
        write: Takes a line.
        clock: Seconds from any moment on.

    Example:
        >>> now = iter([0.0, 10.0, 20.0, 50.0])
        >>> report = Lines(print, clock=lambda: next(now))
        >>> report("train: epochs", 0, 4)
        0:00:10 train: epochs 0/4
        >>> report("train: epochs", 1, 4)
        >>> report("train: epochs", 2, 4)
        0:00:50 train: epochs 2/4, about 0:00:40 left
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(write, clock)
        self._seen: set[str] = set()
        self._starts: dict[tuple[str, int], tuple[int, float]] = {}
        self._now: tuple[str, int, int, float] | None = None

    def __call__(self, text: str, done: int, total: int) -> None:
        """See ``Report``."""
        with self._lock:
            self._report(text, done, total)

    def _still(self, now: float) -> str | None:
        """The last thing reported."""
        if self._now is None:
            return None
        text, done, total, since = self._now
        what = text.removeprefix("attack: ") if done < total else f"what follows {text}"
        return f"{_clock_time(now - self._began)} still: {what}, {_minutes(now - since)}"

    def _report(self, text: str, done: int, total: int) -> None:
        now = self._clock()
        self._now = (text, done, total, now)
        phase = (text.partition(":")[0], total)
        first, since = self._starts.setdefault(phase, (done, now))
        if done < first:  # the same once more
            self._starts[phase] = first, since = done, now
        if now - self._began < _PATIENCE:
            return
        new = text not in self._seen and not text.endswith(BATCHES)
        self._seen.add(text)
        if not new and now - self._said < _QUIET:
            return
        self._said = now
        left = ""
        if first < done < total:
            left = f", about {_clock_time((now - since) / (done - first) * (total - done))} left"
        self._write(f"{_clock_time(now - self._began)} {text} {done}/{total}{left}")


def _clock_time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs us; IPython is not imported to find out."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


@contextmanager
def _line() -> Iterator[Report]:
    """One line of text under the cell, changed in place and emptied at the end."""
    from IPython.display import display

    handle: Any = display(_text("starting"), raw=True, display_id=True)
    last = 0.0

    def update(text: str, done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _PAUSE or done == total:
            last = now
            handle.update(_text(f"{text} {done}/{total}"), raw=True)

    try:
        yield update
    finally:
        handle.update(_text(""), raw=True)


def _text(text: str) -> dict[str, str]:
    return {"text/plain": text}
