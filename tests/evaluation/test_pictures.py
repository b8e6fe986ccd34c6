import importlib.util

import numpy as np
import pytest

from privhier.evaluation.flat import reconstruction_metrics
from privhier.evaluation.pictures import PSNR_CAP, Reidentification, image_scores
from privhier.evaluation.result import Score
from privhier.metrics.images import ms_ssim, psnr, ssim


def scored(side=32, noise=0.02, n=12, **options):
    rng = np.random.default_rng(0)
    smooth = rng.random((n, 3, 2, 2)).repeat(side // 2, 2).repeat(side // 2, 3)
    originals = np.rint(smooth * 255).astype(np.uint8)
    guess = (originals / 255 + noise * rng.standard_normal(originals.shape)).astype(np.float32)
    settings = {"resamples": 100, "confidence": 0.95, "seed": 0} | options
    mean = (originals.mean(axis=0) / 255).astype(np.float32)
    return image_scores(originals, guess, mean, np.arange(n) // 2, **settings), originals / 255, guess


def test_scores_are_means_over_the_pictures_clipped_to_legal_values():
    made, truth, guess = scored()
    for name, metric in {"ssim": ssim, "ms_ssim": ms_ssim, "psnr": psnr}.items():
        score = getattr(made, name)
        expected = metric(np.clip(guess, 0, 1), truth.astype(np.float32), data_range=1.0)
        assert score.value == pytest.approx(expected.mean(), abs=1e-6)
        assert score.low < score.value < score.high
        assert score.n == 12
    assert made.mean_image_ssim.value < made.ssim.value


def test_small_pictures_have_no_multi_scale_score():
    assert scored(side=20)[0].ms_ssim is None
    assert scored(side=20)[0].ssim is not None
    assert scored(side=22)[0].ms_ssim is not None


def test_a_perfect_copy_has_a_finite_score():
    made, _, _ = scored(noise=0.0)
    assert made.psnr.value == PSNR_CAP
    assert (made.ssim.value, made.ms_ssim.value) == pytest.approx((1.0, 1.0))


def test_scores_of_a_face_embedder_are_taken_over():
    assert scored()[0].reid_rank1 is None
    rank1, tar, best = (Score(value=v, low=v, high=v, n=9) for v in (0.2, 0.3, 0.9))
    found = Reidentification(gallery=500, rank1=rank1, tar=tar, original_rank1=best, original_tar=None)
    made, _, _ = scored(reidentification=found)
    assert (made.reid_rank1, made.verification_tar, made.reid_gallery) == (rank1, tar, 500)
    assert (made.original_reid_rank1, made.original_verification_tar) == (best, None)
    assert found.chance == 1 / 500
    metrics = reconstruction_metrics(made)
    assert metrics["reid_gallery"] == 500.0
    assert metrics["reid_rank1_low"] == 0.2
    assert "original_verification_tar" not in metrics


def test_no_perceptual_distance_without_weights():
    assert scored()[0].lpips is None


@pytest.mark.skipif(importlib.util.find_spec("lpips") is not None, reason="lpips is installed")
def test_no_perceptual_distance_without_its_package():
    assert scored(alexnet_weights="alexnet.pth")[0].lpips is None
