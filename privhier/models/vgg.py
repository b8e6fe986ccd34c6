"""VGG-11 and VGG-16 with normalization (Simonyan and Zisserman, 2015), from torchvision's own layers.

The head is global average pooling and one linear layer. Torchvision's classifier (two hidden layers of
4,096 after 7x7 maps) has over 100 million parameters and expects 224-pixel images; faces of 48 to 112
pixels leave one to three pixels a side here. A torchvision weights file loads all but its classifier.
VGG's stem is 3x3 of stride 1 already, so both stems are the same network.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn
from torchvision.models.vgg import cfgs, make_layers

from privhier.models.norms import batch_norm_to_group_norm
from privhier.models.staged import Blueprint, Norm, Stem, backbones


def _vgg(layout: str, *, n_outputs: int, norm: Norm) -> Blueprint:
    features: nn.Sequential = make_layers(cfgs[layout], batch_norm=True)
    for module in features:
        if isinstance(module, nn.Conv2d):  # as torchvision initializes its VGG
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    if norm == "group":
        batch_norm_to_group_norm(features)
    stages: dict[str, nn.Module] = {}
    block: list[nn.Module] = []
    for module in features:
        block.append(module)
        if isinstance(module, nn.MaxPool2d):
            stages[f"block{len(stages) + 1}"] = nn.Sequential(*block)
            block = []
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, n_outputs))
    source = nn.Sequential(OrderedDict(features=features))
    return Blueprint(stages=stages, head=head, source=source, head_prefixes=("classifier.",))


@backbones.register("vgg11")
def vgg11(*, n_outputs: int, norm: Norm, stem: Stem) -> Blueprint:
    """Stages ``block1`` to ``block5``, each ending in 2x2 pooling; 9 million parameters."""
    return _vgg("A", n_outputs=n_outputs, norm=norm)


@backbones.register("vgg16")
def vgg16(*, n_outputs: int, norm: Norm, stem: Stem) -> Blueprint:
    """Stages ``block1`` to ``block5``, each ending in 2x2 pooling; 15 million parameters."""
    return _vgg("D", n_outputs=n_outputs, norm=norm)
