"""A small convolutional network for two cores."""

from __future__ import annotations

from torch import nn

from privhier.models.norms import group_norm
from privhier.models.staged import Blueprint, Norm, Stem, backbones

CHANNELS = (24, 32, 48, 64)


def _stage(inputs: int, outputs: int, norm: Norm) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels, stride in ((inputs, 2), (outputs, 1)):
        layers += [
            nn.Conv2d(channels, outputs, 3, stride=stride, padding=1, bias=False),
            group_norm(outputs) if norm == "group" else nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


@backbones.register("small_cnn")
def small_cnn(*, n_outputs: int, norm: Norm, stem: Stem) -> Blueprint:
    """Stages ``stage1`` to ``stage4`` of 24, 32, 48 and 64 channels; 122 thousand parameters.

    Each stage is two 3x3 convolutions, the first of stride 2: 48-pixel images give 24x24, 12x12, 6x6 and
    3x3 maps. The head is global average pooling and one linear layer. Both stems are the same network.
    """
    stages = {}
    inputs = 3
    for index, outputs in enumerate(CHANNELS, start=1):
        stages[f"stage{index}"] = _stage(inputs, outputs, norm)
        inputs = outputs
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, n_outputs))
    return Blueprint(stages=stages, head=head)
