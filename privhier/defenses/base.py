"""The defense contract: one per-sample scalar loss for the edge and everything on it, one backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from privhier.config import Choice, Section
from privhier.config.choices import build
from privhier.config.contracts import faults_of_class
from privhier.models.edge import EdgeSegment
from privhier.registry import Registry

UNKNOWN_LABEL = -1


@dataclass(frozen=True)
class DefenseBatch:
    """What a defense sees of one batch of B records.

    Attributes:
        z: float32 ``(B, *release_shape)``, what the exits see: clipped and noised by the training loop,
            still in the graph of the edge.
        task_labels: int64 ``(B,)`` per task attribute in order; -1 where not known.
        sensitive_labels: int64 ``(B,)`` per sensitive attribute in order; -1 where not known.
        edge: The edge segment whose exits are used.
        strength: Share of the defense's weight that applies, in [0, 1]: below 1 while it is warmed up
            (``edge.warmup_epochs``). A term against the secret is multiplied by it.
    """

    z: Tensor
    task_labels: Sequence[Tensor]
    sensitive_labels: Sequence[Tensor]
    edge: EdgeSegment
    strength: float = 1.0


class DefenseOptions(Section):
    """Options of a defense: strictly typed, unknown keys forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AdversarialOptions(DefenseOptions):
    """Options of the defenses that work against the adversarial exits."""

    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of the defense term against the task loss (sum over task attributes of cross-entropy)."""
    adversary_steps: int = Field(0, ge=0)
    """Extra steps of the adversarial exits alone before each step of the edge."""


class Defense(nn.Module, ABC):
    """What shapes the edge's objective.

    A defense's own parameters, if it has any, are this module's parameters: the training loop puts them
    into the edge's optimizer. ``repr`` names the defense and its options.

    Args:
        options: Validated options, an instance of the class's ``Options``; None: its defaults.

    Attributes:
        Options: Its options; none unless the class names others.
        mixes_records: Whether a record's loss depends on the other records of its batch, as distance
            correlation, HSIC or MMD do. Legal without ``edge.dp_sgd``, refused with it: its guarantee is
            about what one record does to a step.
    """

    Options: ClassVar[type[DefenseOptions]] = DefenseOptions
    mixes_records: ClassVar[bool] = False

    def __init__(self, options: DefenseOptions | None = None) -> None:
        super().__init__()
        self.options = self.Options() if options is None else options

    @property
    def adversary_steps(self) -> int:
        """Extra adversary-only steps the training loop takes before each step of the edge."""
        return int(getattr(self.options, "adversary_steps", 0))

    def attach(self, edge: EdgeSegment) -> None:
        """Called once, before Opacus puts its hooks on the edge: copy here what must stay outside them."""

    @abstractmethod
    def loss(self, batch: DefenseBatch) -> Tensor:
        """One loss per record, ``(B,)``: task exits, adversarial exits and defense term together.

        The mean over the batch, and one backward, trains everything on the edge. A record contributes
        nothing to an attribute whose label it lacks. Where records mix, each has its share of the batch's
        loss: the mean of the shares is what is minimized.
        """

    def adversary_loss(self, z: Tensor, batch: DefenseBatch) -> Tensor:
        """Loss ``(B,)`` of the adversarial exits on detached ``z``, for the extra adversary-only steps.

        It reaches no parameter but theirs.
        """
        return classification_loss(batch.edge.adversary_logits(z.detach()), batch.sensitive_labels)

    def forward(self, batch: DefenseBatch) -> Tensor:
        """Same as ``loss``."""
        return self.loss(batch)

    def __repr__(self) -> str:
        options = ", ".join(f"{key}={value!r}" for key, value in self.options.model_dump().items())
        return f"{type(self).__name__}({options})"


def _faults(entry: Any) -> Iterator[str]:
    yield from faults_of_class(entry, Defense)
    options = getattr(entry, "Options", None)
    if not (isinstance(options, type) and issubclass(options, DefenseOptions)):
        yield "it lacks Options: ClassVar[type[DefenseOptions]], a subclass of DefenseOptions"


defenses: Registry[type[Defense]] = Registry(
    "defenses", key="defense.name", builtin="privhier.defenses.builtin", check=_faults
)


def classification_loss(logits: Sequence[Tensor], labels: Sequence[Tensor]) -> Tensor:
    """Cross-entropy in nats per record, summed over attributes: ``(B,)``; unknown labels count 0.

    Args:
        logits: ``(B, K)`` per attribute.
        labels: int64 ``(B,)`` per attribute, in [0, K) or -1.
    """
    losses = [
        F.cross_entropy(logits_bk, labels_b, reduction="none", ignore_index=UNKNOWN_LABEL)
        for logits_bk, labels_b in zip(logits, labels, strict=True)
    ]
    return torch.stack(losses).sum(0)


def task_loss_per_record(batch: DefenseBatch) -> Tensor:
    """Cross-entropy of the task exits per record, summed over task attributes: ``(B,)``."""
    return classification_loss(batch.edge.task_logits(batch.z), batch.task_labels)


def build_defense(choice: Choice) -> Defense:
    """The defense ``choice.name`` with validated options.

    Raises:
        UnknownNameError: No such defense; the message names the nearest.
        ConfigError: An option that is unknown, of the wrong type or out of range, under the key
            ``defense.options.NAME``.
    """
    return build(defenses, choice)
