"""Hilbert-Schmidt independence criterion (Gretton and others, 2005): releases independent of a secret."""

from __future__ import annotations

import math
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
from privhier.defenses.fourier import fourier_features, median_distance
from privhier.defenses.pairwise import alignment_shares, classes_alike, distances
from privhier.models.edge import EdgeSegment
from privhier.seeding import torch_stream


class HsicOptions(DefenseOptions):
    """Options of the penalty on dependence."""

    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of the normalized criterion, in [0, 1], against the task loss."""
    features: int = Field(1000, ge=2, multiple_of=2)
    """Random Fourier features that stand for the Gaussian kernel: half of them cosines, half sines."""
    unbiased: bool = False
    """Whether the criterion is estimated without bias (Song and others, 2012, equation 5)."""


@defenses.register("hsic")
class Hsic(Defense):
    r"""The edge lowers the dependence of its releases on every sensitive attribute.

    :math:`\mathrm{HSIC}(K, L) / \sqrt{\mathrm{HSIC}(K, K)\, \mathrm{HSIC}(L, L)}`, where
    :math:`\mathrm{HSIC}(K, L) = \mathrm{tr}(K H L H) / B^2`: the normalized criterion (Cortes and
    others, 2012), 0 in the limit exactly for independent things, 1 where the kernels agree. K is Gaussian,
    :math:`\exp(-\lVert z - z' \rVert^2 / 2 m^2)`, of the median distance m of the batch, held constant, and
    by random Fourier features (Rahimi and Recht, 2007) of frequencies that are drawn once. L is 1 where
    classes are alike, else 0. Summed over the sensitive attributes.
    """

    Options: ClassVar[type[DefenseOptions]] = HsicOptions
    options: HsicOptions
    mixes_records: ClassVar[bool] = True

    frequencies: Tensor

    def attach(self, edge: EdgeSegment) -> None:
        """Draw the frequencies, the same for every run with an edge of this shape, and keep them."""
        width, half = math.prod(edge.feature_shape), self.options.features // 2
        drawn = torch.randn(width, half, generator=torch_stream(0, "hsic", "frequencies", width))
        self.register_buffer("frequencies", drawn.to(next(edge.parameters()).device))

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task and adversaries' cross-entropy, and every record's share of the criteria: ``(B,)``."""
        learning = task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)
        shares = torch.zeros(len(batch.z), dtype=torch.float64, device=batch.z.device)
        for labels in batch.sensitive_labels:
            known = (labels != UNKNOWN_LABEL).nonzero()[:, 0]
            kernel = self.kernel(batch.z[known])
            found = alignment_shares(kernel, classes_alike(labels[known]), unbiased=self.options.unbiased)
            shares = shares.index_add(0, known, found)
        weight = self.options.weight * batch.strength
        return learning + weight * shares.to(learning.dtype)

    def kernel(self, z: Tensor) -> Tensor:
        """The Gaussian kernel of releases ``(n, *shape)`` by the median of their distances: ``(n, n)``."""
        flat = z.flatten(1)
        with torch.no_grad():
            bandwidth = median_distance(distances(flat))
        seen = fourier_features(flat.double() / bandwidth, self.frequencies.double())
        return seen @ seen.T
