"""A quantile of private norms by the exponential mechanism, for clip bounds that are not constants."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from privhier.privacy.noise import NoiseSource

POINTS = 1024
"""Values the bound is chosen from."""

Grid = npt.NDArray[np.float64]


def grid(lowest: float, highest: float) -> Grid:
    """The public candidates: ``POINTS`` values from ``lowest`` to ``highest``, evenly spaced in logarithm."""
    return np.geomspace(lowest, highest, POINTS)


def probabilities(norms: torch.Tensor, values: Grid, quantile: float, epsilon: float) -> Grid:
    """Chance of every candidate: ``exp(-epsilon |#(norms <= value) - quantile n| / 2)``, normalized.

    The exponential mechanism (McSherry and Talwar, 2007) with the rank error of Smith (2011). Replacing,
    adding or removing one record moves a rank error by at most 1, so this is ``epsilon``-DP under either
    adjacency. Candidates are public and finitely many: no interval's end betrays a record.

    Args:
        norms: ``(n,)``; values that are not numbers count as above every candidate.
        values: Increasing candidates.
        quantile: In (0, 1).
        epsilon: Above 0.

    Returns:
        float64, one for each candidate; they sum to 1.
    """
    ordered = np.sort(torch.nan_to_num(norms, nan=np.inf, posinf=np.inf).double().numpy())
    below = np.searchsorted(ordered, values, side="right")
    scores = -epsilon / 2 * np.abs(below - quantile * len(ordered))
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum(), dtype=np.float64)


def draw_quantile(
    norms: torch.Tensor, values: Grid, quantile: float, epsilon: float, source: NoiseSource
) -> float:
    """One draw from ``probabilities``. Draw once and keep: every draw costs ``epsilon``."""
    heights = np.cumsum(probabilities(norms, values, quantile, epsilon))
    u = float(source.uniform((1,)))
    return float(values[min(int(np.searchsorted(heights / heights[-1], u, side="right")), len(values) - 1)])
