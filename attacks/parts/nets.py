"""Building blocks of the neural attackers: normalization, perceptrons, convolution trunks, augmentation.

Shapes: b batch, c channels, h and w height and width, k classes.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from privhier.attacks.parts.features import usable_spread
from privhier.attacks.view import FloatArray


class ChannelNorm(nn.Module):
    """``(x - mean) / spread`` per channel of (b, c, h, w), with constants taken from the auxiliary set."""

    mean: Tensor
    spread: Tensor

    def __init__(self, mean: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("spread", spread.view(1, -1, 1, 1))

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Same shape as the input."""
        return (x_bchw - self.mean) / self.spread


class Residual(nn.Module):
    """Two 3x3 convolutions with batch normalization around an identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x_bchw: Tensor) -> Tensor:
        """Same shape as the input."""
        return torch.relu(x_bchw + self.body(x_bchw))


def stack_releases(releases: FloatArray) -> FloatArray:
    """Maps (n, T, c, h, w) as channels (n, T*c [+ c], h, w): all T releases and, for T > 1, their mean."""
    n, t, c, h, w = releases.shape
    flat = releases.reshape(n, t * c, h, w)
    return flat if t == 1 else np.concatenate([flat, releases.mean(axis=1)], axis=1)


def channel_norm(maps: FloatArray) -> ChannelNorm:
    """Constants of ``ChannelNorm`` from up to 1,024 auxiliary maps (n, c, h, w)."""
    sample = maps[:: max(1, len(maps) // 1024)]
    mean = sample.mean(axis=(0, 2, 3), dtype=np.float64)
    spread = usable_spread(sample.std(axis=(0, 2, 3), dtype=np.float64))
    return ChannelNorm(torch.tensor(mean, dtype=torch.float32), torch.tensor(spread, dtype=torch.float32))


def trunk(channels: int, size: int, width: int) -> tuple[list[nn.Module], int]:
    """Layers from (b, channels, size, size) to (b, out) by stride-2 stages down to about 3x3, and ``out``.

    Images over 24 pixels begin with stride 2, over 96 with stride 4. Many channels (T stacked
    releases) are first mixed down by a 1x1 convolution.
    """
    layers: list[nn.Module] = []
    if channels > 2 * width:
        layers += [nn.Conv2d(channels, 2 * width, 1)]
        channels = 2 * width
    stride = 1 if size <= 24 else 2 if size <= 96 else 4
    layers += _stage(channels, width, stride)
    side = math.ceil(size / stride)
    while side > 4:
        layers += _stage(width, min(2 * width, 160), 2)
        width, side = min(2 * width, 160), math.ceil(side / 2)
        if side <= 12:
            layers += [Residual(width)]
    return [*layers, _MeanMaxPool(), nn.Flatten()], 2 * width


def _stage(channels: int, width: int, stride: int) -> list[nn.Module]:
    kernel = 3 if stride < 4 else 7
    convolution = nn.Conv2d(channels, width, kernel, stride=stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(width), nn.ReLU()]


class _MeanMaxPool(nn.Module):
    def forward(self, x_bchw: Tensor) -> Tensor:
        return torch.cat([x_bchw.mean(dim=(2, 3)), x_bchw.amax(dim=(2, 3))], dim=1)


def perceptron(columns: int, width: int, outputs: int, dropout: float) -> nn.Sequential:
    """(b, columns) to (b, outputs) through two hidden layers with batch normalization."""
    return nn.Sequential(
        nn.Linear(columns, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, width),
        nn.BatchNorm1d(width),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(width, outputs),
    )


def jitter(x_bchw: Tensor, generator: torch.Generator, *, flip: bool) -> Tensor:
    """One random shift of up to a twelfth of the side for the batch, and a random flip per record."""
    reach = max(1, x_bchw.shape[-1] // 12)
    down, right = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
    padded = nn.functional.pad(x_bchw, (reach, reach, reach, reach), mode="replicate")
    h, w = x_bchw.shape[2:]
    moved = padded[:, :, reach + down : reach + down + h, reach + right : reach + right + w]
    if not flip:
        return moved
    flipped = torch.rand(len(moved), generator=generator).to(moved.device) < 0.5
    return torch.where(flipped.view(-1, 1, 1, 1), moved.flip(-1), moved)
