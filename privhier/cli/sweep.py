"""The verb ``privhier sweep``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from privhier.cli.console import console, say
from privhier.process.stopping import interruptible

_KEPT = "the sweep stopped before its end; finished points and the state of half-done ones are kept"


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
    device_share: Annotated[
        str | None,
        typer.Option(
            "--device-share",
            metavar="auto|F",
            help="Part of a CUDA device's memory a point may fill, e.g. 0.125; auto: equal parts for the "
            "workers on it. On a CPU workers share the cores by runtime.threads",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Sweep folder; default: runs/NAME-HASH", show_default=False)
    ] = None,
) -> None:
    """Work on every point of a sweep that is not done yet; the same command goes on after a kill."""
    from privhier.sweeps.job import run_sweep
    from privhier.sweeps.progress import show_standing
    from privhier.sweeps.publish import publish

    parts = ["privhier", "sweep", str(sweep), *(["--engine", engine] if engine != "local" else [])]
    parts += [
        *(["--workers", str(workers)] if workers else []),
        *(["--device-share", device_share] if device_share else []),
        *(["--out", str(out)] if out else []),
    ]
    with interruptible(shlex.join(parts), kept=_KEPT), show_standing(console) as progress:
        summary = run_sweep(
            sweep, engine=engine, workers=workers, device_share=device_share, out=out, progress=progress
        )
    say(*summary.lines())
    if summary.done:
        page, notes = publish(summary.folder)
        say(f"report: {page}", *notes)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)
