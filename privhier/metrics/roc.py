"""The low end of the ROC curve: true-positive rate at a given false-positive rate, without interpolation.

An average over the whole curve hides an attacker who is sure about few records and right about them
(Carlini et al., 2022, "Membership inference attacks from first principles", section III). Legend: n
records, R resamples. Pure NumPy; wrong shapes or non-finite scores raise ``ValueError``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from privhier.metrics.classification import check_scores, weight_blocks

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]

_ROUNDING = 1e-9
"""A false-positive rate of exactly the one asked for must count as reached."""


def tpr_at_fpr(scores: Array, labels: Array, fpr: float, weights: Array | None = None) -> float:
    """The largest true-positive rate of a threshold whose false-positive rate is at most ``fpr``.

    A step of the curve is never interpolated: what is returned is reached by a threshold on these very
    scores, and records with equal scores fall on the same side of it.

    Args:
        scores: ``(n,)`` finite; larger says "positive".
        labels: ``(n,)`` of 0/1 or bool.
        fpr: In [0, 1].
        weights: ``(n,)`` non-negative, or None for ones.

    Returns:
        A value in [0, 1]; nan if a class has no weight, or if ``fpr`` is positive and below what the
        negatives can resolve (1/n of n negatives): zero false positives would be all it says.

    Example:
        >>> import numpy as np
        >>> scores, labels = np.array([0.9, 0.8, 0.7, 0.6, 0.5]), np.array([1, 0, 1, 0, 1])
        >>> round(tpr_at_fpr(scores, labels, 0.5), 3)
        0.667
        >>> tpr_at_fpr(scores, labels, 0.01)
        nan
    """
    row = np.ones((1, len(labels))) if weights is None else np.asarray(weights)[np.newaxis, :]
    return float(tpr_at_fpr_resampled(scores, labels, fpr, row)[0])


def resolves(labels: Array, fpr: float) -> bool:
    """Whether the negatives among ``labels (n,)`` are enough to see a false-positive rate of ``fpr``."""
    return bool((1 - np.asarray(labels).astype(np.int64)).sum() * fpr >= 1 - _ROUNDING)


def tpr_at_fpr_resampled(scores: Array, labels: Array, fpr: float, weights: Array) -> FloatArray:
    """``tpr_at_fpr`` under every row of ``weights`` ``(R, n)``; returns ``(R,)``, nan as there.

    The threshold is chosen anew under every row.
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"a false-positive rate lies in [0, 1], got {fpr}")
    if fpr > 0 and not resolves(labels, fpr):
        _check(np.asarray(scores), np.asarray(labels), weights)
        return np.full(len(weights), np.nan)
    return _curve_at(scores, labels, np.array([fpr]), weights)[:, 0]


def roc_points(scores: Array, labels: Array, points: int = 60) -> list[tuple[float, float]]:
    """The ROC curve at about ``points`` false-positive rates, evenly spaced on a logarithmic scale.

    Args:
        scores: ``(n,)``.
        labels: ``(n,)`` of 0/1 or bool, both present.
        points: At least 2.

    Returns:
        ``(fpr, tpr)`` from fpr = 1/n (of n negatives), below which nothing is resolved, to 1. The rates
        are multiples of 1/n, so that each is one that thresholds reach; there are fewer where n is small.
    """
    labels = np.asarray(labels)
    negatives = int((labels == 0).sum())
    if not negatives or negatives == len(labels):
        raise ValueError("a ROC curve needs positives and negatives")
    counts = np.unique(np.round(np.geomspace(1, negatives, points)).astype(np.int64))
    rates = counts / negatives
    heights = _curve_at(scores, labels, rates, np.ones((1, len(labels))))[0]
    return [(float(rate), float(height)) for rate, height in zip(rates, heights, strict=True)]


def _curve_at(scores: Array, labels: Array, rates: FloatArray, weights: Array) -> FloatArray:
    """Largest TPR with FPR at most each of ``rates (q,)`` under each row of weights: ``(R, q)``."""
    scores, labels = np.asarray(scores), np.asarray(labels)
    _check(scores, labels, weights)
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    positive = labels[order].astype(np.float64)
    result = np.full((len(weights), len(rates)), np.nan)
    for rows, weighted in weight_blocks(weights):
        block = weighted[:, order]
        hits = np.cumsum(block * positive, axis=1)[:, ends]
        alarms = np.cumsum(block * (1 - positive), axis=1)[:, ends]
        for row, (hit, alarm) in enumerate(zip(hits, alarms, strict=True)):
            if hit[-1] > 0 and alarm[-1] > 0:
                # alarm never falls, so the largest TPR is at the last threshold that is still allowed.
                last = np.searchsorted(alarm, rates * alarm[-1] + _ROUNDING, side="right")
                result[rows.start + row] = np.append(0.0, hit)[last] / hit[-1]
    return result


def _check(scores: Array, labels: Array, weights: Array) -> None:
    check_scores(scores, labels, weights)
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels of a ROC curve must be 0 or 1")
