"""Reconstructions against originals, with intervals, beside what the mean image reaches."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from privhier.evaluation.result import Reconstruction, Score
from privhier.evaluation.scores import as_score
from privhier.metrics.classification import mean_resampled
from privhier.metrics.images import lpips, ms_ssim, ms_ssim_scales, psnr, ssim
from privhier.metrics.intervals import group_bootstrap_weights, percentile_interval
from privhier.seeding import numpy_stream

FloatArray = npt.NDArray[np.float32]

PSNR_CAP = 100.0
"""dB; an exact copy would be infinite, which no mean survives."""
LPIPS_SIDE = 32
"""Pixels; AlexNet has nothing left to pool in smaller images."""


@dataclass(frozen=True)
class Reidentification:
    """How well a face embedder finds victims again, from reconstructions and from the photos themselves.

    Attributes:
        gallery: People in the gallery, one photo each; rank-1 by chance is one over this.
        rank1: Rank-1 rate of reconstructions; n counts probes.
        tar: True accept rate at a false accept rate of 1 %, reconstructions against gallery photos; n
            counts probes, each with one photo of its own person. None where impostor pairs are too few.
        original_rank1: The same from the attacked photos: the most a perfect reconstruction would reach.
        original_tar: The same.
    """

    gallery: int
    rank1: Score
    tar: Score | None
    original_rank1: Score
    original_tar: Score | None

    @property
    def chance(self) -> float:
        """Rank-1 rate of a guess."""
        return 1 / self.gallery


def image_scores(
    originals: npt.NDArray[np.uint8],
    reconstructions: FloatArray,
    mean_image: FloatArray,
    groups: npt.NDArray[np.int64],
    *,
    resamples: int,
    confidence: float,
    seed: int,
    reidentification: Reidentification | None = None,
    alexnet_weights: Mapping[str, torch.Tensor] | None = None,
) -> Reconstruction:
    """Score reconstructions ``(n, 3, H, W)`` in [0, 1] of uint8 originals ``(n, 3, H, W)``.

    MS-SSIM is null below 22 pixels (see ``ms_ssim_scales``); LPIPS without weights, without its
    optional package or below 32 pixels.

    Args:
        mean_image: ``(3, H, W)`` in [0, 1], the auxiliary set's mean: the answer of who knows nothing.
        groups: int64 ``(n,)``; the bootstrap resamples these.
        reidentification: Scores of a face embedder on these reconstructions, where there are any.
        alexnet_weights: torchvision's AlexNet state dict, for LPIPS.
    """
    truth = np.asarray(originals, dtype=np.float32) / 255
    guess = np.clip(reconstructions, 0, 1)
    blank = np.broadcast_to(mean_image, truth.shape)
    weights = group_bootstrap_weights(groups, resamples, numpy_stream(seed, "bootstrap", "pictures"))

    def score(values: npt.NDArray[np.float64]) -> Score:
        resampled = mean_resampled(values, weights)
        return as_score(percentile_interval(float(values.mean()), resampled, confidence), len(values))

    height, width = truth.shape[2:]
    found = reidentification
    installed = importlib.util.find_spec("lpips") is not None
    alexnet = alexnet_weights if installed and min(height, width) >= LPIPS_SIDE else None
    return Reconstruction(
        ssim=score(ssim(guess, truth, data_range=1.0)),
        ms_ssim=(
            score(ms_ssim(guess, truth, data_range=1.0)) if ms_ssim_scales(height, width) >= 2 else None
        ),
        psnr=score(np.minimum(psnr(guess, truth, data_range=1.0), PSNR_CAP)),
        lpips=None if alexnet is None else score(lpips(guess, truth, alexnet_weights=alexnet)),
        reid_rank1=None if found is None else found.rank1,
        reid_gallery=None if found is None else found.gallery,
        verification_tar=None if found is None else found.tar,
        original_reid_rank1=None if found is None else found.original_rank1,
        original_verification_tar=None if found is None else found.original_tar,
        mean_image_ssim=score(ssim(blank, truth, data_range=1.0)),
    )
