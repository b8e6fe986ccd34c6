"""Maximum entropy (Roy and Boddeti, 2019): the edge makes its adversaries say "any class"."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from privhier.defenses.adversarial import (
    AdversarialDefense,
    PanelOptions,
    Priors,
    Target,
    mean_over_adversaries,
)
from privhier.defenses.base import UNKNOWN_LABEL, DefenseBatch, DefenseData, DefenseOptions, defenses
from privhier.models.edge import EdgeSegment


class MaxEntropyOptions(PanelOptions):
    """Options of maximum entropy."""

    target: Target = "uniform"
    """What the adversaries are to say: any class alike, or each as often as among the training records.
    ``uniform`` pushes an unbalanced secret across the boundary: who saw nothing says the majority."""


@defenses.register("max_entropy")
class MaxEntropy(AdversarialDefense):
    r"""The edge minimizes the divergence of its adversaries' predictions from those of one who saw nothing.

    Per record, with M adversaries a secret (its exit and ``adversaries`` more), summed over the secrets,

    .. math:: CE + \sum_m CE(a_m(\mathrm{sg}\, z), s)
        + \frac{\lambda}{M} \sum_m KL(\pi \,\|\, \mathrm{softmax}\, \bar a_m(z)),

    where :math:`\bar a` is an adversary held constant and pi the ``target``. The divergence from the target,
    not the negative entropy: its gradient does not vanish where the adversary is certain. The adversaries
    themselves only learn to predict, from detached features, in the same backward.
    """

    Options: ClassVar[type[DefenseOptions]] = MaxEntropyOptions
    options: MaxEntropyOptions

    @property
    def reads_data(self) -> bool:
        """Class shares, and the steps between restarts."""
        return self.options.target == "prior" or super().reads_data

    def attach(self, edge: EdgeSegment) -> None:
        """Its adversaries, copies of the exits, and room for the class shares."""
        super().attach(edge)
        if self.options.target == "prior":
            self.priors = Priors(edge)

    def begin(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Read the class shares."""
        if self.options.target == "prior":
            self.priors.read(data)

    def penalty(self, batch: DefenseBatch) -> Tensor:
        """The mean divergence of the adversaries from the target, summed over the secrets: ``(B,)``."""
        divergences = []
        for number, (answers, labels) in enumerate(
            zip(self.held(batch), batch.sensitive_labels, strict=True)
        ):
            if self.options.target == "prior":
                shares = self.priors(number)
                divergence = mean_over_adversaries([kl_from(shares, logits) for logits in answers])
            else:
                divergence = mean_over_adversaries([kl_from_uniform(logits) for logits in answers])
            divergences.append(divergence * (labels != UNKNOWN_LABEL))
        return torch.stack(divergences).sum(0)


def kl_from_uniform(logits: Tensor) -> Tensor:
    """``KL(uniform || softmax(logits))`` in nats: ``(B, K)`` to ``(B,)``, at least 0, 0 where uniform."""
    return -F.log_softmax(logits, dim=1).mean(1) - math.log(logits.shape[1])


def kl_from(shares: Tensor, logits: Tensor) -> Tensor:
    """``KL(shares || softmax(logits))`` in nats: ``(K,)``, summing to 1, and ``(B, K)`` to ``(B,)``."""
    divergence: Tensor = torch.special.xlogy(shares, shares).sum() - F.log_softmax(logits, dim=1) @ shares
    return divergence
