"""The command line: every verb checks first, says what is wrong in one line, and exits with 2."""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer.core import TyperGroup

import privhier
from privhier.cli import link as link_command
from privhier.cli.certs import certs
from privhier.cli.plan import plan
from privhier.cli.sweep import sweep
from privhier.config import RunConfig, load_config
from privhier.errors import ConfigError, InterruptedRunError, OutputError, PrivhierError
from privhier.process.stopping import sigterm_interrupts


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
            raise InterruptedRunError(
                key="Ctrl-C",
                value="interrupted",
                rule="it stopped before its end",
                remedy=f"Start it again: {shlex.join(['privhier', *_given])}",
            ) from error


_given: list[str] = []
"""The arguments of the command."""

app = typer.Typer(
    name="privhier",
    cls=Verbs,
    help="Train split, sanitize, attack, prove, compare: face-attribute networks whose cloud must not "
    "learn what is sensitive.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data = typer.Typer(help="Look at a data set, or decode it into its cache.", no_args_is_help=True)
app.add_typer(data, name="data")
console = Console(stderr=True, highlight=False)
out = Console(highlight=False, soft_wrap=True)

ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A YAML file, e.g. configs/debug.yaml")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, e.g. release.sigma=0.3 seed=1"),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="Run folder; default: runs/NAME-HASH", show_default=False)
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out after a kill or Ctrl-C")
]
Moved = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="What may differ: dataset.root, dataset.cache, runtime.*, report.pictures",
    ),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``privhier`` command."""
    _given[:] = sys.argv[1:] if arguments is None else arguments
    try:
        _check_text(_given)
        with sigterm_interrupts():
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


def fail(error: PrivhierError) -> None:
    """Print a typed error and exit with its code."""
    console.print(f"error: {error}", markup=False)
    raise SystemExit(error.exit_code) from error


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and exit")] = False,
) -> None:
    """Print the version when asked."""
    if show:
        out.print(privhier.__version__)
        raise typer.Exit


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


@app.command(epilog="Example: privhier run configs/debug.yaml release.sigma=0.5 --out runs/try")
def run(
    config: ConfigArgument, overrides: Overrides = None, out: OutOption = None, resume: ResumeOption = False
) -> None:
    """The main job: train, attack, account, log to MLflow, write the report."""
    from privhier import session as job

    resolved = load_config(config, overrides or ())
    folder = _folder(resolved, out)
    command = _command("run", config, overrides, folder)
    with _interruptible(f"{command} --resume"), _progress() as progress:
        session = job.open_session(resolved, folder, resume=resume, progress=progress)
        result = job.run(session, command=command)
    _summary(result, session.folder.report)


@app.command(epilog="Example: privhier train configs/debug.yaml --out runs/try")
def train(
    config: ConfigArgument, overrides: Overrides = None, out: OutOption = None, resume: ResumeOption = False
) -> None:
    """Train only: edge, cloud and the unprotected references; `attack` goes on from there."""
    from privhier import session as job

    resolved = load_config(config, overrides or ())
    folder = _folder(resolved, out)
    command = _command("train", config, overrides, folder)
    with _interruptible(f"{command} --resume"), _progress() as progress:
        session = job.open_session(resolved, folder, resume=resume, progress=progress)
        job.train(session)
    _say(f"trained: {folder}", f"next:    privhier attack {folder}")


@app.command(epilog="Example: privhier attack runs/try")
def attack(run: RunArgument, overrides: Moved = None) -> None:
    """Attack a trained run with fresh attackers, account, and write result.json."""
    from privhier import session as job
    from privhier.training.trained import load_trained

    with _interruptible(f"privhier attack {run}"), _progress() as progress:
        session = job.reopen_session(run, overrides or (), progress=progress)
        trained = load_trained(session.config, session.prepared.data, session.folder)
        job.attack(session, trained)
    _say(f"attacked: {session.folder.result}", f"next:     privhier report {run}")


@app.command(epilog="Example: privhier audit runs/try --draws 1000000 --seed 0")
def audit(
    run: RunArgument,
    overrides: Moved = None,
    draws: Annotated[int, typer.Option("--draws", min=1000, help="Trials of the main rows")] = 1_000_000,
    canaries: Annotated[
        int,
        typer.Option("--canaries", min=0, help="Gradient canaries for DP-SGD on the edge; 0: none"),
    ] = 5000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything the auditor draws")] = 0,
) -> None:
    """Hold a run's claims against draws through its own code; exits with 1 if one is refuted.

    Where the edge was trained under DP-SGD it is trained once more with canaries, which needs the data set.
    """
    from privhier.audit.audit import audit_run
    from privhier.audit.dp_sgd import canary_rows

    more = (partial(canary_rows, canaries=canaries),) if canaries else ()
    with _interruptible(f"privhier audit {run}"), _progress() as progress:
        report = audit_run(
            run, draws=draws, seed=seed, more=more, overrides=overrides or (), progress=progress
        )
    _say(*report.lines(), f"audit: {run / 'audit.json'}")
    if report.refuted:
        raise typer.Exit(1)


@app.command(epilog="Example: privhier report runs/try")
def report(run: RunArgument, overrides: Moved = None) -> None:
    """Write report.html again from a finished run, or a sweep's page from its points."""
    from privhier.evaluation.points import is_sweep

    if is_sweep(run):
        from privhier.sweep.publish import publish

        with _progress() as progress:
            page, problem = publish(run, progress=progress)
        _say(f"report: {page}", *([f"warning: MLflow: {problem}"] if problem else []))
        return
    from privhier import session as job
    from privhier.evaluation.result import Result
    from privhier.training.trained import load_trained

    with _progress() as progress:
        session = job.reopen_session(run, overrides or (), progress=progress)
        trained = load_trained(session.config, session.prepared.data, session.folder)
        result = Result.of_run(session.folder.sealed, session.folder.result)
        path = job.report(session, result, trained, command=f"privhier report {run}")
    _say(f"report: {path}")


app.command("sweep", epilog="Example: privhier sweep configs/sweeps/debug.yaml --workers 2 --out runs/front")(
    sweep
)

app.command("cloud", epilog="Example: privhier cloud configs/debug.yaml --plain --out runs/cloud")(
    link_command.cloud
)
app.command("edge", epilog="Example: privhier edge configs/debug.yaml --plain --out runs/edge")(
    link_command.edge
)
app.command("shared", epilog="Example: privhier shared configs/debug.yaml --out shared.yaml")(
    link_command.shared
)
app.command("join", epilog="Example: privhier join runs/edge runs/cloud --out runs/joined")(link_command.join)
app.command("certs", epilog="Example: privhier certs certs --host cloud.example.org")(certs)
app.command("plan", epilog="Example: privhier plan configs/debug.yaml --bitrate 5Mbit")(plan)


@app.command(epilog="Example: privhier ui --store runs")
def ui(
    store: Annotated[Path, typer.Option("--store", help="Folder of runs, with its mlflow.db")] = Path("runs"),
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 5000,
) -> None:
    """Open MLflow's page on the run store (or on MLFLOW_TRACKING_URI, when that is set)."""
    from privhier.tracking.tracker import serve_ui

    serve_ui(store, port=port)


@app.command(name="list", epilog="Example: privhier list defenses")
def list_names(
    kind: Annotated[str, typer.Argument(metavar="backbones|datasets|defenses|attacks|embedders")],
) -> None:
    """What can be chosen by name in a configuration."""
    from privhier.cli.catalog import describe

    table = Table("name", "what it is", box=None, pad_edge=False)
    for name, text in describe(kind):
        table.add_row(name, escape(text))  # a plugin's text may hold brackets
    out.print(table)


@data.command("check", epilog="Example: privhier data check configs/debug.yaml")
def data_check(config: ConfigArgument, overrides: Overrides = None) -> None:
    """Count images, people, labels and problems of the configured data set."""
    from privhier.datasets.check import check_dataset

    resolved = load_config(config, overrides or ())
    with _progress() as progress:
        report = check_dataset(resolved.dataset, seed=resolved.seed, progress=progress)
    out.print("\n".join(report.lines()), markup=False)


@data.command("cache", epilog="Example: privhier data cache configs/debug.yaml")
def data_cache(config: ConfigArgument, overrides: Overrides = None) -> None:
    """Decode the configured data set into its memory-mapped cache."""
    from privhier.datasets.load import load_dataset

    resolved = load_config(config, overrides or ())
    with _progress() as progress:
        dataset = load_dataset(resolved.dataset, seed=resolved.seed, progress=progress)
    _say(f"cached: {len(dataset)} images of {dataset.name}, {len(dataset.problems)} skipped")


def _folder(config: RunConfig, given: Path | None) -> Path:
    return given if given is not None else Path("runs") / f"{config.name}-{config.hash()[:10]}"


def _command(verb: str, config: Path, overrides: list[str] | None, folder: Path) -> str:
    return shlex.join(["privhier", verb, str(config), *(overrides or ()), "--out", str(folder)])


@contextmanager
def _interruptible(resume: str) -> Iterator[None]:
    """Turn Ctrl-C (and SIGTERM) into a typed ending that says how to go on."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            key="Ctrl-C",
            value="interrupted",
            rule="the run stopped before its end; everything up to its last finished step is kept",
            remedy=f"Go on with: {resume}",
        ) from error


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None] | None]:
    """A progress bar on a terminal, silence elsewhere."""
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def update(text: str, done: int, total: int) -> None:
            bar.update(task, description=text, completed=done, total=total)

        yield update


def _say(*lines: str) -> None:
    for line in lines:
        out.print(line, markup=False)


def _summary(result: Any, path: Path) -> None:
    """The headline numbers and where the report is."""
    from privhier.report.summary import summarize

    for line in summarize(result):
        out.print(line, markup=False)
    out.print(f"report: {path}", markup=False)


if __name__ == "__main__":
    main(sys.argv[1:])
