"""The bottleneck before the release and its expander in the tail.

The bottleneck is linear and ends without an activation: its output is clipped to a ball around the
origin and noised, and a one-sided output would waste half of that ball. Its bias is learned, so it can
center the features without reading any statistic off private data.
"""

from __future__ import annotations

import math

from torch import nn

from privhier.config import BottleneckConfig
from privhier.errors import ConfigError
from privhier.models.letter_expander import LetterExpander
from privhier.models.norms import group_norm
from privhier.models.staged import FeatureShape

POOLED_SIDE = 4
"""A map is averaged to at most 4x4 before the linear layer of a ``dimension`` bottleneck."""


class Bottleneck(nn.Sequential):
    """Features ``(B, C, h, w)`` to what is released, ``(B, *release_shape)``; empty for ``none``."""


class Expander(nn.Sequential):
    """A release ``(B, *release_shape)`` to the tail's input ``(B, C, h, w)``; empty for ``none``."""


def build_bottleneck(
    config: BottleneckConfig, feature_shape: FeatureShape
) -> tuple[Bottleneck, Expander | LetterExpander, tuple[int, ...]]:
    """Return ``(bottleneck, expander, shape)`` for features ``(C, h, w)``; shape is the bottleneck's output.

    ``dimension``: average to at most 4x4, one linear layer to ``(size,)``; the expander is linear, ReLU,
    nearest-neighbor upsampling. ``channels``: 1x1 convolution to ``(size, h, w)``; the expander is 1x1
    convolution, GroupNorm, ReLU. ``letters``: as ``dimension``, to ``(groups * size,)`` values that become
    letters; the expander takes letters ``(groups,)``.

    Raises:
        ConfigError: ``model.bottleneck.size`` is larger than what it should narrow.
    """
    if config.kind == "none" or config.size is None:
        return Bottleneck(), Expander(), feature_shape
    size = config.size
    channels, height, width = feature_shape
    if config.kind == "channels":
        _narrows(size, channels, "channels of the features")
        expander = Expander(nn.Conv2d(size, channels, 1), group_norm(channels), nn.ReLU())
        return Bottleneck(nn.Conv2d(channels, size, 1)), expander, (size, height, width)

    kernel = math.ceil(max(height, width) / POOLED_SIDE)
    # Plain average pooling: the adaptive one has no deterministic backward on CUDA.
    pool: list[nn.Module] = []
    if kernel > 1:
        pool = [nn.AvgPool2d(kernel, ceil_mode=True, count_include_pad=False)]
    small = (math.ceil(height / kernel), math.ceil(width / kernel))
    pooled = channels * small[0] * small[1]
    size *= config.groups
    _narrows(size, pooled, "values of the pooled features")
    bottleneck = Bottleneck(*pool, nn.Flatten(), nn.Linear(pooled, size))
    if config.alphabet is not None:
        letters = LetterExpander(
            letters=config.alphabet, groups=config.groups, feature_shape=feature_shape, small=small
        )
        return bottleneck, letters, (size,)
    # No normalization here: at low dimension the length of the release carries evidence.
    expander = Expander(nn.Linear(size, pooled), nn.ReLU(), nn.Unflatten(1, (channels, *small)))
    if small != (height, width):
        expander.append(nn.Upsample(size=(height, width), mode="nearest"))
    return bottleneck, expander, (size,)


def _narrows(size: int, limit: int, what: str) -> None:
    if size > limit:
        raise ConfigError(
            key="model.bottleneck.size",
            value=size,
            rule=f"must be at most {limit}, the {what} at the cut",
            remedy="Choose a smaller size, an earlier cut, or kind none",
        )
