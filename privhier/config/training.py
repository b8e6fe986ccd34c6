"""Schedule, optimizers, augmentation."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from privhier.config.base import Section


class ScheduleConfig(Section):
    """Three numbers describe every regime (edge alone; both at once; edge frozen, released once)."""

    pretrain_epochs: int = Field(0, ge=0)
    joint_epochs: int = Field(0, ge=0)
    cloud_epochs: int = Field(0, ge=0)

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
    lr: float = Field(2e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    schedule: Literal["cosine", "constant"] = "cosine"


class AugmentConfig(Section):
    """Augmentation of whole batches on the edge."""

    flip: bool = True
    shift: int = Field(2, ge=0)
    """Random translation of at most this many pixels."""


class TrainingConfig(Section):
    """How edge and cloud are trained."""

    batch_size: int = Field(128, ge=1)
    edge: OptimizerConfig = OptimizerConfig()
    cloud: OptimizerConfig = OptimizerConfig()
    augment: AugmentConfig = AugmentConfig()
