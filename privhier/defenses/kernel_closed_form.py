"""The best projection of features, in closed form (K-T-Opt: Sadeghi, Dehdashti and Boddeti, 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from scipy.linalg import eigh
from torch import Tensor, nn

from privhier.defenses.base import (
    UNKNOWN_LABEL,
    Defense,
    DefenseBatch,
    DefenseData,
    DefenseOptions,
    Need,
    defenses,
    task_loss_per_record,
)
from privhier.defenses.fourier import fourier_features, median_distance
from privhier.defenses.pairwise import distances
from privhier.errors import ConfigError, TrainingError
from privhier.models.edge import EdgeSegment

WIDEST = 4096**2
"""Numbers of the projection, at most: 64 MiB."""
_CHUNK = 4096
_LOOKED_AT = 1000
"""Records whose distances the bandwidth is the median of, at most."""
_NOTHING = 1e-9
"""Worth that is rounding: squared covariances of a direction of variance 1 and an indicator are below 1."""

FloatArray = npt.NDArray[np.float64]


class KernelClosedFormOptions(DefenseOptions):
    """Options of the projection."""

    weight: float = Field(1.0, ge=0, allow_inf_nan=False)
    """Lambda: what dependence on the secrets costs against dependence on the tasks."""
    features: int = Field(0, ge=0, multiple_of=2)
    """Random Fourier features of a Gaussian kernel of the median bandwidth; 0: the features themselves, a
    linear kernel, whose result is a projection of them."""
    rank: int | None = Field(None, ge=1)
    """Directions that are kept, at most; None: all that are worth more than they cost."""
    ridge: float = Field(1e-3, gt=0, allow_inf_nan=False)
    """Gamma: added to the covariance's diagonal, in mean variances of a column."""


class Projection(nn.Module):
    """The outlet: the identity until it is fitted, then a frozen map into few directions.

    Attributes:
        frequencies: float32 ``(d, F)`` of the random Fourier features; of a linear kernel ``(d, 0)``.
        bandwidth: What features are divided by before, float32.
        center: Mean of the columns, float32 ``(D,)``.
        matrix: Centered columns to features again, float32 ``(D, d)``; its rank is the number of directions.
        fitted: Whether anything but the identity is done.
    """

    frequencies: Tensor
    bandwidth: Tensor
    center: Tensor
    matrix: Tensor
    fitted: Tensor

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        columns = features or width
        if columns * width > WIDEST:
            raise ConfigError(
                key="model.bottleneck",
                value=f"releases of {width} values",
                rule=f"are too wide for the defense 'kernel_closed_form', which holds {WIDEST} numbers at "
                f"most: {columns} columns of each",
                remedy="Set defense.options.features, e.g. 1000, or choose fewer values or channels",
            )
        self.register_buffer("frequencies", torch.randn(width, features // 2))
        self.register_buffer("bandwidth", torch.ones(()))
        self.register_buffer("center", torch.zeros(columns))
        self.register_buffer("matrix", torch.zeros(columns, width))
        self.register_buffer("fitted", torch.tensor(False))

    def columns(self, z: Tensor) -> Tensor:
        """What is projected, of features ``(B, *shape)``: ``(B, D)``, of the features' type."""
        flat = z.flatten(1)
        if self.frequencies.shape[1] == 0:
            return flat
        return fourier_features(flat / self.bandwidth.to(z.dtype), self.frequencies.to(z.dtype))

    def forward(self, z: Tensor) -> Tensor:
        """Features ``(B, *shape)`` to the same."""
        if not bool(self.fitted):
            return z
        projected = (self.columns(z) - self.center.to(z.dtype)) @ self.matrix.to(z.dtype)
        return projected.view_as(z)


@defenses.register("kernel_closed_form")
class KernelClosedForm(Defense):
    r"""After pre-training without a penalty, features are mapped into the directions worth their leak.

    With columns :math:`\varphi` of the features (random Fourier features, or the features themselves) and
    class indicators of tasks Y and secrets S, the directions v solve

    .. math:: (C_{\varphi Y} C_{Y \varphi} - \lambda\, C_{\varphi S} C_{S \varphi})\, v
        = \mu\, (C_{\varphi \varphi} + \gamma I)\, v

    where C are covariances over the training records: of all maps of given covariance those of the most
    dependence on Y less lambda times that on S, by the Hilbert-Schmidt norm of the covariance. The paper
    weighs by :math:`1 - \tau` and :math:`\tau`, so that lambda is :math:`\tau / (1 - \tau)`; U-FaTE
    (Dehdashti, Sadeghi and Boddeti, 2024) solves the same on learned features. Directions of :math:`\mu > 0`
    are kept: others cost more than they are worth. Their coordinates, of covariance 1, are turned to where
    they lie nearest to the features (orthogonal Procrustes) and scaled to the features' mean square, so that
    clip and noise mean what they did. The map is frozen; the exits are trained anew behind it.
    """

    Options: ClassVar[type[DefenseOptions]] = KernelClosedFormOptions
    options: KernelClosedFormOptions
    needs: ClassVar[frozenset[Need]] = frozenset({"values"})
    finishes: ClassVar[bool] = True

    def outlet(self, feature_shape: Sequence[int]) -> nn.Module:
        """The projection, the identity until ``finish``."""
        return Projection(math.prod(feature_shape), self.options.features)

    def loss(self, batch: DefenseBatch) -> Tensor:
        """Task and adversaries' cross-entropy: ``(B,)``; what the defense does, it does in the end."""
        return task_loss_per_record(batch) + self.adversary_loss(batch.z, batch)

    def finish(self, edge: EdgeSegment, data: DefenseData) -> None:
        """Solve for the directions and fit the outlet.

        Raises:
            TrainingError: No direction is worth more than it costs.
        """
        outlet = edge.outlet
        assert isinstance(outlet, Projection)
        z = data.features().flatten(1).double()
        outlet.cpu().bandwidth.copy_(_bandwidth(z))
        moments = _Moments(outlet, z, [*data.task_labels, *data.sensitive_labels])
        count = len(data.task_labels)
        tasks, secrets = moments.of_labels[:count], moments.of_labels[count:]
        vectors = self._directions(moments.covariance, tasks, secrets, most=z.shape[1])
        left, _, right = np.linalg.svd(moments.with_features.T @ vectors, full_matrices=False)
        scale = math.sqrt(float(z.square().sum(dim=1).mean()) / vectors.shape[1])
        outlet.center.copy_(torch.from_numpy(moments.mean))
        outlet.matrix.copy_(torch.from_numpy(scale * vectors @ (left @ right).T))
        outlet.fitted.fill_(True)
        outlet.to(next(edge.parameters()).device)

    def _directions(
        self,
        covariance: FloatArray,
        tasks: Sequence[FloatArray],
        secrets: Sequence[FloatArray],
        *,
        most: int,
    ) -> FloatArray:
        """The kept directions, best first: ``(D, r)``, of unit length by the covariance and its ridge."""
        own = np.trace(covariance) / len(covariance)
        scaled = covariance + self.options.ridge * (own or 1.0) * np.eye(len(covariance))
        gain: FloatArray = sum((c @ c.T for c in tasks), np.zeros_like(covariance))
        cost: FloatArray = sum((c @ c.T for c in secrets), np.zeros_like(covariance))
        values, vectors = eigh(gain - self.options.weight * cost, scaled)
        worth = np.flatnonzero(values > _NOTHING)[::-1][: min(self.options.rank or most, most)]
        if len(worth) == 0:
            raise TrainingError(
                key="defense.options.weight",
                value=self.options.weight,
                rule="leaves no direction of the features that is worth its leak: whatever says the task "
                "says the secrets",
                remedy="Lower the weight, or widen the bottleneck",
            )
        kept: FloatArray = vectors[:, worth]
        return kept * np.where(kept[np.abs(kept).argmax(axis=0), np.arange(len(worth))] < 0, -1, 1)


class _Moments:
    """Means and covariances of the columns of all records, added up chunk by chunk.

    Attributes:
        mean: ``(D,)``.
        covariance: ``(D, D)``.
        with_features: Covariance of columns and features, ``(D, d)``.
        of_labels: For each attribute the covariance of columns and class indicators, ``(D, K)``, over the
            records whose label is known.
    """

    def __init__(self, outlet: Projection, z: Tensor, labels: Sequence[Tensor]) -> None:
        chunks = torch.split(torch.arange(len(z)), _CHUNK)
        mean = torch.stack([outlet.columns(z[rows]).sum(dim=0) for rows in chunks]).sum(dim=0) / len(z)
        width, center = len(mean), z.mean(dim=0)
        covariance = torch.zeros(width, width, dtype=z.dtype)
        crossed = torch.zeros(width, z.shape[1], dtype=z.dtype)
        sums = [torch.zeros(int(column.max().clamp_min(0)) + 1, width, dtype=z.dtype) for column in labels]
        for rows in chunks:
            columns = outlet.columns(z[rows]) - mean
            covariance += columns.T @ columns / len(z)
            crossed += columns.T @ (z[rows] - center) / len(z)
            for total, column in zip(sums, labels, strict=True):
                known = column[rows] != UNKNOWN_LABEL
                total.index_add_(0, column[rows][known], columns[known])
        self.mean: FloatArray = mean.numpy()
        self.covariance: FloatArray = covariance.numpy()
        self.with_features: FloatArray = crossed.numpy()
        self.of_labels = [_covariance(*pair) for pair in zip(sums, labels, strict=True)]


def _covariance(sums: Tensor, labels: Tensor) -> FloatArray:
    """Covariance of columns and class indicators, ``(D, K)``, from the columns' sums by class ``(K, D)``."""
    counts = torch.bincount(labels[labels != UNKNOWN_LABEL], minlength=len(sums)).to(sums.dtype)
    count = counts.sum().clamp_min(1)
    moved: Tensor = (sums - counts[:, None] / count * sums.sum(dim=0)) / count
    found: FloatArray = moved.T.numpy()
    return found


def _bandwidth(z: Tensor) -> Tensor:
    """The median distance of records evenly taken from all."""
    step = -(-len(z) // _LOOKED_AT)
    return median_distance(distances(z[::step]))
