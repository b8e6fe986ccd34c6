"""AUC, balanced accuracy and top-1, each also over many bootstrap weightings at once.

Legend: n records, K classes, R resamples. All functions are pure NumPy; wrong shapes or non-finite
scores raise ``ValueError``. Higher is better for the predictor, hence worse for privacy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

_CHUNK = 4_000_000
"""Weights converted to float64 at once: bounds working memory to a few hundred MB."""


def auc(scores: Array, labels: Array, weights: Array | None = None) -> float:
    r"""Area under the ROC curve: :math:`P(s_+ > s_-) + \tfrac12 P(s_+ = s_-)`.

    Ties count one half (midranks), so the value equals the normalized Mann-Whitney U statistic.

    Args:
        scores: ``(n,)`` finite; larger says "positive".
        labels: ``(n,)`` of 0/1 or bool.
        weights: ``(n,)`` non-negative, or None for ones.

    Returns:
        A value in [0, 1]; nan if a class has no weight.

    Example:
        >>> import numpy as np
        >>> auc(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]))
        0.875
    """
    return float(auc_resampled(scores, labels, _row(weights, len(labels)))[0])


def auc_resampled(scores: Array, labels: Array, weights: Array) -> FloatArray:
    """``auc`` under every row of ``weights`` ``(R, n)``; returns ``(R,)``, nan where a class has no weight.

    The scores are sorted once; every row then costs two cumulative look-ups.
    """
    scores = np.asarray(scores)
    labels = np.asarray(labels)
    check_scores(scores, labels, weights)
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels of a binary AUC must be 0 or 1")
    positive = np.flatnonzero(labels == 1)
    negative = np.flatnonzero(labels == 0)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    below = np.searchsorted(scores[negative], scores[positive], side="left")
    upto = np.searchsorted(scores[negative], scores[positive], side="right")
    result = np.empty(len(weights))
    for rows, block in weight_blocks(weights):
        mass = np.zeros((len(block), len(negative) + 1))
        np.cumsum(block[:, negative], axis=1, out=mass[:, 1:])
        chosen = block[:, positive]
        wins = np.einsum("rp,rp->r", chosen, mass[:, below] + mass[:, upto]) / 2
        result[rows] = _divide(wins, chosen.sum(axis=1) * mass[:, -1])
    return result


def macro_auc(probabilities: Array, labels: Array, weights: Array | None = None) -> float:
    """Macro one-vs-rest AUC: the plain mean of every class's ``auc`` against the rest.

    Args:
        probabilities: ``(n, K)``; column k scores class k. With K = 2 the answer is the AUC of column 1.
        labels: ``(n,)`` class numbers in ``0..K-1``.
        weights: ``(n,)`` non-negative, or None.

    Returns:
        The mean over the classes present (a class absent from the sample, or filling it, is
        skipped); nan if none is left.
    """
    return float(macro_auc_resampled(probabilities, labels, _row(weights, len(labels)))[0])


def macro_auc_resampled(probabilities: Array, labels: Array, weights: Array) -> FloatArray:
    """``macro_auc`` under every row of ``weights`` ``(R, n)``; returns ``(R,)``."""
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ValueError(f"probabilities must be (n, K) with K >= 2, got {probabilities.shape}")
    classes = probabilities.shape[1]
    _check_classes(labels, classes, "labels")
    columns = [1] if classes == 2 else range(classes)
    per_class = [auc_resampled(probabilities[:, k], np.asarray(labels) == k, weights) for k in columns]
    return _mean_present(np.stack(per_class))


def balanced_accuracy(
    predictions: Array, labels: Array, n_classes: int, weights: Array | None = None
) -> float:
    """Mean recall over the classes present in the sample (a class absent from it is skipped).

    Args:
        predictions: ``(n,)`` class numbers.
        labels: ``(n,)`` class numbers in ``0..n_classes-1``.
        n_classes: K.
        weights: ``(n,)`` non-negative, or None.

    Returns:
        A value in [0, 1]; chance is 1/K; nan for an empty sample.
    """
    return float(balanced_accuracy_resampled(predictions, labels, n_classes, _row(weights, len(labels)))[0])


def balanced_accuracy_resampled(
    predictions: Array, labels: Array, n_classes: int, weights: Array
) -> FloatArray:
    """``balanced_accuracy`` under every row of ``weights`` ``(R, n)``; returns ``(R,)``."""
    labels = np.asarray(labels)
    hits = np.asarray(predictions) == labels
    check_scores(np.asarray(predictions), labels, weights)
    _check_classes(labels, n_classes, "labels")
    recalls = np.full((n_classes, len(weights)), np.nan)
    for k in range(n_classes):
        members = np.flatnonzero(labels == k)
        if len(members):
            recalls[k] = _weighted_mean(hits[members].astype(float), weights[:, members])
    return _mean_present(recalls)


def top1(predictions: Array, labels: Array, weights: Array | None = None) -> float:
    """Share of records whose predicted class is the true one; nan for an empty sample."""
    return float(top1_resampled(predictions, labels, _row(weights, len(labels)))[0])


def top1_resampled(predictions: Array, labels: Array, weights: Array) -> FloatArray:
    """``top1`` under every row of ``weights`` ``(R, n)``; returns ``(R,)``."""
    check_scores(np.asarray(predictions), np.asarray(labels), weights)
    return _weighted_mean((np.asarray(predictions) == np.asarray(labels)).astype(float), weights)


def verification_auc(scores: Array, same: Array) -> float:
    """AUC of same-person against different-people pairs: ``scores`` ``(m,)``, ``same`` ``(m,)`` bool."""
    return auc(scores, np.asarray(same).astype(bool))


def verification_auc_resampled(
    scores: Array, first: Array, second: Array, identity_weights: Array
) -> FloatArray:
    """``verification_auc`` under a bootstrap over people.

    People are what is sampled, so a person drawn w times brings its own pairs w times, and a pair of
    two different people counts with the product of their weights.

    Args:
        scores: ``(m,)`` similarity of each pair.
        first: ``(m,)`` column in ``identity_weights`` of the person on the first image.
        second: ``(m,)`` the same for the second image; equal numbers mean the same person.
        identity_weights: ``(R, G)``, e.g. ``group_bootstrap_weights(np.arange(G), R, rng)``.

    Returns:
        ``(R,)``; nan where no same-person or no different-person pair is left.
    """
    first, second = np.asarray(first), np.asarray(second)
    same = first == second
    result = np.empty(len(identity_weights))
    step = max(1, _CHUNK // max(1, len(first)))
    for start in range(0, len(identity_weights), step):
        block = np.asarray(identity_weights[start : start + step], dtype=np.float64)
        pairs = block[:, first] * np.where(same, 1.0, block[:, second])
        result[start : start + step] = auc_resampled(scores, same, pairs)
    return result


def mean_resampled(values: Array, weights: Array) -> FloatArray:
    """Weighted mean of ``values`` ``(n,)`` (SSIM, PSNR) under every row of ``weights`` ``(R, n)``."""
    check_scores(np.asarray(values), np.asarray(values), weights)
    return _weighted_mean(np.asarray(values, dtype=np.float64), weights)


def _row(weights: Array | None, n: int) -> Array:
    return np.ones((1, n)) if weights is None else np.asarray(weights)[np.newaxis, :]


def weight_blocks(weights: Array) -> Iterator[tuple[slice, FloatArray]]:
    """Rows of ``weights`` a few at a time, in float64, with where they stand."""
    step = max(1, _CHUNK // max(1, weights.shape[1]))
    for start in range(0, len(weights), step):
        rows = slice(start, start + step)
        yield rows, np.asarray(weights[rows], dtype=np.float64)


def _weighted_mean(values: FloatArray, weights: Array) -> FloatArray:
    result = np.empty(len(weights))
    for rows, block in weight_blocks(weights):
        result[rows] = _divide(block @ values, block.sum(axis=1))
    return result


def _divide(top: FloatArray, bottom: FloatArray) -> FloatArray:
    ratio = np.full(top.shape, np.nan)
    np.divide(top, bottom, out=ratio, where=bottom > 0)
    return ratio


def _mean_present(per_class: FloatArray) -> FloatArray:
    present = ~np.isnan(per_class)
    return _divide(np.where(present, per_class, 0).sum(axis=0), present.sum(axis=0).astype(float))


def check_scores(scores: Array, labels: Array, weights: Array) -> None:
    """Raise ``ValueError`` unless scores and labels are ``(n,)``, weights ``(R, n)`` and scores finite."""
    if scores.ndim != 1 or labels.shape != scores.shape or weights.ndim != 2:
        raise ValueError(
            "expected scores (n,), labels (n,), weights (R, n); "
            f"got {scores.shape}, {labels.shape}, {weights.shape}"
        )
    if weights.shape[1] != len(scores):
        raise ValueError(f"weights have {weights.shape[1]} columns for {len(scores)} records")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite")


def _check_classes(labels: Array, n_classes: int, name: str) -> None:
    values = np.asarray(labels)
    if values.size and (values.min() < 0 or values.max() >= n_classes):
        raise ValueError(f"{name} must lie in 0..{n_classes - 1}")
