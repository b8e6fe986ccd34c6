"""Confidence intervals: a bootstrap over groups (people, duplicates), and over the maximum of attackers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Interval:
    """A score with its percentile interval.

    Attributes:
        value: The score on the sample itself.
        low: Lower end; ``low <= value <= high`` always holds unless ``value`` is nan.
        high: Upper end.
        dropped: Resamples on which the score did not exist (a class was not drawn).
    """

    value: float
    low: float
    high: float
    dropped: int = 0


def group_bootstrap_weights(
    groups: Array, n_resamples: int, rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    """How often each record appears when whole groups are drawn with replacement.

    Records of one group (images of one person, byte-identical files) are not independent, so the
    group is the unit that is resampled (Efron and Tibshirani, 1993, chapter 8).

    Args:
        groups: ``(n,)`` group numbers, any integers.
        n_resamples: R.
        rng: Where the draws come from.

    Returns:
        int16 ``(R, n)``; rows are non-negative counts, constant within a group.
    """
    groups = np.asarray(groups)
    if groups.ndim != 1 or len(groups) == 0 or n_resamples < 1:
        raise ValueError("groups must be (n,) with n >= 1, and n_resamples at least 1")
    unique, member_of = np.unique(groups, return_inverse=True)
    n_groups = len(unique)
    weights = np.empty((n_resamples, len(groups)), dtype=np.int16)
    for row in weights:
        counts = np.bincount(rng.integers(0, n_groups, size=n_groups), minlength=n_groups)
        row[:] = counts[member_of]
    return weights


def percentile_interval(value: float, resampled: Array, confidence: float = 0.95) -> Interval:
    """Percentile bootstrap interval of ``value`` from its ``resampled`` values ``(R,)``.

    Nan resamples are dropped and counted. The ends are widened to hold ``value`` (the percentile
    interval of a skewed score may miss it); if every resample was dropped, both ends are ``value``.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    resampled = np.asarray(resampled, dtype=np.float64)
    kept = resampled[~np.isnan(resampled)]
    dropped = len(resampled) - len(kept)
    if np.isnan(value) or len(kept) == 0:
        return Interval(float(value), float(value), float(value), dropped)
    # Order statistics, not interpolation: infinite resamples (PSNR of a perfect copy) would give nan.
    low = np.quantile(kept, (1 - confidence) / 2, method="lower")
    high = np.quantile(kept, (1 + confidence) / 2, method="higher")
    return Interval(float(value), float(min(low, value)), float(max(high, value)), dropped)


def max_interval(values: Array, resampled: Array, confidence: float = 0.95) -> tuple[int, Interval]:
    """The worst of several attackers, and the interval of that maximum.

    Choosing the maximum is part of what is reported, so it is chosen anew in every resample.

    Args:
        values: ``(A,)`` score of each attacker; nan where it has none.
        resampled: ``(A, R)`` on the same R resamples for all of them.
        confidence: Coverage aimed at.

    Returns:
        Number of the worst attacker and the interval; raises ``ValueError`` if all values are nan.
    """
    value, maxima = _maxima(values, resampled)
    return int(np.nanargmax(values)), percentile_interval(value, maxima, confidence)


def _maxima(values: Array, resampled: Array) -> tuple[float, npt.NDArray[np.float64]]:
    """The largest value, and the largest of every resample ``(R,)``; nan where no attacker has one."""
    values = np.asarray(values, dtype=np.float64)
    resampled = np.asarray(resampled, dtype=np.float64)
    if values.ndim != 1 or resampled.ndim != 2 or len(values) != len(resampled):
        raise ValueError(f"expected values (A,) and resampled (A, R), got {values.shape}, {resampled.shape}")
    if np.isnan(values).all():
        raise ValueError("no attacker has a value")
    maxima = np.where(np.isnan(resampled), -np.inf, resampled).max(axis=0)
    maxima[np.isneginf(maxima) & np.isnan(resampled).all(axis=0)] = np.nan
    return float(np.nanmax(values)), maxima


def excess_interval(
    values: Array, resampled: Array, floor_values: Array, floor_resampled: Array, confidence: float = 0.95
) -> Interval:
    """What the worst attacker reads beyond the floor: the difference of two maxima, paired.

    Both were scored on the same records under the same resamples, so what an easy resample adds to both
    cancels. On either side the maximum is chosen anew in every resample, as in ``max_interval``.

    Args:
        values: ``(A,)`` score of each attacker on the releases; nan where it has none.
        resampled: ``(A, R)``.
        floor_values: ``(B,)`` score of each attacker that was given only the true task labels.
        floor_resampled: ``(B, R)``.
        confidence: Coverage aimed at.

    Returns:
        Interval of worst - floor; it may be negative: a poor release lies below its floor. Raises
        ``ValueError`` if all values of a side are nan, or the sides have other numbers of resamples.
    """
    worst, floor = _maxima(values, resampled), _maxima(floor_values, floor_resampled)
    if len(worst[1]) != len(floor[1]):
        raise ValueError(f"expected the same resamples, got {len(worst[1])} and {len(floor[1])}")
    return percentile_interval(worst[0] - floor[0], worst[1] - floor[1], confidence)
