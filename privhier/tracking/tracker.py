"""Every run in MLflow, or nowhere: training and attacks never need it.

MLflow is imported when a tracker opens, never before. All calls go through one ``MlflowClient`` with
its own URI: no tracking URI, experiment or active run of the process is set, so several runs can be
tracked side by side. The store is ``mlflow.db`` beside the run folder unless ``MLFLOW_TRACKING_URI``
says otherwise. A store that cannot be opened stops the run at its start; one that fails later is
recorded (``Tracker.failure``, ``tracking.json``, a logged warning) and loses no result.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yaml import safe_dump

from privhier.config import RunConfig
from privhier.errors import CheckpointError, TrackingError
from privhier.evaluation.flat import (
    attack_metrics,
    clean_name,
    flatten,
    reconstruction_metrics,
    result_metrics,
    result_tags,
    top_metrics,
)
from privhier.evaluation.result import AttackScores, Reconstruction, Result
from privhier.evaluation.statement import may_say
from privhier.storage.files import whole_file
from privhier.storage.sealed import altered, read_json
from privhier.tracking.base import Nesting, NullTracker, Status, Tracker
from privhier.tracking.model import log_model
from privhier.tracking.naming import COLOR, KIND, Kind, defense_color, run_name
from privhier.tracking.notes import NOTE, run_note
from privhier.tracking.source import source_tags
from privhier.tracking.sqlite import patient
from privhier.tracking.store import (
    experiment_id,
    first_line,
    lost_races_again,
    opened,
    quiet,
    shown,
    store_uri,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn

__all__ = ["MlflowTracker", "Nesting", "NullTracker", "Status", "Tracker", "open_tracker", "store_uri"]

STATE = "tracking.json"
_PICTURE = "figures/tradeoff.svg"
"""Of the report's figures the one that a run's note shows: MLflow shows it at its own size, which fits."""
_FILES = ("result.json", "report.html", "ledger.jsonl", "*.safetensors")
_BATCH = 100  # params or tags in one request (MLflow's limit)
_VALUE = 6000  # characters of a param (MLflow's limit)
_DIGEST = 36  # characters of a data set's digest (MLflow's limit)
_log = logging.getLogger("privhier.tracking.tracker")


def open_tracker(config: RunConfig, run: Path, *, nesting: Nesting | None = None) -> Tracker:
    """Start (or take up again) the MLflow run of the run folder ``run``.

    Args:
        config: The resolved configuration; logged as flat params, its hash as a tag.
        run: An existing run folder. Its ``tracking.json`` holds the ids a resumed run goes on with.
        nesting: The sweep's run this one belongs to, if any.

    Raises:
        CheckpointError: ``tracking.json`` is damaged.
        TrackingError: The store cannot be opened; the remedy is ``tracking.enabled=false``.
    """
    if not config.tracking.enabled:
        return NullTracker()
    uri = nesting.store if nesting is not None else patient(store_uri(run))
    try:
        with opened(uri):
            return MlflowTracker(config, run, uri, nesting)
    except (TrackingError, CheckpointError):
        raise
    except Exception as error:  # whatever the store's driver raises means the same to the user
        raise TrackingError(
            key="MLFLOW_TRACKING_URI" if os.environ.get("MLFLOW_TRACKING_URI") else "tracking",
            value=shown(uri),
            rule=f"must be an MLflow store that can be written: {first_line(error, uri)}",
            remedy="Mend the address or the server, or run without: tracking.enabled=false",
        ) from error


def saved_state(run: Path) -> dict[str, Any]:
    """What ``tracking.json`` of a run folder says; nothing where there is none.

    Raises:
        CheckpointError: It is damaged.
    """
    path = run / STATE
    if not path.is_file():
        return {}
    remedy = "Remove it: another MLflow run is begun, and the numbers stay"
    try:
        state = read_json(path)
    except CheckpointError as error:
        raise altered(path, error.rule, remedy) from error
    if not isinstance(state, dict) or not isinstance(state.get("attacks", {}), dict):
        raise altered(path, "does not name an MLflow run", remedy)
    return state


class MlflowTracker:
    """A tracker on an MLflow store; made by ``open_tracker``."""

    def __init__(
        self,
        config: RunConfig,
        run: Path,
        uri: str,
        nesting: Nesting | None = None,
    ) -> None:
        from mlflow import MlflowClient

        self.failure: str | None = None
        self._run, self._uri, self._source = run, uri, source_tags()
        self._config = str(safe_dump(config.to_publish(), sort_keys=False))
        self._client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        self._experiment = experiment_id(self._client, config.tracking.experiment, uri)
        self._state: dict[str, Any] = {"attacks": {}}
        self._state |= saved_state(run)
        schedule = config.schedule
        self._offsets = {"joint": schedule.pretrain_epochs}
        self._offsets["cloud"] = schedule.pretrain_epochs + schedule.joint_epochs
        self._steps: dict[str, set[int]] | None = None
        known = self._known(self._state.get("run_id"))
        if known is None:
            tags = {**self._source, "config_hash": config.hash(), COLOR: defense_color(config.defense.name)}
            tags[KIND], name = "run", run_name(config, run)
            if nesting is not None:
                tags |= {"mlflow.parentRunId": nesting.parent, KIND: "point"}
                name = nesting.name
            started = self._client.create_run(self._experiment, run_name=name, tags=tags)
            self.run_id: str = started.info.run_id
            self._state = {"run_id": self.run_id, "attacks": {}}
            self._save()
            self._params(self.run_id, flatten(config.to_publish()))
        else:
            self.run_id = known
            self._steps = {}
            self._client.update_run(known, status="RUNNING")

    def log_epoch(
        self, phase: str, epoch: int, metrics: Mapping[str, float], step: int | None = None
    ) -> None:
        """See ``Tracker``. A step a resumed run repeats is not logged twice."""
        with self._guard("log_epoch"):
            if step is None:
                step = self._offsets.get(phase, 0) + epoch
            named = {clean_name(f"{phase}/{name}"): float(value) for name, value in metrics.items()}
            named[clean_name(f"{phase}/epoch")] = float(epoch)
            self._metrics(self.run_id, {k: v for k, v in named.items() if not self._logged(k, step)}, step)

    def log_dataset(self, name: str, digest: str, sizes: Mapping[str, int]) -> None:
        """See ``Tracker``. The full hash is also the tag ``dataset_fingerprint``."""
        with self._guard("log_dataset"):
            from mlflow.data.code_dataset_source import CodeDatasetSource
            from mlflow.data.meta_dataset import MetaDataset
            from mlflow.entities import Dataset, DatasetInput, InputTag

            source = CodeDatasetSource({"mlflow.source.name": f"privhier.datasets:{name}"})
            plain = MetaDataset(source, name=name, digest=digest[:_DIGEST]).to_dict()
            entity = Dataset(
                name=plain["name"],
                digest=plain["digest"],
                source_type=plain["source_type"],
                source=plain["source"],
                profile=json.dumps(dict(sizes)),
            )
            tag = InputTag("mlflow.data.context", "training and attacks")
            inputs = [DatasetInput(entity, [tag])]
            lost_races_again(lambda: self._client.log_inputs(self.run_id, inputs))
            self._client.set_tag(self.run_id, "dataset_fingerprint", digest)

    def log_attack(self, target: str, scores: AttackScores) -> None:
        """See ``Tracker``. What the attacker chose on its own validation split becomes params."""
        params = {"attack": scores.repr, "target": target, **scores.selected}
        name, state = f"attack on {target}: {scores.attack}", f"{target}/{scores.attack}"
        self._nested("attack", name, state, params, attack_metrics(scores))

    def log_reconstruction(self, attack: str, scores: Reconstruction) -> None:
        """See ``Tracker``."""
        name, state, params = f"reconstruction: {attack}", f"reconstruction/{attack}", {"attack": attack}
        self._nested("reconstruction", name, state, params, reconstruction_metrics(scores))

    def log_result(self, result: Result) -> None:
        """See ``Tracker``. Who reaches each attribute's headline, on which records, and loud warnings
        become tags.
        """
        with self._guard("log_result"):
            self._metrics(self.run_id, {**top_metrics(result), **result_metrics(result)}, 0)
            pictures = [_PICTURE] if (self._run / _PICTURE).is_file() else []
            note = run_note(may_say(result), pictures, run_id=self.run_id, experiment=self._experiment)
            tags = {**result_tags(result), NOTE: note}
            for key, text in tags.items():
                self._client.set_tag(self.run_id, key, text[:_VALUE])
            if "warning" in self._client.get_run(self.run_id).data.tags.keys() - tags.keys():
                self._client.delete_tag(self.run_id, "warning")  # an earlier result's

    def log_artifacts(self, run: Path) -> None:
        """See ``Tracker``."""
        with self._guard("log_artifacts"):
            for pattern in _FILES:
                for path in sorted(run.glob(pattern)):
                    self._client.log_artifact(self.run_id, str(path))
            self._client.log_text(self.run_id, self._config, "config.yaml")
            if (run / "figures").is_dir():
                self._client.log_artifacts(self.run_id, str(run / "figures"), "figures")

    def log_tail(self, tail: nn.Module, input_example: npt.NDArray[np.float32] | torch.Tensor) -> str | None:
        """Log the tail through ``torch.export``: no pickle, one tensor of all tasks' logits side by side.

        Args:
            tail: Maps float32 ``(B, *release_shape)`` to a list of ``(B, K)`` logits, or one tensor.
            input_example: A float32 batch of releases; made-up numbers do.
        """
        with self._guard("log_tail"):
            if self._state.get("tail") is None:
                self._state["tail"] = log_model(
                    self._client, self._experiment, self.run_id, tail, input_example
                )
                self._save()
            return f"models:/{self._state['tail']}"
        return None

    def finish(self, status: Status = "FINISHED") -> None:
        """See ``Tracker``."""
        with self._guard("finish"):
            self._client.set_terminated(self.run_id, status)
            self._state["status"] = status
            self._save()

    def _nested(
        self, kind: Kind, name: str, state: str, params: Mapping[str, Any], metrics: Mapping[str, float]
    ) -> None:
        """A run within this one, known in ``tracking.json`` as ``state``."""
        with self._guard("log_attack"):
            nested = self._known(self._state["attacks"].get(state))
            if nested is None:
                tags = {**self._source, "mlflow.parentRunId": self.run_id, KIND: kind}
                created = self._client.create_run(self._experiment, run_name=name, tags=tags)
                nested = str(created.info.run_id)
                self._state["attacks"][state] = nested
                self._save()
                self._params(nested, flatten(params))
            self._metrics(nested, {clean_name(k): float(v) for k, v in metrics.items()}, 0)
            self._client.set_terminated(nested, "FINISHED")

    @contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        """Record the first failure and go on without the store: each further try could hang for minutes."""
        if self.failure is not None:
            self._client = _Gone()
        try:
            with quiet():
                yield
        except Exception as error:  # results matter more than their copy in a store
            if self.failure is None:
                self.failure = f"MLflow tracking stopped at {what}: {first_line(error, self._uri)}"
                _log.warning("%s", self.failure)
                self._state["failure"] = self.failure
                self._save()

    def _known(self, run_id: str | None) -> str | None:
        """The id if the store still holds that run (it may have been emptied or exchanged)."""
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return None
        try:
            return run_id if self._client.get_run(run_id).info.lifecycle_stage == "active" else None
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _logged(self, name: str, step: int) -> bool:
        if self._steps is None:
            return False
        if name not in self._steps:
            history = self._client.get_metric_history(self.run_id, name)
            self._steps[name] = {metric.step for metric in history}
        return step in self._steps[name]

    def _metrics(self, run_id: str, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entities = [Metric(name, value, now, step) for name, value in metrics.items()]
        for start in range(0, len(entities), 500):
            self._client.log_batch(run_id, metrics=entities[start : start + 500])

    def _params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        entities = [Param(clean_name(name), value[:_VALUE]) for name, value in params.items()]
        for start in range(0, len(entities), _BATCH):
            self._client.log_batch(run_id, params=entities[start : start + _BATCH])

    def _save(self) -> None:
        with whole_file(self._run / STATE) as stream:
            stream.write((json.dumps(self._state, indent=2) + "\n").encode())


class _Gone:
    """Stands for a client whose store failed."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise ConnectionError("the store failed before")
