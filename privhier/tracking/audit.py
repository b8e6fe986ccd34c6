"""An audit's copy in MLflow, beside the run it belongs to."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from privhier.config import RunConfig
from privhier.evaluation.flat import clean_name
from privhier.tracking.store import first_line, opened, shown
from privhier.tracking.tracker import saved_state, store_uri


def log_audit(
    config: RunConfig, run: Path, numbers: Mapping[str, float], files: Sequence[Path]
) -> str | None:
    """Log an audit's numbers and files to the run's MLflow run; never raises.

    The run is the one that ``tracking.json`` names, else the newest of the same configuration.

    Returns:
        What went wrong with the store, or None; a missing copy is no reason to lose an audit.
    """
    if not config.tracking.enabled:
        return None
    problem = "no MLflow run of this folder was found"
    for uri in stores_of(run):
        try:
            with opened(uri):
                from mlflow import MlflowClient

                client = MlflowClient(tracking_uri=uri, registry_uri=uri)
                run_id = _find(client, config, run)
                if run_id is None:
                    continue
                _log(client, run_id, numbers, files)
            return None
        except Exception as error:  # whatever the store's driver raises means the same to the user
            problem = f"MLflow at {shown(uri)} did not take the audit: {first_line(error, uri)}"
    return problem


def stores_of(run: Path) -> Iterator[str]:
    """Where a finished run may be: its own store; for a point of a sweep, that beside the sweep's folder."""
    if os.environ.get("MLFLOW_TRACKING_URI"):
        yield store_uri(run)
        return
    for parent in list(run.resolve().parents)[:3]:
        if (parent / "mlflow.db").is_file():
            yield store_uri(parent / "any")


def _find(client: Any, config: RunConfig, run: Path) -> str | None:
    from mlflow.exceptions import MlflowException

    known = saved_state(run).get("run_id")
    if known is not None:
        try:
            active = client.get_run(known).info.lifecycle_stage == "active"
        except MlflowException:
            active = False
        if active:
            return str(known)
    experiment = client.get_experiment_by_name(config.tracking.experiment)
    if experiment is None:
        return None
    text = f"tags.config_hash = '{config.hash()}'"
    found = client.search_runs([experiment.experiment_id], text, max_results=1)
    return str(found[0].info.run_id) if found else None


def _log(client: Any, run_id: str, numbers: Mapping[str, float], files: Sequence[Path]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(clean_name(name), value, now, 0) for name, value in numbers.items()]
    client.log_batch(run_id, metrics=metrics)
    for path in files:
        client.log_artifact(run_id, str(path))
