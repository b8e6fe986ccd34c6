"""The clip bound of a run: a constant, or drawn once from the training records, charged and kept."""

from __future__ import annotations

import torch
from torch import Tensor

from privhier.config import RunConfig
from privhier.datasets.base import IntArray
from privhier.models.edge import EdgeSegment
from privhier.models.features import edge_features
from privhier.privacy.clip_quantile import draw_quantile, grid
from privhier.privacy.events import ClipEvent
from privhier.privacy.ledger import Ledger
from privhier.privacy.noise import SeededNoise, SystemNoise
from privhier.privacy.release import ReleaseMechanism
from privhier.training.batches import TrainingData, ordered_batches
from privhier.training.folder import RunFolder, lost_draw
from privhier.training.prepare import build_mechanism


def settle_clip(
    config: RunConfig,
    data: TrainingData,
    edge: EdgeSegment,
    mechanism: ReleaseMechanism,
    folder: RunFolder,
    ledger: Ledger,
    *,
    device: torch.device,
) -> ReleaseMechanism:
    """The mechanism with its final clip bound.

    Where the bound is a quantile it is charged, then drawn from the norms of the **initial** edge's
    features (weights that count as public) on the training records, then kept: a resumed run reads it
    back. The noise scales with it, so epsilon does not depend on what was drawn.

    Args:
        config: The run.
        data: What the edge owns.
        edge: The edge before training, on ``device``.
        mechanism: As built before anything is drawn.
        folder: The run folder.
        ledger: Its account.
        device: Where to compute.

    Raises:
        CheckpointError: The bound was drawn from system entropy, and is gone.
    """
    chosen = config.release.quantile
    if chosen is None:
        return mechanism
    train = data.splits.train
    if not folder.sealed.knows(folder.clip):
        source = config.privacy.noise_source
        if source == "system" and any(isinstance(event, ClipEvent) for event in ledger.events):
            raise lost_draw(folder.clip, "the clip bound of this run was charged and drawn once")
        # Read before the charge: between charge and file there should be next to no time to be killed in.
        norms = _norms(edge, data, train, 1 if mechanism.mechanism == "laplace" else 2, device)
        ledger.charge_clip(ClipEvent("train", len(train), chosen.quantile, chosen.epsilon, source))
        noise = SeededNoise(config.noise_seed, "clip") if source == "seeded" else SystemNoise()
        values = grid(chosen.lowest, chosen.highest)
        clip = draw_quantile(norms, values, chosen.quantile, chosen.epsilon, noise)
        folder.sealed.write_json(folder.clip, {"clip": clip})
    return mechanism_of(config, len(train), folder)


def mechanism_of(config: RunConfig, n_train: int, folder: RunFolder) -> ReleaseMechanism:
    """The release mechanism of a run that has begun; reads a drawn clip bound back from its folder.

    Raises:
        CheckpointError: The bound was to be drawn, and has not been.
    """
    if config.release.quantile is None:
        return build_mechanism(config, n_train)
    if not folder.clip.exists():
        raise lost_draw(folder.clip, "the clip bound of this run was drawn once")
    return build_mechanism(config, n_train, drawn=float(folder.sealed.read_json(folder.clip)["clip"]))


def _norms(
    edge: EdgeSegment, data: TrainingData, records: IntArray, order: int, device: torch.device
) -> Tensor:
    """Norm of every record's features, float64 ``(n,)``."""
    parts = []
    for batch in ordered_batches(records, 256):
        z = edge_features(edge, data.images, batch, device=device).flatten(1)
        parts.append(torch.linalg.vector_norm(z, order, dim=1, dtype=torch.float64))
    return torch.cat(parts)
