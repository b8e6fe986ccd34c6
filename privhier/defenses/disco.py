"""DISCO (Singh and others, 2021): a small network chooses, record by record, which channels go up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from privhier.defenses.adversarial import Priors
from privhier.defenses.base import (
    AdversarialOptions,
    Defense,
    DefenseBatch,
    DefenseData,
    DefenseOptions,
    Need,
    defenses,
    task_loss_per_record,
)
from privhier.defenses.nats import beyond_guessing
from privhier.errors import ConfigError
from privhier.models.edge import EdgeSegment


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

    .. math:: \sum_k \max(0,\ -\log \pi_{s_k} - \mathrm{CE}(a_k(z), s_k)),

    what the adversarial exits a gain, in nats, over who knows nothing but the classes' shares pi among the
    training records: features are learned for the task, and what is pruned is chosen against the secret, as
    in Singh and others (2021, "DISCO: dynamic and invariant sensitive channel obfuscation"), whose features
    never see the adversary's gradient either. Their adversary's loss is unbounded: a scorer can win it by
    making the adversary certain of the wrong class, which a fresh one reads as well as the right one. Here
    nothing is won beyond the shares. (Beyond guessing among K classes alike, log K, the common class of an
    unbalanced secret would be punished where nothing leaks, and what leaks of a rare one would count as
    nothing.) The exits themselves only learn to predict, from detached features.

    Pruning is there from the first step: this outlet is never the identity, but its mask is all it changes.
    Which channels are 0 is a part of the release and may itself follow the secret; only noise covers it.

    Args:
        options: See ``DiscoOptions``.
    """

    Options: ClassVar[type[DefenseOptions]] = DiscoOptions
    options: DiscoOptions
    needs: ClassVar[frozenset[Need]] = frozenset({"map"})

    def __init__(self, options: DefenseOptions | None = None) -> None:
        super().__init__(options)
        # Of the secrets' classes: until `attach` makes room for them and `begin` reads them, all alike.
        self.shares: Priors | None = None

    @property
    def reads_data(self) -> bool:
        """The classes' shares."""
        return True

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

    def attach(self, edge: EdgeSegment) -> None:
        """Room for the shares."""
        self.shares = Priors(edge)

    def begin(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Read the shares off the training labels."""
        assert self.shares is not None
        self.shares.read(data)

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task cross-entropy, the adversarial exits' own, and what they gain over the shares: ``(B,)``."""
        learning = task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)
        term = self.options.weight * batch.strength * gain_over_shares(batch, self.shares)
        return learning + term.detach() + _on(list(batch.edge.outlet.parameters()), term)


def gain_over_shares(batch: DefenseBatch, shares: Priors | None) -> Tensor:
    """``sum_k max(0, -log pi(s_k) - CE_k)`` in nats of the exits: ``(B,)``, at least 0, unknown labels 0.

    Args:
        batch: Whose exits are asked.
        shares: Of the classes; None: all alike, so that it is ``log K`` of which the cross-entropy is taken.
    """
    gains = []
    for number, (logits, labels) in enumerate(
        zip(batch.edge.adversary_logits(batch.z), batch.sensitive_labels, strict=True)
    ):
        alike = logits.new_full((logits.shape[1],), 1 / logits.shape[1])
        gains.append(beyond_guessing(logits, labels, alike if shares is None else shares(number)))
    return torch.stack(gains).sum(0)


def _on(parameters: Sequence[nn.Parameter], term: Tensor) -> Tensor:
    """0, whose gradient is that of the mean of ``term (B,)`` with respect to these parameters alone."""
    if not (parameters and term.requires_grad):
        return term.new_zeros(())
    gradients = torch.autograd.grad(term.mean(), parameters, retain_graph=True, allow_unused=True)
    pairs = zip(parameters, gradients, strict=True)
    steered = torch.stack([(p * g).sum() for p, g in pairs if g is not None] or [term.new_zeros(())]).sum()
    return steered - steered.detach()
