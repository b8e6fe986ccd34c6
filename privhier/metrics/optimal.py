"""The optimal attacker on a finite alphabet whose class-conditional distributions are known.

Legend: K letters, S classes; leading dimensions are any. Pure NumPy, vectorized over the leading
dimensions, so that thousands of simulated samples cost one call.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]


def best_balanced_accuracy(frequencies: Array) -> FloatArray:
    r"""The highest mean recall: :math:`\frac1S \sum_c \max_k p_k(c)`.

    Whoever answers letter c with class k (perhaps at random) gains :math:`p_k(c) / S` there; the largest
    of them is the most.

    Args:
        frequencies: ``(..., S, K)``, row k the distribution of the letters of class k.

    Returns:
        ``(...)`` values in [1/S, 1].

    Example:
        >>> float(best_balanced_accuracy(np.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]])))
        0.75
    """
    frequencies = np.asarray(frequencies, dtype=np.float64)
    return np.asarray(frequencies.max(axis=-2).sum(axis=-1) / frequencies.shape[-2])


def best_auc(positive: Array, negative: Array) -> FloatArray:
    r"""The highest AUC: :math:`\frac12 + \frac14 \sum_{ij} |p_i q_j - p_j q_i|`.

    A score orders every pair of letters one way, the other, or not at all (which counts half), so it gains
    at most :math:`\frac12 \sum_{ij} \max(p_i q_j, p_j q_i)`, which is the same number; the likelihood
    ratio reaches it (Neyman and Pearson). It is computed along that order in :math:`K \log K` steps.

    Args:
        positive: p, ``(..., K)`` distributions of the letters of the positive class.
        negative: q, ``(..., K)``.

    Returns:
        ``(...)`` values in [1/2, 1].

    Example:
        >>> float(best_auc(np.array([0.5, 0.5]), np.array([1.0, 0.0])))
        0.75
    """
    p, q = np.broadcast_arrays(np.asarray(positive, np.float64), np.asarray(negative, np.float64))
    total = p + q
    order = np.argsort(np.divide(p, total, out=np.zeros_like(total), where=total > 0), axis=-1)
    p, q = np.take_along_axis(p, order, -1), np.take_along_axis(q, order, -1)
    return np.asarray((p * (np.cumsum(q, axis=-1) - q / 2)).sum(axis=-1))


def best_macro_auc(frequencies: Array, counts: Array) -> FloatArray:
    """The highest macro one-vs-rest AUC: the mean of ``best_auc`` of every class against the others.

    Args:
        frequencies: ``(..., S, K)``.
        counts: ``(S,)`` records of each class, at least 1; they mix the others into one "rest".

    Returns:
        ``(...)``; for two classes the AUC itself.
    """
    frequencies = np.asarray(frequencies, dtype=np.float64)
    counts = np.asarray(counts, dtype=np.float64)
    classes = frequencies.shape[-2]
    if classes == 2:
        return best_auc(frequencies[..., 1, :], frequencies[..., 0, :])
    areas = []
    for k in range(classes):
        rest = np.where(np.arange(classes) == k, 0.0, counts)
        mixed = np.einsum("...sk,s->...k", frequencies, rest / rest.sum())
        areas.append(best_auc(frequencies[..., k, :], mixed))
    return np.asarray(np.mean(areas, axis=0))
