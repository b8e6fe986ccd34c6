"""What one label says of another, in nats: entropies of counts, and information beyond what chance gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

Array = npt.NDArray[Any]


def entropy(counts: Array) -> float:
    """Entropy of the shares of counts, of any shape, in nats; 0 where there are none.

    Example:
        >>> round(entropy(np.array([5, 5])), 4)
        0.6931
    """
    flat = np.asarray(counts, dtype=np.float64).ravel()
    shares = flat[flat > 0] / max(flat.sum(), 1.0)
    return float(max(0.0, -(shares * np.log(shares)).sum()))


def mutual_information(counts: Array) -> float:
    """Information between rows and columns of a table of counts ``(R, C)``, plug-in, in nats.

    Example:
        >>> round(mutual_information(np.array([[5, 0], [0, 5]])), 4), mutual_information(np.full((2, 2), 5))
        (0.6931, 0.0)
    """
    table = np.asarray(counts, dtype=np.float64)
    apart = entropy(table.sum(axis=0)) + entropy(table.sum(axis=1))
    return max(0.0, apart - entropy(table))


def information_beyond_chance(counts: Array, *, level: float = 1e-3) -> float:
    r"""A cautious value of the same: 0 where the table may be one of independence, else less its bias.

    Of n records, 2 n times the plug-in value has a chi-squared law of (R - 1)(C - 1) degrees of freedom where
    rows and columns are independent (Wilks' theorem; the G-test), over those that occur; its bias is
    (R - 1)(C - 1) / 2n (Miller, 1955).

    Args:
        counts: ``(R, C)``.
        level: Chance that independent rows and columns are taken for dependent ones.

    Example:
        >>> information_beyond_chance(np.array([[52, 48], [49, 51]]))
        0.0
    """
    table = np.asarray(counts, dtype=np.float64)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    n, freedom = table.sum(), max(0, table.shape[0] - 1) * max(0, table.shape[1] - 1)
    found = mutual_information(table)
    if n == 0 or freedom == 0 or 2 * n * found <= chi2.ppf(1 - level, freedom):
        return 0.0
    return float(max(0.0, found - freedom / (2 * n)))
