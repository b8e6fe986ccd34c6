"""The sweep's own MLflow run: points are nested under it, the frontier and its plot are its artifacts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from privhier.errors import TrackingError
from privhier.evaluation.flat import clean_name, flatten
from privhier.sweep.spec import Point, Sweep
from privhier.sweep.state import SweepFolder
from privhier.tracking import Nesting, Status, store_uri
from privhier.tracking_sqlite import patient
from privhier.tracking_store import experiment_id, first_line, opened, shown

_VALUE = 6000  # characters of a param (MLflow's limit)


class ParentRun:
    """One MLflow run for a sweep, taken up again where its ``tracking.json`` names one.

    Raises:
        TrackingError: The store cannot be opened; the remedy is ``tracking.enabled=false``.
    """

    def __init__(self, folder: SweepFolder, sweep: Sweep, experiment: str) -> None:
        self.store = uri = patient(store_uri(folder.root))  # several workers write to one file
        try:
            with opened(uri):
                self.run_id = _start(folder, sweep, experiment, uri)
        except TrackingError:
            raise
        except Exception as error:  # whatever the store's driver raises means the same to the user
            raise TrackingError(
                key="MLFLOW_TRACKING_URI" if os.environ.get("MLFLOW_TRACKING_URI") else "tracking",
                value=shown(uri),
                rule=f"must be an MLflow store that can be written: {first_line(error, uri)}",
                remedy="Mend the address or the server, or run without: tracking.enabled: false in the base",
            ) from error

    def nest(self, point: Point) -> Nesting:
        """What tells a point's run that it belongs here."""
        return Nesting(parent=self.run_id, store=self.store, name=point.label)

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
    path = SweepFolder(sweep).tracking
    if not path.exists():
        return None
    state = SweepFolder(sweep).sealed.read_json(path)
    existing = [file for file in files if file.exists()]

    def log(client: Any) -> None:
        for file in existing:
            client.log_artifact(state["run_id"], str(file))
        for name, value in (metrics or {}).items():
            client.log_metric(state["run_id"], clean_name(name), float(value))

    return _guarded(str(state["store"]), log)


def _start(folder: SweepFolder, sweep: Sweep, experiment: str, uri: str) -> str:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    where = experiment_id(client, experiment, uri)
    if folder.tracking.exists():
        known = folder.sealed.read_json(folder.tracking)
        try:
            if known["store"] == uri and client.get_run(known["run_id"]).info.lifecycle_stage == "active":
                client.update_run(known["run_id"], status="RUNNING")
                return str(known["run_id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    tags = {"mlflow.source.name": "privhier", "sweep": sweep.name, "sweep_hash": sweep.hash()}
    created = client.create_run(where, run_name=sweep.name, tags=tags)
    run_id = str(created.info.run_id)
    for name, value in flatten(sweep.file.model_dump(mode="json", include={"axes", "seeds"})).items():
        client.log_param(run_id, clean_name(name), value[:_VALUE])
    folder.sealed.write_json(folder.tracking, {"run_id": run_id, "store": uri})
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
