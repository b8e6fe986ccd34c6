"""Distance correlation (Szekely, Rizzo and Bakirov, 2007): releases that do not follow a secret.

A defense as somebody else would write it, whose loss compares the records of a batch. Tests load it.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from privhier.defenses.base import (
    UNKNOWN_LABEL,
    Defense,
    DefenseBatch,
    DefenseOptions,
    defenses,
    task_loss_per_record,
)


class DistanceCorrelationOptions(DefenseOptions):
    """Options of the defense."""

    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of the squared distance correlation against the task loss."""


@defenses.register("comparing")
class DistanceCorrelation(Defense):
    """The edge lowers the distance correlation between its releases and every sensitive attribute."""

    Options = DistanceCorrelationOptions
    options: DistanceCorrelationOptions
    mixes_records = True

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task cross-entropy, the monitors' own, and every record's share of the correlations: ``(B,)``."""
        shares = [correlation_shares(batch.z, labels) for labels in batch.sensitive_labels]
        learning = self.adversary_loss(batch.z, batch)
        weight = self.options.weight * batch.strength
        return task_loss_per_record(batch) + learning + weight * torch.stack(shares).sum(0)


def correlation_shares(z: Tensor, labels: Tensor) -> Tensor:
    """Shares ``(B,)`` whose mean over the labelled records is their squared distance correlation, in [0, 1].

    Args:
        z: ``(B, *shape)``.
        labels: int64 ``(B,)``, classes that are 0 or 1 apart; -1 where not known: such a record's share is 0.
    """
    known = labels != UNKNOWN_LABEL
    shares = z.new_zeros(len(z))
    if int(known.sum()) < 2:
        return shares
    flat, classes = z[known].flatten(1), labels[known]
    a = _centered(torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist"))
    b = _centered((classes[:, None] != classes[None, :]).to(a.dtype))
    scale = ((a * a).mean() * (b * b).mean()).clamp_min(1e-12).sqrt()
    shares[known] = (a * b).mean(1) / scale
    return shares


def _centered(distances: Tensor) -> Tensor:
    """Double centering: every row and every column sums to 0."""
    rows, columns = distances.mean(1, keepdim=True), distances.mean(0, keepdim=True)
    return distances - rows - columns + distances.mean()
