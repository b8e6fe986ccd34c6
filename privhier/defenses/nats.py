"""What is counted in nats: what a release says through its Gaussian noise, what an adversary wins."""

from __future__ import annotations

import math
from typing import ClassVar

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from privhier.defenses.base import UNKNOWN_LABEL, Defense, DefenseBatch, DefenseOptions, Need

SAID = "one release of the final edge says {}at most, in nats (a mean over validation records)"
"""Under which a bound stands in the result: an estimate of it, for one release, without a confidence."""


class BottleneckOptions(DefenseOptions):
    """Options of the bottlenecks that count nats through Gaussian noise."""

    weight: float = Field(0.1, ge=0, allow_inf_nan=False)
    """Beta: the price of a nat against the task loss."""
    sigma: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Standard deviation of the noise that nats are counted through while training; None: the release's own.
    To be given where the release has no Gaussian noise: then the term is a squared distance, and bounds
    nothing. The bound that is reported is of the release's own noise, whatever stands here."""


class GaussianBottleneck(Defense):
    """What the conditional bottleneck and the plain one share: nats counted through noise."""

    Options: ClassVar[type[DefenseOptions]] = BottleneckOptions
    options: BottleneckOptions
    needs: ClassVar[frozenset[Need]] = frozenset({"clipped"})

    @property
    def needs_noise(self) -> bool:
        """See ``Defense``."""
        return self.options.sigma is None

    def sigma_of(self, batch: DefenseBatch) -> float:
        """Standard deviation by which nats are counted."""
        return self.options.sigma or batch.sigma


def nats(features: Tensor, centers: Tensor | float, sigma: float) -> Tensor:
    r""":math:`\lVert f - m \rVert^2 / (2 \sigma^2)`, the divergence of two Gaussians of one noise: ``(B,)``.

    Args:
        features: Clipped features ``(B, *shape)``.
        centers: m, ``(B, d)`` or one number.
        sigma: Standard deviation of the noise on every value, above 0.
    """
    return (features.flatten(1) - centers).square().sum(dim=1) / (2 * sigma**2)


def shown(value: float) -> float:
    """A bound in nats as it is reported: rounded up, to four places."""
    return math.ceil(value * 1e4) / 1e4


def beyond_guessing(logits: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    r""":math:`\max(0, \log p_s - \log \pi_s)` in nats, ``(B,)``: 0 where guessing does as well, or unknown.

    Args:
        logits: ``(B, K)``.
        labels: int64 ``(B,)``, in [0, K) or -1.
        shares: ``(K,)``, summing to 1; a class that occurs nowhere counts as one of a million.
    """
    losses = F.cross_entropy(logits, labels, reduction="none", ignore_index=UNKNOWN_LABEL)
    guessed = -shares.clamp_min(1e-6).log()[labels.clamp_min(0)]
    return F.relu(guessed - losses) * (labels != UNKNOWN_LABEL)
