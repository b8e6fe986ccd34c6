"""Learned gains before the clip: the noise a release gets anyway falls where the task does not look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from privhier.defenses.base import (
    Defense,
    DefenseBatch,
    DefenseOptions,
    Need,
    defenses,
    task_loss_per_record,
)

_TINY = 1e-12


class GainOptions(DefenseOptions):
    """Options of the gains."""

    weight: float = Field(0.3, ge=0, allow_inf_nan=False)
    """Weight of the share of the norm against the task loss; at 0 the task alone sets the gains."""


class Gain(nn.Module):
    """``f -> e^g * f``, one learned gain for every value of a release; the identity at first, g = 0.

    Args:
        shape: ``(d,)`` or ``(C, h, w)``.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(*shape))

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, *shape)`` to the same."""
        return self.log_gain.exp() * x


@defenses.register("gain")
class Gains(Defense):
    r"""The edge learns how much of the norm bound every released value may use.

    Features pass :math:`f \mapsto e^g f` before the clip to norm C; the release adds the same noise as ever,
    so that noise relative to signal is shaped per channel and position at no cost in epsilon. Beside the task
    loss stands ``weight`` times

    .. math:: \frac{\lVert c \rVert_1}{\sqrt{d}\,\lVert c \rVert_2} \in (0, 1]

    of the d clipped values c of each record: 1 where all share the norm alike, :math:`d^{-1/2}` where one has
    it all. Whatever the task does not need loses its share, and drowns in noise.

    After Cloak (Mireshghallah and others, 2021, "Not all features are equal") and Shredder (Mireshghallah and
    others, 2020), which learn noise for every value of a frozen network and reward :math:`\log \sigma_j`.
    Under a norm bound and noise of one size that reward, :math:`-\sum_j g_j`, would be empty: an edge that is
    still trained makes up for a common gain, and the clip takes it out. The share of the norm knows no common
    factor. It acts through the whole edge, as well as on g. It is about features, not labels: every record
    has its term.

    What arrives has other proportions than what the bottleneck made, so the cloud's tail begins with a linear
    layer that restores them: of a vector of values the expander's own, which is a full one; of a map
    ``models.matched_filter`` (``model.matched_filter``), which a cloud in a process of its own is told of.

    Args:
        options: See ``GainOptions``.
    """

    Options: ClassVar[type[DefenseOptions]] = GainOptions
    options: GainOptions
    needs: ClassVar[frozenset[Need]] = frozenset({"clipped", "values"})

    @property
    def has_parameters(self) -> bool:
        """The gains, in the outlet."""
        return True

    def outlet(self, feature_shape: Sequence[int]) -> Gain:
        """The gains."""
        return Gain(feature_shape)

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task cross-entropy, the adversarial exits' own, and the weighted share of the norm: ``(B,)``."""
        assert batch.clipped is not None
        weight = self.options.weight * batch.strength
        learning = task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)
        return learning + weight * share_of_norm(batch.clipped)


def share_of_norm(values: Tensor) -> Tensor:
    """``|c|_1 / (sqrt(d) |c|_2)`` of ``(B, ...)``, d values a record: ``(B,)`` in [0, 1]; 0 where all are 0.

    Example:
        >>> share_of_norm(torch.tensor([[1.0, -1, 1, 1], [0, 3, 0, 0], [0, 0, 0, 0]]))
        tensor([1.0000, 0.5000, 0.0000])
    """
    flat = values.flatten(1)
    norm = (flat.square().sum(dim=1) + _TINY).sqrt()
    return flat.abs().sum(dim=1) / (math.sqrt(flat.shape[1]) * norm)
