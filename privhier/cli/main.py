"""The command line: every verb checks first, says what is wrong in one line, and exits with 2."""

from __future__ import annotations

import errno
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperGroup

import privhier
from privhier.cli import data, keys, link
from privhier.cli.catalog import list_names
from privhier.cli.certs import certs
from privhier.cli.compare import compare
from privhier.cli.console import console, note, say
from privhier.cli.new import new
from privhier.cli.plan import plan
from privhier.cli.run import attack, audit, report, run, train
from privhier.cli.sweep import sweep
from privhier.cli.ui import ui
from privhier.errors import ConfigError, OutputError, PrivhierError, PrivhierWarning
from privhier.process.stopping import interrupted, sigterm_interrupts

VERBS: dict[str, tuple[Callable[..., None], str]] = {
    "new": (new, "synthetic --out runs/first.yaml"),
    "run": (run, "configs/debug.yaml release.sigma=0.5 --out runs/try"),
    "train": (train, "configs/debug.yaml --out runs/try"),
    "attack": (attack, "runs/try --add nearest_neighbors"),
    "audit": (audit, "runs/try --fail-above male:0.9 --draws 1000000 --seed 0"),
    "report": (report, "runs/try"),
    "compare": (compare, "runs/a runs/b --csv runs/compared.csv"),
    "sweep": (sweep, "configs/sweeps/debug.yaml --workers 2 --out runs/front"),
    "cloud": (link.cloud, "configs/debug.yaml --plain --out runs/cloud"),
    "edge": (link.edge, "configs/debug.yaml --plain --out runs/edge"),
    "shared": (link.shared, "configs/debug.yaml --out shared.yaml"),
    "join": (link.join, "runs/edge runs/cloud --out runs/joined"),
    "certs": (certs, "certs --host cloud.example.org"),
    "plan": (plan, "configs/debug.yaml --bitrate 5Mbit"),
    "ui": (ui, "--store runs"),
    "list": (list_names, "defenses max_entropy"),
    "config": (keys.config, "release.clip"),
}
"""Every verb, with the arguments of an example that runs."""
DATA_VERBS: dict[str, tuple[Callable[..., None], str]] = {
    "check": (data.check, "configs/debug.yaml"),
    "cache": (data.cache, "configs/debug.yaml"),
}


class Verbs(TyperGroup):
    """The verbs; one that says nothing of its own about a Ctrl-C or SIGTERM is simply started again."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb.

        Raises:
            InterruptedRunError: It was interrupted.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            again = shlex.join(["privhier", *_given])
            raise interrupted("it stopped before its end", f"Start it again: {again}") from error


_given: list[str] = []
"""The arguments of the command."""


def _group(
    name: str, verbs: Mapping[str, tuple[Callable[..., None], str]], before: str = "privhier", **options: Any
) -> typer.Typer:
    """A group of verbs, each with its example below its help."""
    group = typer.Typer(name=name, no_args_is_help=True, **options)
    for verb, (work, example) in verbs.items():
        group.command(verb, epilog=f"Example: {before} {verb} {example}")(work)
    return group


app = _group(
    "privhier",
    VERBS,
    cls=Verbs,
    help="Train split, sanitize, attack, prove, compare: face-attribute networks whose cloud must not "
    "learn what is sensitive.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(
    _group(
        "data", DATA_VERBS, before="privhier data", help="Look at a data set, or decode it into its cache."
    )
)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit")] = False,
) -> None:
    """Print the version when asked."""
    if show:
        say(privhier.__version__)
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``privhier`` command."""
    _given[:] = sys.argv[1:] if arguments is None else arguments
    try:
        _check_text(_given)
        with sigterm_interrupts(), noted_warnings():
            app(args=list(_given), standalone_mode=True)
    except PrivhierError as error:
        fail(error)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
            raise
        fail(
            OutputError(
                key="--out",
                value=str(error.filename or ""),
                rule=f"cannot be written: {error.strerror}",
                remedy="Free space and go on with --resume",
            )
        )


@contextmanager
def noted_warnings() -> Iterator[None]:
    """Our own warnings as one line each, without the line of code they were raised at."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, PrivhierWarning):
            note(f"note: {message}")
        else:
            usual(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.simplefilter("once", PrivhierWarning)
        warnings.showwarning = show
        yield


def fail(error: PrivhierError) -> None:
    """Print a typed error and exit with its code."""
    console.print(f"error: {error}", markup=False)
    raise SystemExit(error.exit_code) from error


def _check_text(arguments: Sequence[str]) -> None:
    """Refuse bytes that are not UTF-8 at once: results, reports and commands to repeat a run are text."""
    for text in arguments:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ConfigError(
                key="command line",
                value=text,
                rule="holds bytes that are not UTF-8",
                remedy="Rename that file or folder, or give it a link whose name is UTF-8: ln -s OLD NEW",
            ) from error


if __name__ == "__main__":
    main(sys.argv[1:])
