"""MLflow's own page on a store: served for as long as whoever asked for it lives."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from privhier.errors import TrackingError
from privhier.tracking.keeper import PARTING
from privhier.tracking.moved import follow
from privhier.tracking.sqlite import has_content, sqlite_path
from privhier.tracking.store import first_line, shown, store_uri
from privhier.tracking.view import VIEW_TAG, view_path

_HOST = "127.0.0.1"


def serve_ui(store: Path, *, port: int = 5000, tell: Callable[[str], object] = lambda line: None) -> None:
    """Serve MLflow's page on the store of the runs in ``store`` until interrupted.

    The server ends with this process, however that one ends. A store that was moved with its artifacts is
    led to them first.

    Args:
        store: The folder that holds the run folders and ``mlflow.db``.
        port: To listen on, at this machine's own address.
        tell: Called with a line for the page, and one for every experiment's view of the tradeoff.

    Raises:
        TrackingError: No store is there yet or it cannot be read, ``MLFLOW_TRACKING_URI`` names a server that
            has its own page, the port is taken, or the page ended by itself.
    """
    uri = store_uri(store / "any")
    path = _checked(uri, store)
    _check_port(port)
    for line in _opening(path, uri, port):
        tell(line)
    command = [sys.executable, "-P", "-m", "privhier.tracking.keeper"]
    command += [sys.executable, "-P", "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--host", _HOST, "--port", str(port), "--workers", "1"]
    # safe path: from the repository root, the folder datasets/ would shadow the library of that name
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", **os.environ, "PYTHONSAFEPATH": "1"}
    # a session of its own: a Ctrl-C at the terminal is ours to answer
    server = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, start_new_session=True)
    try:
        status = server.wait()
    except KeyboardInterrupt:  # how one closes the page
        return
    finally:
        _end(server)
    if status:
        raise TrackingError(
            key="privhier ui",
            value=status,
            rule="is the exit status of MLflow's server, which ended by itself",
            remedy="See its last lines above; another --port or --store may help",
        )


def _checked(uri: str, store: Path) -> Path | None:
    """The file of the store that is to be served; None where it is a database of another kind."""
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
    return path


def _opening(path: Path | None, uri: str, port: int) -> Iterator[str]:
    """Lead a moved store to its artifacts; then what there is to open, a line each."""
    page = f"http://{_HOST}:{port}/"
    yield f"MLflow's page, in some seconds: {page}"
    if path is None or not has_content(path):
        return
    try:
        follow(path)
        views = _views(path)
    except sqlite3.Error as error:
        raise TrackingError(
            key="--store",
            value=str(path),
            rule=f"must be an MLflow store that can be written: {first_line(error, uri)}",
            remedy="Mend the rights of the file and its folder, or copy the folder and open the copy",
        ) from error
    for number, name in views:
        yield f"utility against leakage ({name}): {page}{view_path(str(number))}"


def _views(path: Path) -> list[tuple[int, str]]:
    """Number and name of every experiment that has the saved view."""
    text = (
        "select e.experiment_id, e.name from experiments e join experiment_tags t"
        " on e.experiment_id = t.experiment_id where t.key = ? and e.lifecycle_stage = 'active'"
        " order by e.experiment_id"
    )
    with closing(sqlite3.connect(path)) as database:
        return database.execute(text, (VIEW_TAG,)).fetchall()


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
    """Close the line to the keeper, which ends the server with the processes it started."""
    assert server.stdin is not None
    with suppress(BrokenPipeError):
        server.stdin.close()
    try:
        server.wait(3 * PARTING)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
