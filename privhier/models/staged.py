"""What a staged backbone is: named stages in order, plus a head; and the registry of its builders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from privhier.config.contracts import faults_of_call
from privhier.errors import ConfigError
from privhier.registry import Registry

Norm = Literal["group", "batch"]
Stem = Literal["small", "torchvision"]
FeatureShape = tuple[int, int, int]


@dataclass(frozen=True)
class Blueprint:
    """A freshly initialized backbone, still with the names its origin gives to its parameters.

    Attributes:
        stages: Stage name to module, in the order of the forward pass.
        head: ``(B, C, h, w)`` of the last stage to ``(B, n_outputs)``.
        source: The module whose state dict has torchvision's own keys and shares its parameters with
            ``stages`` and ``head``; None where torchvision has no such model.
        head_prefixes: Keys of torchvision's state dict that belong to the classifier and may be dropped.
    """

    stages: Mapping[str, nn.Module]
    head: nn.Module
    source: nn.Module | None = None
    head_prefixes: tuple[str, ...] = ()


class BackboneBuilder(Protocol):
    """Builds one backbone; draws its initial weights from torch's global generator."""

    def __call__(self, *, n_outputs: int, norm: Norm, stem: Stem) -> Blueprint:
        """Return a blueprint with ``n_outputs`` logits."""
        ...


def _faults(entry: Any) -> Iterator[str]:
    yield from faults_of_call(
        entry, "build(*, n_outputs, norm, stem), which gives a Blueprint", n_outputs="", norm="", stem=""
    )


backbones: Registry[BackboneBuilder] = Registry(
    "backbones", key="model.backbone", builtin="privhier.models.builtin", check=_faults
)


@dataclass(frozen=True)
class Provenance:
    """Where the initial weights came from.

    Attributes:
        path: The file as the configuration names it, or ``"none"`` (random initialization).
        sha256: Hexadecimal digest of the file; empty for ``"none"``.
        dropped: Keys of the file that were not loaded (the classifier of another class count).
    """

    path: str = "none"
    sha256: str = ""
    dropped: tuple[str, ...] = ()


class StagedBackbone(nn.Module):
    """Named stages and a head: images ``(B, 3, S, S)`` float32 to logits ``(B, n_outputs)``.

    Attributes:
        stages: Ordered ``nn.ModuleDict``, stage name to module.
        head: Pooling and classifier.
        feature_shapes: Stage name to the ``(C, h, w)`` of its output for one image of ``image_size``.
        provenance: Origin of the initial weights.
    """

    def __init__(
        self,
        stages: Mapping[str, nn.Module],
        head: nn.Module,
        *,
        image_size: int,
        provenance: Provenance = Provenance(),
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleDict(stages)
        self.head = head
        self.image_size = image_size
        self.provenance = provenance
        self.feature_shapes = feature_shapes(self.stages, image_size)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The cuts, from the image to the head."""
        return tuple(self.stages)

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images ``(B, 3, S, S)`` float32 to logits ``(B, n_outputs)``."""
        for stage in self.stages.values():
            x = stage(x)
        return self.head(x)  # type: ignore[no-any-return]


def feature_shapes(stages: nn.ModuleDict, image_size: int) -> dict[str, FeatureShape]:
    """Run one blank image through the stages and note the ``(C, h, w)`` after each.

    Leaves training flags and BatchNorm statistics as they were.

    Raises:
        ConfigError: ``dataset.image_size`` is too small: a stage would return an empty map.
    """
    shapes: dict[str, FeatureShape] = {}
    modes = [(module, module.training) for module in stages.modules()]
    stages.eval()
    x = torch.zeros(1, 3, image_size, image_size)
    try:
        with torch.no_grad():
            for name, stage in stages.items():
                if not _survives(stage, x):
                    raise ConfigError(
                        key="dataset.image_size",
                        value=image_size,
                        rule=f"is too small for this backbone: nothing is left of the image at {name!r}",
                        remedy="Use larger images, or a backbone or stem that reduces them less",
                    )
                x = stage(x)
                shapes[name] = (int(x.shape[1]), int(x.shape[2]), int(x.shape[3]))
    finally:
        for module, training in modes:
            module.training = training
    return shapes


def _survives(stage: nn.Module, x: Tensor) -> bool:
    # Only unpadded pooling can empty a map in these families; torch raises RuntimeError for it.
    pools: Sequence[nn.MaxPool2d] = [m for m in stage.modules() if isinstance(m, nn.MaxPool2d)]
    return min(x.shape[2:]) >= 2 or all(pool.padding for pool in pools)
