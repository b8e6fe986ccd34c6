"""The verb ``privhier sweep``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from privhier.errors import InterruptedRunError


def sweep(
    sweep: Annotated[
        Path, typer.Argument(metavar="SWEEP.yaml", help="A sweep file, e.g. configs/sweeps/debug.yaml")
    ],
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option("--engine", help="local: processes here; ray: a cluster ($RAY_ADDRESS), or a local Ray"),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Points at a time; default: cores / threads of a point"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Sweep folder; default: runs/NAME-HASH", show_default=False)
    ] = None,
) -> None:
    """Work on every point of a sweep that is not done yet; the same command goes on after a kill."""
    from privhier.sweep.job import run_sweep
    from privhier.sweep.progress import show_standing
    from privhier.sweep.publish import publish

    parts = ["privhier", "sweep", str(sweep), *(["--engine", engine] if engine != "local" else [])]
    parts += [*(["--workers", str(workers)] if workers else []), *(["--out", str(out)] if out else [])]
    try:
        with show_standing(Console(stderr=True, highlight=False)) as progress:
            summary = run_sweep(sweep, engine=engine, workers=workers, out=out, progress=progress)
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            key="Ctrl-C",
            value="interrupted",
            rule="the sweep stopped before its end; finished points and the state of half-done ones are kept",
            remedy=f"Go on with: {shlex.join(parts)}",
        ) from error
    console = Console(highlight=False, soft_wrap=True)
    for line in summary.lines():
        console.print(line, markup=False)
    if summary.done:
        page, problem = publish(summary.folder)
        console.print(f"report: {page}", markup=False)
        if problem:
            console.print(f"warning: MLflow: {problem}", markup=False)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)
