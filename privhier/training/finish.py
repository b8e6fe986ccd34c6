"""What a defense does outside of the one loss: looks at training records, closed forms at the end."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from privhier.config import RunConfig
from privhier.datasets.base import IntArray
from privhier.defenses.base import Defense
from privhier.defenses.batch import DefenseBatch, DefenseData
from privhier.models.edge import EdgeSegment
from privhier.models.features import edge_features
from privhier.models.inputs import normalize
from privhier.privacy.release import ReleaseMechanism
from privhier.seeding import isolated_rng
from privhier.training.batches import TrainingData, ordered_batches
from privhier.training.code import LOOKED_AT
from privhier.training.draws import EdgeDraws
from privhier.training.edge import EdgeTrainer
from privhier.training.refit import fit_exits

_CHUNK = 1024


def check_training_records(
    config: RunConfig, data: TrainingData, edge: EdgeSegment, defense: Defense
) -> None:
    """Refuse, before anything is written, a defense that cannot work with these training records.

    Args:
        config: The run.
        data: What the edge owns.
        edge: As initialized, on the CPU.
        defense: Whose ``check`` is called where it ``reads_data``.

    Raises:
        ConfigError: What ``Defense.check`` finds.
    """
    if defense.reads_data:
        defense.check(edge, _given(config, data, edge, device=torch.device("cpu")))


def begin_defense(
    config: RunConfig, data: TrainingData, edge: EdgeSegment, defense: Defense, *, device: torch.device
) -> None:
    """Show a defense that reads them the training records, before the first epoch and before a resumed one.

    Nothing else is shown them; under DP-SGD no defense is (``private_plan.check_defense``).
    """
    if defense.reads_data:
        with isolated_rng(config.seed, "defense", "begin"):
            defense.begin(edge, _given(config, data, edge, device=device))


def finish_defense(
    config: RunConfig,
    data: TrainingData,
    edge: EdgeSegment,
    defense: Defense,
    mechanism: ReleaseMechanism,
    draws: EdgeDraws,
    *,
    device: torch.device,
) -> None:
    """After pre-training: closed forms of a defense that has any, and the exits trained on what they leave.

    Args:
        config: The run.
        data: What the edge owns.
        edge: Trained alone, on ``device``.
        defense: Whose ``finish`` is called where it ``finishes``.
        mechanism: What sanitizes the edge's features.
        draws: Of noise that stays on the edge.
        device: Where to compute.
    """
    if not defense.finishes:
        return
    with torch.no_grad(), isolated_rng(config.seed, "defense", "finish"):
        defense.finish(edge, _given(config, data, edge, device=device))
        z = edge_features(edge, data.images, data.splits.train, device=device)
    fit_exits(config, data, edge, mechanism, draws, z.to(device), name="finish")


@torch.no_grad()
def report_of(data: TrainingData, trainer: EdgeTrainer, *, device: torch.device) -> dict[str, Any]:
    """What a defense says of the trained edge, from validation records; empty where it says nothing."""
    defense, edge = trainer.defense, trainer.edge
    if type(defense).report is Defense.report:
        return {}
    records = data.splits.val[:LOOKED_AT]
    z = edge_features(edge, data.images, records, device=device).to(device)
    clipped = trainer.mechanism.clip_features(z)
    batch = DefenseBatch(
        z=clipped,
        task_labels=list(data.task[records].to(device).unbind(1)),
        sensitive_labels=list(data.sensitive[records].to(device).unbind(1)),
        edge=edge,
        clipped=clipped,
        sigma=trainer.sigma,
    )
    return defense.report(batch)


def _given(config: RunConfig, data: TrainingData, edge: EdgeSegment, *, device: torch.device) -> DefenseData:
    train = data.splits.train

    @torch.no_grad()
    def features() -> Tensor:
        return edge_features(edge, data.images, train, device=device, outlet=False)

    return DefenseData(
        task_labels=list(data.task[train].unbind(1)),
        sensitive_labels=list(data.sensitive[train].unbind(1)),
        task_classes=list(data.task_classes.values()),
        sensitive_classes=list(data.sensitive_classes.values()),
        persons=data.persons_of(train),
        mean_image=partial(_mean_image, data, train),
        seed=config.seed,
        features=features,
    )


def _mean_image(data: TrainingData, records: IntArray) -> Tensor:
    """float32 ``(3, S, S)``, normalized."""
    total = np.zeros(data.images.shape[1:], dtype=np.float64)
    for chunk in ordered_batches(records, _CHUNK):
        total += data.images[chunk].sum(axis=0, dtype=np.float64)
    low, high = normalize(torch.tensor([0, 255], dtype=torch.uint8))
    mean: Tensor = torch.from_numpy(total / len(records) / 255).float()
    normalized: Tensor = low + (high - low) * mean
    return normalized
