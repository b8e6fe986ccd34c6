"""A finished run in MLflow, taken up once more: what was added to it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from privhier.config import RunConfig
from privhier.errors import CheckpointError
from privhier.evaluation.additions import Addition
from privhier.evaluation.result import AttackScores, Result
from privhier.tracking.audit import stores_of
from privhier.tracking.sqlite import patient
from privhier.tracking.store import first_line, opened, shown
from privhier.tracking.tracker import MlflowTracker, NullTracker, saved_state


class AddingTracker(MlflowTracker):
    """A tracker of a run that was finished before."""

    def log_additions(self, result: Result, new: Sequence[Addition]) -> None:
        """Log the result anew; every score of ``new`` is a nested run with a tag ``added``, its date."""
        for target, scores in _scored(result):
            for one in new:
                if one.is_shown_as(scores.attack):
                    self.log_attack(target, scores)
                    self._mark(f"{target}/{scores.attack}", one)
        for name, pictures in result.reconstruction.items():
            for one in new:
                if one.section == "reconstruction" and one.is_shown_as(name):
                    self.log_reconstruction(name, pictures)
                    self._mark(f"reconstruction/{name}", one)
        self.log_result(result)

    def _mark(self, name: str, addition: Addition) -> None:
        with self._guard("log_additions"):
            self._client.set_tag(self._state["attacks"][name], "added", addition.date)


class NotTracked(NullTracker):
    """Where there is no run of it in MLflow."""

    def log_additions(self, result: Result, new: Sequence[Addition]) -> None:
        """Do nothing."""


def taken_up(config: RunConfig, run: Path) -> tuple[AddingTracker | NotTracked, str | None]:
    """The tracker of a finished run, which begins no MLflow run of its own; never raises for a store.

    Args:
        config: Its configuration.
        run: Its folder, wherever it lies by now.

    Returns:
        The tracker, and why it takes nothing although the run was tracked once; None: it takes all, or the
        run never was.

    Raises:
        CheckpointError: ``tracking.json`` is damaged.
    """
    known = saved_state(run).get("run_id")
    if not config.tracking.enabled or known is None:
        return NotTracked(), None
    problem = "no MLflow store beside this folder knows the run"
    for uri in stores_of(run):
        try:
            with opened(uri):
                if _knows(uri, str(known)):
                    return AddingTracker(config, run, patient(uri)), None
        except CheckpointError:
            raise
        except Exception as error:  # whatever the store's driver raises means the same to the user
            problem = f"MLflow at {shown(uri)} did not take it: {first_line(error, uri)}"
    return NotTracked(), problem


def _knows(uri: str, run_id: str) -> bool:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        found = MlflowClient(tracking_uri=uri, registry_uri=uri).get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return str(found.info.lifecycle_stage) == "active"


def _scored(result: Result) -> list[tuple[str, AttackScores]]:
    return [
        (target, scores)
        for target, leakage in result.leakage.items()
        for scores in (*leakage.attacks, *leakage.attacks_with_labels)
    ]
