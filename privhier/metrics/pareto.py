"""Pareto sets, exact hypervolumes and set comparisons for (utility up, leakage down).

Legend: n points, R resamples. Utility is maximized, leakage is minimized. Arrays may carry leading
axes ``(..., n)``; every leading index is a set of its own. Non-finite values raise ``ValueError``.
Sources: Zitzler and Thiele (1998, hypervolume and coverage), Zitzler et al. (2003, additive epsilon).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]


def pareto_mask(utility: Array, leakage: Array) -> npt.NDArray[np.bool_]:
    """Which points no other point dominates.

    A point dominates another if it is at least as good in both and better in one. Equal points do
    not dominate each other: both stay.

    Args:
        utility: ``(..., n)``, higher is better.
        leakage: ``(..., n)``, lower is better.

    Returns:
        bool ``(..., n)``.

    Example:
        >>> import numpy as np
        >>> pareto_mask(np.array([0.9, 0.8, 0.7]), np.array([0.7, 0.6, 0.65])).tolist()
        [True, True, False]
    """
    utility, leakage = _checked(utility, leakage)
    # Useful first; equally useful ones private first: whoever comes later can only lose.
    order = np.lexsort((leakage, -utility))
    u = np.take_along_axis(utility, order, axis=-1)
    v = np.take_along_axis(leakage, order, axis=-1)
    best = np.minimum.accumulate(v, axis=-1)
    before = np.concatenate([np.full_like(best[..., :1], np.inf), best[..., :-1]], axis=-1)
    kept = v < before
    # A copy of a kept point is not better than it, yet not dominated either.
    for column in range(1, kept.shape[-1]):
        same = (u[..., column] == u[..., column - 1]) & (v[..., column] == v[..., column - 1])
        kept[..., column] |= same & kept[..., column - 1]
    mask = np.empty_like(kept)
    np.put_along_axis(mask, order, kept, axis=-1)
    return mask


def hypervolume(utility: Array, leakage: Array, reference: tuple[float, float]) -> FloatArray:
    """Exact area between the points and ``reference``: what the set dominates, counted once.

    Points that are not better than the reference in both count nothing. Higher is better.

    Args:
        utility: ``(..., n)``.
        leakage: ``(..., n)``.
        reference: ``(utility, leakage)`` of the worst point that could still count.

    Returns:
        float64 ``(...)``; 0 for an empty set.

    Example:
        >>> import numpy as np
        >>> float(hypervolume(np.array([1.0, 0.75]), np.array([0.75, 0.5]), (0.5, 1.0)))
        0.1875
    """
    utility, leakage = _checked(utility, leakage)
    width = np.maximum(utility - reference[0], 0.0)
    height = np.maximum(reference[1] - leakage, 0.0)
    # A point outside the box in one direction has an empty rectangle, whatever its other side.
    height = np.where(width > 0, height, 0.0)
    order = np.argsort(-width, axis=-1, kind="stable")
    width = np.take_along_axis(width, order, axis=-1)
    height = np.maximum.accumulate(np.take_along_axis(height, order, axis=-1), axis=-1)
    following = np.concatenate([width[..., 1:], np.zeros_like(width[..., :1])], axis=-1)
    return np.asarray(((width - following) * height).sum(axis=-1), dtype=np.float64)


def additive_epsilon(utility_a: Array, leakage_a: Array, utility_b: Array, leakage_b: Array) -> float:
    """The least amount by which A must be shifted in both directions to cover all of B.

    At most 0 exactly if every point of B is matched or beaten by one of A. Lower is better for A.

    Args:
        utility_a: ``(n,)``; with ``leakage_a`` the set A, not empty.
        leakage_a: ``(n,)``.
        utility_b: ``(m,)``; with ``leakage_b`` the set B, not empty.
        leakage_b: ``(m,)``.

    Example:
        >>> import numpy as np
        >>> a, b = np.array([0.75]), np.array([0.5])
        >>> additive_epsilon(a, b, np.array([1.0]), b)
        0.25
    """
    utility_a, leakage_a = _checked(utility_a, leakage_a)
    utility_b, leakage_b = _checked(utility_b, leakage_b)
    if not utility_a.size or not utility_b.size:
        raise ValueError("both sets need a point")
    shift = np.maximum(
        utility_b[:, None] - utility_a[None, :], leakage_a[None, :] - leakage_b[:, None]
    )  # (m, n)
    return float(shift.min(axis=1).max())


def coverage(utility_a: Array, leakage_a: Array, utility_b: Array, leakage_b: Array) -> float:
    """Share of B's points that some point of A matches or beats in both; in [0, 1], not symmetric."""
    utility_a, leakage_a = _checked(utility_a, leakage_a)
    utility_b, leakage_b = _checked(utility_b, leakage_b)
    if not utility_b.size:
        raise ValueError("set B needs a point")
    covered = (utility_a[None, :] >= utility_b[:, None]) & (leakage_a[None, :] <= leakage_b[:, None])
    return float(covered.any(axis=1).mean())


def _checked(utility: Array, leakage: Array) -> tuple[FloatArray, FloatArray]:
    u, v = np.asarray(utility, dtype=np.float64), np.asarray(leakage, dtype=np.float64)
    if u.shape != v.shape or u.ndim < 1:
        raise ValueError(f"utility and leakage must have one shape (..., n), got {u.shape} and {v.shape}")
    if not (np.isfinite(u).all() and np.isfinite(v).all()):
        raise ValueError("utility and leakage must be finite")
    return u, v
