"""Schedule, optimizers, augmentation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from privhier.config.base import Section


class ScheduleConfig(Section):
    """Three numbers describe every regime (edge alone; both at once; edge frozen, released once)."""

    pretrain_epochs: int = Field(0, ge=0)
    """Epochs of the edge alone, through its own exits; nothing goes up."""
    joint_epochs: int = Field(0, ge=0)
    """Epochs of both halves at once: every record is released anew in each."""
    cloud_epochs: int = Field(0, ge=0)
    """Epochs of the cloud's tail on one release of every record, with the edge frozen."""

    @property
    def releases_per_record(self) -> int:
        """Releases of one training record: one per joint epoch, one for all cloud epochs."""
        return self.joint_epochs + (1 if self.cloud_epochs else 0)

    @model_validator(mode="after")
    def _something_goes_up(self) -> ScheduleConfig:
        if self.releases_per_record == 0:
            raise ValueError("joint_epochs or cloud_epochs must be above 0: nothing would reach the cloud")
        return self


class OptimizerConfig(Section):
    """One optimizer and its learning-rate schedule over its own phase."""

    name: Literal["adam", "sgd"] = "adam"
    """The optimizer."""
    lr: float = Field(2e-3, gt=0)
    """Learning rate at the start of the phase."""
    weight_decay: float = Field(1e-4, ge=0)
    """L2 penalty, decoupled (AdamW) for ``adam``."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """Of ``sgd``; ``adam`` has its own."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate over the phase: half a cosine down to nothing, or constant."""


class AugmentConfig(Section):
    """Augmentation of whole batches on the edge."""

    flip: bool = True
    """Mirror half of the images, at random."""
    shift: int = Field(2, ge=0)
    """Random translation of at most this many pixels."""


class TrainingConfig(Section):
    """How edge and cloud are trained."""

    batch_size: int = Field(128, ge=1)
    """Records in a step, on both sides; under DP-SGD the expected number."""
    edge: OptimizerConfig = OptimizerConfig()
    """The edge's optimizer."""
    cloud: OptimizerConfig = OptimizerConfig()
    """The cloud's optimizer."""
    augment: AugmentConfig = AugmentConfig()
    """What is done to images of a batch."""
