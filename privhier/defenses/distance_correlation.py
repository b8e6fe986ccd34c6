"""Distance correlation (NoPeek: Vepakomma and others, 2020): releases follow no secret, or no image."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from privhier.defenses.base import (
    UNKNOWN_LABEL,
    Defense,
    DefenseBatch,
    DefenseOptions,
    Need,
    defenses,
    task_loss_per_record,
)
from privhier.defenses.pairwise import alignment_shares, classes_alike, distances


class DistanceCorrelationOptions(DefenseOptions):
    """Options of the penalty on distance correlation."""

    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Weight of the squared distance correlation, in [0, 1], against the task loss."""
    against: Literal["secret", "image"] = "secret"
    """What releases must not follow: each sensitive attribute, or the raw image, as in NoPeek."""
    unbiased: bool = False
    """Whether the correlation is estimated without bias, so that what is independent has 0 in the mean."""


@defenses.register("distance_correlation")
class DistanceCorrelation(Defense):
    r"""The edge lowers the distance correlation of its releases with every sensitive attribute or the images.

    :math:`R^2(z, v) = \langle A, B \rangle / (\lVert A \rVert \lVert B \rVert)`, where A and B are the doubly
    centered Euclidean distances (the distances themselves, not their squares) of the records of a batch
    (Szekely, Rizzo and Bakirov, 2007, definition 3); of labels, 0 or 1 as classes are alike. It is 0 in the
    limit exactly for independent things. Squared, where NoPeek takes its logarithm: the slope stays finite.
    Over several secrets it is summed. Unbiased: as Szekely and Rizzo (2014) have it, perhaps below 0.
    """

    Options: ClassVar[type[DefenseOptions]] = DistanceCorrelationOptions
    options: DistanceCorrelationOptions
    mixes_records: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({"images"})

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task and adversaries' cross-entropy, and every record's share of the correlations: ``(B,)``."""
        learning = task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)
        weight = self.options.weight * batch.strength
        return learning + weight * self._shares(batch).to(learning.dtype)

    def _shares(self, batch: DefenseBatch) -> Tensor:
        unbiased = self.options.unbiased
        if self.options.against == "image":
            assert batch.images is not None
            return alignment_shares(distances(batch.z), distances(batch.images), unbiased=unbiased)
        shares = torch.zeros(len(batch.z), dtype=torch.float64, device=batch.z.device)
        for labels in batch.sensitive_labels:
            known = (labels != UNKNOWN_LABEL).nonzero()[:, 0]
            apart = 1 - classes_alike(labels[known])
            found = alignment_shares(distances(batch.z[known]), apart, unbiased=unbiased)
            shares = shares.index_add(0, known, found)
        return shares
