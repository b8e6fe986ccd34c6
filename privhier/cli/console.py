"""What the command line writes: results on stdout, all else on stderr; a bar on a terminal, else lines."""

from __future__ import annotations

from contextlib import AbstractContextManager

from rich.console import Console

from privhier.process.progress import Report, shown_progress

console = Console(stderr=True, highlight=False, emoji=False)
_out = Console(highlight=False, soft_wrap=True, emoji=False)
_WIDE = 1000
"""Columns where no terminal is: what is redirected is searched, and a folded word is not found."""


def say(*lines: object) -> None:
    """Write to stdout: lines as they are, tables drawn."""
    for line in lines:
        _out.print(line, markup=False)


def say_table(table: object) -> None:
    """Write a table to stdout; where no terminal is, as wide as what it holds."""
    wide = _out if _out.is_terminal else Console(highlight=False, emoji=False, width=_WIDE)
    wide.print(table, markup=False)


def note(text: str) -> None:
    """Write one line, never wrapped, to stderr."""
    console.print(text, markup=False, soft_wrap=True)


def progress_bar() -> AbstractContextManager[Report | None]:
    """A progress bar on a terminal; elsewhere lines, one each minute at least."""
    return shown_progress(console, lines=True)
