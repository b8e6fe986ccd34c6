"""Metrics that tell people apart: closed forms on columns, and the head of a network that learns one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from privhier.attacks.view import FloatArray, IntArray

Linear = Callable[[FloatArray, IntArray], FloatArray]
"""From standardized columns (m, q) and people (m,) to a matrix (q, E); embeddings are columns @ matrix."""


def _constant(matrix: FloatArray) -> Linear:
    return lambda _columns, _people: matrix


def linear_metrics(spread: FloatArray, repeats: int) -> Iterator[tuple[str, Linear]]:
    """Named metrics that have a closed form; ``repeats`` is the number of stacked draws."""
    for power in (0.0, 0.5, 1.0):
        yield f"cosine, spread^{power:g}", _constant(np.diag(spread**power))
    for size in (32, 96):
        if size < len(spread):
            keep = np.argsort(-spread, kind="stable")[:size]
            yield f"whitened, {size} axes", _constant(np.eye(len(spread), dtype=np.float32)[:, keep])
    for shrink in (0.05, 0.3, 0.7):
        for soft in (False, True):

            def within(
                columns: FloatArray, people: IntArray, shrink: float = shrink, soft: bool = soft
            ) -> FloatArray:
                return discriminant(columns, people, shrink, soft, repeats)

            yield f"discriminant, shrinkage {shrink}{', soft' if soft else ''}", within


def discriminant(
    columns: FloatArray, people: IntArray, shrink: float, soft: bool, repeats: int
) -> FloatArray:
    """Axes that whiten the within-person covariance and diagonalize the between-person one.

    ``soft`` weighs every axis by ``sqrt(b / (b + 1))`` with b its between over within variance: the
    two-covariance model's (Brummer and de Villiers 2010) confidence in that axis. Otherwise axes
    weigh the same (within-class covariance normalization, Hatch et al. 2006).
    """
    x = columns.astype(np.float64)
    unique, codes, counts = np.unique(people, return_inverse=True, return_counts=True)
    means = np.zeros((len(unique), x.shape[1]))
    np.add.at(means, codes, x)
    means /= counts[:, None]
    paired = counts[codes] >= 2 * repeats
    residual = (x - means[codes])[paired]
    # Draws of one photo add no degrees of freedom for the person's mean, photos do.
    degrees = max(1.0, paired.sum() - (counts >= 2 * repeats).sum() * repeats)
    inside = residual.T @ residual / degrees
    centered = means - means.mean(axis=0)
    between = centered.T @ centered / max(1, len(unique) - 1)
    scale = float(np.trace(inside)) / len(inside)
    inside = (1 - shrink) * inside + (shrink * scale + 1e-9) * np.eye(len(inside))
    ratios, axes = scipy.linalg.eigh(between, inside)
    ratios = np.clip(ratios, 0, None)
    return np.asarray(axes * np.sqrt(ratios / (ratios + 1)) if soft else axes, dtype=np.float32)


class CosineHead(nn.Module):
    """Embedding network whose class logits are scaled cosines (normalized softmax)."""

    def __init__(self, body: nn.Module, size: int, people: int) -> None:
        super().__init__()
        self.body = body
        self.people = nn.Parameter(torch.randn(people, size))

    def embed(self, x: Tensor) -> Tensor:
        """(b, ...) to (b, E)."""
        return torch.as_tensor(self.body(x))

    def forward(self, x: Tensor) -> Tensor:
        """(b, ...) to logits (b, people)."""
        embedded = nn.functional.normalize(self.embed(x), dim=1)
        return 16.0 * embedded @ nn.functional.normalize(self.people, dim=1).T
