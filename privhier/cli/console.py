"""What the command line writes: results on stdout, everything else on stderr, a bar on a terminal only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from privhier.errors import InterruptedRunError

console = Console(stderr=True, highlight=False)
_out = Console(highlight=False, soft_wrap=True)


def say(*lines: object) -> None:
    """Write to stdout: lines as they are, tables drawn."""
    for line in lines:
        _out.print(line, markup=False)


def note(text: str) -> None:
    """Write one line, never wrapped, to stderr."""
    console.print(text, markup=False, soft_wrap=True)


def interrupted(rule: str, remedy: str) -> InterruptedRunError:
    """The typed ending of a Ctrl-C or SIGTERM: what is kept, and how to go on."""
    return InterruptedRunError(key="Ctrl-C", value="interrupted", rule=rule, remedy=remedy)


@contextmanager
def interruptible(
    command: str,
    *,
    kept: str = "the run stopped before its end; everything up to its last finished step is kept",
) -> Iterator[None]:
    """Turn a Ctrl-C (and SIGTERM) in the block into a typed ending that says how to go on.

    Args:
        command: What to type to go on.
        kept: What stopped, and what of it is kept.

    Raises:
        InterruptedRunError: It was interrupted.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise interrupted(kept, f"Go on with: {command}") from error


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar on a terminal, silence elsewhere."""
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
        shown = bar.add_task("starting", total=None)

        def update(text: str, done: int, total: int) -> None:
            bar.update(shown, description=text, completed=done, total=total)

        yield update
