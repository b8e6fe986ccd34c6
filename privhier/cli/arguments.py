"""Arguments and options that several verbs take, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A YAML file, e.g. configs/debug.yaml")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, e.g. release.sigma=0.3 seed=1"),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder")]
Moved = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="What may differ: dataset.root, dataset.cache, runtime.*, report.pictures",
    ),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out after a kill or Ctrl-C")
]
