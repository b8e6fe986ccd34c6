"""Image similarity, one number an image, on torchmetrics; images are float ``(N, C, H, W)``."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

_BORDER = 5
"""Half of the 11-pixel Gaussian window."""
_BATCH = 128


def ssim(predictions: Array, target: Array, *, data_range: float) -> FloatArray:
    """Structural similarity of every image (higher: more alike; 1: identical).

    Wang, Bovik, Sheikh and Simoncelli (2004): 11x11 Gaussian window of sigma 1.5, population
    covariances, k1 = 0.01, k2 = 0.03; per channel, then averaged over channels and over the windows
    that lie wholly inside the image. torchmetrics' own mean also holds windows that reach into a
    mirrored border; those are cut off here, so that the numbers equal scikit-image's
    ``structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False)``.
    Computed in float64: float32 loses four digits on flat images.

    Args:
        predictions: ``(N, C, H, W)``, finite, H and W at least 11.
        target: The same shape.
        data_range: Largest minus smallest legal value: 1.0 for images in [0, 1].

    Returns:
        float64 ``(N,)`` in [-1, 1].
    """
    pairs = _pairs(predictions, target, data_range)
    if min(predictions.shape[2:]) <= 2 * _BORDER:
        raise ValueError(f"images must be at least 11 pixels wide and high, got {predictions.shape[2:]}")
    inside = (slice(None), slice(None), slice(_BORDER, -_BORDER), slice(_BORDER, -_BORDER))
    values = []
    for first, second in pairs:
        _, full = structural_similarity_index_measure(
            first, second, data_range=data_range, sigma=1.5, reduction="none", return_full_image=True
        )
        values.append(full[inside].mean(dim=(1, 2, 3)).numpy())
    return np.concatenate(values) if values else np.empty(0)


def psnr(predictions: Array, target: Array, *, data_range: float) -> FloatArray:
    r"""Peak signal-to-noise ratio of every image in dB: :math:`10 \log_{10}(R^2 / MSE)` (higher: more alike).

    Args:
        predictions: ``(N, C, H, W)``, finite.
        target: The same shape.
        data_range: R, largest minus smallest legal value: 1.0 for images in [0, 1]. A wrong range
            shifts every number (255 for 1 adds 48 dB), so there is no default.

    Returns:
        float64 ``(N,)``; ``inf`` for an exact copy.
    """
    values = [
        peak_signal_noise_ratio(first, second, data_range=data_range, dim=(1, 2, 3), reduction="none").numpy()
        for first, second in _pairs(predictions, target, data_range)
    ]
    return np.concatenate(values) if values else np.empty(0)


def lpips(predictions: Array, target: Array, *, alexnet_weights: str | Path) -> FloatArray:
    """Learned perceptual distance of every image (lower: more alike), Zhang et al. (2018), AlexNet.

    Args:
        predictions: float ``(N, 3, H, W)`` in [0, 1], H and W at least 32.
        target: The same shape.
        alexnet_weights: torchvision's AlexNet state dict (.pth); nothing is ever downloaded.

    Returns:
        float64 ``(N,)``, at least 0.

    Raises:
        ImportError: The optional package is missing.
    """
    try:
        package = importlib.import_module("lpips")
    except ImportError as error:
        raise ImportError(
            "LPIPS needs the optional package lpips: pip install 'privhier[lpips]'", name="lpips"
        ) from error
    # It builds AlexNet through arguments torchvision has deprecated, from global random numbers.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)
        network = package.LPIPS(net="alex", pnet_rand=True, verbose=False).eval()
    state = torch.load(alexnet_weights, map_location="cpu", weights_only=True)
    # The package cuts AlexNet's features into slices but keeps their numbers: slice2.3 is features.3.
    own = {name: state["features." + name.split(".", 1)[1]] for name in network.net.state_dict()}
    network.net.load_state_dict(own)
    values = []
    with torch.no_grad():
        for first, second in _pairs(predictions, target, 1.0):
            distance = network(first.float(), second.float(), normalize=True)
            values.append(distance.reshape(-1).double().numpy())
    return np.concatenate(values) if values else np.empty(0)


def _pairs(predictions: Array, target: Array, data_range: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    if predictions.ndim != 4 or predictions.shape != target.shape:
        raise ValueError(f"expected two arrays (N, C, H, W), got {predictions.shape} and {target.shape}")
    if not data_range > 0:
        raise ValueError(f"data_range must be above 0, got {data_range}")
    if not (np.isfinite(predictions).all() and np.isfinite(target).all()):
        raise ValueError("images must be finite")
    steps = range(0, len(predictions), _BATCH)
    return [(_double(predictions[i : i + _BATCH]), _double(target[i : i + _BATCH])) for i in steps]


def _double(images: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float64))
