"""The split network: backbone, cut, bottleneck, exits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from privhier.config.base import Section


class BottleneckConfig(Section):
    """The optional layer before the release."""

    kind: Literal["none", "dimension", "channels"] = "none"
    size: int | None = Field(None, ge=1)
    """Values (``dimension``) or channels (``channels``) per record."""

    @model_validator(mode="after")
    def _size(self) -> BottleneckConfig:
        if (self.kind == "none") != (self.size is None):
            raise ValueError("size is given exactly when kind is not 'none'")
        return self


class ModelConfig(Section):
    """The split network."""

    backbone: str = "small_cnn"
    cut: str = "stage2"
    """Name of the last stage on the edge."""
    norm: Literal["group", "batch"] = "group"
    stem: Literal["small", "torchvision"] = "small"
    weights: str = "none"
    """``none``, or the path of a state dict of torchvision's own model (.pth or .safetensors)."""
    bottleneck: BottleneckConfig = BottleneckConfig()
    exit_hidden: int = Field(64, ge=0)
    """Hidden width of the task exit and the adversarial exits; 0: linear."""
