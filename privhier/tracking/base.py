"""Where a run reports to: the contract, what belongs to another run, and reporting nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from privhier.evaluation.result import AttackScores, Reconstruction, Result

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch
    from torch import nn

Status = Literal["FINISHED", "FAILED", "KILLED"]


class Tracker(Protocol):
    """Where a run reports to. After ``open_tracker`` every method is safe to call: none raises."""

    @property
    def failure(self) -> str | None:
        """What went wrong with the store, once something did; a warning for the result."""

    def log_epoch(
        self, phase: str, epoch: int, metrics: Mapping[str, float], step: int | None = None
    ) -> None:
        """Metrics of one epoch as ``phase/name``; ``step`` defaults to the epoch's place in the schedule."""

    def log_dataset(self, name: str, digest: str, sizes: Mapping[str, int]) -> None:
        """The data set with its hash and the sizes of its splits."""

    def log_attack(self, target: str, scores: AttackScores) -> None:
        """One attacker on one attribute (or identity) as a nested run; a resumed run overwrites it."""

    def log_reconstruction(self, attack: str, scores: Reconstruction) -> None:
        """One reconstruction attack as a nested run."""

    def log_result(self, result: Result) -> None:
        """Headline scores with ``_low`` and ``_high``, epsilons, uplink totals."""

    def log_artifacts(self, run: Path) -> None:
        """Config, result, report, figures, ledger and safetensors weights of the run folder ``run``."""

    def log_tail(self, tail: nn.Module, input_example: npt.NDArray[np.float32] | torch.Tensor) -> str | None:
        """The cloud tail as a PyTorch model; its ``models:/`` URI, or None where it was not logged."""

    def finish(self, status: Status = "FINISHED") -> None:
        """End the run."""


@dataclass(frozen=True)
class Nesting:
    """A run that belongs to another: a point of a sweep.

    Attributes:
        parent: Id of the MLflow run it is nested under.
        store: The MLflow store both are in.
        name: What the run is called on the page.
    """

    parent: str
    store: str
    name: str


class NullTracker:
    """Tracking off."""

    failure: str | None = None

    def log_epoch(
        self, phase: str, epoch: int, metrics: Mapping[str, float], step: int | None = None
    ) -> None:
        """Do nothing."""

    def log_dataset(self, name: str, digest: str, sizes: Mapping[str, int]) -> None:
        """Do nothing."""

    def log_attack(self, target: str, scores: AttackScores) -> None:
        """Do nothing."""

    def log_reconstruction(self, attack: str, scores: Reconstruction) -> None:
        """Do nothing."""

    def log_result(self, result: Result) -> None:
        """Do nothing."""

    def log_artifacts(self, run: Path) -> None:
        """Do nothing."""

    def log_tail(self, tail: nn.Module, input_example: npt.NDArray[np.float32] | torch.Tensor) -> str | None:
        """Do nothing."""
        return None

    def finish(self, status: Status = "FINISHED") -> None:
        """Do nothing."""
