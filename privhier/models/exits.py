"""Early exits on the edge: a small classifier on what is released."""

from __future__ import annotations

import math

from torch import Tensor, nn

from privhier.models.norms import group_norm

POOLED_SIDE = 4


class Exit(nn.Module):
    """Classify a release: ``(B, *release_shape)`` float32 to logits ``(B, n_classes)``.

    Vectors: linear, ReLU, linear. Maps: 3x3 convolution (stride 2 on maps of 8x8 and more), GroupNorm,
    ReLU, averaging to at most 4x4, linear. ``hidden = 0``: linear on the vector or the averaged map.

    Args:
        release_shape: ``(d,)`` or ``(C, h, w)``.
        n_classes: At least 2.
        hidden: Hidden units or channels.
    """

    def __init__(self, release_shape: tuple[int, ...], n_classes: int, hidden: int) -> None:
        super().__init__()
        if n_classes < 2:
            raise ValueError(f"an exit needs at least two classes, got {n_classes}")
        self.n_classes = n_classes
        layers: list[nn.Module] = []
        if len(release_shape) == 1:
            width = release_shape[0]
            if hidden:
                layers += [nn.Linear(width, hidden), nn.ReLU()]
                width = hidden
        else:
            channels, height, map_width = release_shape
            if hidden:
                stride = 2 if min(height, map_width) >= 8 else 1
                layers += [
                    nn.Conv2d(channels, hidden, 3, stride=stride, padding=1),
                    group_norm(hidden),
                    nn.ReLU(),
                ]
                channels, height, map_width = hidden, -(-height // stride), -(-map_width // stride)
            kernel = math.ceil(max(height, map_width) / POOLED_SIDE)
            if kernel > 1:
                layers.append(nn.AvgPool2d(kernel, ceil_mode=True, count_include_pad=False))
            layers.append(nn.Flatten())
            width = channels * math.ceil(height / kernel) * math.ceil(map_width / kernel)
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_classes))

    def forward(self, z: Tensor) -> Tensor:
        """Logits ``(B, n_classes)`` of releases ``(B, *release_shape)``."""
        return self.layers(z)  # type: ignore[no-any-return]
