"""Image similarity, one number an image, on torchmetrics; images are float ``(N, C, H, W)``."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

_BORDER = 5
"""Half of the 11-pixel Gaussian window."""
_WINDOW = 2 * _BORDER + 1
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang, Simoncelli and Bovik 2003)."""
_BATCH_BYTES = 2**27
"""Of the windows' values, float64, that are laid out at a time: five maps of each image by torchmetrics, each
value with the 121 of its window. A fixed number of images would take gigabytes where these are large."""


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
    values = [_inner_ssim(first, second, data_range).numpy() for first, second in pairs]
    return np.concatenate(values) if values else np.empty(0)


def ms_ssim_scales(height: int, width: int) -> int:
    """How many scales ``ms_ssim`` uses on such images: 5 from 176 pixels, 4 from 88, 3 from 44, 2 from 22.

    Each scale halves the image, and the coarsest must hold the 11-pixel window. 1 means that there is
    nothing multi-scale about it: ``ssim`` says it all.
    """
    scales, side = 1, min(height, width) // 2
    while side >= _WINDOW and scales < len(_SCALE_WEIGHTS):
        scales, side = scales + 1, side // 2
    return scales


def ms_ssim(predictions: Array, target: Array, *, data_range: float) -> FloatArray:
    r"""Multi-scale structural similarity of every image (higher: more alike; 1: identical).

    Wang, Simoncelli and Bovik (2003): :math:`l_M^{w_M} \prod_{j=1}^{M} cs_j^{w_j}`, with the mean contrast
    and structure term of every scale and the luminance term of the coarsest (there as part of the
    structural similarity), each averaged over channels and over windows wholly inside, and images
    halved by 2x2 means. The paper's five scales need 176 pixels; smaller images get the first M of them
    (``ms_ssim_scales``) with weights scaled to the same sum, so values of different image sizes do not
    compare. Negative terms count as 0.

    Args:
        predictions: ``(N, C, H, W)``, finite, H and W at least 22.
        target: The same shape.
        data_range: Largest minus smallest legal value: 1.0 for images in [0, 1].

    Returns:
        float64 ``(N,)`` in [0, 1].
    """
    pairs = _pairs(predictions, target, data_range)
    scales = ms_ssim_scales(*predictions.shape[2:])
    if scales < 2:
        raise ValueError(f"images must be at least 22 pixels wide and high, got {predictions.shape[2:]}")
    used = _SCALE_WEIGHTS[:scales]
    weights = [weight * sum(_SCALE_WEIGHTS) / sum(used) for weight in used]
    values = []
    for first, second in pairs:
        value = torch.ones(len(first), dtype=torch.float64)
        for scale, weight in enumerate(weights):
            if scale:
                first, second = (torch.nn.functional.avg_pool2d(side, 2) for side in (first, second))
            term = _inner_ssim if scale == scales - 1 else _contrast
            value *= term(first, second, data_range).clamp(min=0) ** weight
        values.append(value.numpy())
    return np.concatenate(values) if values else np.empty(0)


def _inner_ssim(first: torch.Tensor, second: torch.Tensor, data_range: float) -> torch.Tensor:
    """Mean structural similarity (N,) over channels and the windows wholly inside."""
    full = _similarity(first, second, data_range, return_full_image=True)
    return full[:, :, _BORDER:-_BORDER, _BORDER:-_BORDER].mean(dim=(1, 2, 3))


def _contrast(first: torch.Tensor, second: torch.Tensor, data_range: float) -> torch.Tensor:
    """Mean contrast and structure term (N,) over the same windows; torchmetrics cuts the border off here."""
    contrast = _similarity(first, second, data_range, return_contrast_sensitivity=True)
    return contrast.reshape(-1)


def _similarity(first: torch.Tensor, second: torch.Tensor, data_range: float, **more: bool) -> torch.Tensor:
    """What ``more`` asks of torchmetrics' structural similarity."""
    from torchmetrics.functional.image import structural_similarity_index_measure  # not at every start

    _, told = structural_similarity_index_measure(
        first, second, data_range=data_range, sigma=1.5, reduction="none", **more
    )
    return torch.as_tensor(told)


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
    from torchmetrics.functional.image import peak_signal_noise_ratio  # not at every start

    values = [
        peak_signal_noise_ratio(first, second, data_range=data_range, dim=(1, 2, 3), reduction="none").numpy()
        for first, second in _pairs(predictions, target, data_range)
    ]
    return np.concatenate(values) if values else np.empty(0)


def lpips(predictions: Array, target: Array, *, alexnet_weights: Mapping[str, torch.Tensor]) -> FloatArray:
    """Learned perceptual distance of every image (lower: more alike), Zhang et al. (2018), AlexNet.

    Args:
        predictions: float ``(N, 3, H, W)`` in [0, 1], H and W at least 32.
        target: The same shape.
        alexnet_weights: torchvision's AlexNet state dict; nothing is ever downloaded.

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
    # The package cuts AlexNet's features into slices but keeps their numbers: slice2.3 is features.3.
    own = {name: alexnet_weights["features." + name.split(".", 1)[1]] for name in network.net.state_dict()}
    network.net.load_state_dict(own)
    values = []
    with torch.no_grad():
        for first, second in _pairs(predictions, target, 1.0):
            distance = network(first.float(), second.float(), normalize=True)
            values.append(distance.reshape(-1).double().numpy())
    return np.concatenate(values) if values else np.empty(0)


def batch_of(height: int, width: int) -> int:
    """Images compared at a time, at least 1: as many as ``_BATCH_BYTES`` holds, at most 128."""
    return max(1, min(128, _BATCH_BYTES // (5 * _WINDOW**2 * height * width * 8)))


def _pairs(
    predictions: Array, target: Array, data_range: float
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    if predictions.ndim != 4 or predictions.shape != target.shape:
        raise ValueError(f"expected two arrays (N, C, H, W), got {predictions.shape} and {target.shape}")
    if not data_range > 0:
        raise ValueError(f"data_range must be above 0, got {data_range}")
    if not (np.isfinite(predictions).all() and np.isfinite(target).all()):
        raise ValueError("images must be finite")
    batch = batch_of(*predictions.shape[2:])
    steps = range(0, len(predictions), batch)
    return ((_double(predictions[i : i + batch]), _double(target[i : i + batch])) for i in steps)


def _double(images: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float64))
