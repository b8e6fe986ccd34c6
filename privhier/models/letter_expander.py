"""From letters to the features at the cut: how a cloud tail reads a release of letters."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from privhier.models.staged import FeatureShape

WIDTH = 16
"""Values that stand for a letter in the tail."""


class LetterExpander(nn.Module):
    """Letters ``(B, M)`` to the tail's input ``(B, C, h, w)``.

    Every letter of every group has values of its own, which the tail learns; from there on as the expander of
    a ``dimension`` bottleneck: linear, ReLU, nearest-neighbor upsampling. Weights are drawn from torch's
    generator, which the caller has seeded and isolated.

    Args:
        letters: K.
        groups: M.
        feature_shape: ``(C, h, w)`` at the cut.
        small: Height and width that the linear layer makes, at most those of the cut.
    """

    first: Tensor

    def __init__(
        self, *, letters: int, groups: int, feature_shape: FeatureShape, small: tuple[int, int]
    ) -> None:
        super().__init__()
        channels, height, width = feature_shape
        self.letters = letters
        self.values = nn.Embedding(groups * letters, WIDTH)
        self.register_buffer("first", torch.arange(groups) * letters, persistent=False)
        self.map = nn.Sequential(
            nn.Linear(groups * WIDTH, channels * math.prod(small)),
            nn.ReLU(),
            nn.Unflatten(1, (channels, *small)),
        )
        if small != (height, width):
            self.map.append(nn.Upsample(size=(height, width), mode="nearest"))

    def forward(self, letters: Tensor) -> Tensor:
        """Letters ``(B, M)`` as int64, or as whole numbers of another type, as caches and files hold them."""
        values: Tensor = self.values(letters.long() + self.first)
        return torch.as_tensor(self.map(values.flatten(1)))
