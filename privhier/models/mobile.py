"""MobileNetV3-small (Howard et al., 2019) and EfficientNet-B0 (Tan and Le, 2019), from torchvision's own.

Their stem is 3x3 of stride 2; the ``small`` stem takes stride 1, so that images of 32 to 96 pixels are
reduced 16 times and not 32 times. Dropout and stochastic depth are off: a forward pass draws no random
numbers, so the same seed and a resumed run give the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torchvision
from torch import nn

from privhier.models.norms import group_norm
from privhier.models.staged import Blueprint, Norm, Stem, backbones


def _blueprint(model: Any, groups: Mapping[str, slice], *, stem: Stem) -> Blueprint:
    if stem == "small":
        model.features[0][0].stride = (1, 1)
    stages = {name: nn.Sequential(*model.features[part]) for name, part in groups.items()}
    head = nn.Sequential(model.avgpool, nn.Flatten(), model.classifier)
    return Blueprint(stages=stages, head=head, source=model, head_prefixes=("classifier.",))


@backbones.register("mobilenet_v3_small")
def mobilenet_v3_small(*, n_outputs: int, norm: Norm, stem: Stem) -> Blueprint:
    """Stages ``stem``, ``stage1`` to ``stage4`` (one a resolution), ``top``; 1.5 million parameters."""
    model = torchvision.models.mobilenet_v3_small(
        weights=None,
        num_classes=n_outputs,
        dropout=0.0,
        norm_layer=group_norm if norm == "group" else None,
    )
    groups = {
        "stem": slice(0, 1),
        "stage1": slice(1, 2),
        "stage2": slice(2, 4),
        "stage3": slice(4, 9),
        "stage4": slice(9, 12),
        "top": slice(12, 13),
    }
    return _blueprint(model, groups, stem=stem)


@backbones.register("efficientnet_b0")
def efficientnet_b0(*, n_outputs: int, norm: Norm, stem: Stem) -> Blueprint:
    """Stages ``stem``, ``stage1`` to ``stage7`` (the paper's), ``top``; 4 million parameters."""
    model = torchvision.models.efficientnet_b0(
        weights=None,
        num_classes=n_outputs,
        dropout=0.0,
        stochastic_depth_prob=0.0,
        norm_layer=group_norm if norm == "group" else None,
    )
    names = ["stem", *(f"stage{index}" for index in range(1, 8)), "top"]
    return _blueprint(model, {name: slice(k, k + 1) for k, name in enumerate(names)}, stem=stem)
