import importlib.util

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import privhier.metrics.images as similarity
from privhier.metrics.images import batch_of, lpips, ms_ssim, ms_ssim_scales, psnr, ssim


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


def test_ms_ssim_equals_the_papers_formula():
    """By scipy's filters, in plain loops; 176 pixels give all five scales, 64 three."""
    rng = np.random.default_rng(1)
    for side, weights in ((176, [0.0448, 0.2856, 0.3001, 0.2363, 0.1333]), (64, [0.0448, 0.2856, 0.3001])):
        target = gaussian_filter(rng.random((2, 3, side, side)), (0, 0, 2, 2)) * 4 % 1
        noisy = np.clip(target + rng.normal(size=target.shape) * [[[[0.05]]], [[[0.4]]]], 0, 1)
        exponents = np.array(weights) * 1.0001 / sum(weights)
        expected = []
        for x, y in zip(noisy, target, strict=True):
            value = 1.0
            for scale, exponent in enumerate(exponents):
                if scale:
                    x, y = (z.reshape(3, len(z[0]) // 2, 2, -1, 2).mean(axis=(2, 4)) for z in (x, y))
                contrast, luminance = [], []
                for a, b in zip(x, y, strict=True):
                    blur = [
                        gaussian_filter(z, 1.5, radius=5)[5:-5, 5:-5] for z in (a, b, a * a, b * b, a * b)
                    ]
                    covariance = blur[4] - blur[0] * blur[1]
                    variances = blur[2] - blur[0] ** 2 + blur[3] - blur[1] ** 2
                    contrast.append((2 * covariance + 9e-4) / (variances + 9e-4))
                    luminance.append((2 * blur[0] * blur[1] + 1e-4) / (blur[0] ** 2 + blur[1] ** 2 + 1e-4))
                last = scale == len(weights) - 1
                term = np.multiply(contrast, luminance) if last else np.array(contrast)
                value *= term.mean() ** exponent
            expected.append(value)
        np.testing.assert_allclose(ms_ssim(noisy, target, data_range=1.0), expected, atol=1e-9)
        np.testing.assert_allclose(ms_ssim(target, target, data_range=1.0), 1.0)
        assert expected[0] > expected[1]


def test_two_scales_come_from_scikit_images_pieces():
    """A shift of brightness costs nothing at the finest scale, and the coarsest is plain SSIM."""
    rng = np.random.default_rng(2)
    target = rng.random((1, 1, 24, 24)) * 0.5
    assert ms_ssim(1 - target, target, data_range=1.0)[0] == 0.0  # opposite structure counts as none
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    brighter = target + 0.3
    halved = [z[0, 0].reshape(12, 2, 12, 2).mean(axis=(1, 3)) for z in (brighter, target)]
    coarse = structural_similarity(*halved, **options)
    exponent = 0.2856 / (0.0448 + 0.2856) * 1.0001
    np.testing.assert_allclose(ms_ssim(brighter, target, data_range=1.0), coarse**exponent, atol=1e-6)


def test_ms_ssim_takes_as_many_scales_as_the_window_fits():
    assert [ms_ssim_scales(side, 300) for side in (21, 22, 43, 44, 87, 88, 175, 176, 1000)] == [
        *(1, 2, 2, 3, 3, 4, 4, 5, 5)
    ]
    with pytest.raises(ValueError, match="22 pixels"):
        ms_ssim(np.zeros((1, 3, 21, 40)), np.zeros((1, 3, 21, 40)), data_range=1.0)


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
    a, b = rng.random((130, 1, 22, 22)), rng.random((130, 1, 22, 22))
    for metric in (ssim, ms_ssim, psnr):
        np.testing.assert_allclose(
            metric(a, b, data_range=1.0)[129:], metric(a[129:], b[129:], data_range=1.0)
        )
        assert metric(a[:0], b[:0], data_range=1.0).shape == (0,)


def test_the_batch_is_bounded_by_memory_and_changes_nothing(monkeypatch):
    """128 images of 64 pixels at a time laid out 2.4 GB of windows."""
    for side in (22, 64, 224, 512):
        batch = batch_of(side, side)
        assert batch == 1 or batch * 5 * 121 * side * side * 8 <= 2**27
        assert 1 <= batch <= 128
    assert batch_of(16, 16) > batch_of(64, 64) > batch_of(224, 224)
    rng = np.random.default_rng(0)
    a, b = rng.random((9, 3, 24, 24)), rng.random((9, 3, 24, 24))
    metrics = (ssim, ms_ssim, psnr)
    whole = [metric(a, b, data_range=1.0) for metric in metrics]
    monkeypatch.setattr(similarity, "_BATCH_BYTES", 1)
    for metric, expected in zip(metrics, whole, strict=True):
        assert np.array_equal(metric(a, b, data_range=1.0), expected)


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
