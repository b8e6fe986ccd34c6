"""Alternating min-max (Edwards and Storkey, 2016), bounded: adversaries learn, then the edge answers."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from privhier.defenses.adversarial import (
    AdversarialDefense,
    PanelOptions,
    Priors,
    Target,
    mean_over_adversaries,
)
from privhier.defenses.base import DefenseBatch, DefenseData, DefenseOptions, defenses
from privhier.defenses.nats import beyond_guessing
from privhier.models.edge import EdgeSegment


class MinMaxOptions(PanelOptions):
    """Options of alternating min-max."""

    adversary_steps: int = Field(1, ge=1)
    """Steps of the adversaries alone before each step of the edge, beside the one they take with it."""
    target: Target = "prior"
    """Whose guess an adversary must not beat: of one who knows the class shares, or not even these."""


@defenses.register("min_max")
class MinMax(AdversarialDefense):
    r"""The edge climbs the loss of its adversaries, held constant, up to guessing; they take k steps down it.

    Per record, with M adversaries a secret (its exit and ``adversaries`` more), summed over the secrets,

    .. math:: CE + \sum_m CE(a_m(\mathrm{sg}\, z), s)
        - \frac{\lambda}{M} \sum_m \min\{CE(\bar a_m(z), s) + \log \pi_s,\, 0\},

    where :math:`\bar a` is an adversary held constant and pi the ``target``: the penalty is what an adversary
    says of the true class beyond its share, :math:`\max(0, \log p_s / \pi_s)`, at least 0.

    Bounded, because an edge that may raise the loss further makes its adversaries confidently wrong, and who
    is wrong always tells as much as who is right: a fresh attacker swaps the classes. That to minimize an
    adversary's likelihood is no suppression is Roy and Boddeti's point (2019); the bound, of a mean there, is
    in MaSS (Chen and others, 2024). Here it holds for every record.
    """

    Options: ClassVar[type[DefenseOptions]] = MinMaxOptions
    options: MinMaxOptions

    @property
    def reads_data(self) -> bool:
        """Class shares, and the steps between restarts."""
        return self.options.target == "prior" or super().reads_data

    def attach(self, edge: EdgeSegment) -> None:
        """Its adversaries, copies of the exits, and the class shares, uniform until they are read."""
        super().attach(edge)
        self.priors = Priors(edge)

    def begin(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Read the class shares."""
        if self.options.target == "prior":
            self.priors.read(data)

    def penalty(self, batch: DefenseBatch) -> Tensor:
        """What the adversaries know of the true classes beyond guessing, in nats: ``(B,)``, at least 0."""
        excess = []
        for number, (answers, labels) in enumerate(
            zip(self.held(batch), batch.sensitive_labels, strict=True)
        ):
            shares = self.priors(number)
            excess.append(
                mean_over_adversaries([beyond_guessing(logits, labels, shares) for logits in answers])
            )
        return torch.stack(excess).sum(0)
