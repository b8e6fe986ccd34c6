import importlib.util

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from privhier.metrics.images import lpips, psnr, ssim


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    base = np.cumsum(rng.normal(size=(4, 3, 24, 31)), axis=3) / 10
    base = ((base - base.min()) / np.ptp(base)).astype(np.float32)
    noise = rng.normal(size=base.shape) * np.array([0.01, 0.05, 0.2, 0.5])[:, None, None, None]
    return base, np.clip(base + noise, 0, 1).astype(np.float32)


def test_ssim_equals_scikit_image(images):
    target, noisy = images
    expected = [
        structural_similarity(
            a.astype(np.float64),
            b.astype(np.float64),
            channel_axis=0,
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(noisy, target, strict=True)
    ]
    got = ssim(noisy, target, data_range=1.0)
    assert got.shape == (4,)
    np.testing.assert_allclose(got, expected, atol=1e-9)
    assert (np.diff(got) < 0).all()
    np.testing.assert_allclose(ssim(target, target, data_range=1.0), 1.0)


def test_psnr_equals_scikit_image_and_the_range_matters(images):
    target, noisy = images
    expected = [peak_signal_noise_ratio(b, a, data_range=1.0) for a, b in zip(noisy, target, strict=True)]
    got = psnr(noisy, target, data_range=1.0)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    np.testing.assert_allclose(psnr(noisy * 255, target * 255, data_range=255.0), got, atol=1e-3)
    np.testing.assert_allclose(psnr(noisy, target, data_range=255.0) - got, 20 * np.log10(255), atol=1e-6)
    assert np.isposinf(psnr(target, target, data_range=1.0)).all()


def test_large_sets_go_in_batches_and_empty_ones_pass():
    rng = np.random.default_rng(0)
    a, b = rng.random((130, 1, 12, 12)), rng.random((130, 1, 12, 12))
    for metric in (ssim, psnr):
        np.testing.assert_allclose(
            metric(a, b, data_range=1.0)[129:], metric(a[129:], b[129:], data_range=1.0)
        )
        assert metric(a[:0], b[:0], data_range=1.0).shape == (0,)


def test_wrong_images_are_refused():
    good = np.zeros((1, 3, 16, 16))
    for bad in (np.zeros((1, 3, 16, 15)), np.full((1, 3, 16, 16), np.nan)):
        with pytest.raises(ValueError, match=r"expected|finite"):
            ssim(bad, good, data_range=1.0)
    with pytest.raises(ValueError, match="data_range"):
        psnr(good, good, data_range=0.0)
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(good[..., :10], good[..., :10], data_range=1.0)


@pytest.mark.skipif(importlib.util.find_spec("lpips") is not None, reason="lpips is installed")
def test_missing_lpips_says_how_to_install_it():
    with pytest.raises(ImportError, match=r"privhier\[lpips\]"):
        lpips(np.zeros((1, 3, 64, 64)), np.zeros((1, 3, 64, 64)), alexnet_weights="none.pth")
