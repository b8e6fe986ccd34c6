"""Conditional entropy bottleneck (Fischer, 2020): releases that say no more than their task labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from sklearn.metrics import mutual_info_score
from torch import Tensor, nn

from privhier.defenses.base import (
    UNKNOWN_LABEL,
    DefenseBatch,
    defenses,
    task_loss_per_record,
)
from privhier.defenses.nats import SAID, GaussianBottleneck, nats, shown
from privhier.defenses.task_cells import task_cells
from privhier.models.edge import EdgeSegment


@defenses.register("ceb")
class ConditionalEntropyBottleneck(GaussianBottleneck):
    r"""The edge pays for what its release says of a record beyond the task labels, in nats.

    :math:`\beta \lVert f_i - m_{y_i} \rVert^2 / (2 \sigma^2)` is added to the task's cross-entropy, where f
    are the clipped features, sigma the noise of the release and m a mean of its own for each class, trained
    as well; of several tasks a record's mean is the sum of one each. No secret is named: whatever the task
    does not need has its price. For one release and any secret S then holds, in nats,

    .. math:: I(Z; S) \le I(Y; S) + \mathbb{E} \lVert f - m_Y \rVert^2 / (2 \sigma^2)

    whatever m is: Z says of S at most what Y says and what Z says of the image given Y.
    """

    means: nn.ParameterList

    @property
    def has_parameters(self) -> bool:
        """See ``Defense``: the means, from ``attach`` on."""
        return True

    def attach(self, edge: EdgeSegment) -> None:
        """Make the means: one for each class of each task, at 0."""
        width, device = math.prod(edge.feature_shape), next(edge.parameters()).device
        self.means = nn.ParameterList(
            nn.Parameter(torch.zeros(head.n_classes, width, device=device)) for head in edge.task_heads
        )

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task and adversaries' cross-entropy, and the price of what else is said: ``(B,)``.

        A record that lacks a task label says nothing that has a price.
        """
        assert batch.clipped is not None
        beyond = nats(batch.clipped, self._centers(batch.task_labels), self.sigma_of(batch))
        price = self.options.weight * batch.strength * beyond * task_cells(batch.task_labels)[1]
        return task_loss_per_record(batch) + self.adversary_loss(batch.z, batch) + price

    def report(self, batch: DefenseBatch) -> dict[str, Any]:
        """The bound of every secret in nats, estimated on these records; nothing without Gaussian noise."""
        assert batch.clipped is not None
        if not batch.sigma:
            return {}
        bounds = self.bound(batch.clipped, batch.task_labels, batch.sensitive_labels, batch.sigma)
        names = batch.edge.sensitive_names
        found = {name: shown(value) for name, value in zip(names, bounds, strict=True) if value is not None}
        return {SAID.format(""): found} if found else {}

    def bound(
        self,
        clipped: Tensor,
        task_labels: Sequence[Tensor],
        sensitive_labels: Sequence[Tensor],
        sigma: float,
    ) -> list[float | None]:
        """What one release says of each secret at most, in nats: I(Y; S) and the mean of ``nats``.

        Both parts are means over these records, and hold for the distribution they are drawn from as far as
        these do; unlike a certificate they come without a confidence.

        Args:
            clipped: Clipped features ``(n, *feature_shape)``.
            task_labels: int64 ``(n,)`` per task; records that lack one are left out.
            sensitive_labels: int64 ``(n,)`` per secret; records that lack one are left out of its bound.
            sigma: Standard deviation of the release's noise, above 0.

        Returns:
            A bound for each secret; None where no record has all labels.
        """
        beyond = nats(clipped, self._centers(task_labels), sigma).detach().double()
        cells, complete = task_cells(task_labels)
        bounds: list[float | None] = []
        for secret in sensitive_labels:
            rows = complete & (secret != UNKNOWN_LABEL)
            told = [column[rows].cpu().numpy() for column in (cells, secret)]
            bounds.append(float(mutual_info_score(*told) + beyond[rows].mean()) if rows.any() else None)
        return bounds

    def _centers(self, task_labels: Sequence[Tensor]) -> Tensor:
        """The mean of every record, ``(B, d)``; of an unknown label any."""
        parts = [means[labels.clamp_min(0)] for means, labels in zip(self.means, task_labels, strict=True)]
        return torch.stack(parts).sum(dim=0)
