"""How far something is: a bar on a terminal, a line in a notebook, silence elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

Report = Callable[[str, int, int], None]
"""Called with a description, steps done and steps in all."""
_PAUSE = 0.2
"""Seconds between two changes of a notebook's line: each is a message to a browser."""


@contextmanager
def shown_progress(console: Console | None = None) -> Iterator[Report | None]:
    """What to report to while the block runs; None where nobody watches."""
    if in_notebook():
        with _line() as report:
            yield report
        return
    console = console if console is not None else Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        job = bar.add_task("starting", total=None)

        def update(text: str, done: int, total: int) -> None:
            bar.update(job, description=text, completed=done, total=total)

        yield update


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
