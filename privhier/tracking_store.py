"""Where MLflow's store is, whether it answers, and its page."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from privhier.errors import TrackingError


def store_uri(run: Path) -> str:
    """The MLflow store of the run folder ``run``: ``MLFLOW_TRACKING_URI``, else sqlite beside it."""
    return (
        os.environ.get("MLFLOW_TRACKING_URI")
        or f"sqlite:///{(run.resolve().parent / 'mlflow.db').as_posix()}"
    )


def serve_ui(store: Path, *, port: int = 5000) -> None:
    """Serve MLflow's page on the store of the runs in ``store`` until interrupted.

    Raises:
        TrackingError: No store is there yet, or ``MLFLOW_TRACKING_URI`` names a server that has its own page.
    """
    uri = store_uri(store / "any")
    if uri.startswith(("http://", "https://")):
        raise TrackingError(
            key="MLFLOW_TRACKING_URI",
            value=shown(uri),
            rule="is a server with a page of its own",
            remedy="Open that address in a browser",
        )
    if uri.startswith("sqlite:///") and not _sqlite_path(uri).is_file():
        raise TrackingError(
            key="--store",
            value=str(store),
            rule="must be a folder of tracked runs, with its mlflow.db",
            remedy="Run `privhier run CONFIG` first, or name the folder the runs are in",
        )
    command = [
        sys.executable,
        "-P",
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        uri,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    # safe path: from the repository root, the folder datasets/ would shadow the library of that name
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", **os.environ, "PYTHONSAFEPATH": "1"}
    with suppress(KeyboardInterrupt):  # how one closes the page
        subprocess.run(command, env=environment, check=False)


def experiment_id(client: Any, name: str, uri: str) -> str:
    """The experiment's id; on sqlite its artifacts live beside the database, not where we were started."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        place = None
        if uri.startswith("sqlite:///"):
            place = (_sqlite_path(uri).resolve().parent / "mlartifacts").as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another run made it at the same moment
            if found is None:
                raise
    return str(found.experiment_id)


def probe(uri: str) -> None:
    """Fail in seconds where MLflow's own retries would take minutes."""
    if uri.startswith(("http://", "https://")):
        try:
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10).close()
        except urllib.error.HTTPError as error:
            error.close()  # any answer at all means that a server is there
    elif uri.startswith("sqlite:///"):
        path = _sqlite_path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the chatter of MLflow and its migrations off the terminal; their warnings in the log stay."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            # MLflow and SQLAlchemy deprecate parts of each other; no user of ours can mend that
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _sqlite_path(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def shown(uri: str) -> str:
    """The address without the password that may be in it."""
    parts = urlsplit(uri)
    return uri.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else uri


def first_line(error: Exception, uri: str) -> str:
    """An error in one line, without the password that may be in ``uri``."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".replace(uri, shown(uri))[:300]
