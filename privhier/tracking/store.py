"""Where MLflow's store is, whether it answers, and the experiment in it that runs belong to."""

from __future__ import annotations

import logging
import os
import shlex
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from privhier.errors import TrackingError
from privhier.process.stopping import whole
from privhier.tracking.moved import artifacts_of, follow
from privhier.tracking.notes import NOTE, experiment_note
from privhier.tracking.sqlite import create_whole, sqlite_path, sqlite_uri
from privhier.tracking.view import VIEW_TAG, view_value

_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""What MLflow's page calls model training: it then opens on the runs' table."""


def store_uri(run: Path) -> str:
    """The MLflow store of the run folder ``run``: ``MLFLOW_TRACKING_URI``, else sqlite beside it."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(run.resolve().parent / "mlflow.db")


def experiment_id(client: Any, name: str, uri: str) -> str:
    """The experiment's id; on sqlite its artifacts live beside the database, not where we were started.

    Raises:
        TrackingError: It was deleted; MLflow keeps its name until it is restored or removed for good.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        path = sqlite_path(uri)
        place = None if path is None else artifacts_of(path).as_uri()
        try:
            client.create_experiment(name, artifact_location=place, tags=_KIND)
            found = client.get_experiment_by_name(name)
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
    _furnish(client, found)
    return str(found.experiment_id)


def _furnish(client: Any, experiment: Any) -> None:
    """Give an experiment its view of the tradeoff and a note that leads there; what it has stays."""
    for key, value in ((VIEW_TAG, view_value()), (NOTE, experiment_note(str(experiment.experiment_id)))):
        if key not in experiment.tags:
            client.set_experiment_tag(experiment.experiment_id, key, value)


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
        import_module("mlflow")  # before it is quieted: it sets up its loggers as it is loaded
    with quiet():
        if (path := sqlite_path(uri)) is not None:
            create_whole(path)
            follow(path)
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
