"""Closed forms that erase: from features and labels to the matrix of an affine map."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from privhier.defenses.batch import UNKNOWN_LABEL

_RANK = 1e-6
"""Singular values of whitened covariances with columns of unit spread below which there is no direction: what
chance alone makes of n records is about n^-1/2, so every real direction is erased, rare classes included."""
_ANGLE = 1e-2
"""Sine of the angle to the secret below which a direction of the task is the secret's, and goes with it."""


def one_hot(labels: Sequence[Tensor], classes: Sequence[int]) -> Tensor:
    """All attributes' classes side by side, float64 ``(n, sum of K)``, of mean 0 and unit spread.

    A record whose label is not known stands at the mean, 0, in that attribute's columns: the covariance with
    them is then that of the known records, up to a factor. A class that nobody has is a column of zeros.

    Args:
        labels: int64 ``(n,)`` per attribute; -1 where not known.
        classes: K per attribute.
    """
    blocks = []
    for column, count in zip(labels, classes, strict=True):
        known = column != UNKNOWN_LABEL
        block = torch.zeros(len(column), count, dtype=torch.float64)
        members = F.one_hot(column[known], count).double()
        if len(members):
            share = members.mean(dim=0)
            spread = (share * (1 - share)).sqrt()
            block[known] = (members - share) / torch.where(spread > 0, spread, 1)
        blocks.append(block)
    return torch.cat(blocks, dim=1)


def leace(x: Tensor, secret: Tensor) -> Tensor:
    """The least-squares erasure of ``secret``, float64 ``(c, c)``: of all P with ``P Cov(x, s) = 0`` the one
    that moves x least, ``I - W^+ U U^T W`` for ``W = Cov(x)^(-1/2)`` and U spanning ``W Cov(x, s)``
    (Belrose and others, 2023, theorem 4.2).

    Args:
        x: float64 ``(n, c)``.
        secret: float64 ``(n, k)``, see ``one_hot``.
    """
    # Its default bound on the trace of what is left could act here on rounding alone, and divide by it.
    fitter = _package().LeaceFitter.fit(x, secret, constrain_cov_trace=False, svd_tol=_RANK)
    return torch.as_tensor(fitter.eraser.P)


def splince(x: Tensor, secret: Tensor, task: Tensor) -> Tensor:
    """As ``leace``, and ``P Cov(x, y) = Cov(x, y)`` for the task y, float64 ``(c, c)``.

    ``W^+ V (U^T V)^(-1) U^T W`` (Holstege, Ravfogel and Wouters, 2025): in whitened coordinates the oblique
    projection whose kernel is spanned by ``W Cov(x, s)`` and whose range holds ``W Cov(x, y)``; it is the
    identity on what is orthogonal to both. Written here as ``I - W^+ B R W``, B spanning the kernel, R the
    rows of ``[B, Y]^+`` that read B's part. What of the task lies in the kernel itself is erased.

    Args:
        x: float64 ``(n, c)``.
        secret: float64 ``(n, k)``, see ``one_hot``.
        task: float64 ``(n, l)``.
    """
    whiten, unwhiten = _whitening(_covariance(x, x), len(x))
    kernel = _span(whiten @ _covariance(x, secret))
    wanted = _span(whiten @ _covariance(x, task))
    # Sines of the principal angles between the two spans, and the directions of the task that have them.
    _, sines, directions = torch.linalg.svd(wanted - kernel @ (kernel.mT @ wanted), full_matrices=False)
    kept = wanted @ directions[sines > _ANGLE].mT
    reader = torch.linalg.pinv(torch.cat([kernel, kept], dim=1))[: kernel.shape[1]]
    projection: Tensor = _eye(x) - unwhiten @ kernel @ reader @ whiten
    return projection


def covariance_differences(x: Tensor, labels: Sequence[Tensor], rank: int) -> Tensor:
    """Projects away the ``rank`` directions in which classes' covariances differ most: float64 ``(c, c)``.

    ``W^+ (I - V V^T) W`` with V the leading eigenvectors of ``sum_k sum_a p_a (W (C_a - C) W)^2`` over
    attributes and their classes a, C_a the covariance inside a class, C that inside classes on average,
    ``W = Cov(x)^(-1/2)``. It sees differences in pairs of directions, and leaves those it does not project.

    Args:
        x: float64 ``(n, c)``.
        labels: int64 ``(n,)`` per attribute; records with -1, and classes of one record, are left out.
        rank: At least 1.
    """
    whiten, unwhiten = _whitening(_covariance(x, x), len(x))
    white = (x - x.mean(dim=0)) @ whiten
    found = torch.zeros_like(whiten)
    for column in labels:
        inside, shares = [], []
        for label in torch.unique(column[column != UNKNOWN_LABEL]):
            members = white[column == label]
            if len(members) >= 2:
                inside.append(_covariance(members, members))
                shares.append(float(len(members)))
        total = sum(shares)
        average = sum((n / total * c for n, c in zip(shares, inside, strict=True)), torch.zeros_like(found))
        for n, covariance in zip(shares, inside, strict=True):
            difference = covariance - average
            found += n / total * difference @ difference
    return _without_leading(found, rank, whiten, unwhiten)


def between_persons(x: Tensor, persons: Tensor, rank: int) -> Tensor:
    """Projects away the ``rank`` directions that tell persons apart best: float64 ``(c, c)``.

    ``W^+ (I - V V^T) W`` with V the leading eigenvectors of ``W S_b W``, S_b the scatter of persons' means,
    ``W = S_w^(-1/2)`` for the scatter inside persons: Fisher's discriminants, as in nuisance attribute
    projection (Solomonoff, Campbell and Boardman, 2005) with the person as the nuisance.

    Args:
        x: float64 ``(n, c)``.
        persons: int64 ``(n,)``; records with -1, and persons of one record, are left out.
        rank: At least 1.
    """
    x, persons = x[persons != UNKNOWN_LABEL], persons[persons != UNKNOWN_LABEL]
    _, member, counts = torch.unique(persons, return_inverse=True, return_counts=True)
    x, member = x[counts[member] >= 2], member[counts[member] >= 2]
    sums = torch.zeros(len(counts), x.shape[1], dtype=x.dtype).index_add(0, member, x)
    means = (sums / counts.clamp_min(1)[:, None])[member]
    inside = (x - means).mT @ (x - means) / max(1, len(x) - int((counts >= 2).sum()))
    whiten, unwhiten = _whitening(inside, len(x))
    return _without_leading(whiten @ _covariance(means, means) @ whiten, rank, whiten, unwhiten)


def _without_leading(scatter: Tensor, rank: int, whiten: Tensor, unwhiten: Tensor) -> Tensor:
    """``W^+ (I - V V^T) W`` for the leading eigenvectors V of a symmetric ``(c, c)``; what W drops stays."""
    leading = torch.linalg.eigh((scatter + scatter.mT) / 2)[1][:, -rank:]
    projection: Tensor = _eye(whiten) - unwhiten @ leading @ leading.mT @ whiten
    return projection


def _whitening(covariance: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """``C^(-1/2)`` and its pseudo-inverse, of a covariance shrunk as LEACE's authors shrink it."""
    shrunk = _package().optimal_linear_shrinkage((covariance + covariance.mT) / 2, n)
    values, vectors = torch.linalg.eigh(shrunk)
    real = values > values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
    root = torch.where(real, values, 1).sqrt()
    whiten = vectors * torch.where(real, 1 / root, 0) @ vectors.mT
    return whiten, vectors * torch.where(real, root, 0) @ vectors.mT


def _covariance(x: Tensor, y: Tensor) -> Tensor:
    """``(c, k)`` of ``(n, c)`` and ``(n, k)``."""
    covariance: Tensor = (x - x.mean(dim=0)).mT @ (y - y.mean(dim=0)) / max(1, len(x) - 1)
    return covariance


def _span(columns: Tensor) -> Tensor:
    """An orthonormal basis ``(c, r)`` of what the columns ``(c, k)`` span."""
    vectors, values, _ = torch.linalg.svd(columns, full_matrices=False)
    basis: Tensor = vectors[:, values > _RANK]
    return basis


def _eye(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype)


def _package() -> Any:
    """``concept_erasure``, whose import calls what torch deprecates: said to its authors, not to users."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=r"`torch\.jit\.script` is deprecated", category=FutureWarning
        )
        import concept_erasure
    return concept_erasure
