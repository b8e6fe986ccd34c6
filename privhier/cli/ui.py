"""The verb ``privhier ui``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def ui(
    store: Annotated[Path, typer.Option("--store", help="Folder of runs, with its mlflow.db")] = Path("runs"),
    port: Annotated[int, typer.Option("--port", min=1, max=65535)] = 5000,
) -> None:
    """Open MLflow's page on the run store (or on MLFLOW_TRACKING_URI, when that is set)."""
    from privhier.tracking.page import serve_ui

    serve_ui(store, port=port, tell=typer.echo)
