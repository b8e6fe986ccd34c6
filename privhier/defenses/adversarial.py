"""What defenses that work against several adversaries share: who they are, how they learn and start anew."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from privhier.defenses.adversaries import Panel, held_constant
from privhier.defenses.base import (
    UNKNOWN_LABEL,
    AdversarialOptions,
    Defense,
    DefenseBatch,
    DefenseData,
    DefenseOptions,
    classification_loss,
    task_loss_per_record,
)
from privhier.models.edge import EdgeSegment
from privhier.models.exits import Exit
from privhier.seeding import isolated_rng

Target = Literal["uniform", "prior"]
"""What somebody says of a secret who saw nothing: any class alike, or its share of the training records."""


class PanelOptions(AdversarialOptions):
    """Options of the defenses that may have adversaries of their own."""

    adversaries: int = Field(0, ge=0, le=16)
    """Adversaries of its own beside every adversarial exit: linear, MLP, CNN (on vectors a wider MLP) and
    random Fourier features in turn. The penalty is their mean, the exit among them."""
    restart_every: int = Field(0, ge=0)
    """Steps of the edge after which each of these is drawn anew, at staggered times; 0: never."""

    @model_validator(mode="after")
    def _somebody_restarts(self) -> Self:
        if self.restart_every and not self.adversaries:
            raise ValueError(
                "restart_every draws adversaries of its own anew, and adversaries=0 says that there are none"
            )
        return self


class AdversarialDefense(Defense):
    r"""The edge is penalized for what adversaries read, and these learn to read it.

    Per record, ``CE + sum_m CE(a_m(sg z), s) + weight * penalty``; the penalty passes through the adversaries
    held constant, so that nothing but the edge's trunk yields to it. Adversary 0 of a secret is its exit.
    """

    Options: ClassVar[type[DefenseOptions]] = PanelOptions
    options: PanelOptions
    steps: Tensor

    _twins: tuple[nn.Module, ...] = ()

    def __init__(self, options: DefenseOptions | None = None) -> None:
        super().__init__(options)
        self.panel: Panel | None = None
        self._seed = torch.initial_seed()  # of the generator that the caller has seeded; nothing is drawn

    @property
    def reads_data(self) -> bool:
        """Steps are counted where adversaries start anew."""
        return self.options.restart_every > 0

    @property
    def has_parameters(self) -> bool:
        """Whether it has adversaries of its own."""
        return self.options.adversaries > 0

    def attach(self, edge: EdgeSegment) -> None:
        """Its own adversaries, and copies of the exits: a hooked exit may be passed through once a step.

        The copies lend their layers only; the parameters are the exits' own, held constant.
        """
        self._twins = tuple(copy.deepcopy(head).requires_grad_(False) for head in edge.adversarial_exits)
        if self.options.adversaries:
            with isolated_rng(self._seed, "adversaries"):
                panel = Panel(self.options.adversaries, edge.feature_shape, classes_of(edge))
            self.panel = panel.to(device_of(edge))
        if self.options.restart_every:
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64, device=device_of(edge)))

    def adversaries(self) -> Iterator[nn.Parameter]:
        """Those of its own adversaries."""
        return iter(()) if self.panel is None else self.panel.parameters()

    def after_step(self, batch: DefenseBatch) -> None:
        """Count the step, and draw anew whose time has come."""
        if self.panel is not None and self.options.restart_every:
            self.steps += 1
            for number in self.panel.due(int(self.steps), self.options.restart_every):
                self.panel.restart(number)
                self.restarted(number)

    def restarted(self, number: int) -> None:
        """Called when one of its own adversaries was drawn anew."""

    def adversary_loss(self, z: Tensor, batch: DefenseBatch) -> Tensor:
        """Cross-entropy of the exits and of its own adversaries on detached ``z``: ``(B,)``."""
        losses = super().adversary_loss(z, batch)
        if self.panel is not None:
            for answers, labels in zip(self.panel(z.detach()), batch.sensitive_labels, strict=True):
                losses = losses + classification_loss(answers, [labels] * len(answers))
        return losses

    def held(self, batch: DefenseBatch) -> list[list[Tensor]]:
        """What each secret's adversaries, held constant, say of ``z``: logits ``(B, K)``, its exit first."""
        heads = batch.edge.adversarial_exits
        twins = self._twins or tuple(heads)
        own = [[] for _ in heads] if self.panel is None else self.panel.held(batch.z)
        return [
            [held_constant(twin, head, batch.z), *answers]
            for twin, head, answers in zip(twins, heads, own, strict=True)
        ]

    @abstractmethod
    def penalty(self, batch: DefenseBatch) -> Tensor:
        """What the edge is penalized for, ``(B,)``; 0 for a record without labels."""

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task cross-entropy, adversaries' cross-entropy and weighted penalty: ``(B,)``."""
        penalty = self.penalty(batch)
        learning = self.adversary_loss(batch.z, batch)
        weight = self.options.weight * batch.strength
        return task_loss_per_record(batch) + learning + weight * penalty


class Priors(nn.Module):
    """Class shares of every secret among the training records; uniform until ``read``.

    Args:
        edge: Whose adversarial exits say how many classes there are.
    """

    def __init__(self, edge: EdgeSegment) -> None:
        super().__init__()
        for number, classes in enumerate(classes_of(edge)):
            uniform = torch.full((classes,), 1 / classes, device=device_of(edge))
            self.register_buffer(f"of_{number}", uniform)

    def read(self, data: DefenseData) -> None:
        """Take the shares over from the labels that are known."""
        for number, (labels, classes) in enumerate(
            zip(data.sensitive_labels, data.sensitive_classes, strict=True)
        ):
            self.get_buffer(f"of_{number}").copy_(class_shares(labels, classes))

    def forward(self, number: int) -> Tensor:
        """Shares ``(K,)`` of a secret's classes."""
        return self.get_buffer(f"of_{number}")


def class_shares(labels: Tensor, classes: int) -> Tensor:
    """Shares of the classes among the known labels, float32 ``(classes,)``; alike where none is known."""
    known = labels[labels != UNKNOWN_LABEL]
    if not len(known):
        return torch.full((classes,), 1 / classes)
    return torch.bincount(known, minlength=classes).float() / len(known)


def mean_over_adversaries(terms: Sequence[Tensor]) -> Tensor:
    """The mean of one term ``(B,)`` an adversary."""
    return terms[0] if len(terms) == 1 else torch.stack(list(terms)).mean(0)


def classes_of(edge: EdgeSegment) -> list[int]:
    """Number of classes of every secret."""
    return [head.n_classes for head in edge.adversarial_exits if isinstance(head, Exit)]


def device_of(edge: EdgeSegment) -> torch.device:
    """Where the edge is."""
    return next(edge.parameters()).device
