"""Maximum entropy (Roy and Boddeti, 2019): the edge makes the adversarial exits say "any class"."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from privhier.defenses.base import (
    UNKNOWN_LABEL,
    AdversarialOptions,
    Defense,
    DefenseBatch,
    DefenseOptions,
    defenses,
    task_loss_per_record,
)
from privhier.models.edge import EdgeSegment


@defenses.register("max_entropy")
class MaxEntropy(Defense):
    """The edge minimizes ``weight * KL(uniform || p)`` of each adversarial exit's prediction p.

    The divergence from uniform, not the negative entropy: its gradient does not vanish where the
    adversary is certain. It passes through the exit's current parameters held constant, so the exit
    itself only learns to predict, from detached features, in the same backward.
    """

    Options: ClassVar[type[DefenseOptions]] = AdversarialOptions
    options: AdversarialOptions

    _twins: tuple[nn.Module, ...] = ()

    def attach(self, edge: EdgeSegment) -> None:
        """Copies of the exits for the divergence: a hooked exit may be passed through only once a step.

        They lend their layers only; the parameters are the exits' own, held constant.
        """
        self._twins = tuple(copy.deepcopy(head).requires_grad_(False) for head in edge.adversarial_exits)

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task cross-entropy, adversaries' cross-entropy and weighted divergence: ``(B,)``."""
        divergences = []
        heads = batch.edge.adversarial_exits
        twins = self._twins or heads
        for head, twin, labels in zip(heads, twins, batch.sensitive_labels, strict=True):
            frozen = {name: parameter.detach() for name, parameter in head.named_parameters()}
            divergence = kl_from_uniform(functional_call(twin, frozen, (batch.z,)))
            divergences.append(divergence * (labels != UNKNOWN_LABEL))
        confusion = torch.stack(divergences).sum(0)
        learning = self.adversary_loss(batch.z, batch)
        weight = self.options.weight * batch.strength
        return task_loss_per_record(batch) + learning + weight * confusion


def kl_from_uniform(logits: Tensor) -> Tensor:
    """``KL(uniform || softmax(logits))`` in nats: ``(B, K)`` to ``(B,)``, at least 0, 0 where uniform."""
    return -F.log_softmax(logits, dim=1).mean(1) - math.log(logits.shape[1])
