"""The sweep's own MLflow run: points are nested under it, the frontier and its plot are its artifacts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from privhier.errors import TrackingError
from privhier.evaluation.flat import clean_name, flatten
from privhier.storage.sealed import Sealed
from privhier.tracking.base import Nesting, Status
from privhier.tracking.naming import KIND
from privhier.tracking.notes import NOTE, run_note
from privhier.tracking.source import source_tags
from privhier.tracking.sqlite import patient, sqlite_path, sqlite_uri
from privhier.tracking.store import experiment_id, first_line, opened, shown
from privhier.tracking.tracker import STATE, store_uri

_VALUE = 6000  # characters of a param (MLflow's limit)
_BESIDE = "beside the sweep"
"""What ``tracking.json`` says of a store that is moved along with the sweep."""
_SAID = (
    "A sweep: its points are the runs nested under it. Utility against leakage, setting by setting; "
    "the whole page is among the artifacts, report.html."
)


class ParentRun:
    """One MLflow run for a sweep, taken up again where its ``tracking.json`` names one.

    Args:
        folder: The sweep folder.
        experiment: Of the store.
        name: The sweep's.
        digest: The sweep's hash, a tag.
        params: Its axes and seeds.

    Raises:
        TrackingError: The store cannot be opened; the remedy is ``tracking.enabled=false``.
    """

    def __init__(
        self, folder: Path, experiment: str, *, name: str, digest: str, params: Mapping[str, Any]
    ) -> None:
        self.store = uri = patient(store_uri(folder))  # several workers write to one file
        tags = {**source_tags(), "sweep": name, "sweep_hash": digest, KIND: "sweep"}
        try:
            with opened(uri):
                self.run_id = _start(folder, experiment, uri, name, tags, params)
        except TrackingError:
            raise
        except Exception as error:  # whatever the store's driver raises means the same to the user
            raise TrackingError(
                key="MLFLOW_TRACKING_URI" if os.environ.get("MLFLOW_TRACKING_URI") else "tracking",
                value=shown(uri),
                rule=f"must be an MLflow store that can be written: {first_line(error, uri)}",
                remedy="Mend the address or the server, or run without: tracking.enabled: false in the base",
            ) from error

    def nest(self, name: str) -> Nesting:
        """What tells a point's run, called ``name``, that it belongs here."""
        return Nesting(parent=self.run_id, store=self.store, name=name)

    def finish(self, status: Status, metrics: Mapping[str, float]) -> str | None:
        """End the run; returns what went wrong with the store, if anything did."""
        return _guarded(self.store, lambda client: _finish(client, self.run_id, status, metrics))


def log_frontier(
    sweep: Path, files: Iterable[Path], metrics: Mapping[str, float] | None = None
) -> str | None:
    """Put the frontier's files and numbers into the sweep's MLflow run; nothing where it is untracked.

    Args:
        sweep: The sweep folder.
        files: Files to become artifacts of the run.
        metrics: Numbers of the whole sweep, e.g. hypervolumes.

    Returns:
        What went wrong with the store, or None: a result matters more than its copy.
    """
    path = sweep / STATE
    if not path.exists():
        return None
    state = Sealed(sweep).read_json(path)
    existing = [file for file in files if file.exists()]
    pictures = [file.name for file in existing if file.suffix == ".svg"]

    def log(client: Any) -> None:
        run_id = state["run_id"]
        for file in existing:
            client.log_artifact(run_id, str(file))
        experiment = client.get_run(run_id).info.experiment_id
        client.set_tag(run_id, NOTE, run_note([_SAID], pictures, run_id=run_id, experiment=experiment))
        for name, value in (metrics or {}).items():
            client.log_metric(run_id, clean_name(name), float(value))

    uri = _store_now(sweep, state)
    if uri is None:
        return f"MLflow's store {shown(str(state['store']))} is not there any more, and none lies beside"
    return _guarded(uri, log)


def _store_now(folder: Path, state: Mapping[str, Any]) -> str | None:
    """The store that holds the sweep's run: the one that was noted, or beside a sweep that was moved.

    None where neither is there: to open one would make it.
    """
    beside = patient(store_uri(folder))
    noted = str(state.get("store", _BESIDE))
    for one in (beside if noted == _BESIDE else noted, beside):
        path = sqlite_path(one)
        if path is None or path.is_file():
            return one
    return None


def _start(
    folder: Path, experiment: str, uri: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any]
) -> str:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    where = experiment_id(client, experiment, uri)
    sealed, state = Sealed(folder), folder / STATE
    beside = uri == patient(sqlite_uri(folder.resolve().parent / "mlflow.db"))
    store = _BESIDE if beside else uri
    if state.exists():
        known = sealed.read_json(state)
        try:  # by its id alone: the store may have been moved, and the folder with it
            if client.get_run(known["run_id"]).info.lifecycle_stage == "active":
                client.update_run(known["run_id"], status="RUNNING")
                if known.get("store") != store:
                    sealed.write_json(state, known | {"store": store})
                return str(known["run_id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    created = client.create_run(where, run_name=f"sweep {name}", tags=tags)
    run_id = str(created.info.run_id)
    for key, value in flatten(params).items():
        client.log_param(run_id, clean_name(key), value[:_VALUE])
    sealed.write_json(state, {"run_id": run_id, "store": store})
    return run_id


def _finish(client: Any, run_id: str, status: Status, metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        client.log_metric(run_id, name, float(value))
    client.set_terminated(run_id, status)


def _guarded(uri: str, work: Any) -> str | None:
    try:
        with opened(uri):
            from mlflow import MlflowClient

            work(MlflowClient(tracking_uri=uri, registry_uri=uri))
    except Exception as error:  # results matter more than their copy in a store
        return f"MLflow did not take everything: {first_line(error, uri)}"
    return None
