"""From a name to a backbone with fresh weights or weights from a file."""

from __future__ import annotations

from privhier.models.norms import forbid_inplace
from privhier.models.pretrained import load_pretrained
from privhier.models.residuals import forbid_inplace_addition
from privhier.models.staged import (
    BackboneBuilder,
    Blueprint,
    Norm,
    Provenance,
    StagedBackbone,
    Stem,
    backbones,
)

__all__ = [
    "BackboneBuilder",
    "Blueprint",
    "Provenance",
    "StagedBackbone",
    "backbones",
    "build_backbone",
]


def build_backbone(
    name: str,
    *,
    n_outputs: int,
    image_size: int,
    norm: Norm = "group",
    stem: Stem = "small",
    weights: str = "none",
) -> StagedBackbone:
    """Build a backbone with fresh weights (drawn from torch's global generator) or weights from a file.

    Args:
        name: A registered backbone, e.g. ``"resnet18"``.
        n_outputs: Number of logits, the classes of all tasks together.
        image_size: Height and width of the images in pixels.
        norm: ``group`` for DP-SGD and small batches, ``batch`` for torchvision's weights.
        stem: ``small`` reduces small images less at the entrance; ``torchvision`` is the original.
        weights: ``"none"``, or the path of a state dict of torchvision's model (.pth or .safetensors).

    Raises:
        UnknownNameError: No such backbone; the message names the nearest.
        ConfigError: Images too small for the backbone, or weights that do not fit.
    """
    blueprint = backbones.get(name)(n_outputs=n_outputs, norm=norm, stem=stem)
    provenance = Provenance()
    if weights != "none":
        provenance = load_pretrained(blueprint, weights, norm=norm, stem=stem)
    backbone = StagedBackbone(blueprint.stages, blueprint.head, image_size=image_size, provenance=provenance)
    forbid_inplace(backbone)
    forbid_inplace_addition(backbone)
    return backbone
