"""How letters are found after the edge has trained alone, and how they are used."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from privhier.config import RunConfig
from privhier.models.codebook import Usage, fit_codebook, usage_of
from privhier.models.edge import EdgeSegment
from privhier.models.features import edge_features
from privhier.models.letter_code import LetterCode
from privhier.privacy.release import ReleaseMechanism
from privhier.training.batches import TrainingData
from privhier.training.draws import EdgeDraws
from privhier.training.refit import fit_exits

LOOKED_AT = 4096
"""Records whose letters are counted, at most."""


def settle_code(
    config: RunConfig,
    data: TrainingData,
    edge: EdgeSegment,
    mechanism: ReleaseMechanism,
    draws: EdgeDraws,
    *,
    device: torch.device,
) -> None:
    """Fit the edge's letters to the features of its training records, and its exits to the letters.

    Nothing where the edge releases no letters, learns them, or has them. The fit is a function of private
    records that stays on the edge, as its weights are: it costs no epsilon and has none.

    Args:
        config: The run.
        data: What the edge owns.
        edge: Trained alone, on ``device``.
        mechanism: Answers the letters.
        draws: Of answers that stay on the edge.
        device: Where to compute.
    """
    code = edge.code
    if code is None or code.learned or edge.codebook is not None:
        return
    z = edge_features(edge, data.images, data.splits.train, device=device)
    fit = partial(fit_codebook, letters=code.letters, groups=code.groups, seed=config.seed)
    if code.by_posteriors:
        code.judge_as(edge.task_heads)
        with torch.no_grad():
            seen = code.seen_as(z.to(device)).flatten(1).cpu()
        centers = fit(seen, fit="kmeans")
        values = _means(z, centers.letters_of(seen)[:, 0], code.letters)
        code.settle(values[None], centers=centers.values)
    else:
        quantiles = config.model.bottleneck.fit == "quantiles"
        code.settle(fit(z, fit="quantiles" if quantiles else "kmeans").values)
    fit_exits(config, data, edge, mechanism, draws, z.to(device))


def _means(z: Tensor, letters: Tensor, count: int) -> Tensor:
    """Mean features of each letter, float32 ``(K, d)``; of a letter that nobody has, of all."""
    sums = torch.zeros(count, z.shape[1], dtype=torch.float64).index_add_(0, letters, z.double())
    counts = torch.bincount(letters, minlength=count)[:, None]
    return torch.where(counts > 0, sums / counts.clamp_min(1), z.double().mean(dim=0)).float()


def code_usage(data: TrainingData, edge: EdgeSegment, *, device: torch.device) -> list[Usage]:
    """How the validation records use each group's letters; empty where there are none."""
    code: LetterCode | None = edge.codebook
    if code is None:
        return []
    records = data.splits.val[:LOOKED_AT]
    letters = code.letters_of(edge_features(edge, data.images, records, device=device))
    return [usage_of(group, code.letters) for group in letters.cpu().numpy().T]
