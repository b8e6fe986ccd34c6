"""Reconstructions against originals: SSIM and PSNR with intervals, beside what the mean image reaches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from privhier.evaluation.result import Reconstruction, Score
from privhier.evaluation.scores import as_score
from privhier.metrics.classification import mean_resampled
from privhier.metrics.images import psnr, ssim
from privhier.metrics.intervals import group_bootstrap_weights, percentile_interval
from privhier.seeding import numpy_stream

FloatArray = npt.NDArray[np.float32]

PSNR_CAP = 100.0
"""dB; an exact copy would be infinite, which no mean survives."""


def image_scores(
    originals: npt.NDArray[np.uint8],
    reconstructions: FloatArray,
    mean_image: FloatArray,
    groups: npt.NDArray[np.int64],
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Reconstruction:
    """Score reconstructions ``(n, 3, H, W)`` in [0, 1] of uint8 originals ``(n, 3, H, W)``.

    Args:
        mean_image: ``(3, H, W)`` in [0, 1], the auxiliary set's mean: the answer of who knows nothing.
        groups: int64 ``(n,)``; the bootstrap resamples these.
    """
    truth = np.asarray(originals, dtype=np.float32) / 255
    guess = np.clip(reconstructions, 0, 1)
    blank = np.broadcast_to(mean_image, truth.shape)
    weights = group_bootstrap_weights(groups, resamples, numpy_stream(seed, "bootstrap", "pictures"))

    def score(values: npt.NDArray[np.float64]) -> Score:
        resampled = mean_resampled(values, weights)
        return as_score(percentile_interval(float(values.mean()), resampled, confidence), len(values))

    return Reconstruction(
        ssim=score(ssim(guess, truth, data_range=1.0)),
        psnr=score(np.minimum(psnr(guess, truth, data_range=1.0), PSNR_CAP)),
        mean_image_ssim=score(ssim(blank, truth, data_range=1.0)),
    )
