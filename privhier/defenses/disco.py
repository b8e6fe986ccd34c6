"""DISCO (Singh and others, 2021): a small network chooses, record by record, which channels go up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from privhier.defenses.base import (
    UNKNOWN_LABEL,
    AdversarialOptions,
    Defense,
    DefenseBatch,
    DefenseOptions,
    Need,
    classification_loss,
    defenses,
    task_loss_per_record,
)
from privhier.errors import ConfigError


class DiscoOptions(AdversarialOptions):
    """Options of channel pruning."""

    keep: float = Field(0.5, gt=0, lt=1)
    """Share of the channels that every record keeps; at least one is kept."""
    hidden: int = Field(16, ge=1)
    """Hidden units of the network that scores channels."""


class ChannelPruner(nn.Module):
    """Keeps the channels of each record that score highest, and sets the others to 0.

    Scores come from the record's mean and mean size in every channel, through linear, ReLU, linear; their
    gradient passes the choice straight through, as that of a sigmoid around the threshold.

    Args:
        channels: C, at least 2.
        keep: How many of them every record keeps, in [1, C).
        hidden: Hidden units.
    """

    def __init__(self, channels: int, keep: int, hidden: int) -> None:
        super().__init__()
        self.keep = keep
        self.scorer = nn.Sequential(nn.Linear(2 * channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def mask(self, x: Tensor) -> Tensor:
        """``(B, C)`` of zeros and ones, ``keep`` ones a record."""
        scores = self.scorer(torch.cat([x.mean(dim=(2, 3)), x.abs().mean(dim=(2, 3))], dim=1))
        ordered, order = scores.detach().sort(dim=1, descending=True, stable=True)
        threshold = ordered[:, self.keep - 1 : self.keep + 1].mean(dim=1, keepdim=True)
        soft = torch.sigmoid(scores - threshold)
        hard = torch.zeros_like(soft).scatter(1, order[:, : self.keep], 1.0)
        return hard + (soft - soft.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, C, h, w)`` to the same with channels set to 0."""
        return x * self.mask(x)[:, :, None, None]


@defenses.register("disco")
class Disco(Defense):
    r"""A network scores the channels of each record; those that score lowest are set to 0 before the clip.

    The edge itself, scorer included, descends the task loss; the scorer alone also descends ``weight`` times

    .. math:: \sum_k \max(0,\ \log K_k - \mathrm{CE}(a_k(z), s_k)),

    what the adversarial exits a gain over guessing among K classes: features are learned for the task, and
    what is pruned is chosen against the secret, as in Singh and others (2021, "DISCO: dynamic and invariant
    sensitive channel obfuscation"), whose features never see the adversary's gradient either. Their
    adversary's loss is unbounded: a scorer can win it by making the adversary certain of the wrong class,
    which a fresh one reads as well as the right one. Here nothing is won beyond guessing among K classes
    alike: of an unbalanced secret that is less than who knows the shares alone would say, as with the target
    ``uniform`` of ``max_entropy``. The exits themselves only learn to predict, from detached features.

    Pruning is there from the first step: this outlet is never the identity, but its mask is all it changes.
    Which channels are 0 is a part of the release and may itself follow the secret; only noise covers it.

    Args:
        options: See ``DiscoOptions``.
    """

    Options: ClassVar[type[DefenseOptions]] = DiscoOptions
    options: DiscoOptions
    needs: ClassVar[frozenset[Need]] = frozenset({"map"})

    @property
    def has_parameters(self) -> bool:
        """The scorer, in the outlet."""
        return True

    def outlet(self, feature_shape: Sequence[int]) -> ChannelPruner:
        """The pruner.

        Raises:
            ConfigError: Every channel would be kept.
        """
        channels = feature_shape[0]
        keep = max(1, round(self.options.keep * channels))
        if keep == channels:
            raise ConfigError(
                key="defense.options.keep",
                value=self.options.keep,
                rule=f"keeps {keep} of {channels} channels, all there are, and hides nothing",
                remedy="Lower defense.options.keep, or release more channels (model.bottleneck)",
            )
        return ChannelPruner(channels, keep, self.options.hidden)

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task cross-entropy, the adversarial exits' own, and what they gain over guessing: ``(B,)``."""
        learning = task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)
        term = self.options.weight * batch.strength * gain_over_guessing(batch)
        return learning + term.detach() + _on(list(batch.edge.outlet.parameters()), term)


def gain_over_guessing(batch: DefenseBatch) -> Tensor:
    """``sum_k max(0, log K - CE_k)`` in nats of the exits: ``(B,)``, at least 0, unknown labels 0."""
    gains = []
    for logits, labels in zip(batch.edge.adversary_logits(batch.z), batch.sensitive_labels, strict=True):
        gain = math.log(logits.shape[1]) - classification_loss([logits], [labels])
        gains.append(gain.clamp_min(0) * (labels != UNKNOWN_LABEL))
    return torch.stack(gains).sum(0)


def _on(parameters: Sequence[nn.Parameter], term: Tensor) -> Tensor:
    """0, whose gradient is that of the mean of ``term (B,)`` with respect to these parameters alone."""
    if not (parameters and term.requires_grad):
        return term.new_zeros(())
    gradients = torch.autograd.grad(term.mean(), parameters, retain_graph=True, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    steered = torch.stack([(p * g).sum() for p, g in pairs if g is not None] or [term.new_zeros(())]).sum()
    return steered - steered.detach()
