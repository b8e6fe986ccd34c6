"""Equal class means inside every task cell: what a secret moves beyond what the task labels already say."""

from __future__ import annotations

from typing import ClassVar

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
from privhier.defenses.task_cells import task_cells

_TINY = 1e-6
"""Spread below which a value of the features is not scaled up."""


class CellMeansOptions(DefenseOptions):
    """Options of the penalty on class means."""

    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of the penalty against the task loss."""
    begins: float = Field(0.5, ge=0, lt=1)
    """Share of the warm-up (``edge.warmup_epochs``) after which the penalty rises from nothing: before the
    task is learned it keeps the task from being learned, since task cells still lie where secrets do."""


@defenses.register("cell_means")
class CellMeans(Defense):
    r"""The edge pulls the means of a secret's classes together, within records of equal task labels.

    The penalty of a batch is the variance between classes inside task cells, over all records,
    :math:`\sum_{c} \sum_{a < b} \frac{n_{ca} n_{cb}}{n_c B} \lVert \mu_{ca} - \mu_{cb} \rVert^2`, of features
    scaled to unit spread (as constants), summed over the sensitive attributes. Each squared distance is
    estimated without bias, :math:`(\lVert S \rVert^2 - Q) / (n (n - 1))` for the square of a mean: the
    plug-in estimate is positive for equal means too, and drives the features together whatever their classes.
    What the task labels themselves say of a secret is left alone: no release that does the task can hide it.
    Conditional on the label as in Zhao and others (2020, "Conditional learning of fair representations").
    """

    Options: ClassVar[type[DefenseOptions]] = CellMeansOptions
    options: CellMeansOptions
    mixes_records: ClassVar[bool] = True

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task and adversaries' cross-entropy, and every record's share of the penalty: ``(B,)``."""
        begins = self.options.begins
        weight = self.options.weight * max(0.0, (batch.strength - begins) / (1 - begins))
        losses = task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)
        if weight == 0:
            return losses
        z = batch.z.flatten(1)
        cells, known = task_cells(batch.task_labels)
        shares = torch.zeros_like(losses)
        if int(known.sum()) < 2:
            return losses
        # Where a batch has one and the same letter there is no spread, and nothing to scale up.
        spread = z.detach()[known].std(dim=0)
        z = (z - z.detach()[known].mean(dim=0)) / torch.where(spread > _TINY, spread, 1)
        for labels in batch.sensitive_labels:
            shares = shares + between_classes(z, cells, labels, known & (labels != UNKNOWN_LABEL))
        return losses + weight * shares


def between_classes(z: Tensor, cells: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Every record's share ``(B,)`` of the variance between classes inside cells; their mean is it.

    Args:
        z: ``(B, d)``.
        cells: int64 ``(B,)``, at least 0.
        labels: int64 ``(B,)``, the classes.
        known: bool ``(B,)``: whose cell and class are known; others have no share. Nor has a class of one
            record in its cell.
    """
    shares = torch.zeros(len(z), device=z.device, dtype=z.dtype)
    for cell in torch.unique(cells[known]):
        inside = (known & (cells == cell)).nonzero()[:, 0]
        _, member, counts = torch.unique(labels[inside], return_inverse=True, return_counts=True)
        many = counts >= 2
        if int(many.sum()) < 2:
            continue
        sums = torch.zeros(len(counts), z.shape[1], device=z.device, dtype=z.dtype)
        sums = sums.index_add(0, member, z[inside])[many]
        squares = torch.zeros(len(counts), device=z.device, dtype=z.dtype)
        squares = squares.index_add(0, member, z[inside].square().sum(dim=1))[many]
        n = counts[many].to(z.dtype)
        norms = sums.square().sum(dim=1)
        own = (norms - squares) / (n - 1)  # n times the squared mean, without bias
        across = sums.sum(dim=0).square().sum() - norms.sum()  # twice the sum over pairs of S_a S_b
        between = ((own * (n.sum() - n)).sum() - across) / n.sum()
        shares[inside] = between / len(inside)
    return shares
