"""ResNet-18 and ResNet-50 (He et al., 2016), built from torchvision's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torchvision
from torch import nn

from privhier.models.norms import group_norm
from privhier.models.staged import Blueprint, Norm, Stem, backbones


def _resnet(builder: Callable[..., Any], *, n_outputs: int, norm: Norm, stem: Stem) -> Blueprint:
    """``small`` stem: a 3x3 convolution of stride 2 and no max-pooling, for images of 32 to 96 pixels."""
    model = builder(weights=None, num_classes=n_outputs, norm_layer=group_norm if norm == "group" else None)
    if stem == "small":
        model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    stages = {"stem": nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)}
    stages |= {name: getattr(model, name) for name in ("layer1", "layer2", "layer3", "layer4")}
    head = nn.Sequential(model.avgpool, nn.Flatten(), model.fc)
    return Blueprint(stages=stages, head=head, source=model, head_prefixes=("fc.",))


@backbones.register("resnet18")
def resnet18(*, n_outputs: int, norm: Norm, stem: Stem) -> Blueprint:
    """Stages ``stem``, ``layer1`` to ``layer4``; 11 million parameters."""
    return _resnet(torchvision.models.resnet18, n_outputs=n_outputs, norm=norm, stem=stem)


@backbones.register("resnet50")
def resnet50(*, n_outputs: int, norm: Norm, stem: Stem) -> Blueprint:
    """Stages ``stem``, ``layer1`` to ``layer4``; 24 million parameters."""
    return _resnet(torchvision.models.resnet50, n_outputs=n_outputs, norm=norm, stem=stem)
