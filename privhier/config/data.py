"""Which faces, which attributes, which split."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from privhier.config.base import Scalar, Section
from privhier.config.expressions import Expressions


class SplitsConfig(Section):
    """Shares of the groups (or images, known people) that go to each split; they sum to 1."""

    train: float = Field(0.5, gt=0, lt=1)
    """Share that edge and cloud are trained on."""
    val: float = Field(0.1, gt=0, lt=1)
    """Share that the task is watched on while training."""
    aux: float = Field(0.2, gt=0, lt=1)
    """Share that attackers own with labels: theirs to train on."""
    test: float = Field(0.2, gt=0, lt=1)
    """Share that task and attackers are scored on."""

    @model_validator(mode="after")
    def _sum(self) -> SplitsConfig:
        total = self.train + self.val + self.aux + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + val + aux + test must sum to 1, they sum to {total:g}")
        return self


class DatasetConfig(Section):
    """Which faces, which attributes, which split."""

    name: str
    """A data set (``privhier list datasets``)."""
    root: str | None = None
    """Folder of the data set; default: the data set's folder under ``$PRIVHIER_DATA``."""
    cache: str | None = None
    """Folder of the decoded cache; default: ``$PRIVHIER_CACHE``, else ``~/.cache/privhier``."""
    image_size: int = Field(64, ge=16, le=512)
    """Height and width in pixels after decoding."""
    crop: Literal["none", "mtcnn"] = "none"
    """``mtcnn``: detect the face with facenet-pytorch's MTCNN before resizing."""
    limit: int | None = Field(None, ge=1)
    """Keep about this many images (whole groups, drawn with the seed); none: all."""
    min_images_per_identity: int = Field(1, ge=1)
    """Drop people with fewer images (data sets with identities)."""
    task: Expressions = Field(min_length=1)
    """Attribute expressions to be predicted, e.g. ``gender`` or ``bin(age, 20, 40, 60)``."""
    sensitive: Expressions = Field(min_length=1)
    """Attribute expressions to be hidden, e.g. ``race==0`` or ``identity``."""
    identity_protocol: Literal["unknown_people", "known_people"] = "unknown_people"
    """``unknown_people``: no person is in two splits. ``known_people``: every person's images are in all of
    them (identification; data sets with identities)."""
    splits: SplitsConfig = SplitsConfig()
    """Shares of the four splits."""
    options: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    """Options of the data set itself (see ``privhier list datasets``)."""

    @model_validator(mode="after")
    def _disjoint(self) -> DatasetConfig:
        names = [*self.task, *self.sensitive]
        if len(set(names)) < len(names):
            raise ValueError("an attribute expression may appear only once in task and sensitive")
        if "identity" in self.task:
            raise ValueError("identity can be sensitive, never a task")
        return self
