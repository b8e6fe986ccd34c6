"""Where MLflow's store is, whether it answers, and its page."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from privhier.errors import TrackingError
from privhier.process.stopping import whole
from privhier.tracking.sqlite import create_whole, sqlite_path, sqlite_uri

_HOST = "127.0.0.1"
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""What MLflow's page calls model training: it then opens on the runs' table."""
_PARTING = 10
"""Seconds for MLflow's server to end in."""


def store_uri(run: Path) -> str:
    """The MLflow store of the run folder ``run``: ``MLFLOW_TRACKING_URI``, else sqlite beside it."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(run.resolve().parent / "mlflow.db")


def serve_ui(store: Path, *, port: int = 5000) -> None:
    """Serve MLflow's page on the store of the runs in ``store`` until interrupted.

    Raises:
        TrackingError: No store is there yet, ``MLFLOW_TRACKING_URI`` names a server that has its own page,
            the port is taken, or the page ended by itself.
    """
    uri = store_uri(store / "any")
    if uri.startswith(("http://", "https://")):
        raise TrackingError(
            key="MLFLOW_TRACKING_URI",
            value=shown(uri),
            rule="is a server with a page of its own",
            remedy="Open that address in a browser",
        )
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise TrackingError(
            key="--store",
            value=str(store),
            rule="must be a folder of tracked runs, with its mlflow.db",
            remedy="Run `privhier run CONFIG` first, or name the folder the runs are in",
        )
    _check_port(port)
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", _HOST, "--port", str(port), "--workers", "1"]
    # safe path: from the repository root, the folder datasets/ would shadow the library of that name
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", **os.environ, "PYTHONSAFEPATH": "1"}
    # a session of its own: the server's own processes end with it, whoever is told to stop
    with subprocess.Popen(command, env=environment, start_new_session=True) as server:
        try:
            status = server.wait()
        except KeyboardInterrupt:  # how one closes the page
            _end(server)
            return
    if status:
        raise TrackingError(
            key="privhier ui",
            value=status,
            rule="is the exit status of MLflow's server, which ended by itself",
            remedy="See its last lines above; another --port or --store may help",
        )


def _check_port(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server: closed links count not
        try:
            trial.bind((_HOST, port))
        except OSError as error:
            raise TrackingError(
                key="--port",
                value=port,
                rule=f"cannot be listened on at {_HOST}: {error.strerror}",
                remedy="Give another --port, or end what has this one",
            ) from error


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server with the processes it started."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            server.wait(_PARTING)


def experiment_id(client: Any, name: str, uri: str) -> str:
    """The experiment's id; on sqlite its artifacts live beside the database, not where we were started.

    Raises:
        TrackingError: It was deleted; MLflow keeps its name until it is restored or removed for good.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        path = sqlite_path(uri)
        place = None if path is None else (path.resolve().parent / "mlartifacts").as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=place, tags=_KIND))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another run made it at the same moment
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        where = shlex.quote(shown(uri.removesuffix(f"?{uri.partition('?')[2]}")))
        raise TrackingError(
            key="tracking.experiment",
            value=name,
            rule="was deleted in MLflow, which keeps its name and takes no runs for it",
            remedy=f"Restore it: MLFLOW_TRACKING_URI={where} mlflow experiments restore --experiment-id "
            f"{found.experiment_id}; or choose another name: tracking.experiment={name}-2",
        )
    return str(found.experiment_id)


def lost_races_again(call: Callable[[], object]) -> None:
    """Make a call of MLflow's again where another process wrote the same row in the same moment.

    MLflow looks a data set's row up and inserts it where it is missing, in two statements: of two runs
    that do so at once, one fails. Its next look finds the row.

    Raises:
        Exception: What the last of three tries raised, or any other failure of the first.
    """
    from mlflow.exceptions import MlflowException

    for last in (False, False, True):
        try:
            call()
            return
        except MlflowException as error:
            if last or "unique" not in str(error).casefold().replace("duplicate", "unique"):
                raise


@contextmanager
def opened(uri: str) -> Iterator[None]:
    """MLflow imported, its chatter off and the store there; calls of it belong into the block.

    Raises:
        Exception: Whatever the store's driver raises.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at import; studies stay private
    probe(uri)
    with whole():
        pass

    with quiet():
        if (path := sqlite_path(uri)) is not None:
            create_whole(path)
        yield


def probe(uri: str) -> None:
    """Fail in seconds where MLflow's own retries would take minutes."""
    if uri.startswith(("http://", "https://")):
        try:
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=10).close()
        except urllib.error.HTTPError as error:
            error.close()  # any answer at all means that a server is there
    elif (path := sqlite_path(uri)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.open("ab").close()


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


def shown(uri: str) -> str:
    """The address without the password that may be in it."""
    parts = urlsplit(uri)
    return uri.replace(f"{parts.netloc}", parts.netloc.rpartition("@")[2], 1) if "@" in parts.netloc else uri


def first_line(error: Exception, uri: str) -> str:
    """An error in one line, without the password that may be in ``uri``."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}".replace(uri, shown(uri))[:300]
